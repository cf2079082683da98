"""The table of configs/limits.py: what the learnt camera gains in each of its rows, over the seeds.

    python tools/limits.py runs/limits/*

PSNR in dB, means over the runs of a row, gains ± their standard error over the runs; one run alone has the standard
error over its photos instead, and ◦ behind it. Folders without a finished row are passed over.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from b2b_jax.errors import UserError
from b2b_jax.evaluation.tables import Result, check_alike, read

OURS = ("adapted", "kernel_field", "blur2blur")
SYSTEMS = ("input", "deblurrer", "fixed_filter", "ours", "oracle")
RIVALS = ("deblurrer", "fixed_filter")
FIGURES = {"held_out_auc": "AUC", "kernel_distance": "kernel distance"}  # of the camera
HEAD = ("row", "runs", *SYSTEMS, *(f"gain over {rival}" for rival in RIVALS), *FIGURES.values())


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    try:
        found = rows(read(parser.parse_args(arguments).runs))
        if not found:
            raise UserError("no run of configs/limits.py is among these folders; give folders of its runs")
        lines = [HEAD, ["---"] * len(HEAD), *(line(name, runs) for name, runs in found.items())]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return 0


def rows(runs: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs by their row."""
    found = {}
    for run in runs:
        kind, name = run.ablation
        if kind == "camera":
            found.setdefault(name, []).append(run)
    return found


def line(name: str, runs: Sequence[Result]) -> list[str]:
    """The cells of one row; a run whose camera was refused has no system of ours, and counts for nothing."""
    check_alike(runs)
    mine = [run for run in runs if system_of(run)]
    if not mine:
        return [name, "0", *["–"] * (len(SYSTEMS) + len(RIVALS)), *(mean(runs, key) for key in FIGURES)]
    psnr = {system: scores(mine, system) for system in SYSTEMS}
    cells = [f"{np.mean(values):.2f}" if len(values) else "–" for values in psnr.values()]
    gains = [gain(mine, psnr, rival) if len(psnr[rival]) else "–" for rival in RIVALS]
    return [name, str(len(mine)), *cells, *gains, *(mean(mine, key) for key in FIGURES)]


def system_of(run: Result) -> str | None:
    """What a row is about: the first of OURS that the run has."""
    return next((system for system in OURS if run.score(system)), None)


def scores(runs: Sequence[Result], system: str) -> list[float]:
    """PSNR of a system of every run; empty unless all have it."""
    found = [run.score(system_of(run) if system == "ours" else system) for run in runs]
    return [] if None in found else [psnr for psnr, _ in found]


def gain(runs: Sequence[Result], psnr: Mapping[str, list[float]], rival: str) -> str:
    """What a row gains over a rival, ± its standard error."""
    if len(runs) > 1:
        gains, mark = np.subtract(psnr["ours"], psnr[rival]), ""
    else:
        gains, mark = np.subtract(*(of_images(runs[0], one) for one in (system_of(runs[0]), rival))), " ◦"
    return f"{gains.mean():+.2f} ± {gains.std(ddof=1) / np.sqrt(len(gains)):.2f}{mark}"


def of_images(run: Result, system: str) -> list[float]:
    """PSNR of every photo of the run's first test set, in the order of the evaluation."""
    wanted = run.results["dataset"], system
    with (run.folder / "evaluation" / "images.csv").open(newline="") as file:
        return [float(one["psnr"]) for one in csv.DictReader(file) if (one["dataset"], one["row"]) == wanted]


def mean(runs: Sequence[Result], key: str) -> str:
    """The mean of a figure of the learnt cameras, where all have it."""
    values = [(run.results.get("camera") or {}).get(key) for run in runs]
    return "–" if None in values else f"{np.mean(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())
