"""The table of configs/limits.py: what the learnt camera gains in each of its rows, over the seeds.

    python tools/limits.py runs/limits/*

PSNR in dB, means over the runs of a row, gains ± their standard error over the runs; one run alone has the standard
error over its photos instead, and ◦ behind it. Folders without a finished row are passed over.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from b2b_jax.files import read_object

OURS = ("adapted", "kernel_field", "blur2blur")  # what a row is about: the first that it has
SYSTEMS = ("input", "deblurrer", "fixed_filter", "ours", "oracle")
RIVALS = ("deblurrer", "fixed_filter")
HEAD = ("row", "runs", *SYSTEMS, *(f"gain over {rival}" for rival in RIVALS), "AUC", "kernel distance")


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    found = rows(parser.parse_args(arguments).runs)
    if not found:
        print("no finished row of configs/limits.py in these folders; wanted folders of its runs", file=sys.stderr)
        return 2
    lines = [HEAD, ["---"] * len(HEAD), *(line(name, folders) for name, folders in found.items())]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return 0


def rows(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Finished runs by their row."""
    found = {}
    for folder in folders:
        config = read_object(folder / "config.json").get("evaluation", {})
        kind, _, name = config.get("ablation", "").partition(",")
        if kind == "camera" and "rows" in read_object(folder / "results.json"):
            found.setdefault(name, []).append(folder)
    return found


def line(name: str, folders: Sequence[Path]) -> list[str]:
    """The cells of one row."""
    results = [read_object(folder / "results.json") for folder in folders]
    ours = next((system for system in OURS if system in results[0]["rows"]), None)
    names = {system: ours if system == "ours" else system for system in SYSTEMS}
    psnr = {s: [r["rows"][name]["psnr"] for r in results if name in r["rows"]] for s, name in names.items()}
    cameras = [r["camera"] or {} for r in results]
    cells = [f"{np.mean(values):.2f}" if values else "–" for values in psnr.values()]
    gains = [gain(folders, psnr, ours, rival) if ours else "camera refused" for rival in RIVALS]
    return [name, str(len(folders)), *cells, *gains, *(mean(cameras, k) for k in ("held_out_auc", "kernel_distance"))]


def gain(folders: Sequence[Path], psnr: dict[str, list[float]], ours: str, rival: str) -> str:
    """What a row gains over a rival, ± its standard error."""
    if len(psnr["ours"]) > 1:
        gains, mark = np.subtract(psnr["ours"], psnr[rival]), ""
    else:
        gains, mark = np.subtract(*(of_images(folders[0], system) for system in (ours, rival))), " ◦"
    return f"{gains.mean():+.2f} ± {gains.std(ddof=1) / np.sqrt(len(gains)):.2f}{mark}"


def of_images(folder: Path, system: str) -> list[float]:
    """PSNR of every photo, in the order of the evaluation."""
    with (folder / "evaluation" / "images.csv").open(newline="") as file:
        return [float(record["psnr"]) for record in csv.DictReader(file) if record["row"] == system]


def mean(cameras: Sequence[dict], key: str) -> str:
    """The mean of a figure of the learnt cameras, where all have it."""
    values = [camera.get(key) for camera in cameras]
    return "–" if None in values else f"{np.mean(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())
