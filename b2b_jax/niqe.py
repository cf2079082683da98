"""NIQE, a score of naturalness without a reference; lower is better.

Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE Signal Processing Letters
2013. Blocks of 96 x 96 pixels are described by 36 numbers, whose mean and covariance over the image are compared with
those of sharp photos. Two published versions give different numbers, not to be compared with one another:

    basicsr   current BasicSR: luma rounded, MATLAB's antialiased bicubic reduction to the second scale
    nafnet    the older copy within NAFNet and Restormer: not rounded, bilinear reduction

Images are NHWC in [0, 1]. Features are computed in float64 on the accelerator, the 36 x 36 algebra on the host. The
numbers depend on the photos that the parameters were fitted to: always say which. In flat areas the published features
are made of the float32 rounding errors of the published code, so `_single` rounds wherever that code does.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import io, special

from b2b_jax import files
from b2b_jax.levels import luma

BLOCK = 96  # pixels, section II.C
SHARP = 0.75  # of the sharpest block's sharpness: the blocks from which the parameters are fitted, section II.B
DEFAULT = Path(__file__).with_name("niqe_photographs.npz")  # of tools/fit_niqe.py --bundled
VERSIONS = ("basicsr", "nafnet")
GREY = {
    "y": lambda x: 255 * luma(x),
    "gray": lambda x: 255 * (0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]),
}
KEYS = {"mean": ("mu_pris_param", "mu_prisparam"), "covariance": ("cov_pris_param", "cov_prisparam")}  # BasicSR, MATLAB
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # of neighbouring pixels, eq. 7

# The ratio of eq. 4 of its companion paper (Lasmar et al.), increasing in the shape alpha, inverted by search.
ALPHA = np.arange(0.2, 10.001, 0.001)
RATIO = special.gamma(2 / ALPHA) ** 2 / (special.gamma(1 / ALPHA) * special.gamma(3 / ALPHA))
BETA = np.sqrt(special.gamma(1 / ALPHA) / special.gamma(3 / ALPHA))
MEAN = special.gamma(2 / ALPHA) / special.gamma(1 / ALPHA)


class Parameters(NamedTuple):
    """What sharp photos look like: mean (36,) and covariance (36, 36) of the features, and a name to report."""

    mean: np.ndarray
    covariance: np.ndarray
    source: str


def niqe(
    x: jax.Array, parameters: Parameters, version: str = "basicsr", crop_border: int = 0, grey: str = "y"
) -> np.ndarray:
    """Distance of each image from sharp photos, eq. 10.

    Args:
      x: RGB images (n, h, w, 3) in [0, 1], of 8 bits; after the crop at least 96 x 192 or 192 x 96.
      parameters: of `load` or `fit`.
      version: one of VERSIONS.
      crop_border: pixels left out at each of the four borders.
      grey: "y" or "gray", OpenCV's weights.

    Returns:
      float64 (n,); NaN where fewer than two blocks have any contrast.

    Raises:
      ValueError: an unknown version, not RGB, or an image of fewer than two blocks.
    """
    with jax.enable_x64(True):
        values, _ = _features(_prepare(x, version, crop_border, grey), version)
    return np.array([_distance(one, parameters) for one in np.asarray(values, np.float64)])


def large_enough(height: int, width: int) -> bool:
    """True when an image has the two blocks that a covariance needs."""
    return (height // BLOCK) * (width // BLOCK) >= 2


def fit(photos: Iterable[np.ndarray], source: str) -> Parameters:
    """The parameters of sharp photos, from the sharp blocks of each, sections II.B and II.D.

    Args:
      photos: uint8 RGB (h, w, 3); those of less than one block are passed over.
      source: their name, for reports.

    Raises:
      ValueError: fewer blocks than the 37 that a covariance of 36 features needs.
    """
    rows = [_sharp_blocks(photo) for photo in photos if min(photo.shape[:2]) >= BLOCK]
    rows = np.concatenate(rows) if rows else np.zeros((0, 36))
    whole = rows[~np.isnan(rows).any(axis=1)]
    if len(whole) <= 36:
        raise ValueError(f"{len(whole)} sharp blocks of {BLOCK} pixels, wanted 37 at least; give more or larger photos")
    return Parameters(np.nanmean(rows, axis=0), np.cov(whole, rowvar=False), source)


def load(path: str | Path) -> Parameters:
    """Reads parameters from BasicSR's `niqe_pris_params.npz`, MATLAB's `modelparameters.mat`, or our own .npz.

    Raises:
      ValueError: the file holds no such parameters.
      OSError: it cannot be opened.
    """
    path = Path(path)
    try:
        found = io.loadmat(path) if path.suffix == ".mat" else dict(np.load(path))
    except OSError:
        raise
    except Exception as error:  # damaged bytes can raise anything
        raise ValueError(f"{path}: not a .npz or .mat file, or a damaged one ({error})") from error
    arrays = {name: next((found[key] for key in keys if key in found), None) for name, keys in KEYS.items()}
    mean, covariance = arrays.values()
    if mean is None or covariance is None or np.size(mean) != 36 or np.shape(covariance) != (36, 36):
        raise ValueError(f"{path}: no NIQE parameters; wanted arrays {' and '.join(k[0] for k in KEYS.values())}")
    source = str(found["source"]) if "source" in found else path.name
    return Parameters(np.asarray(mean, np.float64).ravel(), np.asarray(covariance, np.float64), source)


def save(path: str | Path, parameters: Parameters) -> None:
    """Writes parameters as .npz with BasicSR's names, whole or not at all."""
    names = {KEYS["mean"][0]: parameters.mean[None], KEYS["covariance"][0]: parameters.covariance}
    with files.draft(path) as part, part.open("wb") as file:  # by its name it would get another suffix
        np.savez(file, **names, source=parameters.source)


