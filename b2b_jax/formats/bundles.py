"""A folder, or a gzipped tar archive as `npm pack` leaves it, as a table of files.

Nothing is extracted, links are not followed, and what unpacking may cost is bounded by the archive's own size.
"""

import gzip
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from b2b_jax.formats.opening import Problem, check_regular, kind

MOST_FILES = 10_000
MOST_UNPACKED = 20  # times the size of the archive; weights hardly shrink, and zeros shrink a thousandfold
CHUNK = 1 << 20  # bytes read at once


class Bundle:
    """The files of one folder, by name. OSError or Problem: it cannot be read."""

    def __init__(self, sizes: Mapping[str, int]):
        self.sizes = dict(sizes)

    def read(self, name: str) -> bytearray:
        """The bytes of a file, whose size the caller has found acceptable."""
        data = bytearray(self.sizes[name])
        self.read_into({name: memoryview(data)})
        return data

    def read_into(self, targets: Mapping[str, memoryview]) -> None:
        """Fills the targets, each as long as its file."""
        raise NotImplementedError


class Folder(Bundle):
    """The regular files of a folder on disk; `also` gives some of them other names."""

    def __init__(self, path: Path, also: Mapping[str, Path]):
        self._files = {file.name: file for file in path.iterdir() if file.is_file()} | dict(also)
        super().__init__({name: file.stat().st_size for name, file in self._files.items()})

    def read_into(self, targets: Mapping[str, memoryview]) -> None:
        for name, target in targets.items():
            with self._files[name].open("rb") as file:
                _fill(file, target, name)


class Archive(Bundle):
    """The regular files beside the member that is called `beside`, in an opened gzipped tar archive."""

    def __init__(self, file: BinaryIO, size: int, beside: str):
        # Left to itself tarfile allocates whatever size the header of a long name claims.
        unpacked, most = gzip.GzipFile(fileobj=file), size * MOST_UNPACKED
        self._tar = tarfile.TarFile(fileobj=_Chunks(unpacked))
        members = {PurePosixPath(member.name): member for member in _bounded(self._tar, most)}
        while unpacked.read(CHUNK):  # to the end, where the checksum of all stands
            if unpacked.tell() > most:
                raise Problem(f"refused: it unpacks to more than {most:,} bytes")
        folders = [path.parent for path in members if path.name == beside]
        if len(folders) != 1:
            raise Problem(f"wanted an archive with one {beside}, found {len(folders)}")
        self._members = {path.name: member for path, member in members.items() if path.parent == folders[0]}
        super().__init__({name: member.size for name, member in self._members.items()})

    def read_into(self, targets: Mapping[str, memoryview]) -> None:
        # In the order of the archive: to go back is to unpack it again from its beginning.
        for name in sorted(targets, key=lambda name: self._members[name].offset_data):
            _fill(self._tar.extractfile(self._members[name]), targets[name], name)


class _Chunks:
    """A file that refuses to read much at once."""

    def __init__(self, file: BinaryIO):
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= CHUNK:
            raise Problem(f"a header of the archive claims {size} bytes")
        return self._file.read(size)


def _bounded(tar: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive; it is left as soon as it would unpack to more than `most` bytes."""
    total = 0
    for number, member in enumerate(tar):
        total += member.size
        if member.size < 0 or total > most or number >= MOST_FILES:
            raise Problem(f"refused: the archive unpacks to more than {most:,} bytes or {MOST_FILES:,} files")
        if member.isreg():
            yield member


def _fill(file: BinaryIO, target: memoryview, name: str) -> None:
    done = 0
    while done < len(target):
        part = file.read(min(CHUNK, len(target) - done))
        if not part:
            raise Problem(f"truncated: {name} ends after {done:,} bytes, wanted {len(target):,}")
        target[done : done + len(part)] = part
        done += len(part)


@contextmanager
def opened(path: Path, beside: str) -> Iterator[Bundle]:
    """The bundle that holds `beside`: of a folder, of an archive, or of the folder of a file that stands for it.

    Raises:
      Problem: it is none of these, damaged or truncated.
      OSError: it cannot be opened.
    """
    if path.is_dir():
        yield Folder(path, {})
        return
    check_regular(path)
    if kind(path) != "gzip":
        yield Folder(path.parent, {beside: path})
        return
    with path.open("rb") as file:
        try:
            bundle = Archive(file, path.stat().st_size, beside)
        except Problem:
            raise
        except Exception as error:  # damaged bytes can raise anything
            raise Problem(f"no whole archive ({error})") from error
        yield bundle
