"""A file for FFmpeg to write to, which notes the first write that fails."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from b2b_jax import files

T = TypeVar("T")


class Noted:
    """A new file at `draft`, as PyAV wants it. `check` raises what went wrong, under the name `target`.

    FFmpeg hears of no failure: PyAV prints the traceback of a second one that comes before it could raise the first.
    """

    def __init__(self, draft: Path, target: Path):
        self._file, self._target = draft.open("wb"), target
        self._fault: OSError | None = None

    def write(self, data: bytes) -> int:
        """Writes, or after a fault does nothing."""
        return self._attempt(self._file.write, data, otherwise=len(data))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place and returns it."""
        return self._attempt(self._file.seek, offset, whence, otherwise=offset)

    def tell(self) -> int:
        """The place in the file."""
        return self._attempt(self._file.tell, otherwise=0)

    def check(self) -> None:
        """Raises an OSError that names the target if a write has failed, or the last bytes cannot be written."""
        self._attempt(self._file.flush, otherwise=None)
        if self._fault:
            with files.named(self._target):
                raise self._fault

    def close(self) -> None:
        """Closes the file; what it cannot write any more is lost."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _attempt(self, call: Callable[..., T], *arguments: object, otherwise: T) -> T:
        if self._fault is None:
            try:
                return call(*arguments)
            except OSError as error:
                self._fault = error
        return otherwise
