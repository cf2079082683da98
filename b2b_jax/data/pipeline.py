"""From sources to batches with grain: every batch is a pure function of (seed, step, process index, process count).

The i-th element of a stream is the same photo under the same crop whatever asks for it, and step s on process p of P
takes the elements of local batch s·P + p. So `step` is the whole state of the input pipeline.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from grain.experimental import ZipMapDataset

from b2b_jax.data import blur
from b2b_jax.data.sources import Record, Source
from b2b_jax.errors import UserError

Batch = dict[str, np.ndarray]
ENDLESS = 1 << 50  # elements of a stream; a grain dataset's own "infinite" length overflows when sliced


@dataclasses.dataclass(frozen=True)
class Crop(grain.transforms.RandomMap):
    """The same random square of every image of a record."""

    size: int  # pixels

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        height, width = _extent(record, self.size)
        top, left = rng.integers(height - self.size + 1), rng.integers(width - self.size + 1)
        return {k: v[top : top + self.size, left : left + self.size] for k, v in _images(record).items()}


@dataclasses.dataclass(frozen=True)
class BlurredCrop(grain.transforms.RandomMap):
    """A random square of a sharp photo and the same square under a random kernel: {"sharp", "blurry"}."""

    size: int  # pixels
    kernel: Mapping[str, Any]  # for `blur.draw`

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        margin = self.kernel["size"] // 2
        photo = Crop(self.size + 2 * margin).random_map(record, rng)["image"]
        blurry = blur.round8(blur.blur_valid(photo.astype(np.float32) / 255.0, blur.draw(rng, dict(self.kernel))))
        return {"sharp": photo[margin : margin + self.size, margin : margin + self.size], "blurry": blurry}


def _images(record: Record) -> Batch:
    return {k: v for k, v in record.items() if k != "name"}


def _extent(record: Record, size: int) -> tuple[int, int]:
    height, width = next(iter(_images(record).values())).shape[:2]
    if min(height, width) < size:
        raise UserError(
            f"{record['name']} is {width}x{height} pixels, smaller than the {size} that a training crop needs; "
            "remove it or set a smaller crop"
        )
    return height, width


@dataclasses.dataclass(frozen=True)
class Named(grain.transforms.RandomMap):
    """Another transform, after which the record still has its name."""

    transform: grain.transforms.RandomMap

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        return self.transform.random_map(record, rng) | {"name": record["name"]}


def stream(source: Source, transform: grain.transforms.RandomMap, seed: int) -> grain.MapDataset:
    """Endless shuffled elements of `source` under `transform`; every epoch has an order and crops of its own."""
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(Named(transform))


def batches(streams: Sequence[grain.MapDataset], batch: int, process: int, processes: int) -> grain.MapDataset:
    """The batches of steps 0, 1, 2, … of one process: {key: (n, h, w, 3)}, n = batch / processes.

    Under "name" stand the names of the photos, (n, len(streams)).

    Args:
        streams: of elements that are dicts of images; a batch has the keys of all of them.
        batch: images over all processes; a multiple of their number.
        process, processes: this process's index, and how many there are.
    """
    joined = ZipMapDataset([s[:ENDLESS].batch(batch // processes) for s in streams])
    return joined.map(_join)[process::processes]


def _join(parts: Sequence[Batch]) -> Batch:
    names = np.stack([part["name"] for part in parts], axis=1)
    return {k: v for part in parts for k, v in part.items()} | {"name": names}


def rename(stream: grain.MapDataset, old: str, new: str) -> grain.MapDataset:
    """Only the image `old` of each element, under the key `new`, and the name."""
    return stream.map(lambda element: {new: element[old], "name": element["name"]})


def iterate(dataset: grain.MapDataset, start: int, stop: int, threads: int, prefetch: int) -> Iterator[Batch]:
    """Yields the batches of steps start, …, stop - 1, prepared ahead by threads."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(dataset[start:stop].to_iter_dataset(options))
