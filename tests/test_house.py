"""The rules of the house, held by reading the code: who imports whom, and that everything public says what it is."""

import ast
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers import forked

from b2b_jax import __version__

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "b2b_jax").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
RIVALS = sorted((ROOT / "tools" / "bench").glob("torch_*.py"))  # what we are compared with
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
READERS = {"decoding", "images", "jpeg_2000", "levels", "tiffs"}  # of photos, below `data`
PHOTOS = [path for path in PACKAGE if path.parent.name == "data" or path.stem in READERS]

# Floors of the house: a module imports from lower floors, from its own package, and a leaf from leaves.
FLOORS = [
    # the leaves
    {"arrays", "b2b_jax", "budget", "clips", "compilation", "decoding", "ends", "errors", "extras"}
    | {"files", "folders", "images", "interrupts", "jpeg_2000", "kinds", "levels", "losses", "memory", "metrics"}
    | {"named", "niqe", "raws", "terminal", "tiffs"},
    {"sharding"},
    {"models", "data", "formats"},
    {"templates"},
    {"foreign"},
    {"weights"},
    {"networks"},
    {"settings"},
    {"inference", "training"},
    {"method"},
    {"stages"},
    {"evaluation"},
    {"commandline", "record"},
    {"system"},
    {"cli", "convert", "deblur", "export", "list_models", "main", "prepare", "sweep", "synthesize", "tables"},
    {"page"},
    {"serve"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def offenders(paths: Sequence[Path], rule: Callable[[Path], object]) -> dict[str, object]:
    """What a rule finds wrong with the files, by their names: nothing for most."""
    return {label(path): found for path in paths if (found := rule(path))}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, within functions too; `from a import b` gives a.b."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    """The first parts of what a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def room(name: str) -> str:
    """The module or package directly below b2b_jax that a dotted name belongs to; b2b_jax for the package's own."""
    parts = name.split(".")
    inside = len(parts) > 1 and ((ROOT / "b2b_jax" / parts[1]).is_dir() or (ROOT / f"b2b_jax/{parts[1]}.py").is_file())
    return parts[1] if inside else "b2b_jax"


def rooms(path: Path) -> set[str]:
    """The rooms of this package that a file imports from."""
    return {room(name) for name in imports(path) if name.split(".")[0] == "b2b_jax"}


def own_room(path: Path) -> str:
    return room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def test_imports_sees_every_form(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("import a.b as c\nfrom d import e\ndef f():\n    from g.h import i, j\n")
    assert imports(path) == {"a.b", "d.e", "g.h.i", "g.h.j"}
    assert [room(x) for x in ("b2b_jax.data.blur", "b2b_jax.images.read", "b2b_jax.__version__")] == [
        "data",
        "images",
        "b2b_jax",
    ]


def test_a_data_worker_starts_no_accelerator():
    heavy = {"jax", "flax", "optax", "orbax", "clu"}
    allowed = READERS | {"arrays", "budget", "clips", "data", "ends", "errors", "extras"}
    allowed |= {"files", "folders", "kinds", "raws", "terminal"}
    assert not offenders(PHOTOS, lambda path: packages(path) & heavy | rooms(path) - allowed)


def test_imports_run_one_way():
    def upwards(path: Path) -> set[str]:
        source = own_room(path)
        if source == "b2b_jax":
            return set()  # the package's face, which shows what lies within
        leaves = [target for target in rooms(path) if FLOOR[source] == FLOOR[target] == 0]
        return {room for room in rooms(path) - {source, *leaves} if FLOOR[room] >= FLOOR[source]}

    assert not offenders(PACKAGE, upwards)


@functools.cache
def source(dotted: str) -> Path | None:
    """The file of a module or package of ours; None for any other name."""
    path = ROOT / dotted.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path if dotted.split(".")[0] == "b2b_jax" and path.is_file() else None


@functools.cache
def defined(path: Path) -> set[str]:
    """Names at the top level of a file; of a package its modules, too."""
    found = {entry.stem for entry in path.parent.iterdir()} if path.name == "__init__.py" else set()
    for node in parsed(path).body:
        whole = isinstance(node, ast.FunctionDef | ast.ClassDef)
        for part in [node] if whole else ast.walk(node):
            if isinstance(part, ast.FunctionDef | ast.ClassDef):
                found.add(part.name)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                found.add(part.id)
            elif isinstance(part, ast.alias):
                found.add((part.asname or part.name).split(".")[0])
    return found


def missing(path: Path) -> list[str]:
    """What a file takes of our modules that they lack, as `module.name`; names that it binds anew are passed over."""
    nodes = list(ast.walk(parsed(path)))
    taken = [(node.module, alias) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    wanted = {(module, alias.name) for module, alias in taken if source(module)}
    modules = {alias.asname or alias.name: f"{module}.{alias.name}" for module, alias in taken}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in bound:
            wanted.add((modules.get(node.value.id, ""), node.attr))
    return [
        f"{module}.{name}" for module, name in sorted(wanted) if source(module) and name not in defined(source(module))
    ]


def test_missing_sees_both_forms(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from b2b_jax import images, levels as l\nfrom b2b_jax.files import lock, x\nimages.read, images.y, l.z"
    )
    assert missing(path) == ["b2b_jax.files.x", "b2b_jax.images.y", "b2b_jax.levels.z"]


def test_what_is_taken_of_a_module_is_there():
    assert not offenders(PACKAGE + TOOLS + CONFIGS + sorted((ROOT / "tests").rglob("*.py")), missing)


def test_nobody_imports_tensorflow_or_torch():
    ours = [path for path in PACKAGE + TOOLS + CONFIGS if path not in RIVALS]
    assert not offenders(ours, lambda path: packages(path) & {"tensorflow", "torch", "torchvision"})


def test_the_package_imports_neither_tools_nor_tests_nor_configs():
    assert not offenders(PACKAGE, lambda path: packages(path) & {"tools", "tests", "configs"})


def test_everything_public_says_what_it_is():
    def unsaid(path: Path) -> list[str]:
        tree, kinds = parsed(path), (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
        file = ["the file"] if tree.body and not ast.get_docstring(tree) else []
        return file + [node.name for node in public if not ast.get_docstring(node)]

    assert not offenders(PACKAGE + TOOLS + CONFIGS, unsaid)


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]


def test_no_function_is_longer_than_a_page():
    assert not offenders(
        PACKAGE + TOOLS, lambda path: [f.name for f in functions(path) if f.end_lineno - f.lineno >= 45]
    )


def test_what_the_paper_says_takes_at_most_five_arguments():
    method = [path for path in PACKAGE if path.parent.name == "method"]
    assert not offenders(
        method, lambda path: [f.name for f in functions(path) if len(f.args.args + f.args.kwonlyargs) > 5]
    )


SPOKEN_TO = ROOT / "tools" / "tortures" / "filling.py"  # by another program, on its standard input
COMMANDS = [path for path in PACKAGE + TOOLS if "\nif __name__" in path.read_text() and path != SPOKEN_TO]


@pytest.fixture(scope="module")
def explained():
    return dict(zip(COMMANDS, forked.run_each([[str(path), "--help"] for path in COMMANDS]), strict=True))


@pytest.mark.parametrize("path", COMMANDS, ids=label)
def test_every_command_explains_itself(path, explained):
    ran = explained[path]
    assert ran.code == 0 and not ran.err
    assert "--" in ran.out and len(ran.out.splitlines()) > 3


def test_every_command_of_the_package_tells_its_version():
    commands = [path for path in COMMANDS if path in PACKAGE]
    for path, ran in zip(commands, forked.run_each([[str(path), "--version"] for path in commands]), strict=True):
        assert (ran.code, ran.out.strip(), ran.err) == (0, f"b2b_jax {__version__}", ""), path
