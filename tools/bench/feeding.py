"""How fast photos come: by the input pipeline, by its parts, and by a loop as one would write it without them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from b2b_jax import images, levels, sharding
from b2b_jax.data import pipeline
from b2b_jax.data.sources import Photos
from tools.bench import measure
from tools.bench.measure import Row

NOISE = 2.0  # grey levels: generated photos have none, and would make files of a fifth of the size
LISTED = 14_400  # photos, as REDS has: grain's shuffle takes 1 ms for each of 32 photos, for each of thousands nothing
CROPS = (1, 2, 4)  # of a photo


def rows(config: ConfigDict, photos: np.ndarray, repeats: int, eaten: float | None) -> Iterator[Row]:
    """Times crops of files made of the photos, as PNG and as JPEG.

    Args:
        config: of the run; the translator's crop and batch, `data.threads` and `data.crops_per_image` count.
        photos: uint8 (n, h, w, 3).
        repeats: calls of each kind, which take turns.
        eaten: photos that the training step takes in a second; None: unknown.
    """
    noise = np.random.default_rng(0).normal(0, NOISE, photos.shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "jpg"):
            paths = [Path(folder) / suffix / f"{i:04d}.{suffix}" for i in range(len(photos))]
            for path, photo in zip(paths, photos, strict=True):
                images.write(path, levels.to_uint8((photo + noise) / 255))
            yield from _timed(config, paths, suffix, repeats, eaten)


def _timed(config: ConfigDict, paths: Sequence[Path], suffix: str, repeats: int, eaten: float | None) -> Iterator[Row]:
    crop, batch, data = config.translator.crop, config.translator.batch, config.data
    calls = {"plain loop": (batch, lambda: read_plainly(paths, crop, batch))}
    calls |= {f"part: {name}": (batch, call) for name, call in parts(paths, crop, batch).items()}
    for crops in sorted({*CROPS, data.crops_per_image}):
        for threads in sorted({1, data.threads}):
            count = 2 * max(2, threads) * crops
            name = f"pipeline, crops of a photo: {crops}, threads: {threads}"
            calls[name] = (count * batch, _feeder(paths, crop, batch, crops, threads, data.prefetch, count))
    times = measure.sample({name: call for name, (_, call) in calls.items()}, repeats, warm_up=1)
    found = {name: measure.row(f"{name}, {suffix}", count, times[name]) for name, (count, _) in calls.items()}
    loop = _rate(found["plain loop"])
    for name, row in found.items():
        whole = name.startswith("pipeline")
        fed = _rate(row) / eaten if whole and eaten else None
        yield replace(row, times_loop=_rate(row) / loop if whole else None, times_step=fed)


def _rate(row: Row) -> float:
    return row.images / row.seconds


def _feeder(
    paths: Sequence[Path], crop: int, batch: int, crops: int, threads: int, prefetch: int, count: int
) -> Callable[[], None]:
    """A call that takes `count` batches of single photos, as the training loop does; threads start anew in each."""
    listed = [*paths] * -(-LISTED // len(paths))
    stream = pipeline.stream(Photos(listed), pipeline.Crop(crop), 0, crops)
    batches = pipeline.batches([stream], batch, 0, 1)

    def feed() -> None:
        for _ in pipeline.iterate(batches, 0, count, threads, prefetch):
            pass

    return feed


def parts(paths: Sequence[Path], crop: int, batch: int) -> dict[str, Callable[[], object]]:
    """What the pipeline does for a batch, one thing after another, and its way to the devices."""
    chosen = [paths[i % len(paths)] for i in range(batch)]
    contents = [path.read_bytes() for path in chosen]
    records = [{"image": images.decode(content, "photo"), "name": "photo"} for content in contents]
    cut, rng, mesh = pipeline.Several(pipeline.Crop(crop), 1), np.random.default_rng(0), sharding.make_mesh()
    elements = [cut.random_map(record, rng) for record in records]
    (whole,) = pipeline.stack(elements)["image"]
    return {
        "read": lambda: [path.read_bytes() for path in chosen],
        "decode": lambda: [images.decode(content, "photo") for content in contents],
        "crop": lambda: [cut.random_map(record, rng) for record in records],
        "batch": lambda: pipeline.stack(elements),
        "transfer": lambda: jax.block_until_ready(sharding.to_devices({"image": whole}, mesh)),
    }


def read_plainly(paths: Sequence[Path], crop: int, count: int) -> None:
    """What one would write without a pipeline: open, convert, cut, one photo after another."""
    rng = np.random.default_rng(0)
    for index in range(count):
        with Image.open(paths[index % len(paths)]) as photo:
            pixels = np.asarray(photo.convert("RGB"))
        top, left = (rng.integers(length - crop + 1) for length in pixels.shape[:2])
        np.ascontiguousarray(pixels[top : top + crop, left : left + crop])
