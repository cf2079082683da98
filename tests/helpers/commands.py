"""Commands as documents and programs tell their readers to type them, and why a program would refuse one.

Nothing is run: a command of `main` is checked up to where it would read its photos, any other up to its options.
"""

import argparse
import ast
import functools
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from b2b_jax import cli, commandline, main, models, networks, settings
from b2b_jax.data import domains, pipeline
from b2b_jax.models.bank import listed
from b2b_jax.models.camera import Shot
from b2b_jax.stages import common, run, translator

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/tour.ipynb", "Dockerfile", "configs/*.txt")
PROGRAMS = ("configs/*.py", "b2b_jax/*.py", "tools/*.py", "tools/bench/*.py")  # their docstrings, which --help prints
START = re.compile(
    r"python3? (?:-m )?((?:b2b_jax\.|tools[./])[\w./]*\w)"
    r"|(?<![\w./-])(?:\.venv/bin/)?(b2b-jax) (?=[a-z])"
    r"|`(b2b_jax\.[a-z_]+) (?=[^`]*--)"
)
END = re.compile(r"`|\)?\n|, then | && |\s#|\s{2,}(?=[^\s-])|\.?$")
SAMPLES = {"SEED": "0", "ROW": "copies", "WORK": "train"}  # for words in capitals that stand for no files
CONFIGURED = {  # programs that take --config, and their files with further options
    "b2b_jax.main": "b2b_jax/main.py",
    "b2b_jax.synthesize": "b2b_jax/synthesize.py",
    "tools.benchmark": "tools/benchmark.py",
}


class Command(NamedTuple):
    """One command."""

    file: str  # that tells of it
    module: str  # b2b_jax.main, tools.benchmark
    words: tuple[str, ...]

    @property
    def config(self) -> list[str]:
        """Name and variant of its configuration, if it gives one."""
        found = re.search(r"--config[ =](?:configs/)?(\w+)\.py(?::(\S+))?", " ".join(self.words))
        return [found[1], found[2] or ""] if found else []

    @property
    def settings(self) -> list[str]:
        """KEY=VALUE of the configuration."""
        return [word.removeprefix("--config.") for word in self.words if word.startswith("--config.")]


def files() -> list[Path]:
    """All that tell of commands; the change log tells of those of its time."""
    return [path for pattern in DOCUMENTS + PROGRAMS for path in sorted(ROOT.glob(pattern))]


def told(path: Path) -> str:
    """What a file tells: of a program its docstring, of a notebook its text; long commands are on one line."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text), clean=False) or ""
    elif path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    text = re.sub(r"\s*\\\n\s*", " ", text)
    return re.sub(r"(?<!`)`([^`\n]+)\n\s*([^`\n]+)`(?!`)", r"`\1 \2`", text)


def commands(text: str, file: str = "") -> Iterator[Command]:
    """The commands of a text; those of a program whose name is in capitals are none."""
    for found in START.finditer(text):
        rest = text[found.end() :]
        line = rest[: END.search(rest).start()]
        for name, sample in SAMPLES.items():
            line = re.sub(rf"\b{name}\b", sample, line)
        words = [word for word in shlex.split(line) if word not in ("…", "...")]
        module = (found[1] or found[3] or "").removesuffix(".py").replace("/", ".")
        if found[2]:
            name, *words = words
            module = f"b2b_jax.{cli.COMMANDS.get(name, name)}"
        if not module.rpartition(".")[2].isupper():
            yield Command(file, module, tuple(words))


# ------------------------------------------------------------------------------------------------------------ accepting


class Accepted(Exception):
    """The options of a command were understood."""


def parse_only(parser: argparse.ArgumentParser, *given, **options) -> None:
    """In place of `parse_args`: goes no further."""
    _, unknown = parser.parse_known_args(*given, **options)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    raise Accepted


def accept(command: Command) -> None:
    """Returns if the command is accepted; UserError, ImportError or SystemExit if not. See `without_networks`."""
    program = importlib.util.find_spec(command.module)
    if program is None:
        raise ImportError(f"there is no {command.module}")
    if command.module in CONFIGURED:
        return accept_configured(command)
    if "--help" in command.words or not command.words:  # the name alone is often no command but speaks of one
        return None
    sys.argv = [command.module, *command.words]
    try:
        importlib.import_module(command.module).main()
    except Accepted:
        return None
    raise SystemExit(2)


def accept_configured(command: Command) -> None:
    """The same of a program that takes --config, whose flags are known to one process only."""
    sources = [(ROOT / file).read_text() for file in ("b2b_jax/commandline.py", CONFIGURED[command.module])]
    known = re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", "".join(sources))
    options = {re.split("[=.]", word.lstrip("-"))[0] for word in command.words if word.startswith("--")}
    if unknown := options - {*known, "help", "version"}:
        raise SystemExit(f"{command.module} has no option {', '.join(unknown)}")
    if command.config:
        config = commandline.configuration(*command.config, command.settings)
        settings.check_values(config)
        if command.module == "b2b_jax.main":
            begin(config)


def begin(config: ConfigDict, blurry: int = 720, sharp: int = 720) -> None:
    """All that a run looks at before it trains, on photos of the camera of these sides in pixels."""
    give_files(config)
    started, scored = run.Run(config, Path("run")), Photos(720)
    own, pairs = domains.own(config.data), bool(config.data.test_blur)
    test = scored if pairs or not own else None
    started.__dict__["known"] = domains.Known(scored, pipeline.Crop, scored, scored)
    started.__dict__["unknown"] = domains.Unknown(Photos(blurry), Photos(sharp), test, test, None if own else scored)
    main.check(started, main.work_names(started))


class Photos:
    """32 black photos of one size."""

    def __init__(self, side: int):
        self.photo, self.photos = np.zeros((side, side, 3), np.uint8), self

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict:
        keys = ("image", "blurry", "sharp", "known_blurry", "target", "truth", "other")
        return dict.fromkeys(keys, self.photo) | {"name": str(index)}

    def size(self, index: int) -> tuple[str, int, int]:
        return str(index), *self.photo.shape[:2]


def give_files(config: ConfigDict) -> None:
    """Puts small networks where the configuration names given ones, and what else it reads besides photos."""
    for name, section in config.items():
        path = Path(section.get("weights", "") if isinstance(section, ConfigDict) else "")
        if name in main.STAGES and path.name and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(small_camera() if name == "camera" else ROOT / "b2b_jax/demo/deblurrer/weights.safetensors")
            if name == "camera":
                (path.parent / "reader").symlink_to(small_camera().parent / "reader")
    if config.kernel_field.kernels:
        path = Path(config.kernel_field.kernels)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((2, 5, 5), 1 / 25, np.float32))
    if config.adaptation.teacher == "frames":
        clip = Path(config.data.unknown_blur, "clip")
        clip.mkdir(parents=True, exist_ok=True)
        for number in range(8):
            Image.new("RGB", (96, 96)).save(clip / f"{number}.png")


def small_camera() -> Path:
    """The weights of a camera learnt by likelihood, its reader beside it."""
    folder = Path("given").absolute()
    if not folder.exists():
        shot = Shot(jnp.full((2, 5, 5), 1 / 25), None, None, None, None)
        bank = {"name": "bank", "count": 2, "size": 5, "sharpening": False, "noise": False}
        networks.export(folder, "camera", bank, listed(shot, jnp.array([0.5, 0.5])))
        reader = {"lags": 4, "width": 8, "dim": 4, "window": 32}
        init = models.create("reader", **reader).init
        shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), shot)
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        networks.export(folder / "camera", "reader", {"name": "reader", **reader}, variables)
    return folder / "camera" / networks.WEIGHTS


def without_networks(monkeypatch) -> None:
    """Leaves out what takes long: traces of networks, reading one again; and VGG, which has to be downloaded."""
    load = functools.cache(networks.load)
    monkeypatch.setattr(run, "load", lambda path, dtype: load(path.resolve(), dtype))
    monkeypatch.setattr(common, "check_traces", lambda *given: {})
    monkeypatch.setattr(common, "restores", lambda network: True)
    monkeypatch.setattr(common, "load_vgg", lambda *given: None)
    monkeypatch.setattr(translator, "check_generator", lambda *given: None)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
