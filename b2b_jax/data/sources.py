"""Random-access sources of photos for grain: `len(source)` and `source[i]`, a dict of uint8 images and a name.

{"image": (h, w, 3), "name": str}                       single photos
{"blurry": (h, w, 3), "sharp": (h, w, 3), "name": str}  pairs
"""

from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from b2b_jax.data import photo
from b2b_jax.data.photo import File, Photo
from b2b_jax.errors import UserError
from b2b_jax.images import ImageError

Record = dict[str, np.ndarray | str]
SIZES_CHECKED = 5_000
TOO_SMALL = "smaller than"


class Source(Protocol):
    """What the pipeline reads from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def size(self, index: int) -> tuple[str, int, int]: ...


class Photos:
    """Single photos."""

    def __init__(self, files: Sequence[File]):
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        return {"image": photo.read(self.files[index]), "name": str(self.files[index])}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width, without decoding."""
        return str(self.files[index]), *photo.size(self.files[index])


class Pairs:
    """Pairs of photos; the two of a pair have the same size."""

    def __init__(self, photos: Sequence[Photo]):
        self.photos = list(photos)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Record:
        pair = self.photos[index]
        blurry, sharp = photo.read(pair.blurry), photo.read(pair.sharp)
        _check_twins(pair, blurry.shape, sharp.shape)
        return {"blurry": blurry, "sharp": sharp, "name": str(pair.blurry)}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width of both, without decoding."""
        pair = self.photos[index]
        blurry, sharp = photo.size(pair.blurry), photo.size(pair.sharp)
        _check_twins(pair, blurry, sharp)
        return str(pair.blurry), *blurry


def _check_twins(pair: Photo, blurry: Sequence[int], sharp: Sequence[int]) -> None:
    if tuple(blurry) != tuple(sharp):
        sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (blurry, sharp))
        raise UserError(f"{pair.blurry} and its sharp twin {pair.sharp} differ in size: {sizes} pixels")


class Also:
    """Records of another source, each with a further photo of the same size under `key`."""

    def __init__(self, source: "Pairs", key: str, files: Sequence[File]):
        self.source, self.key, self.files = source, key, list(files)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        record, further = self.source[index], photo.read(self.files[index])
        _check_twins(
            Photo(self.files[index], self.source.photos[index].sharp, ""), further.shape, record["sharp"].shape
        )
        return record | {self.key: further}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width."""
        return self.source.size(index)


class ArraySource:
    """Arrays of images (count, h, w, 3), each under its key of the record."""

    def __init__(self, name: str, **arrays: np.ndarray):
        self.name, self.arrays = name, arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Record:
        return {k: v[index] for k, v in self.arrays.items()} | {"name": f"{self.name}/{index:05d}"}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width."""
        return f"{self.name}/{index:05d}", *next(iter(self.arrays.values()))[index].shape[:2]


class Part:
    """Some photos of another source."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.source[self.indices[index]]

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width."""
        return self.source.size(self.indices[index])


def spread(source: Sized, most: int) -> list[int]:
    """The numbers of at most `most` photos, evenly spread over the source."""
    return np.linspace(0, len(source) - 1, min(most, len(source))).astype(int).tolist()


def check_sizes(source: Source, smallest: int, key: str = "", need: str = "a training crop") -> None:
    """UserError when `source` has no photos, or they are unreadable, unequal twins, or smaller than `smallest` pixels.

    Args:
        source: of training photos. If it skips bad ones (`skipping.Skipping`), they may be up to half of it.
        smallest: pixels that are needed.
        key: the configuration's key that sets the crop.
        need: what needs them.

    Headers of at most SIZES_CHECKED photos, evenly spread, are read; a bad one among the others is met later.
    """
    if not len(source):
        wanted = f" for --config.{key}" if key else ""
        raise UserError(f"No photos are left{wanted}; check the folders under --config.data and data.share")
    indices = spread(source, SIZES_CHECKED)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda index: _fault(source, index, smallest, need), indices))
    bad = [fault for fault in found if fault]
    if len(bad) > len(indices) * getattr(source, "tolerated", 0.0):
        raise UserError(_too_many(bad, len(indices), key))
    for fault in bad:
        source.bad.add(fault)


def _too_many(bad: list[str], count: int, key: str) -> str:
    """What is wrong with the bad ones among `count` photos, with a photo for either kind: too small, or unusable."""
    small = [fault for fault in bad if TOO_SMALL in fault]
    first, second = sorted((small, [fault for fault in bad if TOO_SMALL not in fault]), key=len, reverse=True)
    told = f"{first[0]} ({len(first)} bad among {count} photos looked at)"
    if second:
        told = f"{first[0]} ({len(first)} such among {count} photos looked at); {second[0]} ({len(second)} such)"
    advice = f" or set a smaller --config.{key}" if small and key else ""
    return f"{told}; remove {'them' if second else 'it'}{advice}"


def _fault(source: Source, index: int, smallest: int, need: str) -> str:
    try:
        check_extent(*source.size(index), smallest, need)
    except (ImageError, UserError) as error:
        return str(error)
    return ""


def check_extent(name: str, height: int, width: int, smallest: int, need: str = "a training crop") -> None:
    """UserError when the photo is smaller than the `smallest` pixels that `need` needs."""
    if min(height, width) < smallest:
        raise UserError(f"{name} is {width}x{height} pixels, {TOO_SMALL} the {smallest} that {need} needs")
