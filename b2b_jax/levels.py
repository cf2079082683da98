"""The numbers of a photo: 8 or 16 bits to floats in [0, 1] and back, luma, and sizes.

A leaf, of numpy and Pillow alone: a data worker must not start an accelerator.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 of any shape to float32 in [0, 1]."""
    image = np.asarray(image)
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def to_uint8(x: Any) -> np.ndarray:
    """Numbers of any shape, clipped to [0, 1], to uint8; errors as those of `to_levels`."""
    return to_levels(x, np.uint8)


def to_levels(x: Any, dtype: npt.DTypeLike) -> np.ndarray:
    """Numbers of any shape, clipped to [0, 1], to uint8 or uint16; halves round to even.

    Raises:
      ValueError: a value is not finite, which no grey level could stand for.
    """
    x = np.asarray(x)
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} of {x.size} values are not finite, wanted numbers in [0, 1]")
    return np.rint(np.clip(x, 0, 1) * np.iinfo(dtype).max).astype(dtype)


TO_8_BITS = to_uint8(np.arange(65536) / 65535)
"""uint8 of every uint16: looking up takes three bytes a pixel, computing twenty."""


def luma(x: Any) -> Any:
    """Y of ITU-R BT.601 in studio range, as BasicSR and MATLAB's rgb2ycbcr compute it.

    Args:
      x: RGB (..., 3) in [0, 1], a numpy or jax array.

    Returns:
      (...) in [16/255, 235/255], of the same kind and dtype.
    """
    # Spelled out: a matrix product would lose digits to TF32 or bfloat16 on accelerators.
    return (65.481 * x[..., 0] + 128.553 * x[..., 1] + 24.966 * x[..., 2] + 16.0) / 255.0


def resize_shorter(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes uint8 (h, w, 3) so that its shorter side becomes `side` pixels, by Pillow's antialiased bicubic."""
    h, w = image.shape[:2]
    size = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
