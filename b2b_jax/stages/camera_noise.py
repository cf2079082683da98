"""The spectrum of a camera's noise, from the flattest windows of its photos: they show little else.

Nothing is assumed of the noise but that it is in all photos alike, so that what JPEG leaves of it is found as it is.
"""

import numpy as np

from b2b_jax.data.sources import Source
from b2b_jax.models.development import BINS, radius

PHOTOS = 256  # that are looked at, at most
WINDOW = 32  # pixels a side
FLATTEST = 0.01  # share of the windows
FEWEST = 1000  # windows, below which even the flattest may show something
CLIPPED = 0.02  # share of a window's pixels that may be black or white: there noise is cut off


def spectrum(pile: Source) -> np.ndarray:
    """Power of the noise at each of BINS distances, of a range of 1: float32. Zeros where there are too few windows."""
    chosen = np.linspace(0, len(pile) - 1, min(PHOTOS, len(pile))).astype(int)
    return spectrum_of(np.concatenate([windows(pile[int(i)]["image"]) for i in chosen]))


def spectrum_of(cut: np.ndarray) -> np.ndarray:
    """The same, of windows (n, WINDOW, WINDOW)."""
    if len(cut) < FEWEST:
        return np.zeros(BINS, np.float32)
    flattest = cut[np.argsort(cut.var((1, 2)))[: int(FLATTEST * len(cut))]]
    weight = np.hanning(WINDOW + 2)[1:-1]
    weight = weight[:, None] * weight
    power = (np.abs(np.fft.rfft2(flattest * weight)) ** 2).mean(0) / np.square(weight).sum()
    nearest = np.rint(radius(WINDOW, WINDOW) * WINDOW).astype(int).ravel()
    mean = np.bincount(nearest, power.ravel()) / np.bincount(nearest)
    return np.interp(np.linspace(0, 0.5, BINS), np.arange(len(mean)) / WINDOW, mean).astype(np.float32)


def windows(photo: np.ndarray) -> np.ndarray:
    """The windows (n, WINDOW, WINDOW) of a uint8 photo (h, w, 3) in grey, less a plane each, that are not clipped."""
    clipped = side_by_side(((photo == 0) | (photo == 255)).any(-1)).mean((1, 2))
    grey = side_by_side(photo.mean(-1, dtype=np.float32) / 255)[clipped < CLIPPED]
    along = np.linspace(-1, 1, WINDOW, dtype=np.float32)
    for slope in (np.ones((1, 1)), along[:, None], along[None]):
        slope = np.broadcast_to(slope, (WINDOW, WINDOW))
        grey = grey - (grey * slope).sum((1, 2), keepdims=True) / np.square(slope).sum() * slope
    return grey


def side_by_side(photo: np.ndarray) -> np.ndarray:
    """The whole windows (n, WINDOW, WINDOW) of a photo (h, w), from the top left."""
    rows, columns = (side // WINDOW for side in photo.shape)
    whole = photo[: rows * WINDOW, : columns * WINDOW].reshape(rows, WINDOW, columns, WINDOW)
    return whole.swapaxes(1, 2).reshape(-1, WINDOW, WINDOW)
