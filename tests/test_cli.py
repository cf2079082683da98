"""The console script: every command under one name; and the wheel, which needs no checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import images, random_variables
from PIL import Image

import b2b_jax
from b2b_jax import cli, models, weights

ROOT = Path(__file__).parents[1]


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the script; returns its exit code, the command it became (without Python), and what it printed."""
    became = []

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["b2b-jax", *words])
        monkeypatch.setattr(os, "execv", lambda path, command: became.append(command[1:]))
        return cli.main(), became[-1] if became else None, capsys.readouterr()

    return run


def test_every_command_becomes_its_module(call):
    for name, module in cli.COMMANDS.items():
        assert call(name, "--flag", "value")[1] == ["-P", "-m", f"b2b_jax.{module}", "--flag", "value"]
        assert (ROOT / "b2b_jax" / f"{module}.py").is_file()


def test_no_file_of_the_current_folder_stands_for_a_module(tmp_path):
    (tmp_path / "tqdm.py").write_text("raise SystemExit('taken from the folder')")
    command = [sys.executable, "-P", "-m", "b2b_jax.cli", "models"]  # as the script, whose own folder comes first
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ROOT})
    assert done.returncode == 0 and done.stdout.startswith("demo") and not done.stderr


def test_help_version_and_what_is_no_command(call):
    code, became, printed = call("--help")
    assert code == 0 and became is None and all(name in printed.out for name in cli.COMMANDS)
    assert call()[0] == 2
    assert (
        call("--version")[2].out.strip()
        == call("tables", "--version")[2].out.strip()
        == f"b2b_jax {b2b_jax.__version__}"
    )
    code, became, printed = call("trian")
    assert code == 2 and became is None and printed.err.count("\n") == 1 and "train" in printed.err


def run(*command, where: Path) -> str:
    """What a command prints, run as if no checkout were there."""
    ours = ("PYTHONPATH", "XLA_FLAGS")  # another environment's JAX may not know these flags
    env = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run([*map(str, command)], cwd=where, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package's wheel, built from a copy, as building leaves things behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("b2b_jax", "configs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, folder, where=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def interpreter(version: str) -> Path:
    """A Python of that version; skips the test where there is none."""
    name = f"python{version}"
    named = [sys.executable if sys.version.startswith(f"{version}.") else "", shutil.which(name) or ""]
    candidates = [*filter(None, named), *Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}")]
    candidates += Path.home().glob(f".local/share/uv/python/cpython-{version}*/bin/{name}")
    for path in candidates:  # a shim of pyenv may be there for a version that is not chosen
        if subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return Path(path)
    return pytest.skip(f"no Python {version} is installed")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_wheel_deblurs_a_photo_in_a_bare_environment(wheel, tmp_path, version):
    run(interpreter(version), "-m", "venv", tmp_path / "bare", where=tmp_path)
    binaries = tmp_path / "bare" / "bin"
    run(binaries / "pip", "install", "--quiet", wheel, where=tmp_path)
    hyper = {"width": 4, "encoders": [1], "middle": 1, "decoders": [1]}
    variables = random_variables(models.create("nafnet", **hyper), images(1, 32, 32, 3))
    weights.save(tmp_path / "nafnet.safetensors", "nafnet", hyper, variables)
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "photo.png")
    deblur = [binaries / "b2b-jax", "deblur", "photo.png"]
    run(*deblur, "--model", "nafnet.safetensors", "--output", "sharp", where=tmp_path)
    assert Image.open(tmp_path / "sharp" / "photo.png").size == (30, 20)
    said = run(*deblur, "--model", "demo", "--output", "demo_sharp", where=tmp_path)
    assert "demo: trained on generated scenes" in said and (tmp_path / "demo_sharp" / "photo.png").is_file()
    where = run(binaries / "python", "-c", "import b2b_jax; print(b2b_jax.__file__)", where=tmp_path)
    assert str(tmp_path / "bare") in where
    refused = subprocess.run(
        [binaries / "b2b-jax", "train", "--config", "configs/camera.py:small"], cwd=tmp_path, **PLAIN
    )
    assert refused.returncode == 2 and "unknown_blur" in refused.stderr  # the wheel has the configurations


PLAIN = {"capture_output": True, "text": True, "env": {"PATH": os.environ["PATH"]}}
