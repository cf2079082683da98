"""How a dataset is scored: one literal table of named protocols, stated in every result.

What differs between published tables: colour or luma, the kind of SSIM, cropped borders, alignment, reduction. Two
numbers may only be compared under one protocol. Results are rounded to 8 bits before scoring in all of them.
Images are NHWC in [0, 1].
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from b2b_jax import metrics, niqe
from b2b_jax.errors import UserError
from b2b_jax.evaluation import alignment, temporal

Score = Callable[[jax.Array, jax.Array], np.ndarray]  # of results and truths (n, h, w, 3): (n,)
Measure = Callable[[jax.Array, jax.Array], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Protocol:
    """One way to score: what "psnr" and "ssim" mean, and what happens to the photos before."""

    text: str
    psnr: Callable
    ssim: Callable
    window: int = len(metrics.WINDOW)  # pixels of SSIM's, which has to fit into a photo; 1 where borders are replicated
    crop_border: int = 0  # pixels left out at each border
    align: bool = False  # RealBlur's alignment; only pixels that the warp covers count
    short_side: int = 0  # pixels; blurry photo and truth are reduced to it before the networks run; 0 = as they are


GAUSSIAN = "SSIM 11x11 Gaussian, sigma 1.5, per channel, valid part"
PROTOCOLS = {
    "standard": Protocol(f"RGB, whole image; PSNR peak 255; {GAUSSIAN} (BasicSR)", metrics.psnr, metrics.ssim),
    "luma": Protocol(
        "Y of BT.601, whole image; PSNR peak 255; SSIM 11x11 Gaussian, sigma 1.5, valid part (BasicSR)",
        metrics.psnr_y,
        metrics.ssim_y,
    ),
    "nafnet": Protocol(
        "RGB, whole image; PSNR peak 255; SSIM with an 11x11x11 Gaussian that mixes the channels, as NAFNet's scripts "
        "compute it: higher than the usual one",
        metrics.psnr,
        metrics.ssim_3d,
        window=1,
    ),
    "blur2blur": Protocol(
        "blurry photo and truth reduced by area averaging to a shorter side of 256 px before the networks run; RGB; "
        "PSNR peak 255; SSIM with an 11x11x11 Gaussian that mixes the channels (script of Blur2Blur, which reduces the "
        "truth; that the blurry photo is reduced likewise is our reading)",
        metrics.psnr,
        metrics.ssim_3d,
        window=1,
        short_side=256,
    ),
    "skimage": Protocol(
        "RGB, whole image; PSNR peak 255; SSIM of scikit-image: uniform 7x7 window, sample covariance, per channel",
        metrics.psnr,
        metrics.ssim_uniform,
        window=len(metrics.UNIFORM),
    ),
    "realblur": Protocol(
        f"RGB; each result aligned to its truth by ECC (homography) and one intensity factor, pixels outside the warp "
        f"left out; PSNR peak 255; {GAUSSIAN} (RealBlur)",
        metrics.psnr_masked,
        metrics.ssim_masked,
        align=True,
    ),
}
DATASETS = {"realblur_j": "realblur", "realblur_r": "realblur"}  # what "auto" means; "standard" for all others

EXTRAS: Mapping[str, Score] = {
    "psnr_y": metrics.psnr_y,
    "ssim_y": metrics.ssim_y,
    "ssim_3d": metrics.ssim_3d,
    "ssim_uniform": metrics.ssim_uniform,
}
# Pixels that a photo needs for a metric, where that is more than those of a Laplacian, which tells how blurred it is.
SMALLEST = {"ssim_y": len(metrics.WINDOW), "ssim_uniform": len(metrics.UNIFORM), "lpips": 16}
LAPLACIAN = 3
METRICS = ("psnr", "ssim", *EXTRAS, "niqe", "lpips", temporal.NAME)


def choose(name: str, dataset: str) -> tuple[str, Protocol]:
    """The protocol that `evaluation.protocol` names, or, for "auto", the dataset's own."""
    name = DATASETS.get(dataset, "standard") if name == "auto" else name
    if name not in PROTOCOLS:
        raise UserError(f"evaluation.protocol is {name!r}; it can be auto, {', '.join(PROTOCOLS)}")
    if PROTOCOLS[name].align:
        alignment.check()
    return name, PROTOCOLS[name]


def smallest(protocol: Protocol, names: Iterable[str]) -> int:
    """Pixels that the shorter side of a photo needs for the protocol and the metrics of these names."""
    return max(LAPLACIAN, protocol.window + 2 * protocol.crop_border, *(SMALLEST.get(name, 1) for name in names))


def make_measure(protocol: Protocol, extras: Mapping[str, Score]) -> Measure:
    """The scores of rounded results: PSNR and SSIM under the protocol, the others of the images as they are."""
    return lambda x, y: _basic(protocol, x, y) | {name: np.asarray(score(x, y)) for name, score in extras.items()}


def _basic(protocol: Protocol, x: jax.Array, y: jax.Array) -> dict[str, np.ndarray]:
    functions = {"psnr": protocol.psnr, "ssim": protocol.ssim}
    if protocol.align:
        warped, mask = alignment.align(x, y)
        return {name: np.asarray(function(warped, y, mask)) for name, function in functions.items()}
    return {name: np.asarray(function(x, y, crop_border=protocol.crop_border)) for name, function in functions.items()}


def natural(parameters: niqe.Parameters) -> Score:
    """NIQE of the results alone; NaN for images of fewer than two blocks."""

    def score(x: jax.Array, y: jax.Array) -> np.ndarray:
        large = niqe.large_enough(*x.shape[1:3])
        return niqe.niqe(x, parameters) if large else np.full(len(x), np.nan)

    return score


def reduce(image: np.ndarray, short_side: int) -> np.ndarray:
    """OpenCV's INTER_AREA: a uint8 photo (h, w, 3) reduced to a shorter side of `short_side` pixels.

    The longer side is int(long * (short_side / short)); a photo of that size or smaller stays as it is.
    """
    h, w = image.shape[:2]
    if min(h, w) <= short_side:
        return image
    ratio = short_side / min(h, w)
    size = [short_side if side == min(h, w) else int(side * ratio) for side in (h, w)]
    rows, columns = (_area_weights(side, new) for side, new in zip((h, w), size, strict=True))
    means = np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float64), columns, optimize=True)
    return np.floor(means + 0.5).astype(np.uint8)  # halves upwards, as OpenCV has them for factors of two


def _area_weights(old: int, new: int) -> np.ndarray:
    """(new, old): the share of each old pixel in each new one, rows of sum one."""
    edges = np.arange(new + 1) * (old / new)
    left, right = edges[:-1, None], edges[1:, None]
    overlap = np.clip(np.minimum(right, np.arange(1, old + 1)) - np.maximum(left, np.arange(old)), 0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)
