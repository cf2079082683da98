"""PNG, TIFF, JPEG XL and JPEG 2000 of 16 bits a channel: where there are colours or transparency Pillow makes them 8.

Arrays are uint16, (h, w) or (h, w, c): grey, grey and alpha, RGB, RGBA.
"""

import io
import re
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin, TiffImagePlugin

from b2b_jax import jpeg_2000, tiffs
from b2b_jax.inference import jpeg_xl, tags
from b2b_jax.inference.tags import Tags

PNG_HEADER = 33  # bytes of the signature and of the chunk IHDR, which comes first
HEAD = 4096  # bytes in which the other formats say how deep they are
INCH = 2  # a TIFF's unit of resolution
EXIF_HEADER = 6  # bytes before the TIFF structure


def holds(path: Path, image: Image.Image) -> bool:
    """True when the file, which Pillow has opened as `image`, is one for this module."""
    if image.format == "PNG":
        return depth(path, image) == 16
    if image.format == "JXL":
        deep = 8 < depth(path, image) <= 16 and image.mode in ("RGB", "RGBA", "LA")
        return deep and imagecodecs.JPEGXL.available
    if image.format != "TIFF":
        return jpeg_2000.is_deep(image)
    found = image.tag_v2
    deep = set(found.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) == {16}
    unsigned = set(found.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) == {1}
    # White is zero (0), black is zero (1) or RGB (2); Pillow turns the rest, such as CMYK, into something usual.
    return deep and unsigned and found[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] in (0, 1, 2)


def depth(path: Path, image: Image.Image) -> int:
    """Bits of a channel in the file that Pillow has opened as `image`; 8 where nothing tells."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if image.format == "HEIF":
        return image.info.get("bit_depth", 8)
    if image.format == "JXL":
        return jpeg_xl.depth(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
    return DEPTHS[image.format](head) if image.format in DEPTHS else 8


def _avif_depth(head: bytes) -> int:
    """10 or 12 where the codec's configuration (av1C, AV1-ISOBMFF section 2.3.3) says high bit depth."""
    flags = head[head.find(b"av1C") + 6] if 0 <= head.find(b"av1C") < len(head) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def _netpbm_depth(head: bytes) -> int:
    """From the largest level, the fourth word but for comments; 8 in files of black and white, which have none."""
    words = re.sub(rb"#[^\n]*", b"", head).split(maxsplit=4)
    return int(words[3]).bit_length() if len(words) > 3 and words[0] in NETPBM and words[3].isdigit() else 8


NETPBM = (b"P2", b"P3", b"P5", b"P6")
DEPTHS = {"PNG": lambda head: head[24], "AVIF": _avif_depth, "JPEG2000": jpeg_2000.depth, "PPM": _netpbm_depth}


def read(path: Path, image: Image.Image) -> np.ndarray:
    """The pixels of a file that `holds` accepted, as they lie, with 0 for black."""
    if image.format == "PNG":
        return imagecodecs.png_decode(path.read_bytes())
    if image.format == "JXL":
        return jpeg_xl.read(path)
    if image.format == "JPEG2000":
        return jpeg_2000.read(image)
    with tifffile.TiffFile(path) as file:
        return tiffs.pixels(file.pages[image.tell()])


def write_png(path: Path, array: np.ndarray, profile: bytes, exif: bytes, kept: Tags) -> None:
    """Writes a PNG with its colour profile, EXIF data and tags; any may be empty."""
    data, chunks = imagecodecs.png_encode(array), io.BytesIO()
    for name, content in tags.chunks(kept):
        PngImagePlugin.putchunk(chunks, name, content)
    if profile:
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0", zlib.compress(profile))
    if exif:
        PngImagePlugin.putchunk(chunks, b"eXIf", exif[EXIF_HEADER:])
    path.write_bytes(data[:PNG_HEADER] + chunks.getvalue() + data[PNG_HEADER:])


def write_tiff(path: Path, array: np.ndarray, profile: bytes, exif: bytes, more: Tags) -> None:
    """Writes a TIFF, deflated, with its colour profile, EXIF data and tags; any may be empty.

    EXIF data are a TIFF's directory without pixels: here they get the tags of an image, and the pixels after them.
    """
    kept, (h, w, channels) = Image.Exif(), np.atleast_3d(array).shape
    kept.load(exif)
    if more.dpi:
        names = (TiffImagePlugin.X_RESOLUTION, TiffImagePlugin.Y_RESOLUTION, TiffImagePlugin.RESOLUTION_UNIT)
        kept.update(zip(names, (*more.dpi, INCH), strict=True))
    kept.update(tags.tiff_tags(more))
    kept.update(
        {
            TiffImagePlugin.IMAGEWIDTH: w,
            TiffImagePlugin.IMAGELENGTH: h,
            TiffImagePlugin.BITSPERSAMPLE: (16,) * channels,
            TiffImagePlugin.COMPRESSION: tifffile.COMPRESSION.ADOBE_DEFLATE.value,
            TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 2 if channels > 2 else 1,  # RGB, or grey with 0 for black
            TiffImagePlugin.SAMPLESPERPIXEL: channels,
            TiffImagePlugin.STRIPOFFSETS: 0,  # from the directory's end, to Pillow
            TiffImagePlugin.ROWSPERSTRIP: h,
            TiffImagePlugin.PREDICTOR: 2,  # differences along rows
        }
    )
    if channels in (2, 4):
        kept[TiffImagePlugin.EXTRASAMPLES] = tifffile.EXTRASAMPLE.UNASSALPHA.value
    if profile:
        kept[TiffImagePlugin.ICCPROFILE] = profile
    order = kept.tobytes()[EXIF_HEADER:][:1]
    pixels = array.astype(">u2" if order == b"M" else "<u2")
    pixels[:, 1:] -= array[:, :-1]
    strip = zlib.compress(pixels.tobytes())
    kept[TiffImagePlugin.STRIPBYTECOUNTS] = len(strip)
    path.write_bytes(kept.tobytes()[EXIF_HEADER:] + strip)


def write_pgm(path: Path, array: np.ndarray, *_: object) -> None:
    """Writes a PGM, which holds nothing but pixels; colours make a PPM of it."""
    h, w, channels = np.atleast_3d(array).shape
    head = f"P{6 if channels == 3 else 5}\n{w} {h}\n65535\n"
    path.write_bytes(head.encode() + array.astype(">u2").tobytes())


WRITERS = {".png": write_png, ".tif": write_tiff, ".tiff": write_tiff, ".pgm": write_pgm}
