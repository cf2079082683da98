"""Photos on disk and in memory: reading, writing, finding, value ranges, luma and padding.

The one place for each of these. Photos are uint8 RGB arrays (h, w, 3); networks want float32 in [0, 1].
Of this package only leaves are imported, and of others numpy and Pillow: a data worker must not start an accelerator.
"""

import contextlib
import io
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from b2b_jax import decoding, files, folders
from b2b_jax.errors import shown

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif", ".mpo"}
)
"""Suffixes, in lower case, of the files that `find` takes for photos."""

VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".vob", ".mxf", ".asf", ".y4m"}
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
      path: file of any kind that Pillow reads, of at most MAX_PIXELS pixels.

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
        return (width, height) if decoding.orientation(image) >= 5 else (height, width)


@contextlib.contextmanager
def opened(path: str | os.PathLike, content: io.BytesIO | None = None) -> Iterator[Image.Image]:
    """The file, or the content that stands for it, as Pillow opens it.

    Everything that goes wrong with it, in the block too, becomes an ImageError.
    """
    path = Path(path)
    try:
        if content is None:
            _check_file(path)
        with Image.open(content or path) as image:
            _check_size(path, image)
            yield image
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: not an image, or broken from its first bytes on") from None
    # Decoders meet broken bytes with whatever their parsing raises: OSError, SyntaxError, struct.error, KeyError, …
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: cannot be read, truncated or broken ({detail})") from error


def _check_file(path: Path) -> None:
    """Names what is wrong with a path before Pillow opens it; a pipe would block for ever."""
    if path.is_symlink() and not path.exists():
        raise ImageError(f"{path}: a broken link, its target {os.readlink(path)} does not exist")
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: a {'folder' if path.is_dir() else 'device or pipe'}, not a photo")
    if status.st_size == 0:
        raise ImageError(f"{path}: the file is empty")


def _check_size(path: Path, image: Image.Image) -> None:
    w, h = image.size
    if h * w > MAX_PIXELS:
        raise ImageError(f"{path}: {w} x {h} is more than the limit of {MAX_PIXELS:,} pixels; cut it into parts")


def _pixels(path: Path, image: Image.Image) -> np.ndarray:
    """The upright photo, uint8 (h, w, 3)."""
    pixels = decoding.plain(image)
    if pixels is not None:
        return pixels
    ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(path, image)


def _to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """Any Pillow mode to uint8 (h, w, 3). Pillow itself would clip modes I and F, and drop alpha over black."""
    if image.mode.startswith("I"):
        return _grey(path, np.asarray(image).astype(np.int64), 65535)
    if image.mode == "F":
        return _grey(path, np.asarray(image), 1)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _grey(path: Path, values: np.ndarray, peak: int) -> np.ndarray:
    """(h, w) values in [0, peak] to grey uint8 (h, w, 3)."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= peak):
        raise ImageError(f"{path}: grey values from {low:g} to {high:g}, wanted 0 to {peak}; save it with 8 or 16 bits")
    return np.repeat(to_uint8(values / peak)[..., None], 3, axis=-1)


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


def pad_to_multiple(x: np.ndarray, multiple: int, mode: str = "reflect") -> tuple[np.ndarray, tuple[int, int]]:
    """Pads (..., h, w, c) at the bottom and the right until both sides are multiples.

    Args:
      x: (..., h, w, c); a side may be shorter than its padding.
      multiple: in pixels, at least 1.
      mode: "reflect" (without repeating the border) or "edge".

    Returns:
      The padded array and the size (h, w) that `unpad` wants.

    Raises:
      ValueError: another mode, or a multiple below 1.
    """
    if mode not in ("reflect", "edge") or multiple < 1:
        raise ValueError(f"got mode {mode!r} and multiple {multiple}, wanted 'reflect' or 'edge', and at least 1")
    h, w = x.shape[-3:-1]
    pads = [(0, 0)] * (x.ndim - 3) + [(0, -h % multiple), (0, -w % multiple), (0, 0)]
    return np.pad(x, pads, mode=mode), (h, w)


def unpad(x: Any, size: Sequence[int]) -> Any:
    """Cuts (..., h', w', c) back to the (h, w) that `pad_to_multiple` returned."""
    h, w = size
    return x[..., :h, :w, :]
