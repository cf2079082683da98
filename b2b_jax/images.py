"""Photos on disk and in memory: reading, writing, finding, value ranges, luma and padding.

The one place for each of these. Photos are uint8 RGB arrays (h, w, 3); networks want float32 in [0, 1].
Of this package only leaves are imported, and of others numpy and Pillow: a data worker must not start an accelerator.
"""

import contextlib
import io
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL import TiffImagePlugin as TiffTags

from b2b_jax import decoding, files, folders, kinds
from b2b_jax.budget import BYTES_PER_PIXEL, READERS
from b2b_jax.errors import shown
from b2b_jax.kinds import Kind

RAW_EXTENSIONS = frozenset(
    {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".srf", ".raf", ".rw2", ".orf", ".pef", ".srw"}
    | {".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".x3f", ".rwl", ".mos", ".mef"}
)
"""Suffixes of cameras' raw photos: a TIFF file of such a name is a raw photo even if its tags do not say so."""

EXTENSIONS = RAW_EXTENSIONS | frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif", ".mpo"}
    | {".jpe", ".jfif", ".j2k", ".heic", ".heif", ".hif", ".jxl", ".qoi"}
)
"""Suffixes, in lower case, of the files that `find` takes for photos."""

VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".vob", ".mxf", ".asf", ".y4m", ".m2t", ".m2v", ".mod", ".tod", ".3g2", ".qt", ".dv", ".divx", ".f4v"}
)
"""Suffixes, in lower case, of the files in a folder that are taken for videos."""

MAX_PIXELS = 1 << 29
"""Largest photo that `read` decodes: 537 million pixels, 1.6 GB as RGB."""

NEW_SUBFILE_TYPE = 254  # a TIFF's tag; its lowest bit: a reduced copy of another picture in the file
PIXELS_AT_ONCE = 1 << 20  # pixels of float that are turned into levels at once

# Pillow alone warns above 89 million pixels and refuses above 179 million, less than a stitched panorama has;
# `read` compares the size in the header with MAX_PIXELS before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
SAVE = {
    ".png": {"format": "PNG"},
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True},
    ".ppm": {"format": "PPM"},
}
"""What Pillow is told to write for each suffix that a photo can be written under."""


class ImageError(ValueError):
    """A photo that cannot be used; the message is one line that starts with its path."""

    def __init__(self, message: object):
        super().__init__(shown(message))


def read(path: str | os.PathLike) -> np.ndarray:
    """Reads a photo as it is meant to be seen.

    The EXIF orientation is applied; grey, palette, CMYK and 16-bit photos become 8-bit RGB (16 bits are scaled,
    not clipped); transparent pixels are composited over white; of an animation the first frame is taken.
    Colour profiles are ignored.

    Args:
      path: photo of any kind in `kinds`, of at most MAX_PIXELS pixels; raw, HEIC and JPEG XL ask for an extra.

    Returns:
      uint8 (h, w, 3), RGB.

    Raises:
      ImageError: the file is missing, empty, truncated, no image, too large, or of an unknown value range.
    """
    with opened(path) as image:
        return _pixels(Path(path), image)


def decode(data: bytes, name: str) -> np.ndarray:
    """The photo in the bytes of a file, as `read` gives it; `name` stands for the path in errors."""
    with opened(name, io.BytesIO(data)) as image:
        return _pixels(Path(name), image)


