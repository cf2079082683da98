"""Prepares datasets with the one builder, and lists what is prepared as `finding.find` lists a download.

TensorFlow Datasets is an extra and slow to import: only what is prepared imports the builder.
"""

import hashlib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from b2b_jax.data.layouts import LAYOUTS
from b2b_jax.data.photo import PREPARED_VERSION, Photo, Stored
from b2b_jax.data.sources import Pairs, check_sizes
from b2b_jax.errors import UserError

if TYPE_CHECKING:
    from b2b_jax.data import builders


def prepare(
    name: str, root: Path, parts: Mapping[str, Sequence[Photo]], output: Path, variant: str = "", wait: bool = False
) -> None:
    """Prepares a dataset; resumes where an earlier call was stopped, and does nothing where it is done.

    Args:
        name: of its layout.
        root: the download, to which names in the dataset are relative.
        parts: its photos on disk, by part.
        output: folder for prepared datasets.
        variant: of the layout; "" = its first.
        wait: for another process that prepares it, instead of refusing.

    Raises:
        UserError: twins of unequal sizes, `output` holds the same dataset of other files, or another process is at it.
        ImageError: a photo cannot be read.
    """
    splits = {}
    for part, photos in parts.items():
        splits[part] = [(photo.blurry, photo.scene) for photo in photos]
        if photos[0].sharp:
            check_sizes(Pairs(photos), 1)
            splits[f"{part}_sharp"] = [(photo.sharp, photo.scene) for photo in photos]
    there = exists(name, output, variant)
    builder = _open(name, output, variant, root=root, splits=splits)
    if not there:
        builder.build(wait)
        return
    if builder.info.metadata["fingerprint"] != builder.fingerprint:
        raise UserError(f"{builder.data_dir} was prepared from other files than those in {root}; remove it first")
    shutil.rmtree(builder.kept, ignore_errors=True)  # left by a kill between the last two acts of building


def find(name: str, output: Path, part: str, variant: str = "") -> list[Photo]:
    """Lists `part` of a prepared dataset, as `finding.find` lists that of the download, and in the same order."""
    builder = _open(name, output, variant)
    blurry = _stored(builder, part)
    sharp = _stored(builder, f"{part}_sharp") if f"{part}_sharp" in builder.info.splits else [None] * len(blurry)
    scenes = builder.info.metadata[part]["scene"]
    return [Photo(*photo) for photo in zip(blurry, sharp, scenes, strict=True)]


def exists(name: str, output: Path, variant: str = "") -> bool:
    """True when `prepare` has finished this dataset."""
    return (_folder(name, output, variant) / "dataset_info.json").is_file()


def digest(name: str, output: Path, variant: str = "") -> str:
    """SHA-256 of what is known of the prepared photos: names, sizes and sharpness of all, and of which files they are.

    Nothing of TensorFlow Datasets is imported for it.
    """
    told = _folder(name, output, variant) / "metadata.json"
    return hashlib.sha256(told.read_bytes()).hexdigest() if told.is_file() else ""


def _folder(name: str, output: Path, variant: str) -> Path:
    return _place(name, output, variant) / "photos" / name / PREPARED_VERSION


def _open(name: str, output: Path, variant: str, **what) -> "builders.Photos":
    builders = _builders()
    with builders.quiet():
        return builders.Photos(config=name, data_dir=_place(name, output, variant), **what)


def _place(name: str, output: Path, variant: str) -> Path:
    default = LAYOUTS[name].variants[:1]
    return output / (variant or "".join(default))


def _stored(builder: "builders.Photos", split: str) -> list[Stored]:
    records, rows = _Files(builder.as_data_source(split)), builder.info.metadata[split]
    columns = zip(rows["name"], rows["height"], rows["width"], strict=True)
    return [Stored(records, index, f"{split}/{name}", h, w) for index, (name, h, w) in enumerate(columns)]


class _Files(Sequence):
    """The bytes of the files of a split."""

    def __init__(self, records: Sequence[Mapping]):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> bytes:
        return self._records[index]["file"]


def _builders() -> ModuleType:
    """The module that knows TensorFlow Datasets; UserError where it, or ArrayRecord, is not installed."""
    missing = [name for name in ("tensorflow_datasets", "array_record") if not importlib.util.find_spec(name)]
    if missing:  # ArrayRecord has no wheel for Windows, nor for Macs with Intel processors
        raise UserError(
            f"Prepared datasets need {' and '.join(missing)}: pip install 'b2b_jax[tfds]', or use the download"
        )
    from b2b_jax.data import builders

    return builders
