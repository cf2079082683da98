"""Files on disk that a crash cannot leave half written, and the lock that keeps a folder to one run."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from b2b_jax.errors import UserError

LOCK = ".lock"
DRAFTS = (".*.tmp", ".*.part")  # what a killed process leaves of a file that it was writing


def write_text(path: Path, text: str) -> None:
    """Writes `text` so that `path` holds all of it or what it held before; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text)
        draft.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value`, indented, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in the file; None when there is no file, or no JSON in it."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def remove_drafts(folder: Path) -> None:
    """Removes unfinished files below `folder`; only whoever holds its lock may."""
    for pattern in DRAFTS:
        for path in folder.rglob(pattern):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps `folder`, which is made, to this process; UserError that names the holder when another one has it.

    The lock is the kernel's (fcntl) and ends with the process however it ends: a file left behind locks nothing.
    """
    path = folder / LOCK
    with _locked(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


def _locked(path: Path) -> Any:
    """The open and locked file, which is still the one at `path`: its last holder may just have removed it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return file  # a file system without locks: nothing to be done
            file.seek(0)
            raise UserError(
                f"{path.parent} is in use by another run ({file.read() or 'just starting'}); "
                "wait for its end, stop it, or choose another --workdir"
            ) from error
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()
