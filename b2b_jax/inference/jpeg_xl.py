"""JPEG XL photos of more than 8 bits a channel, which the plugin for Pillow reads as 8 bits when they have colours.

Their depth stands at the start of the code stream (ISO/IEC 18181-1, annex D), whose fields are bits, lowest first.
"""

from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np

from b2b_jax import images

SIGNATURE = b"\xff\x0a"
FLOAT = 32  # what `depth` says of floats of any size
HEAD = 128  # bytes, more than all fields up to the depth

# A number is written as the index of one of four ways, two bits, and then so many bits, to which an offset is added.
Ways = tuple[tuple[int, int], ...]
SIDES: Ways = ((9, 1), (13, 1), (18, 1), (30, 1))
PREVIEW_EIGHTHS: Ways = ((0, 16), (0, 32), (5, 1), (9, 33))
PREVIEW: Ways = ((6, 1), (8, 65), (10, 321), (12, 1345))
ANIMATION: tuple[Ways, ...] = (
    ((0, 100), (0, 1000), (10, 1), (30, 1)),
    ((0, 1), (0, 1001), (8, 1), (10, 1)),
    ((0, 0), (3, 0), (16, 0), (32, 0)),
)
DEPTH: Ways = ((0, 8), (0, 10), (0, 12), (6, 1))


class Bits:
    """Numbers from bytes, lowest bits first; zeros after the end."""

    def __init__(self, data: bytes):
        self._value, self._place = int.from_bytes(data, "little"), 0

    def take(self, count: int = 1) -> int:
        """The number in the next `count` bits."""
        found = (self._value >> self._place) & ((1 << count) - 1)
        self._place += count
        return found

    def number(self, ways: Ways) -> int:
        """The number that the next bits write in one of four ways."""
        count, offset = ways[self.take(2)]
        return offset + self.take(count)


def depth(path: Path) -> int:
    """Bits of a channel: up to 16 of whole numbers, FLOAT of others; 8 where nothing tells."""
    with path.open("rb") as file:
        head = _codestream(file)
    if not head.startswith(SIGNATURE):
        return 8
    bits = Bits(head[len(SIGNATURE) :])
    _skip_size(bits, SIDES, 5)
    if bits.take():  # all that follows is as usual
        return 8
    if bits.take():
        _skip_extra_fields(bits)
    is_float = bits.take()
    return FLOAT if is_float else bits.number(DEPTH)


def _codestream(file: BinaryIO) -> bytes:
    """The first bytes of the code stream, which is the file or lies in one of its boxes."""
    head = file.read(HEAD)
    if head.startswith(SIGNATURE):
        return head
    start = 0
    while len(box := _at(file, start, 16)) >= 8:
        size, kind = int.from_bytes(box[:4], "big"), box[4:8]
        inside = 16 if size == 1 else 8
        size = int.from_bytes(box[8:16], "big") if size == 1 else size
        if kind in (b"jxlc", b"jxlp"):
            return _at(file, start + inside + 4 * (kind == b"jxlp"), HEAD)  # a part begins with its number
        if size < inside:
            break
        start += size
    return b""


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _skip_size(bits: Bits, ways: Ways, eighths: int) -> None:
    """Height, ratio and, without one, width; small ones as whole blocks of 8 pixels."""
    small = bits.take()
    for is_width in (False, True):
        if not is_width or not bits.take(3):
            bits.take(eighths) if small else bits.number(ways)


def _skip_extra_fields(bits: Bits) -> None:
    bits.take(3)  # the orientation
    if bits.take():
        _skip_size(bits, SIDES, 5)
    if bits.take():
        ways = PREVIEW_EIGHTHS if bits.take() else PREVIEW
        bits.number(ways)
        if not bits.take(3):
            bits.number(ways)
    if bits.take():
        for ways in ANIMATION:
            bits.number(ways)
        bits.take()


def read(path: Path) -> np.ndarray:
    """The upright photo, uint16 (h, w, c), whose levels are spread over all 16 bits. ImageError: it is broken."""
    try:
        array = imagecodecs.jpegxl_decode(path.read_bytes())
    except (RuntimeError, ValueError) as error:
        raise images.ImageError(f"{path}: cannot be read, truncated or broken ({error})") from error
    top = (1 << depth(path)) - 1
    levels = np.arange(top + 1, dtype=np.uint32)
    return ((levels * 65535 + top // 2) // top).astype(np.uint16)[np.minimum(array, top)]
