"""What a photo's file says besides its pixels, colour profile and EXIF data: resolution, XMP, IPTC, texts, gamma.

Each is kept where the format of the output has a place for it, or named.
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, PngImagePlugin

PHOTOSHOP, IPTC = b"Photoshop 3.0\0", 0x0404  # a JPEG's segment APP13, and the resource of it with the IPTC records
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
LONGEST_EXIF, LONGEST_XMP = 65533, 65504  # bytes in a JPEG: those of a segment, less what announces XMP
# Chunks of a PNG: how its colours are meant (W3C PNG 3, section 11.3.2), and texts.
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
ELSEWHERE = (b"exif\0", b"Raw profile type exif\0", b"xmp\0", b"XML:com.adobe.xmp\0")  # texts that are read as such
SDR = {(1, 13), (1, 1), (1, 2), (1, 6), (2, 2), (2, 13), (6, 6), (5, 6), (2, 1), (2, 6)}
"""Primaries and transfer (ITU-T H.273) that every viewer takes for granted, or that say nothing."""
HEAD = 1 << 16  # bytes in which a HEIC or AVIF file says how its colours are coded
LARGEST_CHUNK = 1 << 20  # bytes
# What XMP data say of further pictures in the file, which stay behind: gain maps, depth, moving photos.
PARTS = (b"hdrgm:", b"GContainer", b"Container:Directory", b"MicroVideo", b"GDepth:", b"HDRGainMap")


@dataclass(frozen=True)
class Tags:
    """What is kept of a file; empty where it has none."""

    dpi: tuple[float, float] | None = None  # pixels of an inch, across and down
    xmp: bytes = b""
    xmp_extension: tuple[bytes, ...] = ()  # further segments of a JPEG, which `xmp` refers to
    iptc: bytes = b""  # records of IPTC-IIM
    comment: bytes = b""
    colours: tuple[tuple[bytes, bytes], ...] = ()  # chunks of a PNG, by name
    texts: tuple[tuple[bytes, bytes], ...] = ()


def read(path: Path, image: Image.Image, orientation: int, notes: list[str]) -> Tags:
    """The tags of a photo that Pillow has opened, for the upright photo; what cannot be kept joins the notes."""
    with path.open("rb") as file:
        chunks = png_chunks(file) if image.format == "PNG" else coding(file, image)
    xmp, segments = _bytes(image.info.get("xmp")), [data for _, data in getattr(image, "applist", [])]
    extension = [data for data in segments if data.startswith(XMP_EXTENSION)]
    if any(part in xmp for part in PARTS):
        notes.append("the XMP data, which tell of a gain map, depth or a moving part in the file, are left out")
        xmp, extension = b"", []
    return Tags(
        _dpi(image, orientation),
        upright(xmp),
        tuple(extension),
        _bytes((image.info.get("photoshop") or {}).get(IPTC)),
        _bytes(image.info.get("comment")) if image.format in ("JPEG", "MPO") else b"",
        tuple(chunk for chunk in chunks if chunk[0] in COLOUR_CHUNKS),
        tuple(chunk for chunk in chunks if chunk[0] in TEXT_CHUNKS),
    )


def _bytes(value: Any) -> bytes:
    """Formats give the same tag as bytes or as text."""
    return value.encode(errors="surrogateescape") if isinstance(value, str) else bytes(value or b"")


def _dpi(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    """None for a TIFF, whose EXIF data hold it, and where only the pixels' aspect is told."""
    found = image.info.get("dpi") if image.format in ("JPEG", "MPO", "PNG", "BMP") else None
    if not found or min(found) <= 0:
        return None
    across, down = map(float, found)
    return (down, across) if orientation >= 5 else (across, down)


