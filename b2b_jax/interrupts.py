"""Ctrl-C in a command's first second, while its modules are imported: a line, not the traceback of what was imported.

What comes later is the command's own matter, see `training.signals`.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import PurePath
from types import TracebackType


def watch_imports() -> None:
    """Makes a Ctrl-C that nobody handles a line and exit code 130, if this process is one of our commands."""
    if ours(sys.orig_argv):
        sys.excepthook = _said


def ours(words: Sequence[str]) -> bool:
    """True for the words of `python -m b2b_jax.COMMAND …` and of `b2b-jax COMMAND …`."""
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return any(word.startswith("b2b_jax.") for word in module) or any(PurePath(w).name == "b2b-jax" for w in words[1:2])


def _said(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    print(f"\nStopped by {signal.SIGINT.name}.", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGINT)
