"""Pictures of one photo or frame as one: the input on the left, then what the networks made of it.

They come as channels, (h, w, 3 k), and leave as (h, k w, 3) or (k h, w, 3), uint8 or uint16.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from b2b_jax.inference.photos import Photo

Frames = Iterable[np.ndarray]

# What decoders play: the frames of level 5 of H.264 and VP9. A single video keeps its size, whatever that is.
MOST_PIXELS, LONGEST_SIDE = 4096 * 2176, 8192
# Pixels that a photo of the suffix can have.
WIDEST = dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), 65_500) | {".webp": 16_383}


def join(pictures: np.ndarray, axis: int = 1) -> np.ndarray:
    """(h, w, 3 k) to one picture (h, k w, 3), or (k h, w, 3) along axis 0."""
    parts = np.split(pictures, pictures.shape[-1] // 3, axis=-1)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def after_input(restore: Callable[[Frames], Frames]) -> Callable[[Frames], Frames]:
    """`restore` with the channels of the input before those of its own."""

    def both(frames: Frames) -> Iterator[np.ndarray]:
        waiting: deque[np.ndarray] = deque()

        def given() -> Iterator[np.ndarray]:
            for frame in frames:
                waiting.append(frame)
                yield frame

        for restored in restore(given()):
            yield np.concatenate([waiting.popleft(), restored], axis=-1)

    return both


def photo(original: Photo, pictures: np.ndarray, suffix: str) -> tuple[Photo, str]:
    """A photo of the pictures (h, w, 3 k) that keeps all else of the original, and what its owner should know.

    They lie side by side, or one upon the other where files of `suffix` cannot be so wide.
    """
    count, width = pictures.shape[-1] // 3, pictures.shape[1]
    axis = 0 if count > 1 and count * width > WIDEST.get(suffix.lower(), np.inf) else 1
    note = "" if axis else f"side by side is too wide for {suffix}: one upon the other"
    alpha = None if original.alpha is None else np.concatenate([original.alpha] * count, axis)
    return dataclasses.replace(original, pixels=join(pictures, axis), alpha=alpha), note


class Canvas(NamedTuple):
    """The stored frame of a video that holds several pictures, which a player may turn or mirror."""

    width: int
    height: int
    matrix: list[int] | None  # how a player turns it, nine numbers as FFmpeg keeps them
    note: str


def canvas(width: int, height: int, count: int, matrix: list[int] | None, swapped: bool = False) -> Canvas:
    """The stored frame in which `count` stored pictures of width x height are seen side by side.

    matrix: how a player turns it; `swapped` if stored rows are then seen as columns.
    """
    axis = 0 if swapped else 1
    full = (width * count, height) if axis else (width, height * count)
    percent = 100 if count == 1 else next((x for x in range(100, 1, -1) if _is_playable(*_shrunk(full, x))), 1)
    size = _shrunk(full, percent)
    note = "" if percent == 100 else f"side by side at {percent} % of its size, {size[0]} x {size[1]}, to be playable"
    return Canvas(*size, matrix and _moved(matrix, axis, size[0] / width, size[1] / height), note)


def _shrunk(size: tuple[int, int], percent: int) -> tuple[int, int]:
    """So many per cent of the size, in even pixels."""
    return size if percent == 100 else tuple(max(2 * round(side * percent / 200), 2) for side in size)


def _is_playable(width: int, height: int) -> bool:
    return width * height <= MOST_PIXELS and max(width, height) <= LONGEST_SIDE


def _moved(matrix: list[int], axis: int, wider: float, higher: float) -> list[int]:
    """The matrix with its shift, which brings a turned picture back into view, for the larger frame; it has 32 bits."""
    a, b, u, c, d, v, x, y, w = matrix
    shift = np.rint([x * (wider if axis else higher), y * (higher if axis else wider)])
    most = np.iinfo(np.int32)
    return [a, b, u, c, d, v, *shift.clip(most.min, most.max).astype(int).tolist(), w]
