"""The grid search: what it runs, in which order, how it ranks, and what it does about a run that fails."""

import importlib.util
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PSNR = {"l1": 1.0, "mse": 0.0, "rmsprop": 0.5, "adam": 0.0}  # what each value adds to a cell's score


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("grid_search", ROOT / "tools" / "grid_search.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def runs(tool, monkeypatch):
    """Commands that were run; each leaves the log of a run whose score depends on its settings."""
    commands = []

    def run(command):
        words = shlex.split(command)
        keys = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
        commands.append(keys)
        folder = Path(keys["workdir"], "deblurrer")
        folder.mkdir(parents=True, exist_ok=True)
        rate = float(keys.get("config.deblurrer.optimizer.learning_rate", 0.001))
        saved = {"name": keys["config.deblurrer.optimizer.name"], "learning_rate": rate, "rho": 0.9}
        config = {"deblurrer": {"loss": keys["config.deblurrer.loss"], "optimizer": saved}}
        Path(keys["workdir"], "config.json").write_text(json.dumps(config))
        value = 20 + PSNR[keys["config.deblurrer.loss"]] + PSNR[keys["config.deblurrer.optimizer.name"]] + 100 * rate
        rows = [{"step": 1, "validation_psnr": 99.0}, {"step": 2, "validation_psnr": value}, {"step": 3, "loss": 0.1}]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        diverges = keys.get("config.diverging") in (keys["config.deblurrer.loss"], "all")
        if not diverges:
            (folder / "weights.safetensors").touch()
        return 3 if keys.get("config.fail") else int(diverges)

    monkeypatch.setattr(tool.sweep, "run", run)
    return commands


def arguments(folder, *more):
    axes = ["--losses", "mse", "l1", "--optimizers", "adam", "rmsprop", "--learning-rates", "0.001", "0.003"]
    return ["--config", "configs/demo.py:quick", "--output", str(folder), "--steps", "7", *axes, "--rhos", "0.9", *more]


def test_the_second_grid_refines_the_best_of_the_first(tool, runs, tmp_path, capsys):
    assert tool.main(arguments(tmp_path, "--", "--config.seed=4")) == 0
    chosen = [(r["config.deblurrer.loss"], r["config.deblurrer.optimizer.name"]) for r in runs]
    assert chosen == [("mse", "adam"), ("mse", "rmsprop"), ("l1", "adam"), *[("l1", "rmsprop")] * 2]
    assert runs[4]["config.deblurrer.optimizer.learning_rate"] == "0.003"  # 0.001 was in the first grid
    assert all(r["config.seed"] == "4" and r["config.deblurrer.steps"] == "7" for r in runs)
    assert len({r["workdir"] for r in runs}) == len(runs)
    table = (tmp_path / "grid.md").read_text()
    assert [[cell.strip() for cell in line.split("|")[3:-1]] for line in table.splitlines()[2:]] == [
        ["0.003", "0.9", "21.80"],
        ["0.001", "0.9", "21.60"],
        ["0.001", "", "21.10"],
        ["0.001", "0.9", "20.60"],
        ["0.001", "", "20.10"],
    ]
    assert table in capsys.readouterr().out


def test_a_failed_run_ends_the_search(tool, runs, tmp_path, capsys):
    assert tool.main(arguments(tmp_path, "--", "--config.fail=1")) == 3
    assert len(runs) == 1 and "exit code 3" in capsys.readouterr().err


def test_a_cell_that_diverges_is_a_row_without_a_figure(tool, runs, tmp_path, capsys):
    assert tool.main(arguments(tmp_path, "--", "--config.diverging=l1")) == 0
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (tmp_path / "grid.md").read_text().splitlines()
    ]
    assert [(row[0], row[-1]) for row in rows[2:]] == [
        ("mse", "20.80"),
        ("mse", "20.60"),
        ("mse", "20.10"),
        ("l1", "failed"),
        ("l1", "failed"),
    ]
    assert capsys.readouterr().err.count("ended with exit code 1") == 2


def test_without_any_score_there_is_no_second_grid(tool, runs, tmp_path, capsys):
    assert tool.main(arguments(tmp_path, "--", "--config.diverging=all")) == 1
    assert len(runs) == 4 and "no run ended with a score" in capsys.readouterr().err


STOPPED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("grid_search", sys.argv[1])
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
sys.executable = sys.argv[2]
sys.exit(tool.main(sys.argv[3:]))
"""
RUN = """#!/bin/sh
trap 'sleep 1; touch saved; exit 130' INT
echo started
for _ in $(seq 300); do sleep 0.1; done
"""


def test_ctrl_c_lets_the_run_save_and_ends_the_search(tmp_path):
    run, tool = tmp_path / "run", ROOT / "tools" / "grid_search.py"
    run.write_text(RUN)
    run.chmod(0o755)
    command = [sys.executable, "-c", STOPPED, tool, run, *arguments(tmp_path / "grid")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as search:
        assert "started\n" in iter(search.stdout.readline, "")
        search.send_signal(signal.SIGINT)
        said = search.communicate(timeout=60)[1]
    assert search.returncode == 130 and (tmp_path / "saved").exists()
    assert "exit code 130" in said and "Traceback" not in said
