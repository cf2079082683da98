"""The one decoder of a photo's kind, and the quick way to the pixels of most: 8-bit RGB in PNG and JPEG files.

Pillow is told which format it has before it, so that nothing else ever sees the file. The quick way is libspng and
libjpeg-turbo by imagecodecs: the same pixels in half the time (PNG) or a third (JPEG). Pillow keeps four bytes a pixel,
which it then copies twice more.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from b2b_jax import kinds
from b2b_jax.kinds import Kind


class RefusedError(ValueError):
    """A file that no decoder gets to see; the message continues after the file's path and a colon."""


def _raw(file: BinaryIO) -> Image.Image:
    from b2b_jax import raws  # imports rawpy, an optional package

    return raws.RawPhoto(file)  # unknown to Pillow, which would try it on everybody's files


def _heif(file: BinaryIO) -> Image.Image:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return Image.open(file, formats=("HEIF",))


def _jxl(file: BinaryIO) -> Image.Image:
    import pillow_jxl  # noqa: F401  # makes itself known to Pillow

    return Image.open(file, formats=("JXL",))


OPTIONAL: dict[str, tuple[str, Callable[[BinaryIO], Image.Image]]] = {
    kinds.RAW: ("raw", _raw),
    "HEIF": ("heif", _heif),
    "JXL": ("jxl", _jxl),
}
"""Formats that come with an extra of this package: its name, and what opens a file of the format."""

# Of tags that are broken: what is not kept for it is said by `inference.photos`.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
Image.init()  # here, not at the first photo: threads that met half of the formats would take photos for broken
# Varieties of grey TIFF files that Pillow could read and does not look for: white is 0, 12 bits of either byte order.
TiffImagePlugin.OPEN_INFO |= {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"MM", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"MM", 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
}


def open_image(file: BinaryIO, kind: Kind) -> Image.Image:
    """The photo as Pillow opens it, by the decoder of its kind alone. RefusedError: no photo, or no decoder for it."""
    if not kind.is_photo:
        raise RefusedError(
            f"not an image, but {kind.name}" if kind.name else "not an image, or broken from its start on"
        )
    try:
        if kind.decoder in OPTIONAL:
            return OPTIONAL[kind.decoder][1](file)
        if kind.decoder in Image.OPEN:
            return _with_scaled_key(Image.open(file, formats=(kind.decoder,)))
    except ImportError:
        how = f"pip install 'b2b_jax[{OPTIONAL[kind.decoder][0]}]' to read it, or save it as TIFF or PNG"
        raise RefusedError(f"a {kind.name} photo; {how}") from None
    except (Image.UnidentifiedImageError, SyntaxError):
        raise RefusedError(_unread(file, kind)) from None
    raise RefusedError(f"a {kind.name} photo, which this Pillow cannot read; get a newer Pillow, or save it as PNG")


def _with_scaled_key(image: Image.Image) -> Image.Image:
    """The image; the transparent level of a PNG of 2, 4 or 3 x 16 bits as one of 255, as Pillow gives the pixels."""
    if image.format == "PNG" and image.tile and image.tile[0][3] == "RGB;16B" and "transparency" in image.info:
        image.info["transparency"] = tuple(level >> 8 for level in image.info["transparency"])
        return image
    top = {"L;2": 3, "L;4": 15}.get(image.tile[0][3]) if image.format == "PNG" and image.tile else None
    key = image.info.get("transparency")
    if top and isinstance(key, int) and key <= top:
        image.info["transparency"] = key * 255 // top
    return image


def _unread(file: BinaryIO, kind: Kind) -> str:
    """Why Pillow does not know a file of a kind that it reads: of a TIFF, what its numbers are."""
    file.seek(0)
    with contextlib.suppress(Exception), tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        if page.dtype.itemsize > 2 or page.dtype.kind != "u":
            return (
                f"a TIFF with {page.samplesperpixel} channels of {page.dtype.name}; save it with 8 or 16 bits a channel"
            )
        if page.samplesperpixel > 1:
            return f"a TIFF with {page.samplesperpixel} channels, in a form that is not read; save it as RGB or grey"
    return f"not an image that can be read: {kind.name}, but broken or of a rare variety"


DECODERS = {"PNG": imagecodecs.spng_decode, "JPEG": imagecodecs.jpeg8_decode}  # spng: libpng prints warnings
UPRIGHT = ("HEIF", "JXL", kinds.RAW)  # formats whose EXIF orientation says nothing: decoders turn them
# What a PNG's chunk begins with, before its pixels or behind them, that may tell its orientation.
KEYWORDS = (b"exif\0", b"Raw profile type exif\0", b"xmp\0", b"XML:com.adobe.xmp\0")
ORIENTING = (b"eXIf", *(text + keyword for text in (b"tEXt", b"zTXt", b"iTXt") for keyword in KEYWORDS))


def plain(image: Image.Image) -> np.ndarray | None:
    """The pixels of an upright 8-bit RGB photo in a whole PNG or JPEG file, that Pillow has opened and not yet read.

    Returns:
      uint8 (h, w, 3), or None for all others and for broken ones: Pillow reads them, or says what is wrong.
    """
    simple = image.format in DECODERS and image.mode == "RGB" and not image.has_transparency_data
    if not simple or getattr(image, "is_animated", False) or image.info.get("progressive"):
        return None
    data = content(image)
    if not SOUND[image.format](image, data):
        return None
    try:
        pixels = DECODERS[image.format](data)
    # What the decoder refuses, or imagecodecs was built without.
    except (RuntimeError, ValueError, ImportError):
        return None
    fits = pixels.shape == (image.height, image.width, 3) and pixels.dtype == np.uint8
    return pixels if fits else None


def orientation(image: Image.Image) -> int:
    """The EXIF tag as it stands in the file's header, 1 to 8; 1 without one.

    HEIC and JPEG XL have a place of their own for it (ISO/IEC 23008-12, 18181-2), which decoders obey, as LibRaw does.
    """
    if image.format in UPRIGHT:
        return 1
    # A PNG's own getexif decodes it all to look for a chunk behind the pixels: 40 ms of a 720p frame.
    return told(Image.Image.getexif(image))


def told(exif: Image.Exif) -> int:
    """The orientation in EXIF data, 1 to 8; 1 for none and for what is no such number."""
    found = exif.get(ExifTags.Base.Orientation, 1)
    return int(found) if found in range(1, 9) else 1


def content(image: Image.Image) -> bytes:
    """The whole file; Pillow finds it as it left it."""
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    return data


def _sound_png(image: Image.Image, data: bytes) -> bool:
    """True for a PNG without orientation: asked early, Pillow would miss what stands behind the pixels ever after."""
    return not any(data.startswith(ORIENTING, place) for place in _chunks(data))


def _chunks(data: bytes) -> Iterator[int]:
    """Where the names of a PNG's chunks stand, up to the end or to what is no chunk."""
    place = 8  # behind the signature
    while place + 8 <= len(data):
        yield place + 4
        place += 12 + int.from_bytes(data[place : place + 4], "big")


def _sound_jpeg(image: Image.Image, data: bytes) -> bool:
    """True for an upright JPEG that is whole: libjpeg fills a cut-off one with grey. Its end marker is in no scan."""
    return data.endswith(b"\xff\xd9") and orientation(image) == 1


SOUND = {"PNG": _sound_png, "JPEG": _sound_jpeg}
