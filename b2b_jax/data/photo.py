"""A photo wherever it lies: a file on disk, or a record of a prepared dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from b2b_jax import images


@dataclass(frozen=True)
class Stored:
    """A photo's file as a record of a prepared dataset, with what is known of it without reading the record."""

    records: Sequence[bytes]
    index: int
    name: str
    height: int
    width: int

    def __str__(self) -> str:
        return self.name


File = Path | Stored
PREPARED_VERSION = "1.0.0"  # of the form in which datasets are prepared


@dataclass(frozen=True)
class Photo:
    """A photo, its sharp twin where there is one, and the scene both show."""

    blurry: File
    sharp: File | None
    scene: str


def read(file: File) -> np.ndarray:
    """uint8 (h, w, 3); ImageError as `images.read`."""
    if isinstance(file, Stored):
        return images.decode(file.records[file.index], file.name)
    return images.read(file)


def size(file: File) -> tuple[int, int]:
    """Height and width in pixels, without decoding; ImageError as `images.read`."""
    return (file.height, file.width) if isinstance(file, Stored) else images.size(file)
