"""Where a video file ends by its own header, in bytes: in Matroska, WebM and AVI what is cut off is known exactly.

Matroska (RFC 9559): an EBML header, then one segment with its size. AVI (OpenDML): lists "RIFF", one after the other.
"""

import os
from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
LONGEST_HEADER = 1 << 20  # bytes of what is before the segment, some 40
RIFF, RIFF_HEAD = b"RIFF", 12  # bytes: the name, the size of what follows it, the kind


def lacking(path: Path) -> int:
    """How many bytes a file lacks of what it says to have; 0 for a whole one and where nothing tells."""
    with path.open("rb") as file:
        start = file.read(4)
        end = _segment(file) if start == EBML else _lists(file) if start == RIFF else 0
        return max(end - os.fstat(file.fileno()).st_size, 0)


def _segment(file: BinaryIO) -> int:
    """The end of a Matroska segment; 0 for one that was written without a size, as live streams are."""
    file.seek(min(_number(file), LONGEST_HEADER), os.SEEK_CUR)
    if file.read(4) != SEGMENT:
        return 0
    size = _number(file)
    return file.tell() + size if size else 0


def _number(file: BinaryIO) -> int:
    """A size of EBML (RFC 8794, section 4): the zeros before the first 1 count its further bytes. 0 for unknown."""
    first = (file.read(1) or b"\0")[0]
    count = 8 - first.bit_length()
    if count > 7:
        return 0
    rest = file.read(count)
    bits = 7 * (count + 1)
    value = int.from_bytes(bytes([first & (0x7F >> count)]) + rest, "big")
    return value if len(rest) == count and value != (1 << bits) - 1 else 0


def _lists(file: BinaryIO) -> int:
    """The end of the last list of an AVI; 0 where a size is 0, as a recorder leaves it that was stopped."""
    place = 0
    while True:
        file.seek(place)
        head = file.read(RIFF_HEAD)
        if len(head) < RIFF_HEAD or head[:4] != RIFF or head[8:11] != b"AVI":
            return place
        size = int.from_bytes(head[4:8], "little")
        if not size:
            return 0
        place += 8 + size
