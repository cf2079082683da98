"""From sources to batches with grain: every batch is a pure function of (seed, step, process index, process count).

The i-th element of a stream is the same photo under the same crop whatever asks for it, and step s on process p of P
takes the elements of local batch s·P + p. So `step` is the whole state of the input pipeline.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from grain.experimental import ZipMapDataset

from b2b_jax.data import blur, degradation
from b2b_jax.data.skipping import Skipping
from b2b_jax.data.sources import Record, Source, check_extent

Batch = dict[str, np.ndarray]
ENDLESS = 1 << 50  # elements of a stream; a grain dataset's own "infinite" length overflows when sliced


@dataclasses.dataclass(frozen=True)
class Crop(grain.transforms.RandomMap):
    """The same random square of every image of a record."""

    size: int  # pixels

    @property
    def extent(self) -> int:
        """Pixels that a photo must have on either side."""
        return self.size

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        height, width = next(iter(_images(record).values())).shape[:2]
        check_extent(record["name"], height, width, self.size)
        top, left = rng.integers(height - self.size + 1), rng.integers(width - self.size + 1)
        return {k: v[top : top + self.size, left : left + self.size] for k, v in _images(record).items()}


@dataclasses.dataclass(frozen=True)
class BlurredCrop(grain.transforms.RandomMap):
    """A random square of a sharp photo and the same square under a random kernel: {"sharp", "blurry"}."""

    size: int  # pixels
    kernel: Mapping[str, Any]  # for `blur.draw`

    @property
    def extent(self) -> int:
        """Pixels that a photo must have on either side: the crop and the kernel's reach around it."""
        return self.size + 2 * (self.kernel["size"] // 2)

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        margin = self.kernel["size"] // 2
        photo = Crop(self.extent).random_map(record, rng)["image"]
        blurry = blur.round8(blur.blur_valid(photo.astype(np.float32) / 255.0, blur.draw(rng, dict(self.kernel))))
        return {"sharp": photo[margin : margin + self.size, margin : margin + self.size], "blurry": blurry}


@dataclasses.dataclass(frozen=True)
class DegradedCrop(grain.transforms.RandomMap):
    """A random square of a sharp photo and the same square degraded: {"sharp", "blurry"}."""

    size: int  # pixels
    kind: str  # a key of DEGRADATIONS

    @property
    def extent(self) -> int:
        """Pixels that a photo must have on either side: the crop and the blur's reach around it."""
        return self.size + 2 * degradation.REACH

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        photo = Crop(self.extent).random_map(record, rng)["image"]
        blurry = blur.round8(degradation.DEGRADATIONS[self.kind](rng, photo.astype(np.float32) / 255.0))
        inside = slice(degradation.REACH, degradation.REACH + self.size)
        return {"sharp": photo[inside, inside], "blurry": blurry[inside, inside]}


Transform = Crop | BlurredCrop | DegradedCrop
Cropper = Callable[[int], Transform]  # from the pixels of a crop to the transform that cuts it


def _images(record: Record) -> Batch:
    return {k: v for k, v in record.items() if k != "name"}


@dataclasses.dataclass(frozen=True)
class Named(grain.transforms.RandomMap):
    """Another transform, after which the record still has its name."""

    transform: Transform

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        return self.transform.random_map(record, rng) | {"name": record["name"]}


def stream(source: Source, transform: Transform, seed: int) -> grain.MapDataset:
    """Endless shuffled elements of `source` under `transform`; every epoch has an order and crops of its own."""
    if isinstance(source, Skipping):
        source = source.at_least(transform.extent)
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


def rename(stream: grain.MapDataset, names: Mapping[str, str]) -> grain.MapDataset:
    """Only the images of `names`, from old key to new, and the name."""
    return stream.map(lambda element: {new: element[old] for old, new in names.items()} | {"name": element["name"]})


def iterate(dataset: grain.MapDataset, start: int, stop: int, threads: int, prefetch: int) -> Iterator[Batch]:
    """Yields the batches of steps start, …, stop - 1, prepared ahead by threads."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(dataset[start:stop].to_iter_dataset(options))
