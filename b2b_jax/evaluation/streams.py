"""Photos of a test set in batches of one size, read ahead by threads. Images are NHWC float32 in [0, 1]."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from b2b_jax import levels, sharding
from b2b_jax.data.sources import Record, Source
from b2b_jax.evaluation.protocols import reduce

Photos = Mapping[str, np.ndarray]  # images (n, h, w, 3) under "blurry", "sharp", maybe "known_blurry"
AHEAD = 2  # batches that are read while one is computed


class Reduced:
    """A source whose photos are reduced to a shorter side of `short_side` pixels."""

    def __init__(self, source: Source, short_side: int):
        self.source, self.short_side = source, short_side

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        record = self.source[index]
        return {k: v if k == "name" else reduce(v, self.short_side) for k, v in record.items()}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width after the reduction."""
        name, h, w = self.source.size(index)
        return name, *reduce(np.broadcast_to(np.uint8(0), (h, w, 1)), self.short_side).shape[:2]


class Batch(NamedTuple):
    """Records of one size: their indices, and the size of the array that they fill, the last one repeated."""

    indices: list[int]
    fill: int


def plan(sizes: Sequence[tuple[int, int]], batch: int, megapixels: float, devices: int = 1) -> list[Batch]:
    """Divides photos of the sizes (height, width) into batches of equal size, sizes in the order of their first photo.

    A batch has at most `batch` photos and `megapixels`, but at least one per device; one program serves all of a
    size, and its photos can be shared evenly by the devices.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(tuple(size), []).append(index)
    batches = []
    for (h, w), indices in groups.items():
        count = max(1, min(batch, len(indices), int(megapixels * 1e6 / (h * w))))
        batches += divided(indices, -(-count // devices) * devices)
    return batches


def divided(indices: Sequence[int], fill: int) -> list[Batch]:
    """Records of one size in batches of `fill`."""
    return [Batch(list(indices[start : start + fill]), fill) for start in range(0, len(indices), fill)]


def read_ahead(source: Source, batches: Sequence[Batch], threads: int) -> Iterator[tuple[list[str], Photos]]:
    """Names and float images of every batch; threads decode the next ones meanwhile."""
    with ThreadPoolExecutor(threads) as pool:
        pending = deque()
        for batch in batches:
            pending.append((batch, [pool.submit(source.__getitem__, index) for index in batch.indices]))
            if len(pending) > AHEAD:
                yield _stack(*pending.popleft())
        while pending:
            yield _stack(*pending.popleft())


def _stack(batch: Batch, futures: list) -> tuple[list[str], Photos]:
    records = [future.result() for future in futures]
    filled = records + records[-1:] * (batch.fill - len(records))
    keys = [key for key in records[0] if key != "name"]
    return [r["name"] for r in records], {k: levels.to_float(np.stack([r[k] for r in filled])) for k in keys}


def to_devices(photos: Photos) -> Photos:
    """The batch, split over the devices of this process where it has several; no other process evaluates."""
    if jax.local_device_count() == 1:
        return photos
    split = sharding.split(sharding.make_mesh(jax.local_devices()))
    return {key: jax.device_put(value, split) for key, value in photos.items()}
