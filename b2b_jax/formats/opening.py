"""Files of weights before they are read: is it a regular file, and what do its first bytes say it is.

The bytes of a file come as a read-only array (n,) of a memory map, which costs no memory until it is looked at.
"""

import stat
from pathlib import Path

import numpy as np

NOT_FILES = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
STARTS = {  # the first bytes, the kind, what to call it
    b"PK": ("zip", "a zip file, as checkpoints of PyTorch are"),
    b"\x80": ("pickle", "a pickle, as checkpoints of PyTorch before 1.6 are"),
    b"\x1f\x8b": ("gzip", "a gzipped file"),
    b"\x89HDF": ("other", "an HDF5 file, as Keras writes"),
    b"GGUF": ("other", "a GGUF file"),
    b"\x93NUMPY": ("other", "a single NumPy array"),
}


class Problem(ValueError):
    """A fault of a file, told without the file's name; whoever opened it adds that."""


def check_regular(path: Path) -> None:
    """Problem unless the path leads to a regular file: opening a pipe would wait for ever, and devices have no end.

    OSError: there is nothing, or it cannot be looked at.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = next((name for test, name in NOT_FILES.items() if test(mode)), "something else")
        raise Problem(f"{what}, wanted a file")


def mapped(path: Path) -> np.ndarray:
    """The bytes (n,) of a regular file, read-only. Problem: it is none, or empty; OSError: it cannot be opened."""
    check_regular(path)
    if path.stat().st_size == 0:
        raise Problem("there is nothing to read")
    return np.memmap(path, np.uint8, "r").view(np.ndarray)


def kind(path: Path) -> str:
    """What the first bytes of a path say: folder, zip, pickle, gzip, safetensors, json, empty or other.

    Problem: neither a regular file nor a folder; OSError: it cannot be opened.
    """
    return "folder" if path.is_dir() else _look(path)[0]


def describe(path: str | Path) -> str:
    """What a path seems to be, in a few words: for error messages."""
    try:
        return "a folder" if Path(path).is_dir() else _look(Path(path))[1]
    except Problem as problem:
        return str(problem)


def _look(path: Path) -> tuple[str, str]:
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "empty", "an empty file"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return "safetensors", "a safetensors file, whole or truncated"
    if known := next((what for start, what in STARTS.items() if head.startswith(start)), None):
        return known
    start = head[:24]
    if not (start.isascii() and all(c >= 32 or c in b"\t\r\n" for c in start)):
        return "other", "a file of an unknown kind"
    return "json" if head.lstrip().startswith(b"{") else "other", f"text that begins {start.decode()!r}"


class Window:
    """Bytes as a file: what is asked for beyond their end is not allocated, as it is by files of the operating system.

    Nothing is copied before it is read.
    """

    def __init__(self, data: np.ndarray):
        self._data, self._at = memoryview(data), 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all that are left if it is negative."""
        end = len(self._data) if size < 0 else min(self._at + size, len(self._data))
        part = self._data[self._at : end]
        self._at = max(self._at, end)
        return part.tobytes()

    def readline(self) -> bytes:
        """The bytes up to and with the next newline, or to the end."""
        step, parts = 1 << 12, []
        while part := self.read(step):
            place = part.find(b"\n") + 1
            if place:
                self._at -= len(part) - place
                part = part[:place]
            parts.append(part)
            if place:
                break
        return b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to `offset` from the start (0), from here (1) or from the end (2)."""
        place = (0, self._at, len(self._data))[whence] + offset
        if place < 0:
            raise ValueError(f"a place before the file's start ({place})")
        self._at = min(place, len(self._data))
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seekable(self) -> bool:
        """True, as archives want it."""
        return True
