"""Truth for blurry frames of a video, borrowed from sharp ones near by: found, warped onto them, kept where both agree.

The idea of BluRef (CVPR 2026, arXiv 2603.14176), which matches with a learnt network; here it is optical flow. A sharp
and a blurry frame cannot be matched as they are: two displaced copies look like two edges, of which the flow takes one.
So the blur between the two is estimated in turns with the motion, and laid on the sharp frame before it is matched:

    1. (x, y) = flow from the blurry frame b to k * s          at first of both under one wide Gaussian
    2. w = s at (x, y)
    3. k = argmin Σ t² |k * ∇w - ∇b|² + λ |k|²,                non-negative, of sum 1, its centroid in its middle
       t: where w and b agree roughly, for a moving thing would spoil k, and then the flow, for the whole frame

The centroid is where this project has the truth of a blurry photo. One kernel is found for a frame: where the blur
differs, as that of moving things, and where the flow is wrong or something is hidden, k * w and b disagree.

Frames are uint8 (h, w, 3).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from b2b_jax import levels
from b2b_jax.data import flow

ROUNDS = 3  # of 1 to 3: a fourth changes nothing
# Pixels: standard deviation of the Gaussian of the first round, under which copies 8 pixels apart are one edge.
FIRST = 6.0
SMOOTHING = 2.0  # pixels: of that of t
TRUSTED = 10 / 255  # difference under that Gaussian, up to which w and b agree roughly
NOISE = 1.0  # pixels: of the Gaussian that takes noise out of what k * w and b are compared in
REACH = 15  # pixels of a kernel to each side
SMALLEST = 2 * REACH + 2  # pixels of a frame's shorter side
RIDGE = 0.05  # λ, of the mean squared spectrum
EDGES = 0.5  # share of a frame's edges that must be kept: flat parts agree with anything
HAZE = 0.1  # of a kernel's peak, below which it is cut to zero
NEARLY = 0.8  # of the sharpest candidate's sharpness, with which a nearer frame is preferred


def choose(sharpness: Sequence[float], near: int, sharper: float) -> dict[int, int]:
    """Frames of one video that have a sharper one near by, each with that one.

    Args:
        sharpness: variance of every frame's Laplacian, in the order of the video; negative for one that is broken.
        near: frames before and after it among which the sharp one is looked for.
        sharper: times a frame's own sharpness that it must have.

    Returns:
        Index of the blurry frame to index of the sharp one: the nearest of those that are nearly as sharp as any.
    """
    found = {}
    for i, own in enumerate(sharpness):
        others = [
            j for j in range(max(i - near, 0), min(i + near + 1, len(sharpness))) if sharpness[j] > sharper * own >= 0
        ]
        best = max((sharpness[j] for j in others), default=0.0)
        nearly = [j for j in others if sharpness[j] >= NEARLY * best]
        if nearly:
            found[i] = min(nearly, key=lambda j, i=i: abs(i - j))
    return found


class Match(NamedTuple):
    """What a sharp frame tells of a blurry one."""

    sharp: np.ndarray  # uint8 (h, w, 3), moved onto the blurry frame
    kept: np.ndarray  # bool (h, w): where it is its truth
    kernel: np.ndarray  # (2 REACH + 1, 2 REACH + 1), the blur between the two

    def share(self, blurry: np.ndarray) -> float:
        """The share of the blurry frame that is kept; 0 where less than EDGES of its edges are."""
        return float(self.kept.mean()) if self.edges(blurry) >= EDGES else 0.0

    def edges(self, blurry: np.ndarray) -> float:
        """The share of the blurry frame's edges that is kept."""
        edges = np.hypot(*np.gradient(_smoothed(levels.to_float(blurry).mean(-1), NOISE)))
        return float((edges * self.kept).sum() / edges.sum()) if edges.any() else float(self.kept.mean())


def match(blurry: np.ndarray, sharp: np.ndarray, agreement: float) -> Match:
    """Moves the sharp frame onto the blurry one; both of one size, of at least SMALLEST pixels a side.

    `agreement` is the difference in grey levels, noise aside, up to which the moved frame under the estimated blur and
    the blurry frame agree.
    """
    import cv2  # an optional extra

    b, s = levels.to_float(blurry), levels.to_float(sharp)
    alike = _smoothed(b, FIRST), _smoothed(s, FIRST)
    for _ in range(ROUNDS):
        moved = flow.motion(*alike)
        warped = cv2.remap(s, moved.x, moved.y, cv2.INTER_CUBIC)
        kernel = _centred(blur_between(warped, b, _trust(warped, b, moved.seen)))
        alike = b, _blurred(s, kernel)
    differs = np.abs(_smoothed(_blurred(warped, kernel) - b, NOISE)).mean(-1)
    return Match(levels.to_uint8(warped), moved.seen & (differs <= agreement / 255), kernel)


def blur_between(sharp: np.ndarray, blurry: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """The kernel that makes the one of the other, floats (h, w, 3) of the same scene, by least squares on gradients.

    `trust` (h, w) weighs the pixels.
    """
    h, w, _ = sharp.shape
    window = trust * np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1])  # a spectrum wraps around the borders
    products = power = 0
    for axis in (0, 1):
        x, y = (np.fft.rfft2(window * np.gradient(image.mean(-1), axis=axis)) for image in (sharp, blurry))
        products, power = products + np.conj(x) * y, power + np.abs(x) ** 2
    whole = np.fft.irfft2(products / (power + RIDGE * power.mean() + 1e-12), s=(h, w))
    kernel = np.roll(whole, (REACH, REACH), (0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
    kernel = np.where(kernel > HAZE * kernel.max(), kernel, 0)
    return (kernel / kernel.sum()).astype(np.float32) if kernel.max() > 0 else _dot()


def _trust(warped: np.ndarray, blurry: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """1 where the two agree roughly and well inside of that, falling softly to 0: a hard edge would be a gradient."""
    import cv2

    agree = seen & (np.abs(_smoothed(warped - blurry, SMOOTHING)).mean(-1) <= TRUSTED)
    return _smoothed(cv2.erode(np.float32(agree), np.ones((5, 5), np.uint8)), SMOOTHING)


def _dot() -> np.ndarray:
    """The kernel of no blur, which stands for one that cannot be found: of frames without any gradient."""
    return np.pad(np.ones((1, 1), np.float32), REACH)


def _centred(kernel: np.ndarray) -> np.ndarray:
    """The kernel with its centroid in its middle."""
    import cv2

    place = np.arange(-REACH, REACH + 1, dtype=np.float32)
    shift = np.float32([[1, 0, kernel.sum(0) @ place], [0, 1, kernel.sum(1) @ place]])
    moved = cv2.warpAffine(kernel, shift, kernel.shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return moved / max(float(moved.sum()), 1e-6)


def _blurred(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.filter2D(image, -1, kernel[::-1, ::-1], borderType=cv2.BORDER_REFLECT)


def _smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image, (0, 0), sigma)
