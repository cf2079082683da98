"""Random-access sources of photos for grain: `len(source)` and `source[i]`, a dict of uint8 images and a name.

{"image": (h, w, 3), "name": str}                       single photos
{"blurry": (h, w, 3), "sharp": (h, w, 3), "name": str}  pairs
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from b2b_jax import images
from b2b_jax.data.layouts import Photo
from b2b_jax.errors import UserError

Record = dict[str, np.ndarray | str]
SIZES_CHECKED = 5_000


class Source(Protocol):
    """What the pipeline reads from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def size(self, index: int) -> tuple[str, int, int]: ...


class Photos:
    """Photo files."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        return {"image": images.read(self.paths[index]), "name": str(self.paths[index])}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width, without decoding."""
        return str(self.paths[index]), *images.size(self.paths[index])


class Pairs:
    """Pairs of photo files; the two of a pair have the same size."""

    def __init__(self, photos: Sequence[Photo]):
        self.photos = list(photos)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Record:
        photo = self.photos[index]
        blurry, sharp = images.read(photo.blurry), images.read(photo.sharp)
        if blurry.shape != sharp.shape:
            sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (blurry, sharp))
            raise UserError(f"{photo.blurry} and its sharp twin {photo.sharp} differ in size: {sizes} pixels")
        return {"blurry": blurry, "sharp": sharp, "name": str(photo.blurry)}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width of the blurry one, without decoding."""
        return str(self.photos[index].blurry), *images.size(self.photos[index].blurry)


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


def check_sizes(source: Source, smallest: int, key: str) -> None:
    """UserError when a photo of `source` is smaller than a training crop of `smallest` pixels; `key` sets the crop.

    Headers of at most SIZES_CHECKED photos, evenly spread, are read; a small one among the others stops the run later.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, min(len(source), SIZES_CHECKED)).astype(int))
    with ThreadPoolExecutor() as pool:
        small = [(n, h, w) for n, h, w in pool.map(source.size, indices.tolist()) if min(h, w) < smallest]
    if small:
        name, height, width = small[0]
        raise UserError(
            f"{name} is {width}x{height} pixels, smaller than the {smallest} that a training crop needs "
            f"({len(small)} such); remove it or set a smaller --config.{key}"
        )
