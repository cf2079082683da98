"""Optical flow between two frames of a video: OpenCV's DIS (Kroeger et al., "Fast optical flow using dense inverse
search", ECCV 2016), an optional extra. Its way there and back tells what is occluded, with the thresholds of Sundaram,
Brox and Keutzer (ECCV 2010).

Frames are numpy (h, w, 3) float32 in [0, 1].
"""

from typing import NamedTuple

import numpy as np

from b2b_jax import levels

SMALLEST = 12  # pixels of a frame's shorter side that DIS needs


class Motion(NamedTuple):
    """Where the pixels of a frame lie in the frame before it, (h, w), and which of them both frames see."""

    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray


def motion(frame: np.ndarray, before: np.ndarray) -> Motion:
    """The motion between two frames of at least SMALLEST pixels a side."""
    import cv2  # an optional extra

    grey = [levels.to_uint8(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)) for x in (frame, before)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # The preset stops at half the resolution: of a shifted photo that leaves up to 11 grey levels, this 0.1.
    dis.setFinestScale(0)
    there, back = dis.calc(*grey, None), dis.calc(*grey[::-1], None)
    h, w = grey[0].shape
    x, y = np.moveaxis(there, -1, 0) + np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    returned = cv2.remap(back, x, y, cv2.INTER_LINEAR)
    lengths = (there**2).sum(-1) + (returned**2).sum(-1)
    consistent = ((there + returned) ** 2).sum(-1) < 0.01 * lengths + 0.5  # Sundaram et al., eq. (5)
    return Motion(x, y, consistent & (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1))
