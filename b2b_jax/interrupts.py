"""Ctrl-C while a command is still importing: one line instead of a traceback.

What comes later is the command's own matter, see `training.signals`.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import PurePath
from types import TracebackType


def stopped(number: int) -> str:
    """What a command says when this signal ends it."""
    return f"\nStopped by {signal.Signals(number).name}."


def watch_imports() -> None:
    """Turns an unhandled Ctrl-C into one line and exit code 130, in our own commands only."""
    if not ours(sys.orig_argv):
        return
    before = sys.excepthook

    def said(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            return before(kind, error, trace)
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed stdout, which may be None
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            print(stopped(signal.SIGINT), file=sys.stderr, flush=True)
        os._exit(128 + signal.SIGINT)

    sys.excepthook = said


def ours(words: Sequence[str]) -> bool:
    """True for the words of `python -m b2b_jax.COMMAND …` and of `b2b-jax COMMAND …`."""
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return any(word.startswith("b2b_jax.") for word in module) or any(PurePath(w).name == "b2b-jax" for w in words[1:2])
