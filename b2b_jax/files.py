"""Files on disk that a crash cannot leave half written, and the lock that keeps a folder to one run."""

import argparse
import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from b2b_jax.errors import UserError

LOCK = ".lock"
DRAFT = re.compile(r"\.[0-9a-f]{32}\.part")  # hidden, so that whoever lists a folder of photos passes it over
OLD_DRAFTS = (".*.tmp", ".*.part")  # and what older versions called theirs

_open: set[Path] = set()  # drafts that this process writes
_tidied: set[Path] = set()  # folders in which it has removed what others left


def given(text: str) -> Path:
    """A path of a command line, as argparse's `type`.

    An empty one, as a shell makes of a variable that is not set, would stand for the current folder.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("got an empty path; name a file or folder")
    if re.match(r"\w+://", text):
        raise argparse.ArgumentTypeError(f"{text} is an address; download it and name the file")
    return Path(text)


# --------------------------------------------------------------------------------------------------------- whole files


@contextlib.contextmanager
def draft(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """Yields a hidden, empty file beside `path` to write to, which takes its place when the block ends without error.

    Missing folders are made. The first draft in a folder removes those that killed processes left there. With `durable`
    the file outlasts a power cut, too.

    Raises:
        OSError: the disk is full, or the folder cannot be written; it names `path`.
    """
    path = Path(path)
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _tidied:
            _tidied.add(path.parent)
            tidy(path.parent)
        with _locked_draft(path.parent) as part:
            yield part
            if durable:
                _flush(part)
            os.replace(part, path)
            if durable:
                _flush(path.parent)


def check_writable(folder: Path) -> None:
    """OSError, which names `folder`, where no file can be made in it; of a missing one, in the nearest above it.

    Nothing is left behind.
    """
    try:
        tempfile.TemporaryFile(prefix=".", dir=_there(folder)).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def ignores_case(folder: Path) -> bool:
    """True where names that differ in case alone are one file's, as on exFAT and SMB; of a missing folder, above it."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(prefix=".case_", dir=_there(folder)) as file:
        path = Path(file.name)
        return path.with_name(path.name.upper()).exists()
    return False


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
    """Gives what the system says of a draft, or of no file by name, the name `path`."""
    try:
        yield
    except OSError as error:
        known = error.filename is not None and not DRAFT.fullmatch(os.path.basename(os.fsdecode(error.filename)))
        if error.errno is None or known:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _locked_draft(folder: Path) -> Iterator[Path]:
    """A new draft. Its lock, the kernel's, ends with the process and tells others that it is being written."""
    part = folder / f".{uuid.uuid4().hex}.part"
    _open.add(part)
    try:
        descriptor = _created_and_locked(part)
        try:
            yield part
        finally:
            os.close(descriptor)
    finally:
        part.unlink(missing_ok=True)
        _open.discard(part)


def _created_and_locked(part: Path) -> int:
    while True:
        descriptor = os.open(part, os.O_CREAT | os.O_RDWR, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if part.exists():
            return descriptor
        os.close(descriptor)  # another process took it for abandoned just before it was locked


def tidy(folder: Path, nested: bool = False) -> None:
    """Removes drafts that killed processes left in `folder`, with `nested` also below it; not those being written."""
    for root, folders, names in os.walk(folder):
        if not nested:
            folders.clear()
        for name in filter(DRAFT.fullmatch, names):
            with contextlib.suppress(OSError):
                _remove_unlocked(os.path.join(root, name))


def _remove_unlocked(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def remove_drafts(folder: Path) -> None:
    """Removes unfinished files below `folder`; only whoever holds its lock may."""
    for pattern in OLD_DRAFTS:
        for path in folder.rglob(pattern):
            if not path.is_dir():
                path.unlink(missing_ok=True)


def drop_drafts() -> None:
    """Removes what this process is writing, which is about to end at once."""
    for part in list(_open):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------- text and JSON


def write_text(path: Path, text: str) -> None:
    """Writes `text`, in UTF-8, so that `path` holds all of it or what it held before; missing folders are made."""
    with draft(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be no UTF-8


def write_json(path: Path, value: Any) -> None:
    """Writes `value`, indented, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in the file; None when there is no file, or no JSON in it."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file; empty when there is none, damaged or of another kind."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def append_line(path: Path, line: str) -> None:
    """Adds a line to the file, which is made; after a line that was cut short it starts a new one."""
    with named(path), path.open("ab+") as file:
        file.seek(-1 if file.seek(0, os.SEEK_END) else 0, os.SEEK_END)
        cut = file.read(1) not in (b"", b"\n")
        file.write(f"{chr(10) * cut}{line}\n".encode(errors="backslashreplace"))


# ------------------------------------------------------------------------------------------------------------- the lock


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps `folder`, which is made, to this process; UserError that names the holder when another one has it.

    The lock is the kernel's (fcntl) and ends with the process however it ends: a file left behind locks nothing.
    """
    path = folder / LOCK
    with _locked(path) as file:
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            file.truncate(0)
            file.write(holder.encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it holds something, or cannot be written any more
                path.unlink(missing_ok=True)
                folder.rmdir()


def _locked(path: Path) -> Any:
    """The open and locked file, which is still the one at `path`: its last holder may just have removed it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file, as a run's lock is; move it away")
        file = path.open("ab+", buffering=0)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return file  # a file system without locks: nothing to be done
            file.seek(0)
            holder = file.read().decode(errors="replace")
            raise UserError(
                f"{path.parent} is in use by another run ({holder or 'just starting'}); "
                "wait for its end, stop it, or choose another --workdir"
            ) from error
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()
