"""Runs a list of commands one after another; started again, it resumes where it stopped.

    python -m b2b_jax.sweep cells.txt

The file holds a command per line; empty lines and lines that begin with # are passed over:

    python -m b2b_jax.main --config configs/ablations.py:ratio,0.5
    python -m b2b_jax.main --config configs/ablations.py:ratio,0.7

They run in the folder that the sweep is started in, without a shell: no variables, no `&&`, no `>`.
Commands that ended well are noted in cells.txt.done and not run again; one that failed is told, and the next one
starts. Ctrl-C and SIGTERM go to the running command, which saves, and end the sweep. Exit codes: 0 all done, 1 some
failed, 2 there is no such list, 130 and 143 stopped.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", type=Path, metavar="FILE", help="a command per line")
    file = parser.parse_args(arguments).commands
    try:
        commands = read(file)
        done = read(done_file(file)) if done_file(file).exists() else []
    except (OSError, UnicodeDecodeError) as error:
        print(f"{file}: cannot be read ({error}); wanted a file with a command per line", file=sys.stderr)
        return 2
    return sweep(commands, done, done_file(file))


def done_file(file: Path) -> Path:
    """Where finished commands are noted."""
    return file.with_name(f"{file.name}.done")


def read(file: Path) -> list[str]:
    """The commands in a file."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def sweep(commands: list[str], done: list[str], notes: Path) -> int:
    """Runs the commands that are not done; returns the exit code."""
    failed = []
    for number, command in enumerate(commands, start=1):
        if command in done:
            print(f"[{number}/{len(commands)}] done before: {command}", flush=True)
            continue
        print(f"[{number}/{len(commands)}] {command}", flush=True)
        start = time.monotonic()
        code = run(command)
        print(f"[{number}/{len(commands)}] exit code {code} after {time.monotonic() - start:.0f} s", flush=True)
        if code in (130, 143):
            return code
        if code:
            failed.append(command)
            continue
        with notes.open("a") as file:
            file.write(f"{command}\n")
    print("\n".join([f"{len(commands) - len(failed)} of {len(commands)} done", *(f"failed: {x}" for x in failed)]))
    return 1 if failed else 0


def run(command: str) -> int:
    """Runs one command, passing signals on to it; its exit code, 128 + n when signal n ended it or the sweep."""
    received = []
    try:
        child = subprocess.Popen(shlex.split(command))
    except (OSError, ValueError) as error:
        print(f"cannot be started: {error}", file=sys.stderr)
        return 127

    def forward(number: int, frame: object) -> None:
        received.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else (128 - code if code < 0 else code)


if __name__ == "__main__":
    sys.exit(main())
