"""A little of every torture of real runs: `tools/torture.py --short` finds no miss."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import torture
from tools.tortures import bench, filling

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_no_torture_finds_a_miss(tmp_path):
    command = [sys.executable, "tools/torture.py", "--short", f"--workdir={tmp_path}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    rows, counts = (part.splitlines()[2:] for part in run.stdout.split("\n\n"))
    assert {line.split("|")[1].strip() for line in counts} == set(torture.TORTURES)
    done = set(torture.TORTURES) - ({"writes"} if os.geteuid() else set())  # which takes root
    assert {line.split("|")[1].strip() for line in rows} == done


def test_disturbances_are_counted_once_and_all_of_a_bad_one_are_broken():
    kills = [bench.Row("camera: kills", "", "", True, 20), bench.Row("camera: exit code", "", "", False)]
    others = [bench.Row("a file", "", "", True), bench.Row("cycle: GAN: exit code", "", "", True, 3)]
    assert bench.count([*kills, *others]) == (24, 20) and bench.count(others) == (4, 0)


def test_a_disk_fills_at_the_chosen_write_and_stays_full(tmp_path):
    full = filling.Filling(str(tmp_path), str(tmp_path.parent / "list"), ["open", "a/N.json", 2])
    filled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "fill", filled.append)
        for event, name, wanted in (
            ("open", "a/7.json", 0),
            ("os.mkdir", "a/8.json", 0),
            ("open", "b/7.json", 0),
            ("open", "a/9.json", 1),
            ("os.rename", "b", 2),
        ):
            more = (str(tmp_path / name),) if event == "os.rename" else ("w", os.O_WRONLY)
            full.hear(event, (str(tmp_path / name), *more))
            assert len(filled) == wanted, name
        full.hear("open", (str(tmp_path / "a/9.json"), "r", os.O_RDONLY))
        full.hear("open", (str(tmp_path.parent / "a/9.json"), "w", os.O_WRONLY))
        assert len(filled) == 2


def test_a_miss_is_told_apart():
    assert bench.equal("", 1, 1).good and not bench.equal("", 1, 2).good
    run = type("Ended", (), {"output": "saved\nstep 7 is damaged: x"})
    assert bench.says("", run, "7", "damaged").good and not bench.says("", run, "saved", "damaged").good
    run.output += "\nTraceback"
    assert not bench.says("", run, "7", "damaged").good
