"""Photos on disk: reading, writing, finding. In memory they are uint8 RGB arrays (h, w, 3).

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
from PIL import Image, ImageOps
from PIL import TiffImagePlugin as TiffTags

from b2b_jax import decoding, files, folders, jpeg_2000, kinds, tiffs
from b2b_jax.budget import BYTES_PER_PIXEL, READERS
from b2b_jax.errors import shown
from b2b_jax.kinds import Kind
from b2b_jax.levels import TO_8_BITS

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


# Pillow alone warns above 89 million pixels and refuses above 179 million, less than a stitched panorama has;
# `read` compares the size in the header with MAX_PIXELS before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
SAVE = {
    ".png": {"format": "PNG"},
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jpe": _JPEG,
    ".jfif": _JPEG,
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},  # exact: under transparent pixels, too
    ".ppm": {"format": "PPM"},
    ".pgm": {"format": "PPM"},
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
        return _pixels(image)


def decode(data: bytes, name: str) -> np.ndarray:
    """The photo in the bytes of a file, as `read` gives it; `name` stands for the path in errors."""
    with opened(name, io.BytesIO(data)) as image:
        return _pixels(image)


def size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width in pixels of the photo that `read` would give, from its header alone; ImageError as there."""
    with opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer Pillows turn the size of a TIFF, and only that
            width, height = tiffs.tag(image, TiffTags.IMAGEWIDTH, width), tiffs.tag(image, TiffTags.IMAGELENGTH, height)
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
                tiffs.turn_to_whole_page(image)
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


def _pixels(image: Image.Image) -> np.ndarray:
    """The upright photo, uint8 (h, w, 3)."""
    pixels = decoding.plain(image)
    if pixels is not None:
        return pixels
    if jpeg_2000.is_deep(image):
        return _to_rgb(Image.fromarray(TO_8_BITS[jpeg_2000.read(image)]))
    return _to_rgb(upright(image))


def upright(image: Image.Image) -> Image.Image:
    """The photo as it is meant to be seen; the same object when it is so already."""
    return image if image.format in decoding.UPRIGHT else ImageOps.exif_transpose(image, in_place=True) or image


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Any Pillow mode to uint8 (h, w, 3). Pillow itself would clip modes I and F, and drop alpha over black."""
    if image.mode[0] in "IF":
        deep = tiffs.deep_grey(image)
        grey = TO_8_BITS[deep]
        if (transparent := image.info.get("transparency")) is not None:  # a level, of a PNG
            grey[deep == transparent] = 255
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


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
        save(part, Image.fromarray(image), **SAVE[path.suffix.lower()])


def save(path: Path, image: Image.Image, **options: Any) -> None:
    """Writes a photo as Pillow is told by `options`, in memory first.

    On a disk that fills up, Pillow's encoders of JPEG, TIFF, BMP and PPM take the part that fitted for the whole.

    Raises:
      OSError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    image.save(buffer, **options)
    path.write_bytes(buffer.getvalue())


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
