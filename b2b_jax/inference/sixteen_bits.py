"""PNG and TIFF files of 16 bits a channel, which Pillow reads as 8 bits when they have colours or transparency.

Arrays are uint16, (h, w) or (h, w, c): grey, grey and alpha, RGB, RGBA.
"""

import io
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from b2b_jax.images import ImageError

PNG_HEADER = 33  # bytes of the signature and of the chunk IHDR, which comes first
EXIF_HEADER = 6  # bytes before the TIFF structure
IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


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
    """Writes a TIFF, deflated, with its colour profile and EXIF data; either may be empty."""
    kept = Image.Exif()
    kept.load(exif)
    alpha = array.ndim == 3 and array.shape[-1] in (2, 4)
    tifffile.imwrite(
        path,
        array,
        photometric="rgb" if np.atleast_3d(array).shape[-1] > 2 else "minisblack",
        planarconfig="contig" if array.ndim == 3 else None,
        extrasamples=["unassalpha"] if alpha else None,
        compression="deflate",
        predictor=True,
        iccprofile=profile or None,
        metadata=None,
        software=False,
        extratags=[tag for key, value in kept.items() if (tag := _tag(key, value))],
    )
    for ifd in IFDS:
        if ifd in kept:
            _append(path, ifd, kept.get_ifd(ifd))


def _tag(key: int, value: object) -> tuple | None:
    """A tag as tifffile takes it: number, type, count, value, in the first page only; None for a kind left out."""
    if key in IFDS:
        return key, "I", 1, 0, True  # room for the offset that _append knows
    if isinstance(value, str):
        return key, "s", 0, value, True
    if isinstance(value, bytes):
        return key, "B", len(value), value, True
    if isinstance(value, TiffImagePlugin.IFDRational):
        return key, "2I", 1, value.limit_rational(2**31), True
    return (key, "I", 1, value, True) if isinstance(value, int) else None


def _append(path: Path, ifd: int, tags: dict) -> None:
    """Writes a directory of tags to the file's end and its place into the tag that points to it."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory.update(tags)
    with path.open("ab") as file:
        offset = file.tell() + file.tell() % 2  # directories begin on even bytes
        file.write(b"\0" * (offset - file.tell()) + directory.tobytes(offset))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[ifd].overwrite(offset)


WRITERS = {".png": write_png, ".tif": write_tiff, ".tiff": write_tiff}
