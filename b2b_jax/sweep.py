"""Runs a list of commands one after another; started again, it resumes where it stopped.

    python -m b2b_jax.sweep cells.txt

The file holds a command per line; empty lines and lines that begin with # are passed over:

    python -m b2b_jax.main --config configs/ablations.py:ratio,0.5
    python -m b2b_jax.main --config configs/ablations.py:ratio,0.7

They run in the folder that the sweep is started in, without a shell: no variables, no `&&`, no `>`.
Commands that ended well are noted in cells.txt.done and not run again; one that failed is reported, and the next one
starts. Ctrl-C, SIGTERM and the end of the terminal go to the running command, which saves, and end the sweep; a command
whose sweep is killed gets SIGTERM (on Linux). Exit codes: 0 all done, 1 some failed, 2 there is no such list, 129, 130
and 143 stopped.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from b2b_jax import files, terminal
from b2b_jax.errors import disk_fault, shown
from b2b_jax.files import append_line

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    terminal.protect()
    parser = terminal.Parser("sweep", __doc__)
    parser.add_argument("commands", type=files.given, metavar="FILE", help="a command per line")
    file = parser.parse_args(arguments).commands
    try:
        commands = read(file)
        done = read(done_file(file)) if done_file(file).exists() else []
    except (OSError, UnicodeDecodeError) as error:
        print(f"{shown(file)}: cannot be read ({shown(error)}); wanted a file with a command per line", file=sys.stderr)
        return 2
    return sweep(commands, done, done_file(file))


def done_file(file: Path) -> Path:
    """Where finished commands are noted."""
    return file.with_name(f"{file.name}.done")


def read(file: Path) -> list[str]:
    """The commands in a file."""
    if file.exists() and not file.is_file():  # a pipe would be waited for, and leaves no place for notes
        raise OSError("a folder, pipe or device")
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def sweep(commands: list[str], done: list[str], notes: Path) -> int:
    """Runs the commands that are not done; returns the exit code."""
    failed = []
    for number, command in enumerate(commands, start=1):
        if command in done:
            print(f"[{number}/{len(commands)}] done before: {shown(command)}", flush=True)
            continue
        print(f"[{number}/{len(commands)}] {shown(command)}", flush=True)
        start = time.monotonic()
        code = run(command)
        print(f"[{number}/{len(commands)}] exit code {code} after {time.monotonic() - start:.0f} s", flush=True)
        if code in (129, 130, 143):
            return code
        if code:
            failed.append(command)
            continue
        try:
            append_line(notes, command)
        except OSError as error:
            line, code = disk_fault(error)
            print(line, file=sys.stderr)
            return code
    print(
        "\n".join([f"{len(commands) - len(failed)} of {len(commands)} done", *(f"failed: {shown(x)}" for x in failed)])
    )
    return 1 if failed else 0


def run(command: str) -> int:
    """Runs one command, passing signals on to it; its exit code, 128 + n when signal n ended it or the sweep."""
    received, pending, child = [], [], None

    def pass_on() -> None:
        with contextlib.suppress(
            IndexError, ProcessLookupError
        ):  # a signal may come here, too, and take what is pending
            while child is not None:
                os.killpg(child.pid, pending.pop(0))

    def forward(number: int, frame: object) -> None:
        received.append(number)
        pending.append(number)
        pass_on()

    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []  # as under nohup
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        # In a group of its own: a terminal's Ctrl-C would reach it twice, and the second one ends it without a save.
        child = subprocess.Popen(shlex.split(command), process_group=0, preexec_fn=_end_with(os.getpid()))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"cannot be started: {shown(error)}", file=sys.stderr)
        code = 127
    else:
        pass_on()  # what came while it was starting
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else (128 - code if code < 0 else code)


def _end_with(parent: int) -> Callable[[], None] | None:
    """What a child does before its program starts: `parent`'s end, however it comes, is its SIGTERM."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended meanwhile
            os._exit(128 + signal.SIGTERM)

    return ask


if __name__ == "__main__":
    sys.exit(main())
