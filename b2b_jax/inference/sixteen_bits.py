"""PNG and TIFF files of 16 bits a channel, which Pillow reads as 8 bits when they have colours or transparency.

Arrays are uint16, (h, w) or (h, w, c): grey, grey and alpha, RGB, RGBA.
"""

import io
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin, TiffImagePlugin

from b2b_jax.images import ImageError

PNG_HEADER = 33  # bytes of the signature and of the chunk IHDR, which comes first
EXIF_HEADER = 6  # bytes before the TIFF structure


def holds(path: Path, image: Image.Image) -> bool:
    """True when the file, which Pillow has opened as `image`, is one for this module."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(PNG_HEADER)[24] == 16
    if image.format != "TIFF":
        return False
    tags = image.tag_v2
    deep = set(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) == {16}
    unsigned = set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) == {1}
    # Black is zero (1) or RGB (2); Pillow turns the rest, such as CMYK, into something usual.
    return deep and unsigned and tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] in (1, 2)


def read(path: Path, kind: str) -> np.ndarray:
    """The pixels of a file that `holds` accepted, as they lie; `kind` is PNG or TIFF. ImageError: too many channels."""
    if kind == "PNG":
        return imagecodecs.png_decode(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        array = page.asarray()
        if array.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            array = np.moveaxis(array, 0, -1)
        if array.ndim > 3 or np.atleast_3d(array).shape[-1] > 4:
            raise ImageError(f"{path}: {page.axes} of {page.shape}, wanted grey or RGB with at most one alpha channel")
        return _unmultiplied(array) if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples else array


def _unmultiplied(array: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by their alpha, the last channel, as they were before."""
    colours, alpha = array[..., :-1].astype(np.float64), array[..., -1:]
    colours = np.minimum(np.rint(colours * 65535 / np.maximum(alpha, 1)), 65535)
    return np.concatenate([colours.astype(np.uint16), alpha], axis=-1)


def write_png(path: Path, array: np.ndarray, profile: bytes, exif: bytes) -> None:
    """Writes a PNG with its colour profile and EXIF data; either may be empty."""
    data, chunks = imagecodecs.png_encode(array), io.BytesIO()
    if profile:
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0", zlib.compress(profile))
    if exif:
        PngImagePlugin.putchunk(chunks, b"eXIf", exif[EXIF_HEADER:])
    path.write_bytes(data[:PNG_HEADER] + chunks.getvalue() + data[PNG_HEADER:])


def write_tiff(path: Path, array: np.ndarray, profile: bytes, exif: bytes) -> None:
    """Writes a TIFF, deflated, with its colour profile and EXIF data; either may be empty.

    EXIF data are a TIFF's directory without pixels: here they get the tags of an image, and the pixels after them.
    """
    kept, (h, w, channels) = Image.Exif(), np.atleast_3d(array).shape
    kept.load(exif)
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


WRITERS = {".png": write_png, ".tif": write_tiff, ".tiff": write_tiff}
