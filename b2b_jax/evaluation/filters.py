"""The honest rival of a trained translator: the best of a family of fixed filters in front of the deblurrer.

It is chosen with the ground truth of the very photos it is then scored on, which no real camera could grant it: a
translator that only reaches it has found without any truth what the filter needed the truth for.
Images are numpy NHWC float32 in [0, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from b2b_jax.data import blur

CAMERA_GAMMA = 2.2


class Filter(NamedTuple):
    """`before` runs in front of the deblurrer, `after` behind it."""

    name: str
    before: Callable[[np.ndarray], np.ndarray]
    after: Callable[[np.ndarray], np.ndarray]


def family() -> list[Filter]:
    """Boxes along and across the motion, plus shapes, Gaussians, unsharp masks, and deblurring in linear light."""
    along = [_kernel(f"horizontal box, {w} px", blur.box_filter_kernel(w)) for w in range(2, 10)]
    across = [_kernel(f"vertical box, {w} px", blur.box_filter_kernel(w, 90.0)) for w in (3, 5)]
    plus = [_kernel(f"plus, {w} px", _plus(w)) for w in (3, 5)]
    soft = [_kernel(f"Gaussian, sigma {s} px", blur.gaussian_kernel(s)) for s in (0.5, 0.8, 1.1, 1.4, 1.8)]
    return along + across + plus + soft + [_unsharp(amount) for amount in (0.5, 1.0)] + [_linear_light()]


def choose(
    restore: Callable[[np.ndarray], np.ndarray], score: Callable[[np.ndarray], float], blurry: np.ndarray
) -> Filter:
    """The filter whose restored photos score best.

    Args:
        restore: the deblurrer, on images (n, h, w, 3).
        score: mean quality of restored images (n, h, w, 3), which knows the truth.
        blurry: the photos (n, h, w, 3).
    """
    return max(family(), key=lambda f: score(f.after(restore(f.before(blurry)))))


def _same(images: np.ndarray) -> np.ndarray:
    return images


def _kernel(name: str, kernel: np.ndarray) -> Filter:
    return Filter(name, lambda images: np.clip(blur.apply(images, kernel), 0.0, 1.0), _same)


def _plus(width: int) -> np.ndarray:
    return (blur.box_filter_kernel(width) + blur.box_filter_kernel(width, 90.0)) / 2


def _unsharp(amount: float, sigma: float = 1.5) -> Filter:
    kernel = blur.gaussian_kernel(sigma)
    sharpen = lambda images: np.clip(images + amount * (images - blur.apply(images, kernel)), 0.0, 1.0)  # noqa: E731
    return Filter(f"unsharp mask, amount {amount}", sharpen, _same)


def _linear_light() -> Filter:
    return Filter("linear light", lambda x: x**CAMERA_GAMMA, lambda x: np.clip(x, 0.0, 1.0) ** (1 / CAMERA_GAMMA))
