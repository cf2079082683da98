"""What a file is, told by its bytes: names lie, and a decoder that has to guess may run another's program.

A photo is handed to the one decoder of its kind; PostScript, PDF or a video that is called .png to none. Raw photos are
TIFF files, too, whose first picture is a thumbnail: the directories inside tell them from others.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

HEAD = 4096  # bytes that tell everything but which TIFF files are raw photos


class Kind(NamedTuple):
    """A kind of file. `decoder` is Pillow's name of the format of a photo, "" for everything else."""

    name: str
    decoder: str = ""
    is_video: bool = False

    @property
    def is_photo(self) -> bool:
        """True for everything that has to be read, or refused, as a photo."""
        return bool(self.decoder)


UNKNOWN = Kind("")
RAW = "RAW"  # the decoder of raw photos, `raws`
JPEG, TIFF, HEIC = Kind("JPEG", "JPEG"), Kind("TIFF", "TIFF"), Kind("HEIC", "HEIF")
TRANSPORT = Kind("MPEG transport stream", is_video=True)
VIDEO = Kind("MP4 or QuickTime", is_video=True)

SIGNATURES = {  # what a file begins with
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": Kind("PNG", "PNG"),
    b"GIF8": Kind("GIF", "GIF"),
    b"BM": Kind("BMP", "BMP"),
    b"\0\0\0\x0cjP  \r\n\x87\n": Kind("JPEG 2000", "JPEG2000"),
    b"\xff\x4f\xff\x51": Kind("JPEG 2000", "JPEG2000"),
    b"\0\0\0\x0cJXL \r\n\x87\n": Kind("JPEG XL", "JXL"),
    b"\xff\x0a": Kind("JPEG XL", "JXL"),
    b"qoif": Kind("QOI", "QOI"),
    b"FUJIFILMCCD-RAW": Kind("raw (Fujifilm)", RAW),
    b"IIU\0": Kind("raw (Panasonic)", RAW),
    b"IIRO": Kind("raw (Olympus)", RAW),
    b"IIRS": Kind("raw (Olympus)", RAW),
    b"MMOR": Kind("raw (Olympus)", RAW),
    b"\0MRM": Kind("raw (Minolta)", RAW),
    b"FOVb": Kind("raw (Sigma)", RAW),
    b"II\x1a\0\0\0HEAPCCDR": Kind("raw (Canon)", RAW),
    b"\x1aE\xdf\xa3": Kind("Matroska or WebM", is_video=True),
    b"\0\0\1\xba": Kind("MPEG program stream", is_video=True),
    b"\0\0\1\xb3": Kind("MPEG video", is_video=True),
    b"FLV\1": Kind("Flash video", is_video=True),
    b"0&\xb2u\x8ef\xcf\x11": Kind("Windows Media", is_video=True),
    b"OggS": Kind("Ogg", is_video=True),
    b"\6\x0e+4": Kind("MXF", is_video=True),
    b"YUV4MPEG2": Kind("YUV4MPEG", is_video=True),
    b"%!": Kind("PostScript"),
    b"\xc5\xd0\xd3\xc6": Kind("PostScript"),
    b"%PDF": Kind("PDF"),
    b"8BPS": Kind("Photoshop"),
    b"<svg": Kind("SVG"),
    b"#EXTM3U": Kind("playlist"),
    b"ffconcat": Kind("playlist"),
}

RIFF = {b"WEBP": Kind("WebP", "WEBP"), b"AVI ": Kind("AVI", is_video=True)}

# Brands of ISO base media files (ISO/IEC 14496-12 section 4.3) that are photos; all others are videos.
BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"), HEIC)
BRANDS |= dict.fromkeys((b"avif", b"avis"), Kind("AVIF", "AVIF"))
BRANDS |= {b"crx ": Kind("raw (Canon)", RAW), b"jp2 ": Kind("JPEG 2000", "JPEG2000")}
STRUCTURAL = (b"mif1", b"mif2", b"msf1")  # these say nothing of the coding: AVIF has them, too
OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def of(file: BinaryIO) -> Kind:
    """The kind of an open file, UNKNOWN when its bytes tell nothing; it is left at its beginning."""
    file.seek(0)
    head = file.read(HEAD)
    kind = of_head(head)
    if kind == TIFF and (head[8:10] == b"CR" or head[8:12] in (b"IIII", b"MMMM") or _is_raw(file, head)):
        kind = Kind("raw", RAW)
    file.seek(0)
    return kind


