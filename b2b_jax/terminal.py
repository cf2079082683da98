"""What commands share at the terminal: how they explain themselves, and that what they print never stops them.

Outputs may be closed, broken or full, and the terminal unable to show a name.

A command calls `protect` first of all. Its imports come before, and leave no file open that could take a closed
output's place.
"""

import argparse
import contextlib
import io
import os
import sys
from typing import Any, NoReturn

from b2b_jax import __version__

VERSION = f"b2b_jax {__version__}"
STREAMS = {"stdout": 1, "stderr": 2}


class Parser(argparse.ArgumentParser):
    """The arguments of a command that its docstring explains, and --version; mistakes are one line."""

    def __init__(self, description: str | None, **options: Any):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.add_argument("--version", action="version", version=VERSION)

    def error(self, message: str) -> NoReturn:
        """A mistake in one line, without the usage; exit code 2."""
        name = self.prog.removesuffix(".py").rpartition(".")[2]  # of `export.py` and `python -m b2b_jax.export`
        self.exit(2, f"{name}: {message}; --help explains\n")


class _Unfailing(io.FileIO):
    """A file whose writes are lost, instead of raising, when nobody reads them or there is no room for them."""

    def write(self, data: bytes) -> int:
        """All of `data`, or nothing of it."""
        try:
            return super().write(data)
        except OSError:  # EPIPE of a pipe's closed end, EIO of a closed terminal, ENOSPC of a full disk
            return len(data)


def protect() -> None:
    """Makes `print`, and everything else that writes to stdout and stderr, unable to fail.

    Outputs that the caller has closed become /dev/null: else the next file that is opened, maybe a checkpoint, would
    take their number and be written to by whatever prints. Called twice it does nothing more; streams that someone else
    has replaced stay as they are.
    """
    for number in (0, *STREAMS.values()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name, number in STREAMS.items():
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _unfailing(stream, number))


def _unfailing(stream: io.TextIOWrapper | None, number: int) -> io.TextIOWrapper:
    """A stream like the given one, None for a closed one, whose characters that it cannot encode are escaped."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Unfailing(number, "w", closefd=False)),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=stream.line_buffering if stream else True,
        write_through=stream.write_through if stream else False,
    )
