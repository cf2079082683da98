"""Photos and frames of any size: whole where memory allows, else in overlapping tiles that are blended.

A tile starts at a multiple of the networks' stride, so that their strided convolutions meet the same pixels as in the
whole photo, and its side leaves the same remainder as the photo's, so that they pad the last tile just as they pad the
whole photo. What remains of a seam is what a network cannot see beyond a tile's edge: there a tile has no weight, which
rises to one as a raised cosine over the middle half of the overlap. A network that says how far its borders reach (its
`margin`) gets overlaps wide enough that no tile has weight there.

Against whole photos, overlaps of 64 pixels leave at most 0.1/255 with trained MIMO-UNets and 0.05 to 0.8/255 with
NAFNet-32 of random weights, from gentle to fierce; 32 pixels leave up to 6/255 of the last. What a network takes from
the whole photo, such as NAFNet's means, it takes from the tile instead.

Photos are uint8 or uint16 (h, w, 3); results have as many channels as the chain of networks gives.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from b2b_jax import levels
from b2b_jax.errors import UserError
from b2b_jax.inference import batching
from b2b_jax.inference.chain import Chain

TILE, OVERLAP = 512, 64  # pixels
RAMP = OVERLAP // 2  # pixels, over which a tile's weight rises at least, where the networks have a margin
# Pixels that run at once. A CPU takes twice as long for a pixel of four tiles of 512 as for one of a single tile, whose
# features its caches hold better; an accelerator wants to be filled.
PIXELS_AT_ONCE = {"cpu": TILE**2}
PIXELS_ON_ACCELERATOR = 8 * TILE**2
LARGEST_BATCH = 16


class Axis(NamedTuple):
    """The tiles along one axis."""

    starts: list[int]
    side: int
    weights: np.ndarray  # (len(starts), side) float32; at every pixel those of all tiles sum to 1


class Plan(NamedTuple):
    """How photos of one size are cut; a single tile is the whole photo."""

    rows: Axis
    columns: Axis
    batch: int  # tiles that run at once

    @property
    def tiles(self) -> int:
        """Tiles of one photo."""
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a batch of tiles."""
        return self.batch, self.rows.side, self.columns.side, 3