def size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width in pixels of the photo that `read` would give, from its header alone; ImageError as there."""
    with opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer Pillows turn the size of a TIFF, and only that
            width, height = _tag(image, TiffTags.IMAGEWIDTH, width), _tag(image, TiffTags.IMAGELENGTH, height)
        return (width, height) if decoding.orientation(image) >= 5 else (height, width)


@contextlib.contextmanager
def opened(path: str | os.PathLike, content: io.BytesIO | None = None) -> Iterator[Image.Image]:
    """The file, or the content that stands for it, as Pillow opens it.

    Everything that goes wrong with it, in the block too, becomes an ImageError.
    """
    path = Path(path)
    try:
        with content or open_file(path) as file, decoding.open_image(file, _kind(path, file)) as image:
            _check_size(path, image)
            with READERS.take(image.width * image.height * BYTES_PER_PIXEL):
                _turn_to_whole_page(image)
                yield image
    except (ImageError, MemoryError):
        raise
    except decoding.RefusedError as error:
        raise ImageError(f"{path}: {error}") from None
    # Decoders meet broken bytes with whatever their parsing raises: OSError, SyntaxError, struct.error, KeyError, …
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: cannot be read, truncated or broken ({detail})") from error


def kind(path: str | os.PathLike) -> Kind:
    """What the file is, by its first bytes; ImageError as `open_file`."""
    with open_file(path) as file:
        return _kind(Path(path), file)


def _kind(path: Path, file: BinaryIO) -> Kind:
    found = kinds.of(file)
    return kinds.Kind("raw", kinds.RAW) if found == kinds.TIFF and path.suffix.lower() in RAW_EXTENSIONS else found


def open_file(path: str | os.PathLike) -> BinaryIO:
    """The file, open to be read; ImageError when it is missing, empty, or a pipe, which would block for ever."""
    path = Path(path)
    try:
        _check_file(path)
        return path.open("rb")
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened ({error.strerror})") from error


def _check_file(path: Path) -> None:
    """Names what is wrong with a path before it is opened."""
    if path.is_symlink() and not path.exists():
        raise ImageError(f"{path}: a broken link, its target {os.readlink(path)} does not exist")
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: a {'folder' if path.is_dir() else 'device or pipe'}, not a file")
    if status.st_size == 0:
        raise ImageError(f"{path}: the file is empty")


def _check_size(path: Path, image: Image.Image) -> None:
    w, h = image.size
    if h * w > MAX_PIXELS:
        raise ImageError(f"{path}: {w} x {h} is more than the limit of {MAX_PIXELS:,} pixels; cut it into parts")


def _turn_to_whole_page(image: Image.Image) -> None:
    """Of a TIFF whose first picture is a reduced copy, the first that is none. RefusedError without a whole one."""
    if image.format != "TIFF":
        return
    for page in range(image.n_frames):
        image.seek(page)
        if not _tag(image, NEW_SUBFILE_TYPE, 0) & 1:
            break
    else:
        raise decoding.RefusedError("a TIFF that shows only a reduced copy of its picture; save it again, whole")
    rows = max((tile[1][3] for tile in image.tile), default=0)
    height = _tag(image, TiffTags.IMAGELENGTH, 0)
    if rows < height:  # Pillow would leave the others black
        raise decoding.RefusedError(f"truncated or broken: it has pixels for {rows} of its {height} rows")


def _pixels(path: Path, image: Image.Image) -> np.ndarray:
    """The upright photo, uint8 (h, w, 3)."""
    pixels = decoding.plain(image)
    if pixels is not None:
        return pixels
    return _to_rgb(path, upright(image))


def upright(image: Image.Image) -> Image.Image:
    """The photo as it is meant to be seen; the same object when it is so already."""
    return image if image.format in decoding.UPRIGHT else ImageOps.exif_transpose(image, in_place=True) or image


def _to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """Any Pillow mode to uint8 (h, w, 3). Pillow itself would clip modes I and F, and drop alpha over black."""
    if image.mode[0] in "IF":
        return np.repeat(TO_8_BITS[deep_grey(path, image)][..., None], 3, axis=-1)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def deep_grey(path: str | os.PathLike, image: Image.Image) -> np.ndarray:
    """uint16 (h, w) of a photo in one of Pillow's modes I (whole numbers up to 65535) and F (numbers up to 1).

    ImageError: other numbers. A TIFF's 12 bits are spread over 16, and its white of 0 turned round.
    """
    values, peak = np.asarray(image), 1 if image.mode == "F" else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= peak):
        raise ImageError(f"{path}: grey values from {low:g} to {high:g}, wanted 0 to {peak}; save it with 8 or 16 bits")
    if image.mode == "F":
        rows = max(PIXELS_AT_ONCE // max(image.width, 1), 1)
        parts = [to_levels(values[top : top + rows], np.uint16) for top in range(0, len(values), rows)]
        levels = np.concatenate(parts)
    else:
        levels = _spread(path, values.astype(np.uint16, copy=False), _tag(image, TiffTags.BITSPERSAMPLE, 16))
    return 65535 - levels if _tag(image, TiffTags.PHOTOMETRIC_INTERPRETATION, 1) == 0 else levels


def _spread(path: str | os.PathLike, values: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of so many bits to all levels of 16."""
    if bits >= 16:
        return values
    top = (1 << bits) - 1
    if values.max() > top:
        raise ImageError(f"{path}: grey values up to {values.max()}, wanted at most {top}, for it has {bits} bits")
    return to_levels(np.arange(top + 1) / top, np.uint16)[values]


