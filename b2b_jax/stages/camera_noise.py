"""The noise of a camera, from the flattest windows of its photos, which show little else; and its JPEG.

Of the noise nothing is assumed but that it is in all photos alike, so that its spectrum is found as JPEG has left it.
How much white noise there was before that is told by compressing flat photos alike.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from b2b_jax import sharding, terminal
from b2b_jax.data.processing import Processing
from b2b_jax.data.sources import Source, spread
from b2b_jax.models.autocorrelation import hann
from b2b_jax.models.development import BINS, radius
from b2b_jax.stages import camera_jpeg

PHOTOS = 256  # that are looked at, at most
COMPRESSED = 32  # of which JPEG is looked for, at most
WINDOW = 32  # pixels a side
FLATTEST = 0.01  # share of the windows
FEWEST = 1000  # windows, below which even the flattest may show something
CHUNK = 256  # windows that are computed with at once: bounds the memory, and fits caches
CLIPPED = 0.02  # share of a window's pixels that may be black or white: there noise is cut off
COARSE = 4  # of BINS, below which a spectrum may be that of what is shown
LEVELS = np.linspace(0.4, 0.6, 16)  # of flat photos, and
SIDE = 128  # their pixels,
CHOSEN = 0.1  # and the share of their windows that is taken: to take the flattest is to take those of less noise
DEVIATIONS = np.geomspace(0.5, 30, 24) / 255  # that are tried
VISIBLE = 0.5 / 255  # in grey: of a camera without noise the flattest windows show 0.4 / 255; JPEG may hide more


class Noise(NamedTuple):
    """What a camera adds, and how it compresses."""

    deviation: float  # standard deviation of white noise in each channel, of a range of 1
    quality: int  # of the JPEG after it; 0 = none


def found(pile: Source) -> Noise:
    """The noise and the JPEG of a camera's photos."""
    quality = camera_jpeg.quality(pile[i]["image"] for i in spread(pile, COMPRESSED))
    power = spectrum(pile)
    if not power.any() and sharding.is_first():
        print("camera: the blurry photos are too few or too small to find noise in them, so none is assumed")
    return Noise(deviation(power, quality), quality)


def deviation(power: np.ndarray, quality: int) -> float:
    """Of the white noise that leaves this spectrum behind such a JPEG; 0 where none can be seen."""
    rng, seen = np.random.default_rng(0), power[COARSE:].mean()
    if seen < VISIBLE**2:  # also what JPEG has wiped out, of which nobody can tell how much there was
        return 0.0

    def left(deviation: float) -> float:
        camera = Processing(noise=deviation, quality=quality)
        flat = [windows(camera.develop(rng, np.full((SIDE, SIDE, 3), level))) for level in LEVELS]
        cut = np.concatenate(flat)
        return float(power_of(cut[flattest(cut.var((1, 2)), CHOSEN)])[COARSE:].mean())

    return float(np.interp(seen, np.maximum.accumulate([left(size) for size in DEVIATIONS]), DEVIATIONS))


def spectrum(pile: Source) -> np.ndarray:
    """Power of the noise at each of BINS distances, of a range of 1: float32. Zeros where there are too few windows.

    Of few photos the windows overlap by a half.
    """
    photos = spread(pile, PHOTOS)
    for step in (WINDOW, WINDOW // 2):
        variances = [windows(pile[i]["image"], step).var((1, 2)) for i in looking(photos)]
        if sum(map(len, variances)) >= FEWEST:
            return power_of(those(pile, photos, variances, flattest(np.concatenate(variances), FLATTEST), step))
    return np.zeros(BINS, np.float32)


def looking(photos: Sequence[int]) -> Iterable[int]:
    """The photos, with a progress bar: large ones take seconds each."""
    return terminal.bar(photos, desc="looking for noise", unit="photo", leave=False)


def those(
    pile: Source, photos: Sequence[int], variances: Sequence[np.ndarray], numbers: np.ndarray, step: int
) -> np.ndarray:
    """The windows (n, WINDOW, WINDOW) of these `numbers`, counted over the photos: one photo is in memory at a time."""
    starts, cut = np.cumsum([0, *map(len, variances)]), np.empty((len(numbers), WINDOW, WINDOW))
    for photo, start, stop in zip(looking(photos), starts[:-1], starts[1:], strict=True):
        inside = (start <= numbers) & (numbers < stop)
        if inside.any():
            cut[inside] = windows(pile[photo]["image"], step)[numbers[inside] - start]
    return cut


def flattest(variances: np.ndarray, share: float) -> np.ndarray:
    """The numbers of this share of windows, those of the least variance."""
    return np.argsort(variances)[: int(share * len(variances))]


def power_of(cut: np.ndarray) -> np.ndarray:
    """The mean power of windows (n, WINDOW, WINDOW) at each of BINS distances: float32."""
    weight = hann(WINDOW)[:, None] * hann(WINDOW)
    total = np.zeros((1, WINDOW, WINDOW // 2 + 1))
    for start in range(0, len(cut), CHUNK):  # in the order of one sum over all, so that it has the same digits
        power = np.abs(np.fft.rfft2(cut[start : start + CHUNK] * weight)) ** 2
        total = np.concatenate([total, power]).sum(0, keepdims=True)
    power = total[0] / len(cut) / np.square(weight).sum()
    nearest = np.rint(radius(WINDOW, WINDOW) * WINDOW).astype(int).ravel()
    mean = np.bincount(nearest, power.ravel()) / np.bincount(nearest)
    return np.interp(np.linspace(0, 0.5, BINS), np.arange(len(mean)) / WINDOW, mean).astype(np.float32)


def windows(photo: np.ndarray, step: int = WINDOW) -> np.ndarray:
    """The windows (n, WINDOW, WINDOW) of a uint8 photo (h, w, 3) in grey, less a plane each, that are not clipped.

    step: pixels from one to the next.
    """
    clipped = tiled(((photo == 0) | (photo == 255)).any(-1), step).mean((1, 2))
    grey = tiled(photo.mean(-1, dtype=np.float32) / 255, step)[clipped < CLIPPED]
    level = np.empty(grey.shape)
    for start in range(0, len(grey), CHUNK):
        level[start : start + CHUNK] = levelled(grey[start : start + CHUNK])
    return level


def levelled(grey: np.ndarray) -> np.ndarray:
    """Windows (n, WINDOW, WINDOW) less a plane each."""
    along = np.linspace(-1, 1, WINDOW, dtype=np.float32)
    for slope in (np.ones((1, 1)), along[:, None], along[None]):
        slope = np.broadcast_to(slope, (WINDOW, WINDOW))
        grey = grey - (grey * slope).sum((1, 2), keepdims=True) / np.square(slope).sum() * slope
    return grey


def tiled(x: np.ndarray, step: int) -> np.ndarray:
    """The whole windows (n, WINDOW, WINDOW) in x (h, w), from the top left, every `step` pixels."""
    if min(x.shape) < WINDOW:
        return np.empty((0, WINDOW, WINDOW), x.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(x, (WINDOW, WINDOW))[::step, ::step]
    return windows.reshape(-1, WINDOW, WINDOW)
