"""RealBlur's alignment: a result is warped onto the truth before it is scored, for the two come from two cameras.

Rim, Lee, Won and Cho, "Real-world blur dataset for learning and benchmarking deblurring algorithms", ECCV 2020: the
result's intensity is matched by one factor, a homography is found by ECC (Evangelidis and Psarakis, PAMI 2008), and
only pixels that the warp covers count. ECC is OpenCV's, as in all published tables: pip install 'b2b_jax[realblur]'.
Images are numpy NHWC float32 in [0, 1].
"""

import importlib.util

import numpy as np

from b2b_jax.errors import UserError

ITERATIONS, SMOOTHING = 100, 5  # of ECC, and the side in pixels of its Gaussian


def check() -> None:
    """UserError when OpenCV is not installed."""
    if not importlib.util.find_spec("cv2"):
        raise UserError("RealBlur's alignment needs OpenCV: pip install opencv-python-headless, or another protocol")


def align(restored: np.ndarray, sharp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Warps each result onto its truth.

    Args:
      restored: results (n, h, w, 3).
      sharp: their truths, of the same shape.

    Returns:
      The warped results, and the mask (n, h, w, 1), 1 where a warp has a pixel. Where ECC does not converge, the
      result stays where it is.
    """
    pairs = [_align_one(x, y) for x, y in zip(np.asarray(restored), np.asarray(sharp), strict=True)]
    warped, masks = zip(*pairs, strict=True)
    return np.stack(warped), np.stack(masks)


def _align_one(restored: np.ndarray, sharp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import cv2  # an optional extra

    matched = np.float32(np.sum(sharp * restored) / max(np.sum(restored * restored), 1e-12)) * restored
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 0)
    grey = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (sharp, matched)]
    warp = np.eye(3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(*grey, warp, cv2.MOTION_HOMOGRAPHY, criteria, None, SMOOTHING)
    except cv2.error:
        warp = np.eye(3, dtype=np.float32)
    size = sharp.shape[1::-1]
    mode = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(matched, warp, size, flags=mode, borderMode=cv2.BORDER_REFLECT)
    mode = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    mask = cv2.warpPerspective(np.ones_like(grey[0]), warp, size, flags=mode, borderMode=cv2.BORDER_CONSTANT)
    return warped, mask[..., None]
