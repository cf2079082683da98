"""The quick way to the pixels of most photos: PNG and JPEG files of 8-bit RGB, without Pillow's copies.

libpng and libjpeg-turbo by imagecodecs, which Pillow's wheels hold, too: the same pixels in half the time (PNG) or a
third (JPEG). Pillow keeps four bytes a pixel, which it then copies twice more.
"""

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

DECODERS = {"PNG": imagecodecs.spng_decode, "JPEG": imagecodecs.jpeg8_decode}
# Where the orientation of a PNG may stand, before its pixels or behind them.
ORIENTED = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


def plain(image: Image.Image) -> np.ndarray | None:
    """The pixels of an upright 8-bit RGB photo in a whole PNG or JPEG file, that Pillow has opened and not yet read.

    Returns:
      uint8 (h, w, 3), or None for all others and for broken ones: Pillow reads them, or says what is wrong.
    """
    simple = image.format in DECODERS and image.mode == "RGB" and not image.has_transparency_data
    special = getattr(image, "is_animated", False) or image.info.get("progressive")
    if not simple or special or orientation(image) != 1:
        return None
    data = _content(image)
    if not _whole(data, image.format):
        return None
    try:
        pixels = DECODERS[image.format](data)
    # What the decoder refuses, or imagecodecs was built without.
    except (RuntimeError, ValueError, ImportError):
        return None
    fits = pixels.shape == (image.height, image.width, 3) and pixels.dtype == np.uint8
    return pixels if fits else None


def orientation(image: Image.Image) -> int:
    """The EXIF tag as it stands in the file's header, 1 to 8; 1 without one."""
    # A PNG's own getexif decodes it all to look for a chunk behind the pixels: 40 ms of a 720p frame.
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)


def _content(image: Image.Image) -> bytes:
    """The whole file; Pillow finds it as it left it."""
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    return data


def _whole(data: bytes, kind: str) -> bool:
    """False for a file that needs Pillow's care: a JPEG that is cut off, a PNG that may have to be turned.

    libpng refuses what is cut off; libjpeg fills it up with grey, but its end marker occurs in no scan.
    """
    return data.endswith(b"\xff\xd9") if kind == "JPEG" else not any(chunk in data for chunk in ORIENTED)
