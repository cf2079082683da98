"""Searches a deblurrer's settings: first loss × optimiser, then learning rate × rho for the best pair of them.

    python tools/grid_search.py --config configs/resunet.py --output runs/grid --steps 2000

Every cell is a run of `b2b_jax.main` in a folder of its own, one after another; the same command resumes where it
stopped. The table ranks all cells by their last validation PSNR: OUTPUT/grid.md, and OUTPUT/grid.png as a picture. A
cell whose training diverges is a row without a figure.
Arguments after `--` are given to every run: `-- --config.data.root=DIR`.
"""

import argparse
import functools
import itertools
import json
import math
import operator
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from b2b_jax import sweep

LOSSES = ("l1", "mse", "l1+0.1*sobel", "l1+0.1*fourier")
OPTIMIZERS = ("rmsprop", "adam")
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
RHOS = (0.9, 0.99)
IN_TRAINING = 1  # the exit code of a run that wants nothing of the user and fails
UNFINISHED = -math.inf  # the score of a run that did

Cell = Mapping[str, object]  # configuration keys below `deblurrer` and their values


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code: that of the first run that fails otherwise than in training."""
    args = _parser().parse_args(argv)
    first = grid(**{"loss": args.losses, "optimizer.name": args.optimizers})
    if code := run_all(first, args):
        return code
    best = ranked(first, args.output)[0]
    if score(args.output / name(best)) == UNFINISHED:
        print("grid_search: no run ended with a score", file=sys.stderr)
        return IN_TRAINING
    rates = {"optimizer.learning_rate": args.learning_rates}
    if best["optimizer.name"] == "rmsprop":
        rates["optimizer.rho"] = args.rhos
    done = args.output / name(best)  # has the configuration's own rates, which need no second run
    second = [{**best, **cell} for cell in grid(**rates) if any(setting(done, k) != v for k, v in cell.items())]
    if code := run_all(second, args):
        return code
    report(first + second, args.output)
    return 0


def grid(**axes: Sequence[object]) -> list[Cell]:
    """All combinations of the values of every axis."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def run_all(cells: Sequence[Cell], args: argparse.Namespace) -> int:
    """Runs every cell that has no score yet; returns the exit code of the first that fails, else 0.

    One that fails in training, as it does when its values are not finite, is passed over.
    """
    for number, cell in enumerate(cells, 1):
        folder = args.output / name(cell)
        print(f"{number} of {len(cells)}: {name(cell)}", flush=True)
        keys = [f"--config.deblurrer.{key}={value}" for key, value in cell.items()]
        command = [sys.executable, "-m", "b2b_jax.main", f"--config={args.config}", f"--workdir={folder}"]
        command += ["--config.stages=deblurrer", f"--config.deblurrer.steps={args.steps}", *keys, *args.rest]
        if code := sweep.run(shlex.join(command)):  # which passes Ctrl-C on, so that the run saves
            print(f"grid_search: the run {folder} ended with exit code {code}", file=sys.stderr)
            if code != IN_TRAINING or not (folder / "config.json").is_file():
                return code
    return 0


def name(cell: Cell) -> str:
    """A folder's name for a cell: its values, with signs that every file system takes."""
    return "_".join(str(value).replace("*", "x") for value in cell.values())


def score(folder: Path) -> float:
    """The last validation PSNR in dB that a run logged; UNFINISHED of one that failed."""
    if not (folder / "deblurrer" / "weights.safetensors").is_file():
        return UNFINISHED
    rows = [json.loads(line) for line in (folder / "deblurrer" / "metrics.jsonl").read_text().splitlines()]
    return [row["validation_psnr"] for row in rows if "validation_psnr" in row][-1]


def setting(folder: Path, key: str) -> object:
    """What a run had at a configuration key below `deblurrer`."""
    saved = json.loads((folder / "config.json").read_text())["deblurrer"]
    return functools.reduce(operator.getitem, key.split("."), saved)


def ranked(cells: Sequence[Cell], output: Path) -> list[Cell]:
    """The cells, best score first."""
    return sorted(cells, key=lambda cell: -score(output / name(cell)))


def report(cells: Sequence[Cell], output: Path) -> None:
    """Writes and prints the table, and draws it."""
    keys = list(dict.fromkeys(key for cell in cells for key in cell))
    order = ranked(cells, output)
    rows = []
    for cell in order:
        folder = output / name(cell)
        values = {key: str(setting(folder, key)) for key in keys}
        if "optimizer.rho" in keys and values["optimizer.name"] != "rmsprop":
            values["optimizer.rho"] = ""
        found = score(folder)
        rows.append([*values.values(), "failed" if found == UNFINISHED else f"{found:.2f}"])
    lines = [f"| {' | '.join(row)} |" for row in [[*keys, "validation PSNR, dB"], ["---"] * (len(keys) + 1), *rows]]
    (output / "grid.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    scores = {name(cell): score(output / name(cell)) for cell in order}
    finished = {cell: value for cell, value in scores.items() if value != UNFINISHED}
    draw(list(finished), list(finished.values()), output / "grid.png")


def draw(names: Sequence[str], scores: Sequence[float], path: Path) -> None:
    """Bars, best first; passed over, with a line that says so, where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("grid_search: no picture without matplotlib (pip install matplotlib)")
        return
    figure = Figure(figsize=(8, 1 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot(xlabel="validation PSNR, dB", xlim=(min(scores) - 0.5, max(scores) + 0.2))
    axes.barh(names, scores)
    axes.invert_yaxis()
    figure.savefig(path, dpi=120)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grid_search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a configuration with a deblurrer stage")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of all runs and of the table")
    parser.add_argument("--steps", type=int, default=5_000, help="training steps of every cell (%(default)s)")
    parser.add_argument("--losses", nargs="+", default=LOSSES, help="as deblurrer.loss takes them")
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS)
    parser.add_argument("--learning-rates", nargs="+", type=float, default=LEARNING_RATES)
    parser.add_argument("--rhos", nargs="+", type=float, default=RHOS, help="decay of rmsprop's average")
    parser.add_argument("rest", nargs="*", metavar="-- --config.KEY=VALUE", help="for every run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
