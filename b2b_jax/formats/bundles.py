"""A folder, or a gzipped tar archive as `npm pack` leaves it, as a table of files.

Nothing is extracted, links are not followed, and what unpacking may cost is bounded by the archive's own size.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

MOST_FILES = 10_000
MOST_UNPACKED = 20  # times the size of the archive; weights hardly shrink, and zeros shrink a thousandfold
CHUNK = 1 << 20  # bytes read at once


class Bundle:
    """The files of one folder, by name. OSError, or what `problems` translates: it cannot be read."""

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
    """The regular files of a folder on disk."""

    def __init__(self, path: Path):
        self._path = path
        super().__init__({file.name: file.stat().st_size for file in path.iterdir() if file.is_file()})

    def read_into(self, targets: Mapping[str, memoryview]) -> None:
        for name, target in targets.items():
            with (self._path / name).open("rb") as file:
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
                raise ValueError(f"refused: it unpacks to more than {most:,} bytes")
        folders = [path.parent for path in members if path.name == beside]
        if len(folders) != 1:
            raise ValueError(f"wanted an archive with one {beside}, found {len(folders)}")
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
            raise ValueError(f"a header of the archive claims {size} bytes")
        return self._file.read(size)


def _bounded(tar: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive; it is left as soon as it would unpack to more than `most` bytes."""
    total = 0
    for number, member in enumerate(tar):
        total += member.size
        if total > most or number >= MOST_FILES:
            raise ValueError(f"refused: the archive unpacks to more than {most:,} bytes or {MOST_FILES:,} files")
        if member.isreg():
            yield member


def _fill(file: BinaryIO, target: memoryview, name: str) -> None:
    done = 0
    while done < len(target):
        part = file.read(min(CHUNK, len(target) - done))
        if not part:
            raise ValueError(f"truncated: {name} ends after {done:,} bytes, wanted {len(target):,}")
        target[done : done + len(part)] = part
        done += len(part)


@contextmanager
def opened(path: Path, beside: str) -> Iterator[Bundle]:
    """The bundle that holds `beside`: of a folder, of the file `beside` itself, or of an archive.

    Raises:
      ValueError: it is none of these, damaged or truncated.
      OSError: it cannot be opened.
    """
    if path.name == beside or path.is_dir():
        yield Folder(path.parent if path.name == beside else path)
        return
    try:
        with path.open("rb") as file:
            yield Archive(file, path.stat().st_size, beside)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"no whole archive ({error})") from error
