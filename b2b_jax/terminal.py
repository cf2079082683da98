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
from collections.abc import Iterable
from typing import Any, NoReturn

from tqdm import tqdm

from b2b_jax import __version__
from b2b_jax.errors import NO_ROOM

VERSION = f"b2b_jax {__version__}"
STREAMS = {"stdout": 1, "stderr": 2}
SECONDS = 10  # between two states of a progress bar in a log


class Parser(argparse.ArgumentParser):
    """The arguments of a command of `b2b-jax`, which its docstring explains, and --version; mistakes are one line."""

    def __init__(self, command: str, description: str | None):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=f"b2b-jax {command}", description=description, formatter_class=form)
        self.add_argument("--version", action="version", version=VERSION)

    def error(self, message: str) -> NoReturn:
        """A mistake in one line, without the usage; exit code 2."""
        self.exit(2, f"{self.prog.split()[-1]}: {message}; --help explains\n")


class _Unfailing(io.FileIO):
    """A file whose writes are lost, instead of raising, when nobody reads them or there is no room for them."""

    lost = ""  # why the disk did not take what was written

    def write(self, data: bytes) -> int:
        """All of `data`, or nothing of it."""
        try:
            return super().write(data)
        except OSError as error:  # EPIPE of a pipe's closed end, EIO of a closed terminal, ENOSPC of a full disk
            if error.errno in NO_ROOM:
                self.lost = error.strerror
            return len(data)


def delivered() -> int:
    """The exit code of a command that is called for what it prints: 1, and a line on stderr, if the disk was full."""
    sys.stdout.flush()
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not (isinstance(file, _Unfailing) and file.lost):
        return 0
    print(f"The output could not be written: {file.lost}. Make room and start again", file=sys.stderr)
    return 1


def bar(*iterable: Iterable, **options: Any) -> tqdm:
    """A progress bar of tqdm.

    Where stderr is not a terminal, as in a log, it is redrawn every ten seconds; with leave=False it appears after ten.
    """
    if not sys.stderr.isatty():
        options = {"mininterval": SECONDS, "delay": 0 if options.get("leave", True) else SECONDS} | options
    return tqdm(*iterable, dynamic_ncols=True, **options)


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
        line_buffering=stream.line_buffering or stream.write_through if stream else True,  # the latter: python -u
        write_through=stream.write_through if stream else False,
    )
