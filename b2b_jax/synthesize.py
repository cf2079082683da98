"""Writes photos with the known blur, as the translator's discriminator sees them, for inspection and for other tools.

    python -m b2b_jax.synthesize --config configs/camera.py --workdir runs/mine --output known_blur/ --count 200

The set K of a run: what `known_blur.source` makes, crop by crop, before colour jitter. DIR/blurry holds the photos and,
unless they come from a folder, DIR/sharp their sharp twins under the same names: pairs that train any deblurrer.
"""

if __name__ == "__main__":  # before the imports below, which would be done twice
    from b2b_jax import huge_pages, terminal

    terminal.protect()
    huge_pages.restart()

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from b2b_jax import commandline, images, settings
from b2b_jax.compilation import enable_compilation_cache
from b2b_jax.data import pipeline
from b2b_jax.errors import UserError
from b2b_jax.method.known_blur import Supply
from b2b_jax.stages import common, known_blur, translator
from b2b_jax.stages.known_blur import KnownBlur
from b2b_jax.stages.run import Run

OUTPUT = flags.DEFINE_string("output", None, "Folder to write: new, or empty.")
COUNT = flags.DEFINE_integer("count", 100, "How many photos to write.", lower_bound=1)


def command() -> int:
    """Runs the command line; returns its exit code."""
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__, commandline.described(OUTPUT, COUNT), sep="\n")
        return 0
    return commandline.outcome(make_photos)


def make_photos() -> None:
    """Writes the photos that the flags ask for."""
    run = commandline.parse()
    folder = output_folder()
    check(run)
    enable_compilation_cache()
    known = known_blur.open_set(run, run.config.known_blur.source)
    write(folder, synthesize(run, known, COUNT.value), COUNT.value)


def output_folder() -> Path:
    """--output; UserError unless it is new or empty."""
    if not OUTPUT.value:
        raise UserError("No folder to write: give one, --output=DIR")
    folder = Path(OUTPUT.value)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and not an empty folder; choose another --output")
    return folder


def check(run: Run) -> None:
    """UserError when the run cannot make its known blur: photos or the extractor's weights are missing."""
    settings.check_values(run.config)
    translator.check_known_blur(run)


def synthesize(run: Run, known: KnownBlur, count: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields `count` photos of the set K and their sharp twins (None without), uint8 (crop, crop, 3).

    The i-th depends on the run's seed and on i alone.
    """
    config, batch = run.config.translator, min(count, run.config.translator.batch)
    frozen = {part: network.variables for part, network in known.frozen.items()}
    make, key = jax.jit(known.make), jax.random.key(run.config.seed)
    streams = common.streams(run, with_twins(run, known), config.crop, translator.SEED, {"resize": config.resize})
    batches = pipeline.iterate(pipeline.batches(streams, batch, 0, 1), 0, -(-count // batch), 2, 2)
    for index, photos in enumerate(batches):
        photos.pop("name")
        sharp = photos.pop("sharp", photos.get("unknown_sharp"))
        blurry = images.to_uint8(make(frozen, photos, jax.random.fold_in(key, index)))
        for i in range(min(batch, count - index * batch)):
            yield blurry[i], None if sharp is None else sharp[i]


def with_twins(run: Run, known: KnownBlur) -> list[Supply]:
    """The photos of the set K, and with them the sharp twins that some of its sources have."""
    if run.config.known_blur.source not in ("paired", "synthetic"):
        return known.supplies
    return [dataclasses.replace(supply, names={**supply.names, "sharp": "sharp"}) for supply in known.supplies]


def write(folder: Path, photos: Iterator[tuple[np.ndarray, np.ndarray | None]], count: int) -> None:
    """Writes blurry/000000.png, … and their twins sharp/000000.png, …"""
    for index, (blurry, sharp) in enumerate(tqdm(photos, total=count, unit="photo", dynamic_ncols=True)):
        images.write(folder / "blurry" / f"{index:06d}.png", blurry)
        if sharp is not None:
            images.write(folder / "sharp" / f"{index:06d}.png", sharp)
    print(f"{count} photos with the known blur in {folder}")


if __name__ == "__main__":
    sys.exit(command())