class Restorer:
    """Runs a chain of networks on photos and frames of any size.

    tile: largest side of a tile in pixels; 0 runs a photo whole if that takes at most `memory` bytes, else in tiles
    of TILE, or larger where strides or overlaps need it. overlap: pixels that neighbouring tiles share at least; more
    where the networks' margin needs it. UserError: the tile is no larger than its overlap.
    """

    def __init__(self, chain: Chain, tile: int = 0, overlap: int = OVERLAP, memory: int | None = None):
        wide = max(overlap, 2 * chain.margin + RAMP) if chain.margin else overlap
        smallest = wide + 2 * chain.stride
        if (tile and tile < smallest) or overlap < 0:
            advice = "a larger --tile" if 0 <= overlap < wide else "another --tile or --overlap"
            raise UserError(
                f"tiles of {tile or TILE} pixels cannot overlap by {overlap if overlap < 0 else wide}; these networks "
                f"need tiles of at least {smallest} for that: choose {advice}"
            )
        self._chain, self._tile, self._overlap = chain, tile, wide
        self._margin = max(wide / 4, chain.margin)
        usual = max(TILE, 4 * wide if chain.margin else smallest)  # wide overlaps would cut it in more pieces
        self._largest = tile or -(-usual // chain.stride) * chain.stride
        self._memory = memory_budget() if memory is None else memory

    @property
    def channels(self) -> int:
        """Of a restored photo: three for every network whose output is kept."""
        return self._chain.channels

    def plan(self, h: int, w: int) -> Plan:
        """Tiles for photos of h x w pixels. It compiles the tiles' program to learn what the whole photo would take."""
        tiled = self._cut(h, w, self._largest)
        if self._tile or tiled.tiles == 1:
            return tiled
        # All that a network keeps is in proportion to its pixels.
        bytes_per_pixel = self._chain.working_memory(tiled.shape) / math.prod(tiled.shape[:3])
        return self._cut(h, w, max(h, w)) if bytes_per_pixel * h * w <= self._memory else tiled

    def photo(self, photo: np.ndarray, plan: Plan, tick: Callable[[], object] = lambda: None) -> np.ndarray:
        """The restored photo, of the same dtype; `tick` is called after every tile. UserError: it is not finite."""
        (h, w), (rows, columns, batch) = photo.shape[:2], plan
        cut = (photo[y : y + rows.side, x : x + columns.side] for y in rows.starts for x in columns.starts)
        restored = batching.stream(self._run, cut, min(batch, plan.tiles))
        result = np.empty((h, w, self.channels), photo.dtype)
        band = np.zeros((rows.side, w, self.channels), np.float32)  # only the rows that tiles still add to
        for y, after, row_weights in zip(rows.starts, [*rows.starts[1:], h], rows.weights, strict=True):
            for x, column_weights in zip(columns.starts, columns.weights, strict=True):
                band[:, x : x + columns.side] += next(restored) * np.outer(row_weights, column_weights)[..., None]
                tick()
            result[y:after] = _levels(band[: after - y], photo.dtype)
            band = np.concatenate([band[after - y :], np.zeros_like(band[: after - y])])
        return result

    def frames(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The restored frames of a video, all of one size; whole frames run in batches. UserError as in `photo`."""
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            return
        plan, frames = self.plan(*first.shape[:2]), itertools.chain([first], frames)
        if plan.tiles == 1:
            restored = batching.stream(self._run, frames, plan.batch)
            yield from (_levels(x, first.dtype) for x in restored)
        else:
            yield from (self.photo(frame, plan) for frame in frames)

    def _run(self, batch: np.ndarray) -> jax.Array:
        floats = np.issubdtype(batch.dtype, np.floating)
        return self._chain(batch.astype(np.float32) if floats else levels.to_float(batch))

    def _cut(self, h: int, w: int, tile: int) -> Plan:
        rows, columns = (cut(length, tile, self._overlap, self._chain.stride, self._margin) for length in (h, w))
        at_once = PIXELS_AT_ONCE.get(jax.default_backend(), PIXELS_ON_ACCELERATOR)
        return Plan(rows, columns, min(max(at_once // (rows.side * columns.side), 1), LARGEST_BATCH))


def cut(length: int, tile: int, overlap: int, stride: int, margin: float) -> Axis:
    """Cuts `length` pixels into equal tiles of at most `tile`, evenly spread; the first to the last covers them all.

    They overlap by at least `overlap`, and have no weight within `margin` of their edges.
    """
    if length <= tile:
        return Axis([0], length, np.ones((1, length), np.float32))
    side = tile - (tile - length) % stride
    last, step = length - side, (side - overlap) // stride * stride
    count = math.ceil(last / step)
    starts = [round(i * last / count / stride) * stride for i in range(count + 1)]
    return Axis(starts, side, _weights(starts, side, overlap, margin))


def _weights(starts: list[int], side: int, overlap: int, margin: float) -> np.ndarray:
    """Raised-cosine ramps between the margins of two tiles, divided by what all tiles add up to at a pixel."""
    distance = np.arange(side) + 0.5  # pixels from the tile's edge
    ramp = np.sin(np.pi / 2 * np.clip((distance - margin) / max(overlap - 2 * margin, 0.5), 0, 1)) ** 2
    windows = np.ones((len(starts), side))
    windows[1:] *= ramp  # at its own edges the photo ends for the networks as it does in the whole
    windows[:-1] *= ramp[::-1]
    total = np.zeros(starts[-1] + side)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + side] += window
    return np.stack([w / total[s : s + side] for s, w in zip(starts, windows, strict=True)]).astype(np.float32)


def memory_budget() -> int:
    """Bytes that networks may take unasked: half of an accelerator's free memory; on a CPU a quarter, at most 4 GiB.

    More would gain nothing there, where tiles are the faster way.
    """
    if jax.default_backend() != "cpu" and (stats := jax.local_devices()[0].memory_stats()):
        return (stats["bytes_limit"] - stats["bytes_in_use"]) // 2
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4, 4 << 30)


def _levels(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Restored colours in the dtype of the photo: rounded levels of an integer's range, or floats in [0, 1]."""
    try:
        if np.issubdtype(dtype, np.floating):
            if not np.isfinite(x).all():
                raise ValueError("not all numbers are finite")
            return np.clip(x, 0, 1).astype(dtype)
        return levels.to_levels(x, dtype)
    except ValueError as error:
        raise UserError(f"the networks' output is broken: {error}; are these the right weights?") from error
