"""The quality of JPEG that photos went through, found in their pixels.

In a block of 8×8 pixels each frequency was rounded to a multiple of its step, and the steps tell the quality: Fan and
de Queiroz, "Identification of bitmap compression history", IEEE Transactions on Image Processing, 2003.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import fft

from b2b_jax.models import jpeg
from b2b_jax.models.jpeg import BLOCK

QUALITIES = np.arange(5, 99)
COARSE = 3.0  # grey levels of a step: what is finer is lost in the rounding of pixels
ZERO = 0.6  # of a step, below which a coefficient is no multiple but zero, of any step
LOW = [(i, j) for i in range(4) for j in range(4) if 1 <= i + j <= 3]  # frequencies that photos have
FEWEST = 2000  # coefficients that are not zero
SURE = 0.6  # mean of cos(2π coefficient / step), 1 where all are multiples, 0 where none is


def quality(photos: Iterable[np.ndarray]) -> int:
    """The quality, 5 to 98, of uint8 photos (h, w, 3) that were all compressed alike and are not cut; 0 for none."""
    tables = [np.asarray(jpeg.steps(float(q))[0]) for q in QUALITIES]
    told = sum((fits(blocks(photo), tables) for photo in photos), np.zeros((len(tables), 2)))  # a photo at a time
    found = np.where(told[:, 1] >= FEWEST, told[:, 0] / np.maximum(told[:, 1], 1), 0.0)
    best = int(np.argmax(found))
    return int(QUALITIES[best]) if found[best] > SURE else 0


def blocks(photo: np.ndarray) -> np.ndarray:
    """The cosine transforms (n, 8, 8) of the luma of a photo's blocks."""
    h, w = (side // BLOCK for side in photo.shape[:2])
    luma = photo[: h * BLOCK, : w * BLOCK].astype(np.float32) @ jpeg.TO_YCC[0].astype(np.float32) - 128
    cut = luma.reshape(h, BLOCK, w, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
    return fft.dctn(cut, axes=(1, 2), norm="ortho")


def fits(spectra: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray:
    """`fit` of each of these tables of steps (8, 8): (tables, 2)."""
    return np.array([fit(spectra, steps) for steps in tables])


def fit(spectra: np.ndarray, steps: np.ndarray) -> tuple[float, int]:
    """How nearly the coefficients that are not zero are multiples of the steps (8, 8): a sum, up to their number."""
    total, count = 0.0, 0
    for at in LOW:
        if steps[at] >= COARSE:
            parts = spectra[:, *at] / steps[at]
            parts = parts[np.abs(parts) > ZERO]
            total += np.cos(2 * np.pi * parts).sum(dtype=np.float64)
            count += len(parts)
    return total, count
