"""The rules of the house, held by reading the code: who imports whom, and that everything public says what it is."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "b2b_jax").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
RIVALS = sorted((ROOT / "tools" / "bench").glob("torch_*.py"))  # what we are compared with
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
PHOTOS = [path for path in PACKAGE if path.parent.name == "data" or path.name in ("decoding.py", "images.py")]

# Floors of the house: a module imports from lower floors, from its own package, and a leaf from leaves.
FLOORS = [
    # the leaves
    {"b2b_jax", "budget", "clips", "compilation", "decoding", "errors", "files", "folders", "images", "kinds"}
    | {"losses", "memory", "metrics", "named", "niqe", "raws", "terminal"},
    {"sharding"},
    {"models", "data", "formats"},
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


def each(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=label)


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, within functions too; `from a import b` gives a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(path)} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str:
    """The module or package directly below b2b_jax that a dotted name belongs to; b2b_jax for the package's own."""
    parts = name.split(".")
    inside = len(parts) > 1 and ((ROOT / "b2b_jax" / parts[1]).is_dir() or (ROOT / f"b2b_jax/{parts[1]}.py").is_file())
    return parts[1] if inside else "b2b_jax"


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


@each(PHOTOS)
def test_a_data_worker_starts_no_accelerator(path):
    heavy = {"jax", "flax", "optax", "orbax", "clu"}
    assert not {name for name in imports(path) if name.split(".")[0] in heavy}
    ours = {room(name) for name in imports(path) if name.startswith("b2b_jax")}
    assert ours <= {"budget", "clips", "data", "decoding", "errors", "files", "folders", "images", "kinds", "raws"}


@each(PACKAGE)
def test_imports_run_one_way(path):
    source = own_room(path)
    if source == "b2b_jax":
        return  # the package's face, which shows what lies within
    for target in sorted({room(name) for name in imports(path) if name.split(".")[0] == "b2b_jax"}):
        leaves = FLOOR[source] == FLOOR[target] == 0
        assert leaves or source == target or FLOOR[target] < FLOOR[source], f"{source} imports {target}"


@each([path for path in PACKAGE + TOOLS + CONFIGS if path not in RIVALS])
def test_nobody_imports_tensorflow_or_torch(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"tensorflow", "torch", "torchvision"}


@each(PACKAGE)
def test_the_package_imports_neither_tools_nor_tests_nor_configs(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"tools", "tests", "configs"}


@each(PACKAGE + TOOLS + CONFIGS)
def test_everything_public_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    assert not tree.body or ast.get_docstring(tree), "the file has no docstring"
    assert not [node.name for node in public if not ast.get_docstring(node)]


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@each(PACKAGE + TOOLS)
def test_no_function_is_longer_than_a_page(path):
    assert not [node.name for node in functions(path) if node.end_lineno - node.lineno >= 45]


@each([path for path in PACKAGE if path.parent.name == "method"])
def test_what_the_paper_says_takes_at_most_five_arguments(path):
    assert not [node.name for node in functions(path) if len(node.args.args + node.args.kwonlyargs) > 5]


COMMANDS = [path for path in PACKAGE + TOOLS if "\nif __name__" in path.read_text()]


@each(COMMANDS)
def test_every_command_explains_itself(path):
    options = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    ran = subprocess.run([sys.executable, path, "--help"], **options, timeout=120)
    assert ran.returncode == 0 and not ran.stderr
    assert "--" in ran.stdout and len(ran.stdout.splitlines()) > 3
