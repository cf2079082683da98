"""Packs the networks of a finished run of the demo into the package, in float16, for `--model demo`.

    python -m b2b_jax.main --config configs/demo.py
    python tools/pack_demo.py runs/demo

Each system of the run is scored on the run's test scenes, as it was trained and as it is packed. Nothing is written
when one of them loses more than 0.01 dB, or all are larger than 3 MB. Every file carries the SHA-256 of its content,
which is compared whenever it is read. Exit codes: 0 packed; 2 the run is not finished or loses too much.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from b2b_jax import commandline, metrics, named, system, weights
from b2b_jax.data.sources import Source
from b2b_jax.errors import UserError
from b2b_jax.files import write_json
from b2b_jax.networks import WEIGHTS
from b2b_jax.stages.run import Run

STAGES = ("deblurrer", "translator", "adaptation")
TOLERANCE = 0.01  # dB, far below the standard error of any row
LARGEST = 3_000_000  # bytes
RECORDS = ("config.json", "results.json", "camera/kernels.png", "camera/true_kernels.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("--output", type=Path, default=named.DEMO.file, help="where to (default: into the package)")
    options = parser.parse_args(argv)
    return commandline.outcome(lambda: pack(options.run, options.output))


def pack(folder: Path, output: Path) -> None:
    """Writes the run's networks in half precision to `output`; UserError when that costs too much."""
    config = system.read_config(folder)
    source = Run(ConfigDict(config), folder).unknown.test
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary) / "demo"
        draft.mkdir()
        for name in RECORDS:
            (draft / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, draft / name)
        write_json(draft / "config.json", {k: v for k, v in config.items() if k != named.STARTED_IN})
        for stage in STAGES:
            halve(folder / stage / WEIGHTS, draft / stage / WEIGHTS)
        for method in (name for name, stages in system.SYSTEMS.items() if set(stages) <= set(STAGES)):
            before, after = (psnr(where, method, source) for where in (folder, draft))
            print(f"{method}: {before:.4f} dB as trained, {after:.4f} dB in float16 ({len(source)} scenes)")
            if not after > before - TOLERANCE:
                raise UserError(f"{method} loses more than {TOLERANCE} dB in float16; nothing written")
        size = sum(path.stat().st_size for path in draft.rglob("*.*"))
        print(f"{size / 1e6:.2f} MB")
        if size > LARGEST:
            raise UserError(f"they take more than {LARGEST / 1e6} MB; nothing written")
        shutil.copytree(draft, output, dirs_exist_ok=True, copy_function=shutil.copyfile)  # readable by everyone


def halve(source: Path, target: Path) -> None:
    """Writes a network's file with its arrays in float16; UserError for a number that float16 cannot hold."""
    try:
        network, arrays = weights.read(source)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    with np.errstate(over="ignore"):  # which is refused below
        halves = {tuple(name.split("/")): array.astype(np.float16) for name, array in arrays.items()}
    if not all(np.isfinite(array).all() for array in halves.values()):
        raise UserError(f"{source} holds numbers beyond float16's range; nothing written")
    weights.save(target, network["model"], network["hyper"], unflatten_dict(halves), network.get("stage", ""))


def psnr(folder: Path, method: str, source: Source) -> float:
    """Mean PSNR in dB of one of a run's systems on pairs of one size, as its evaluation measures it."""
    deblurrer = system.load(folder, method, dtype="float32")
    records = [source[index] for index in range(len(source))]
    sharp = deblurrer(np.stack([record["blurry"] for record in records]))
    pairs = (np.stack(photos).astype(np.float32) / 255.0 for photos in (sharp, [r["sharp"] for r in records]))
    return float(metrics.psnr(*pairs).mean())


if __name__ == "__main__":
    sys.exit(main())
