"""The quality of JPEG that photos went through, found in their pixels.

In a block of 8×8 pixels each frequency was rounded to a multiple of its step, and the steps tell the quality: Fan and
de Queiroz, "Identification of bitmap compression history", IEEE Transactions on Image Processing, 2003.
"""

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import fft

from b2b_jax.models import jpeg
from b2b_jax.models.jpeg import BLOCK

QUALITIES = np.arange(5, 91)  # above 90 hardly any step of LOW reaches COARSE
COARSE = 3.0  # grey levels of a step: what is finer is lost in the rounding of pixels
ZERO = 0.6  # of a step, below which a coefficient is no multiple but zero, of any step
ALL = [(i, j) for i in range(BLOCK) for j in range(BLOCK) if i + j]
LOW = [(i, j) for i, j in ALL if i + j <= 3]  # frequencies that photos have
FEWEST = 2000  # coefficients that are not zero
SURE = 0.6  # mean of cos(2π coefficient / step), 1 where all are multiples, 0 where none is
SAMPLE = 4096  # blocks of a photo that tell how it is turned


def quality(photos: Iterable[np.ndarray]) -> int:
    """The quality, 5 to 90, of uint8 photos (h, w, 3) that were all compressed alike and are not cut; 0 for none.

    They may have been turned or mirrored since, each in its own way, as a camera's tag for its orientation tells.
    Between qualities of the same steps at the frequencies of LOW, such as 74 and 75, all frequencies decide.
    """
    tables = [np.asarray(jpeg.steps(float(q))[0]) for q in QUALITIES]
    alike = [[i for i, other in enumerate(tables) if same(other, table)] for table in tables]
    twins = [i for i, others in enumerate(alike) if len(others) > 1]
    low, every = np.zeros((len(tables), 2)), np.zeros((len(tables), 2))
    for photo in photos:  # one at a time
        spectra = as_stored(photo, tables)
        low += [fit(spectra, table, LOW) for table in tables]
        every[twins] += [fit(spectra, tables[i], ALL) for i in twins]
        del spectra
    found = np.where(low[:, 1] >= FEWEST, means(low), 0.0)
    best = int(np.argmax(found))
    if found[best] <= SURE:
        return 0
    return int(QUALITIES[max(alike[best], key=means(every).__getitem__)])


def same(table: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tables of steps (8, 8) cannot be told apart by LOW."""
    return all(max(table[at], COARSE) == max(other[at], COARSE) for at in LOW)


def as_stored(photo: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray:
    """The transforms (n, 8, 8) of a photo's blocks, turned as they fit one of the tables of steps (8, 8) best.

    The tables are not symmetric; and of sides that are not whole blocks, the last block ends up first.
    """

    def how_well(way: tuple[int, int, bool]) -> float:
        sample = turned(*way, SAMPLE)
        return means(np.array([fit(sample, table, LOW) for table in tables])).max()

    def turned(top: int, left: int, on_its_side: bool, most: int = 0) -> np.ndarray:
        spectra = blocks(photo[top:, left:], most)
        return spectra.swapaxes(1, 2) if on_its_side else spectra

    tops, lefts = ({0, side % BLOCK} for side in photo.shape[:2])
    return turned(*max(itertools.product(sorted(tops), sorted(lefts), (False, True)), key=how_well))


def means(fits: np.ndarray) -> np.ndarray:
    """Of sums and their numbers (n, 2): (n,)."""
    return fits[:, 0] / np.maximum(fits[:, 1], 1)


def blocks(photo: np.ndarray, most: int = 0) -> np.ndarray:
    """The cosine transforms (n, 8, 8) of a photo's blocks in luma, about `most` of them, evenly spread; 0 = all."""
    h, w = (side // BLOCK for side in photo.shape[:2])
    apart = math.isqrt(-(-h * w // most)) or 1 if most else 1
    cut = photo[: h * BLOCK, : w * BLOCK].reshape(h, BLOCK, w, BLOCK, 3)[::apart, :, ::apart]
    luma = cut.astype(np.float32) @ jpeg.TO_YCC[0].astype(np.float32) - 128
    cut = luma.swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
    return fft.dctn(cut, axes=(1, 2), norm="ortho")


def fit(spectra: np.ndarray, steps: np.ndarray, frequencies: Sequence[tuple[int, int]]) -> tuple[float, int]:
    """How nearly the coefficients that are not zero are multiples of the steps (8, 8): a sum, up to their number."""
    total, count = 0.0, 0
    for at in frequencies:
        if steps[at] >= COARSE:
            parts = spectra[:, *at] / steps[at]
            parts = parts[np.abs(parts) > ZERO]
            total += np.cos(2 * np.pi * parts).sum(dtype=np.float64)
            count += len(parts)
    return total, count
