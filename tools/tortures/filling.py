"""A disk that fills at a chosen write of a run; `python -m tools.tortures.filling` is the process that does such runs.

Python tells of every file that is opened to be written, every folder that is made and every renaming (audit events). At
the chosen one a ballast takes all that is free on the disk, and from then on whatever becomes free: so also the writes
fail that libraries do without Python, such as TensorStore's. The disk is a small file system in memory; see `writes`.

The process has imported the main command and does it in a copy of itself for every line of its input, a JSON object:
"arguments" of the command, "output", a file for what it prints, "disk", where the disk is mounted, "list", a file to
which the writes are listed (event, pattern of the path on the disk, how many of that pattern there were; the path, and
what a renaming renames), "at", the first three of such a line or null, "patience" in seconds. It answers with the exit
code, or null for a run that hung and was killed.
"""

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from typing import Any

from b2b_jax import main

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
BALLAST = "ballast"


class Filling:
    """Counts the writes on a disk; fills it at one of them."""

    def __init__(self, disk: str, list_file: str, at: list | None):
        self._disk, self._list, self._at = disk, list_file, tuple(at or ())
        self._counts: Counter[tuple[str, str]] = Counter()
        self._full, self._busy, self._lock = False, threading.local(), threading.Lock()

    def hear(self, event: str, args: tuple) -> None:
        """An audit hook."""
        path = self._written(event, args)
        if not path or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            with self._lock:
                self._note(event, path, os.fsdecode(args[0]))
        finally:
            self._busy.now = False

    def _written(self, event: str, args: tuple) -> str:
        """The path, relative to the disk, that an event is going to write; "" for none."""
        writes = event == "open" and isinstance(args[0], str | bytes | os.PathLike) and args[2] & WRITING
        if not (writes or event in ("os.mkdir", "os.rename")):
            return ""
        path = os.path.abspath(os.fsdecode(args[event == "os.rename"]))
        inside = path.startswith(f"{self._disk}/") and os.path.basename(path) != BALLAST
        return os.path.relpath(path, self._disk) if inside else ""

    def _note(self, event: str, path: str, first: str) -> None:
        pattern = re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{32}", "H", path))
        self._counts[event, pattern] += 1
        entry = (event, pattern, self._counts[event, pattern])
        with open(self._list, "a") as file:
            print(json.dumps([*entry, path, os.path.relpath(first, self._disk)]), file=file)
        self._full |= entry == self._at
        if self._full:
            fill(self._disk)


def fill(disk: str) -> None:
    """Takes all that is free on the disk."""
    ballast = os.open(f"{disk}/{BALLAST}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while os.write(ballast, bytes(size)):
                    pass
            except OSError:
                continue
    finally:
        os.close(ballast)


def run(task: dict[str, Any]) -> int:
    """Does the command; returns its exit code."""
    with open(task["output"], "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.addaudithook(Filling(task["disk"], task["list"], task["at"]).hear)
    sys.argv = ["b2b_jax.main", *task["arguments"]]
    try:
        return main.main()
    except Exception:
        traceback.print_exc()
        return 1


def ended(process: int, patience: float) -> int | None:
    """Waits for a process; returns its exit code, None when it hung and was killed."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


if __name__ == "__main__":
    for line in sys.stdin:
        copy = os.fork()
        if not copy:
            sys.exit(run(json.loads(line)))
        print(json.dumps(ended(copy, json.loads(line)["patience"])), flush=True)
