"""Prepared datasets: the files of a download copied, unchanged, into a few large ArrayRecord files by tfds.

A network disk serves a few large files faster than a hundred thousand small ones, and what is slow to find out (scenes,
sizes, sharpness) is kept beside them. A part gives the split PART and, of pairs, PART_sharp: its records are the twins,
in the same order: PNG, JPEG, … exactly as they were. TensorFlow is neither needed nor imported.

    OUTPUT/photos/LAYOUT/VERSION/    the finished dataset (OUTPUT/VARIANT/photos/… for a variant)
    OUTPUT/.photos-FINGERPRINT/      finished shards of an unfinished one, from which the same call resumes
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import writer

from b2b_jax import images, terminal
from b2b_jax.budget import BYTES_PER_PIXEL, READERS
from b2b_jax.data.layouts import LAYOUTS
from b2b_jax.data.photo import PREPARED_VERSION
from b2b_jax.data.sharpness import laplacian_variance
from b2b_jax.errors import BROKEN, UserError, shown
from b2b_jax.files import draft, read_json, tidy, write_json

FILES_PER_SHARD = 256  # what a killed preparation loses at most; about 300 MB of 720p PNG
Splits = dict[str, list[tuple[Path, str]]]  # split -> file and scene of every record


class FileBytes(tfds.features.Tensor):
    """A file, given by its path and read only when its record is written, so that a shard needs no memory."""

    def __init__(self):
        super().__init__(shape=(), dtype=np.object_)

    def encode_example(self, path: Path) -> np.ndarray:
        return super().encode_example(path.read_bytes())


class Photos(tfds.core.ShardBasedBuilder):
    """The one builder; its config is the name of a layout."""

    url_infos = None  # nothing is downloaded; tfds would look for checksums with a package that it does not require
    VERSION = tfds.core.Version(PREPARED_VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in LAYOUTS]  # noqa: RUF012

    def __init__(self, root: Path | None = None, splits: Splits | None = None, **kwargs):
        """`root` and `splits` say what to build; a finished dataset needs neither."""
        super().__init__(**kwargs)
        self._root, self._splits = root, splits or {}
        self.fingerprint = _fingerprint(root, self._splits)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "file": FileBytes(),
            "name": tfds.features.Text(),
            "scene": tfds.features.Text(),
            "height": tfds.features.Scalar(np.int32),
            "width": tfds.features.Scalar(np.int32),
            "laplacian_variance": tfds.features.Scalar(np.float32),
        }
        info = tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            description=LAYOUTS[self.builder_config.name].source,
            metadata=tfds.core.MetadataDict(),
        )
        info.initialize_from_bucket = lambda: None  # it would leave an empty temporary folder behind
        return info

    def build(self, wait: bool = False) -> None:
        """Writes the dataset, from the shards that an earlier call finished, with a progress bar.

        wait: for another process that does, after which nothing is left to do.
        """
        total = sum(len(files) for files in self._splits.values())
        self.kept.mkdir(parents=True, exist_ok=True)
        name = f"preparing {self.builder_config.name}"
        with _alone(self.kept, wait), quiet(), terminal.bar(total=total, desc=name, unit="photo") as self._bar:
            if (self.data_path / "dataset_info.json").is_file():
                return
            for stale in self.data_path.parent.glob("incomplete.*"):
                shutil.rmtree(stale)
            for unfinished in self.kept.parent.glob(".photos-*"):  # of other files or datasets, too
                tidy(unfinished)
            self.download_and_prepare(file_format="array_record", download_dir=self.kept)
        shutil.rmtree(self.kept)

    def _log_download_bytes(self) -> None:
        """The bar says enough."""

    _log_download_done = _log_download_bytes

    @property
    def kept(self) -> Path:
        """Where finished shards wait for the others."""
        return Path(self._data_dir_root) / f".photos-{self.fingerprint[:16]}"

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        self.info.metadata["fingerprint"] = self.fingerprint
        for split, files in self._splits.items():
            rows = [row for index in range(_shards(files)) for row in read_json(self._rows_path(split, index))]
            self.info.metadata[split] = {key: [row[key] for row in rows] for key in rows[0]}

    def _shard_iterators_per_split(self, dl_manager) -> Mapping[str, Sequence[Callable[[], Iterator]]]:
        return {
            split: [partial(self._shard, split, files, index) for index in range(_shards(files))]
            for split, files in self._splits.items()
        }

    def _shard(self, split: str, files: Sequence[tuple[Path, str]], index: int) -> Iterator[tuple[str, dict]]:
        """The records of one shard; of a finished one, which nobody will write, only their keys."""
        chosen = files[index * FILES_PER_SHARD : (index + 1) * FILES_PER_SHARD]
        if self._shard_path(split, files, index).exists():
            self._bar.update(len(chosen))
            yield from ((shown(row["name"]), {}) for row in read_json(self._rows_path(split, index)))
            return
        rows = []
        with ThreadPoolExecutor() as pool:
            measured = pool.map(lambda item: self._measured(*item), chosen)
            for (path, scene), row in zip(chosen, measured, strict=True):
                self._bar.update()
                rows.append(row)
                name = shown(row["name"])  # records hold UTF-8
                yield name, row | {"file": path, "name": name, "scene": shown(scene)}
        write_json(self._rows_path(split, index), rows)

    def _measured(self, path: Path, scene: str) -> dict:
        height, width = images.size(path)
        with READERS.take(height * width * BYTES_PER_PIXEL):
            sharpness = laplacian_variance(images.read(path))
        return {
            "name": _relative(path, self._root),
            "scene": scene,
            "height": height,
            "width": width,
            "laplacian_variance": sharpness,
        }

    def _shard_path(self, split: str, files: Sequence, index: int) -> Path:
        template = self._get_filename_template(split)
        return self.kept / template.sharded_filepath(shard_index=index, num_shards=_shards(files)).name

    def _rows_path(self, split: str, index: int) -> Path:
        return self.kept / f"{split}-{index:05d}.json"

    def _example_writer(self) -> writer.ExampleWriter:
        return _ResumingWriter(self.info.file_format, self.kept)


class _ResumingWriter(writer.ExampleWriter):
    """Writes shards into a folder that survives a kill, whereas tfds starts its own folder anew."""

    def __init__(self, file_format, kept: Path):
        super().__init__(file_format)
        self._kept = kept

    def write(self, path, examples) -> None:
        kept = self._kept / Path(path).name
        if not kept.exists():
            with draft(kept) as part, _numbered():
                super().write(part, examples)
        try:
            os.link(kept, path)  # costs no space
        except OSError:
            shutil.copyfile(kept, path)


@contextlib.contextmanager
def _numbered() -> Iterator[None]:
    """Makes an OSError of what ArrayRecord says of a disk, in words only."""
    try:
        yield
    except RuntimeError as error:
        number = next((number for number in BROKEN if os.strerror(number) in str(error)), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without tfds's warning that there is no dataset yet."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _alone(folder: Path, wait: bool) -> Iterator[None]:
    """Holds the folder against other processes; a killed one lets go of it. UserError: one has it, and no `wait`."""
    import fcntl  # which Windows lacks, as it lacks ArrayRecord

    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise UserError(f"Another process prepares this dataset in {folder.parent}; wait for it") from None
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _fingerprint(root: Path | None, splits: Splits) -> str:
    """Changes when a file is added, lost, renamed or of another size.

    Not with times: a copy of the download has others. What is edited to the same size is not noticed.
    """
    files = ((split, _relative(path, root), path.stat().st_size) for split in splits for path, _ in splits[split])
    return hashlib.sha256("\n".join(map(str, files)).encode(errors="surrogateescape")).hexdigest()


def _shards(files: Sequence) -> int:
    return -(-len(files) // FILES_PER_SHARD)
