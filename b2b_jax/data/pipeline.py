"""From sources to batches with grain: every batch is a pure function of (seed, step, process index, process count).

The i-th element of a stream is the same photo, cut into the same k crops, whatever asks for it. Group g on process p of
P holds the photos of local batch g·P + p, and step s takes crop s mod k of each photo of group s div k. So `step` is
the whole state of the input pipeline.

Decoding a photo costs a hundred times more than cutting a crop: k crops of one decoding (`data.crops_per_image`) make k
steps of one. They go to k successive batches, not into one: every batch still has as many photos as images, with all
their variety for its gradient, for the discriminator and for the curriculum's ranks, and k need not divide it. What k
costs is memory for crops, k batches for each thread, never for whole photos.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from grain.experimental import ZipMapDataset

from b2b_jax import levels
from b2b_jax.data import blur, degradation
from b2b_jax.data.skipping import at_least
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
class Resize(grain.transforms.Map):
    """All images of a record with their shorter side at `side` pixels."""

    side: int

    def map(self, record: Record) -> Record:
        small = {k: levels.resize_shorter(v, self.side) for k, v in _images(record).items()}
        return small | {"name": record["name"]}


@dataclasses.dataclass(frozen=True)
class Several(grain.transforms.RandomMap):
    """`count` crops of one photo by another transform, copied out of it: {key: (count, h, w, 3), "name": str}."""

    transform: Transform
    count: int

    def random_map(self, record: Record, rng: np.random.Generator) -> Record:
        crops = [self.transform.random_map(record, rng) for _ in range(self.count)]
        return {k: np.stack([crop[k] for crop in crops]) for k in crops[0]} | {"name": record["name"]}


@dataclasses.dataclass(frozen=True)
class Stream:
    """Endless elements, one for each photo, by index: {key: (crops, h, w, 3), "name": str}."""

    photos: grain.MapDataset
    crops: int

    def __getitem__(self, index: int) -> Record:
        return self.photos[index]


def stream(source: Source, transform: Transform, seed: int, crops: int = 1, resize: int = 0) -> Stream:
    """Endless shuffled photos of `source` under `transform`; every epoch has an order and crops of its own.

    Args:
        source: of photos or pairs.
        transform: makes one crop.
        seed: of the order and the crops.
        crops: of one photo.
        resize: pixels of a photo's shorter side before it is cut; 0 leaves photos as they are.
    """
    large_enough = at_least(source, extent(transform, resize))
    photos = grain.MapDataset.source(large_enough).seed(seed).shuffle().repeat()
    if resize:
        photos = photos.map(Resize(resize))
    return Stream(photos.random_map(Several(transform, crops)), crops)


def extent(transform: Transform, resize: int = 0) -> int:
    """Pixels that a photo must have on either side before it is resized."""
    return 1 if resize else transform.extent


def rename(stream: Stream, names: Mapping[str, str]) -> Stream:
    """Only the images of `names`, from old key to new, and the name."""
    photos = stream.photos.map(lambda x: {new: x[old] for old, new in names.items()} | {"name": x["name"]})
    return dataclasses.replace(stream, photos=photos)


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of steps 0, 1, 2, … of one process: {key: (n, h, w, 3)}; "name": (n, streams), of the photos."""

    groups: grain.MapDataset  # of `crops` batches of the same photos: {key: (crops, n, h, w, 3), "name": (n, streams)}
    crops: int

    def __getitem__(self, step: int) -> Batch:
        return _batch(self.groups[step // self.crops], step % self.crops)


def batches(streams: Sequence[Stream], batch: int, process: int, processes: int) -> Batches:
    """The batches of one process, n = batch / processes images each.

    Args:
        streams: of equally many crops; a batch has the keys of all of them.
        batch: images over all processes; a multiple of their number.
        process, processes: this process's index, and how many there are.
    """
    (crops,) = {stream.crops for stream in streams}
    parts = [s.photos[:ENDLESS].batch(batch // processes, batch_fn=stack) for s in streams]
    return Batches(ZipMapDataset(parts).map(_join)[process::processes], crops)


def stack(elements: Sequence[Record]) -> Batch:
    """Elements of a stream to a group of batches: {key: (crops, n, h, w, 3), "name": (n,)}."""
    stacked = {k: np.stack([element[k] for element in elements], axis=1) for k in _images(elements[0])}
    return stacked | {"name": np.array([element["name"] for element in elements])}


def _join(parts: Sequence[Batch]) -> Batch:
    keys = Counter(key for part in parts for key in _images(part))
    if twice := [key for key, count in keys.items() if count > 1]:
        raise ValueError(f"two streams of one batch both name images {', '.join(twice)}; give each its own names")
    names = np.stack([part["name"] for part in parts], axis=1)
    return {k: v for part in parts for k, v in part.items()} | {"name": names}


def _batch(group: Batch, index: int) -> Batch:
    return {k: v[index] for k, v in _images(group).items()} | {"name": group["name"]}


def iterate(batches: Batches, start: int, stop: int, threads: int, prefetch: int) -> Iterator[Batch]:
    """Yields the batches of steps start, …, stop - 1, about `prefetch` of them prepared ahead by threads."""
    crops, first = batches.crops, start // batches.crops
    # A thread makes a whole group: with fewer places than threads some would idle.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, -(-prefetch // crops)))
    groups = batches.groups[first : -(-stop // crops)].to_iter_dataset(options)
    each = (_batch(group, index) for group in groups for index in range(crops))
    return itertools.islice(each, start - first * crops, stop - first * crops)