# ------------------------------------------------------------------------------------------------------------- features


def _prepare(x: jax.Array, version: str, crop_border: int, grey: str) -> np.ndarray:
    """Grey images (n, h, w) in [0, 255], whole blocks only."""
    if version not in VERSIONS or grey not in GREY:
        raise ValueError(f"got version {version!r} and grey {grey!r}, wanted {' or '.join(VERSIONS)}, y or gray")
    if x.ndim != 4 or x.shape[-1] != 3:
        raise ValueError(f"got shape {x.shape}, wanted (n, h, w, 3)")
    height, width = (length - 2 * crop_border for length in x.shape[1:3])
    if not large_enough(height, width):
        raise ValueError(f"NIQE needs two blocks of {BLOCK} pixels, got an image of {height} x {width}")
    rows, columns = (slice(crop_border, crop_border + size // BLOCK * BLOCK) for size in (height, width))
    eight_bits = np.rint(np.asarray(x[:, rows, columns], np.float64) * 255)
    if version == "basicsr":
        return _rounded(GREY[grey](eight_bits / 255))
    y = GREY[grey](np.float64(np.float32(eight_bits / 255)))
    return np.float64(np.float32(y / 255) * np.float32(255))


def _rounded(y: np.ndarray) -> np.ndarray:
    """Grey levels to whole ones, ties to even: OpenCV's weights make many, which rounding errors must not break."""
    return np.rint(np.round(y, 9))


@partial(jax.jit, static_argnames="version")
def _features(y: jax.Array, version: str) -> tuple[jax.Array, jax.Array]:
    """Grey images, float64, to the features of their blocks (n, blocks, 36), and the sharpness of these (n, blocks)."""
    normal, deviation = _normalised(y)
    half = _half_bicubic(y) if version == "basicsr" else _half_mean(y)
    coarse, _ = _normalised(half)
    values = [_describe(_blocks(x, size)) for x, size in ((normal, BLOCK), (coarse, BLOCK // 2))]
    return jnp.concatenate(values, axis=-1), jnp.mean(_blocks(deviation, BLOCK), axis=(2, 3))


def _single(x: jax.Array) -> jax.Array:
    """Float64 to the nearest float32, kept as float64: a cast and back would be optimised away."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)


def _window() -> np.ndarray:
    """Gaussian 7 x 7, sigma 7/6, of sum one: MATLAB's fspecial('gaussian', 7, 7/6)."""
    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    return np.outer(taps, taps) / taps.sum() ** 2


def _normalised(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(y - mean) / (deviation + 1) under the window, borders replicated, and the deviation: eq. 1 to 3."""
    h, w = y.shape[1:]
    padded = jnp.pad(y, [(0, 0), (3, 3), (3, 3)], mode="edge")
    squares = _single(padded * padded)
    mean = square = jnp.zeros_like(y)
    for (i, j), weight in np.ndenumerate(_window()):
        mean += weight * padded[:, i : i + h, j : j + w]
        square += weight * squares[:, i : i + h, j : j + w]
    mean, square = _single(mean), _single(square)
    deviation = _single(jnp.sqrt(jnp.abs(_single(square - _single(mean * mean)))))
    return _single(_single(y - mean) / _single(deviation + 1)), deviation


def _blocks(y: jax.Array, size: int) -> jax.Array:
    """(n, h, w) to (n, blocks, size, size)."""
    n, h, w = y.shape
    grid = y.reshape(n, h // size, size, w // size, size)
    return grid.transpose(0, 1, 3, 2, 4).reshape(n, -1, size, size)


def _describe(blocks: jax.Array) -> jax.Array:
    """The 18 features of one scale: (n, blocks, size, size) -> (n, blocks, 18), eq. 4 to 8."""
    # Stacked, so that one fit is compiled for all five.
    products = [jnp.ones_like(blocks), *(jnp.roll(blocks, shift, axis=(2, 3)) for shift in SHIFTS)]
    i, left, right = _fit_aggd(blocks * jnp.stack(products))
    mean = (right - left) * _look_up(MEAN, i)
    pairs = jnp.stack([_look_up(ALPHA, i), mean, left, right], axis=-1)[1:]  # (4, n, blocks, 4)
    first = jnp.stack([_look_up(ALPHA, i[0]), (left[0] + right[0]) / 2], axis=-1)
    return jnp.concatenate([first, *pairs], axis=-1)


def _fit_aggd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moment fit of an asymmetric generalised Gaussian: index of its shape in ALPHA, left and right scale."""
    square, axes = x * x, (-2, -1)
    left = jnp.sqrt(jnp.sum(square, axes, where=x < 0) / jnp.sum(x < 0, axes))
    right = jnp.sqrt(jnp.sum(square, axes, where=x > 0) / jnp.sum(x > 0, axes))
    skew = left / right
    ratio = jnp.mean(jnp.abs(x), axes) ** 2 / jnp.mean(square, axes)
    i = _nearest(ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2)
    return i, left * _look_up(BETA, i), right * _look_up(BETA, i)


def _nearest(ratio: jax.Array) -> jax.Array:
    """Index of the entry of RATIO nearest to each ratio; 0 for NaN, as NumPy's argmin gives."""
    middles = jnp.asarray((RATIO[1:] + RATIO[:-1]) / 2, ratio.dtype)
    return jnp.where(jnp.isnan(ratio), 0, jnp.searchsorted(middles, ratio))


def _look_up(table: np.ndarray, i: jax.Array) -> jax.Array:
    return jnp.asarray(table)[i]


def _half_mean(y: jax.Array) -> jax.Array:
    """Bilinear reduction by two without antialiasing: the mean of each 2 x 2 cell, in [0, 1]."""
    y = _single(y / 255)
    top, bottom = (_single(y[:, i::2, ::2] + y[:, i::2, 1::2]) for i in (0, 1))
    return _single(_single(top + bottom) / 4 * 255)


def _half_bicubic(y: jax.Array) -> jax.Array:
    """MATLAB's imresize by 0.5: the cubic kernel (a = -1/2) stretched by two, borders mirrored, rows first.

    In [0, 1] and in the order of a CPU's matrix products: fused over the rows, then in pairs along them.
    """
    taps = [float(np.float32(tap)) for tap in _cubic_taps()]
    total = 0
    for tap, row in zip(taps, _every_second(_single(y / 255), axis=1), strict=True):
        total = _single(total + tap * row)
    terms = [_single(tap * column) for tap, column in zip(taps, _every_second(total, axis=2), strict=True)]
    while len(terms) > 1:
        middle = len(terms) // 2
        terms = [_single(a + b) for a, b in zip(terms[:middle], terms[middle:], strict=True)]
    return _single(terms[0] * 255)


def _every_second(y: jax.Array, axis: int) -> list[jax.Array]:
    """The eight neighbours, three before to four after, of every second position of an axis, borders mirrored."""
    pads = [(3, 4) if i == axis else (0, 0) for i in range(3)]
    padded, size = jnp.pad(y, pads, mode="symmetric"), y.shape[axis]
    return [jax.lax.slice_in_dim(padded, i, i + size - 1, 2, axis) for i in range(8)]


def _cubic_taps() -> list[float]:
    """Keys' kernel at the distances of the eight pixels around the centre of a 2-cell, of sum one."""
    x = np.abs(np.arange(-3.5, 4)) / 2
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = np.where(x <= 1, near, far)
    return (taps / taps.sum()).tolist()


# -------------------------------------------------------------------------------------------------------------- algebra


def _distance(rows: np.ndarray, parameters: Parameters) -> float:
    """Eq. 10 for the features (blocks, 36) of one image."""
    whole = rows[~np.isnan(rows).any(axis=1)]
    if len(whole) < 2:
        return float("nan")
    difference = parameters.mean - np.nanmean(rows, axis=0)
    pooled = (parameters.covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


def _sharp_blocks(photo: np.ndarray) -> np.ndarray:
    """Features (k, 36) of the blocks of a uint8 photo that are nearly as sharp as its sharpest one."""
    h, w = (length // BLOCK * BLOCK for length in photo.shape[:2])
    with jax.enable_x64(True):
        values, sharpness = _features(_rounded(GREY["y"](photo[None, :h, :w] / 255)), "basicsr")
    sharpness = np.asarray(sharpness[0])
    return np.asarray(values[0], np.float64)[sharpness > SHARP * sharpness.max()]
