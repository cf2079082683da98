"""A little of every torture of real runs: `tools/torture.py --short` finds no miss."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import torture
from tools.tortures import bench

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_no_torture_finds_a_miss(tmp_path):
    command = [sys.executable, "tools/torture.py", "--short", f"--workdir={tmp_path}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert {line.split("|")[1].strip() for line in run.stdout.splitlines()[2:]} == set(torture.TORTURES)


def test_a_miss_is_told_apart():
    assert bench.equal("", 1, 1).good and not bench.equal("", 1, 2).good
    run = type("Ended", (), {"output": "saved\nstep 7 is damaged: x"})
    assert bench.says("", run, "7", "damaged").good and not bench.says("", run, "saved", "damaged").good
    run.output += "\nTraceback"
    assert not bench.says("", run, "7", "damaged").good
