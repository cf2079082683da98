"""JPEG 2000 photos with colours or transparency and more than 8 bits a channel.

Pillow reads those as 8 bits and rounds the brightest levels up to 256, which it stores as 0: white becomes black.
"""

import imagecodecs
import numpy as np
from PIL import Image

from b2b_jax import decoding
from b2b_jax.decoding import RefusedError

HEAD = 4096  # bytes in which the code stream begins
SIZE = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ


def depth(head: bytes) -> int:
    """Bits of a channel, by the first of them in the marker SIZ (ISO/IEC 15444-1, A.5.1); 8 where it says nothing."""
    place = head.find(SIZE) + 42
    return (head[place] & 0x7F) + 1 if 42 <= place < len(head) else 8


def is_deep(image: Image.Image) -> bool:
    """True for a photo of this module that Pillow has opened."""
    if image.format != "JPEG2000" or image.mode not in ("LA", "RGB", "RGBA"):
        return False
    return 8 < depth(decoding.content(image)[:HEAD]) <= 16


def read(image: Image.Image) -> np.ndarray:
    """The pixels of a photo that `is_deep`: uint16 (h, w, c) whose levels are spread over all 16 bits.

    RefusedError: it is broken, or has channels of several kinds.
    """
    data = decoding.content(image)
    try:
        array = imagecodecs.jpeg2k_decode(data)
    except (RuntimeError, ValueError) as error:
        raise RefusedError(f"cannot be read, truncated or broken ({error})") from error
    if array.shape != (image.height, image.width, len(image.getbands())) or array.dtype != np.uint16:
        raise RefusedError("channels of several sizes or signs, wanted equal ones; save it as TIFF or PNG")
    top = (1 << depth(data[:HEAD])) - 1
    levels = np.arange(top + 1, dtype=np.uint32)
    return ((levels * 65535 + top // 2) // top).astype(np.uint16)[np.minimum(array, top)]
