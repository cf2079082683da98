"""The console script: every command under one name; and the wheel, which needs no checkout."""

import os
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
        assert call(name, "--flag", "value")[1] == ["-m", f"b2b_jax.{module}", "--flag", "value"]
        assert (ROOT / "b2b_jax" / f"{module}.py").is_file()


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


@pytest.mark.slow
def test_the_wheel_deblurs_a_photo_in_a_bare_environment(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "bare")
    binaries = tmp_path / "bare" / "bin"
    run(binaries / "pip", "install", "--quiet", wheel)
    hyper = {"width": 4, "encoders": [1], "middle": 1, "decoders": [1]}
    variables = random_variables(models.create("nafnet", **hyper), images(1, 32, 32, 3))
    weights.save(tmp_path / "nafnet.safetensors", "nafnet", hyper, variables)
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / "photo.png")
    run(binaries / "b2b-jax", "deblur", "photo.png", "--model", "nafnet.safetensors", "--output", "sharp")
    assert Image.open(tmp_path / "sharp" / "photo.png").size == (30, 20)
    said = run(binaries / "b2b-jax", "deblur", "photo.png", "--model", "demo", "--output", "demo_sharp")
    assert "demo: trained on generated scenes" in said and (tmp_path / "demo_sharp" / "photo.png").is_file()
    where = run(binaries / "python", "-c", "import b2b_jax; print(b2b_jax.__file__)")
    assert str(tmp_path / "bare") in where
