"""Prepares datasets with the one builder, and lists what is prepared as `finding.find` lists a download."""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from b2b_jax.data import builders
from b2b_jax.data.layouts import LAYOUTS
from b2b_jax.data.photo import Photo, Stored
from b2b_jax.data.sources import Pairs, check_sizes
from b2b_jax.errors import UserError


def prepare(name: str, root: Path, parts: Mapping[str, Sequence[Photo]], output: Path, variant: str = "") -> None:
    """Prepares a dataset; resumes where an earlier call was stopped, and does nothing where it is done.

    Args:
        name: of its layout.
        root: the download, to which names in the dataset are relative.
        parts: its photos on disk, by part.
        output: folder for prepared datasets.
        variant: of the layout; "" = its first.

    Raises:
        UserError: twins of unequal sizes, or `output` holds the same dataset of other files.
        ImageError: a photo cannot be read.
    """
    check_installed()
    splits = {}
    for part, photos in parts.items():
        splits[part] = [(photo.blurry, photo.scene) for photo in photos]
        if photos[0].sharp:
            check_sizes(Pairs(photos), 1)
            splits[f"{part}_sharp"] = [(photo.sharp, photo.scene) for photo in photos]
    builder = _open(name, output, variant, root=root, splits=splits)
    if not exists(name, output, variant):
        builder.build()
        return
    if builder.info.metadata["fingerprint"] != builder.fingerprint:
        raise UserError(f"{builder.data_dir} was prepared from other files than those in {root}; remove it first")
    shutil.rmtree(builder.kept, ignore_errors=True)  # left by a kill between the last two acts of building


def find(name: str, output: Path, part: str, variant: str = "") -> list[Photo]:
    """Lists `part` of a prepared dataset, as `finding.find` lists that of the download, and in the same order."""
    check_installed()
    builder = _open(name, output, variant)
    blurry = _stored(builder, part)
    sharp = _stored(builder, f"{part}_sharp") if f"{part}_sharp" in builder.info.splits else [None] * len(blurry)
    scenes = builder.info.metadata[part]["scene"]
    return [Photo(*photo) for photo in zip(blurry, sharp, scenes, strict=True)]


def exists(name: str, output: Path, variant: str = "") -> bool:
    """True when `prepare` has finished this dataset."""
    builder = builders.Photos
    return (_place(name, output, variant) / builder.name / name / str(builder.VERSION) / "dataset_info.json").is_file()


def _open(name: str, output: Path, variant: str, **what) -> builders.Photos:
    with builders.quiet():
        return builders.Photos(config=name, data_dir=_place(name, output, variant), **what)


def _place(name: str, output: Path, variant: str) -> Path:
    default = LAYOUTS[name].variants[:1]
    return output / (variant or "".join(default))


def _stored(builder: builders.Photos, split: str) -> list[Stored]:
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


def check_installed() -> None:
    """UserError where ArrayRecord has no wheel (Windows, Macs with Intel processors)."""
    if not importlib.util.find_spec("array_record"):
        raise UserError("Prepared datasets need the package array_record, which this machine lacks; use the download")
