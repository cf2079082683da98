"""The spectrum of a camera's noise, from the flattest windows of its photos: they show little else.

Nothing is assumed of the noise but that it is in all photos alike, so that what JPEG leaves of it is found as it is.
"""

import numpy as np

from b2b_jax.data.sources import Source
from b2b_jax.models.autocorrelation import hann
from b2b_jax.models.development import BINS, radius
from b2b_jax.stages import camera_photos

PHOTOS = 256  # that are looked at, at most
WINDOW = 32  # pixels a side
FLATTEST = 0.01  # share of the windows
FEWEST = 1000  # windows, below which even the flattest may show something
CLIPPED = 0.02  # share of a window's pixels that may be black or white: there noise is cut off


def spectrum(pile: Source) -> np.ndarray:
    """Power of the noise at each of BINS distances, of a range of 1: float32. Zeros where there are too few windows."""
    cut = np.concatenate([windows(pile[i]["image"]) for i in camera_photos.spread(pile, PHOTOS)])
    if len(cut) < FEWEST:
        return np.zeros(BINS, np.float32)
    flattest = cut[np.argsort(cut.var((1, 2)))[: int(FLATTEST * len(cut))]]
    weight = hann(WINDOW)[:, None] * hann(WINDOW)
    power = (np.abs(np.fft.rfft2(flattest * weight)) ** 2).mean(0) / np.square(weight).sum()
    nearest = np.rint(radius(WINDOW, WINDOW) * WINDOW).astype(int).ravel()
    mean = np.bincount(nearest, power.ravel()) / np.bincount(nearest)
    return np.interp(np.linspace(0, 0.5, BINS), np.arange(len(mean)) / WINDOW, mean).astype(np.float32)


def windows(photo: np.ndarray) -> np.ndarray:
    """The windows (n, WINDOW, WINDOW) of a uint8 photo (h, w, 3) in grey, less a plane each, that are not clipped."""
    clipped = tiled(((photo == 0) | (photo == 255)).any(-1)).mean((1, 2))
    grey = tiled(photo.mean(-1, dtype=np.float32) / 255)[clipped < CLIPPED]
    along = np.linspace(-1, 1, WINDOW, dtype=np.float32)
    for slope in (np.ones((1, 1)), along[:, None], along[None]):
        slope = np.broadcast_to(slope, (WINDOW, WINDOW))
        grey = grey - (grey * slope).sum((1, 2), keepdims=True) / np.square(slope).sum() * slope
    return grey


def tiled(x: np.ndarray) -> np.ndarray:
    """The whole windows (n, WINDOW, WINDOW) side by side in x (h, w), from the top left."""
    if min(x.shape) < WINDOW:
        return np.empty((0, WINDOW, WINDOW), x.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(x, (WINDOW, WINDOW))[::WINDOW, ::WINDOW]
    return windows.reshape(-1, WINDOW, WINDOW)