def of_head(head: bytes) -> Kind:
    """The kind that a file's first bytes tell; a raw photo that is a TIFF counts as TIFF."""
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TIFF
    if head[:4] == b"RIFF":
        return RIFF.get(head[8:12], UNKNOWN)
    if head[:1] == b"P" and head[1:2] in b"123456Ff" and head[2:3].isspace():
        return Kind("PPM", "PPM")
    if head[4:8] in OLD_QUICKTIME:
        return VIDEO
    found = next((kind for start, kind in SIGNATURES.items() if head.startswith(start)), UNKNOWN)
    return TRANSPORT if found == UNKNOWN and _is_transport(head) else found


def _is_transport(head: bytes) -> bool:
    """A packet of 188 bytes and the next begin with G; on Blu-ray and in cameras each follows a time stamp of 4."""
    return any(head[at : at + 1] == head[188 + 2 * at : 189 + 2 * at] == b"G" for at in (0, 4))


def _of_brands(head: bytes) -> Kind:
    """By the major brand; by the compatible ones when that tells only that it is a picture."""
    major, end = head[8:12], min(int.from_bytes(head[:4], "big"), len(head))
    if major not in STRUCTURAL:
        return BRANDS.get(major, VIDEO)
    brands = [head[place : place + 4] for place in range(16, end, 4)]
    return next((BRANDS[brand] for brand in brands if brand in BRANDS and brand not in STRUCTURAL), HEIC)


# ----------------------------------------------------------------------------------------------------------- raw photos

MOST_DIRECTORIES, MOST_TAGS = 64, 4096  # a hostile file may chain them for ever
DNG_VERSION, CFA_PATTERN, CFA_PATTERN_DIM, SUB_DIRECTORIES = 50706, 33422, 33421, 330
COMPRESSION, PHOTOMETRIC = 259, 262
SENSOR = {COMPRESSION: {34713, 32767, 32770, 65535, 34892}, PHOTOMETRIC: {32803, 34892}}  # NEF, ARW, SRW, PEF; DNG's
SIZES = {3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of the types that a tag of interest may have


def _is_raw(file: BinaryIO, head: bytes) -> bool:
    """True when a directory of the TIFF says that its pixels are a sensor's."""
    for tags in _directories(file, head):
        if DNG_VERSION in tags or CFA_PATTERN in tags or CFA_PATTERN_DIM in tags:
            return True
        if any(set(tags.get(tag, ())) & values for tag, values in SENSOR.items()):
            return True
    return False


def _directories(file: BinaryIO, head: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """The tags of every directory, those within others too; a broken one ends the search where it lies."""
    order, big = ("<" if head[:1] == b"I" else ">"), b"+" in head[2:4]
    first = head[8:16] if big else head[4:8]
    places = [int.from_bytes(first, "little" if order == "<" else "big")]
    seen = set()
    while places and len(seen) < MOST_DIRECTORIES:
        place = places.pop(0)
        if place in seen or not place:
            continue
        seen.add(place)
        try:
            tags, following = _directory(file, place, order, big)
        except (struct.error, OSError, OverflowError):
            continue
        places += [*tags.get(SUB_DIRECTORIES, ()), following]
        yield tags


def _directory(file: BinaryIO, place: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """The tags of interest at `place`, and where the next directory is."""
    number, entry, pointer = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    file.seek(place)
    (count,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
    size = struct.calcsize(order + entry)
    data, tail = file.read(min(count, MOST_TAGS) * size), file.read(struct.calcsize(order + pointer))
    tags = {}
    for tag, kind, many, value in struct.iter_unpack(order + entry, data):
        if tag in (COMPRESSION, PHOTOMETRIC, SUB_DIRECTORIES):
            tags[tag] = _values(file, order, kind, many, value)
        else:
            tags[tag] = ()
    return tags, struct.unpack(order + pointer, tail)[0] if count <= MOST_TAGS else 0


def _values(file: BinaryIO, order: str, kind: int, many: int, value: bytes) -> tuple[int, ...]:
    """The whole numbers of a tag, which lie in its entry or where that points; the file returns to its place."""
    size, many = SIZES.get(kind, 0), min(many, MOST_DIRECTORIES)
    letter = {2: "H", 4: "I", 8: "Q"}.get(size)
    if letter is None:
        return ()
    if size * many > len(value):
        here = file.tell()
        file.seek(struct.unpack(order + ("I" if len(value) == 4 else "Q"), value)[0])
        value = file.read(size * many)
        file.seek(here)
    return struct.unpack_from(f"{order}{many}{letter}", value)