def _tag(image: Image.Image, tag: int, otherwise: int) -> int:
    """A TIFF's tag, of the first channel."""
    value = image.tag_v2.get(tag, otherwise) if image.format == "TIFF" else otherwise
    return value[0] if isinstance(value, tuple) else value


def write(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes a photo so that `path` holds the whole file or is untouched; missing folders are made.

    Args:
      path: its suffix chooses the format; JPEG has quality 95 without chroma subsampling, all others lose nothing.
      image: uint8 (h, w, 3), RGB.

    Raises:
      ImageError: unknown suffix, or not a uint8 RGB image.
      OSError: the disk is full or the folder cannot be written.
    """
    path, image = Path(path), np.asarray(image)
    if path.suffix.lower() not in SAVE:
        raise ImageError(f"{path}: cannot write {path.suffix or 'a name without suffix'}; use {' '.join(SAVE)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or image.size == 0:
        raise ImageError(f"{path}: got {image.dtype} {image.shape} to write, wanted uint8 (h, w, 3)")
    with files.draft(path) as part:
        Image.fromarray(image).save(part, **SAVE[path.suffix.lower()])


def find(folder: str | os.PathLike, extensions: Collection[str] = EXTENSIONS) -> list[Path]:
    """Photos in a folder, nested or flat, in natural order (2.png before 10.png); or files of other `extensions`.

    As `folders.walk` does; a broken link with a photo's name is listed, so that `read` reports it.

    Raises:
      ImageError: `folder` is not a folder, or one inside it cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder}: not a folder")
    found = folders.walk(folder, extensions)
    if found.unreadable:
        raise ImageError(found.unreadable[0])
    return found.files


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 of any shape to float32 in [0, 1]."""
    image = np.asarray(image)
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def to_uint8(x: Any) -> np.ndarray:
    """Numbers of any shape, clipped to [0, 1], to uint8; errors as those of `to_levels`."""
    return to_levels(x, np.uint8)


def to_levels(x: Any, dtype: npt.DTypeLike) -> np.ndarray:
    """Numbers of any shape, clipped to [0, 1], to uint8 or uint16; halves round to even.

    Raises:
      ValueError: a value is not finite, which no grey level could stand for.
    """
    x = np.asarray(x)
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} of {x.size} values are not finite, wanted numbers in [0, 1]")
    return np.rint(np.clip(x, 0, 1) * np.iinfo(dtype).max).astype(dtype)


TO_8_BITS = to_uint8(np.arange(65536) / 65535)
"""uint8 of every uint16: looking up takes three bytes a pixel, computing twenty."""


def luma(x: Any) -> Any:
    """Y of ITU-R BT.601 in studio range, as BasicSR and MATLAB's rgb2ycbcr compute it.

    Args:
      x: RGB (..., 3) in [0, 1], a numpy or jax array.

    Returns:
      (...) in [16/255, 235/255], of the same kind and dtype.
    """
    # Spelled out: a matrix product would lose digits to TF32 or bfloat16 on accelerators.
    return (65.481 * x[..., 0] + 128.553 * x[..., 1] + 24.966 * x[..., 2] + 16.0) / 255.0


def resize_shorter(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes uint8 (h, w, 3) so that its shorter side becomes `side` pixels, by Pillow's antialiased bicubic."""
    h, w = image.shape[:2]
    size = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