def upright(xmp: bytes) -> bytes:
    """XMP data of a photo whose pixels have been turned as they are meant to be seen."""
    return re.sub(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[1-8]""", rb"\g<1>1", xmp)


def profile(path: Path, image: Image.Image) -> bytes:
    """The ICC profile of a photo; that of JPEG 2000, which Pillow passes over, from its box colr (15444-1, I.5.3.3)."""
    if image.format != "JPEG2000":
        return image.info.get("icc_profile") or b""
    with path.open("rb") as file:
        head = file.read(HEAD)
    place = head.find(b"colr\2")  # 2: a profile follows
    size = int.from_bytes(head[place - 4 : place], "big") if place >= 4 else 0
    found = head[place + 7 : place - 4 + size]
    return found if found[36:40] == b"acsp" and len(found) == size - 11 else b""


def coding(file: BinaryIO, image: Image.Image) -> list[tuple[bytes, bytes]]:
    """How the colours of a HEIC or AVIF photo without an ICC profile are coded, as the chunk cICP of a PNG.

    From the box colr of the type nclx (ISO/IEC 14496-12, 12.1.5): HDR photos are coded by PQ or HLG.
    """
    head = file.read(HEAD) if image.format in ("HEIF", "AVIF") and not image.info.get("icc_profile") else b""
    place = head.find(b"colrnclx")
    if place < 0 or place + 12 > len(head):
        return []
    primaries, transfer = struct.unpack_from(">HH", head, place + 8)
    known = (primaries, transfer) in SDR or max(primaries, transfer) > 255
    return [] if known else [(b"cICP", bytes([primaries, transfer, 0, 1]))]  # RGB, of the full range


def png_chunks(file: BinaryIO) -> list[tuple[bytes, bytes]]:
    """Chunks of colour and text of a PNG, without texts that hold EXIF or XMP data and without huge ones."""
    found, place = [], 8  # behind the signature
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return found
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        if name in COLOUR_CHUNKS + TEXT_CHUNKS and length <= LARGEST_CHUNK:
            data = file.read(length)
            found += [] if data.startswith(ELSEWHERE) else [(name, data)]
        place += 12 + length


# -------------------------------------------------------------------------------------------------------------- writing

HOLDS = {
    "PNG": ("resolution", "XMP data", "PNG colour data", "PNG texts", "ICC profile", "EXIF data"),
    "JPEG": ("resolution", "XMP data", "IPTC data", "comment", "ICC profile", "EXIF data"),
    "TIFF": ("resolution", "XMP data", "IPTC data", "ICC profile", "EXIF data"),
    "WEBP": ("XMP data", "ICC profile", "EXIF data"),
    "BMP": ("resolution",),
    "PPM": (),
}
"""What a file of each format can hold."""


def lost(tags: Tags, profile: bytes, exif: bytes, kind: str) -> str:
    """What a file of the format `kind` cannot hold, as a note; "" when it holds all."""
    there = {"resolution": tags.dpi and not exif, "XMP data": tags.xmp, "IPTC data": tags.iptc, "comment": tags.comment}
    there |= {"PNG colour data": tags.colours, "PNG texts": tags.texts, "ICC profile": profile, "EXIF data": exif}
    names = [name for name, value in there.items() if value and name not in HOLDS[kind]]
    return f"{kind} holds no {', no '.join(names)}: left out" if names else ""


def options(tags: Tags, kind: str) -> dict[str, Any]:
    """What Pillow's `save` is told, to write the tags to a file of the format `kind`."""
    what = {"dpi": tags.dpi} if tags.dpi else {}
    if kind == "PNG":
        return what | {"pnginfo": _png_info(tags)}
    if kind == "JPEG":
        segments = [_segment(0xED, PHOTOSHOP + _resource(tags.iptc))] if tags.iptc else []
        segments += [_segment(0xE1, data) for data in tags.xmp_extension]
        what |= {"extra": b"".join(segments)} if segments else {}
        what |= {"comment": tags.comment} if tags.comment else {}
    if kind == "TIFF":
        return what | {"tiffinfo": tiff_tags(tags)}
    return what | ({"xmp": tags.xmp} if tags.xmp else {})


def chunks(tags: Tags) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG that hold the tags, in their order."""
    inches = [round(value / 0.0254) for value in tags.dpi or ()]
    found = [*tags.colours] + ([(b"pHYs", struct.pack(">IIB", *inches, 1))] if inches else [])
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + tags.xmp  # not compressed, in no language
    return found + [*tags.texts] + ([(b"iTXt", xmp)] if tags.xmp else [])


def _png_info(tags: Tags) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for name, data in chunks(tags):
        if name != b"pHYs":  # which Pillow writes by itself
            info.add(name, data)
    return info


def tiff_tags(tags: Tags) -> dict[int, Any]:
    """The tags of a TIFF, without its resolution."""
    return ({700: tags.xmp} if tags.xmp else {}) | ({33723: tags.iptc} if tags.iptc else {})


def _segment(number: int, data: bytes) -> bytes:
    return b"\xff" + bytes([number]) + (len(data) + 2).to_bytes(2, "big") + data


def _resource(iptc: bytes) -> bytes:
    """A Photoshop image resource without a name, padded to an even length."""
    return b"8BIM" + struct.pack(">HHI", IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
