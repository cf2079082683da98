"""Writes photos with the known blur, as the translator's discriminator sees them, for inspection and for other tools.

    python -m b2b_jax.synthesize --config configs/camera.py --workdir runs/mine --output known_blur/ --count 200

The set K of a run: what `known_blur.source` makes, crop by crop, before colour jitter. DIR/blurry holds the photos and,
unless they come from a folder, DIR/sharp their sharp twins under the same names: pairs that train any deblurrer.
"""

if __name__ == "__main__":  # before the imports below, which would be done twice
    from b2b_jax import huge_pages

    huge_pages.restart()

import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from b2b_jax import commandline, images
from b2b_jax.compilation import enable_compilation_cache
from b2b_jax.data import domains, pipeline
from b2b_jax.errors import UserError
from b2b_jax.method import blur2blur
from b2b_jax.stages import blur_extractor, translator
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
    write(folder, synthesize(run, COUNT.value), COUNT.value)


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
    commandline.check_values(run.config)
    translator.check_known_blur(run)
    if blur_extractor.needed(run):
        blur_extractor.load(run)


def synthesize(run: Run, count: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields `count` photos with the known blur and their sharp twins (None without), uint8 (crop, crop, 3).

    The i-th depends on the run's seed and on i alone.
    """
    source, batch = run.config.known_blur.source, min(count, run.config.translator.batch)
    extractor = blur_extractor.load(run) if source == "extractor" else None
    frozen = {"blur_extractor": extractor.variables} if extractor else {}
    make, key = jax.jit(blur2blur.make_known_blur(extractor and extractor.module)), jax.random.key(run.config.seed)
    supplies = domains.KNOWN_BLUR[source](run.config, run.known, run.unknown)
    twin = {"sharp": "sharp"} if source in ("paired", "synthetic") else {}
    settings = run.config.translator
    streams = translator.streams(run, supplies, settings.crop, translator.SEED, twin, resize=settings.resize)
    for index, photos in enumerate(
        pipeline.iterate(pipeline.batches(streams, batch, 0, 1), 0, -(-count // batch), 2, 2)
    ):
        photos.pop("name")
        sharp = photos.pop("sharp", photos.get("unknown_sharp"))
        blurry = images.to_uint8(make(frozen, photos, jax.random.fold_in(key, index)))
        for i in range(min(batch, count - index * batch)):
            yield blurry[i], None if sharp is None else sharp[i]


def write(folder: Path, photos: Iterator[tuple[np.ndarray, np.ndarray | None]], count: int) -> None:
    """Writes blurry/000000.png, … and their twins sharp/000000.png, …"""
    for index, (blurry, sharp) in enumerate(tqdm(photos, total=count, unit="photo", dynamic_ncols=True)):
        images.write(folder / "blurry" / f"{index:06d}.png", blurry)
        if sharp is not None:
            images.write(folder / "sharp" / f"{index:06d}.png", sharp)
    print(f"{count} photos with the known blur in {folder}")


if __name__ == "__main__":
    sys.exit(command())
