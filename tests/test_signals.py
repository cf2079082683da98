"""Signals and the end of the terminal, in processes of their own; how the loop saves is tested with the loop."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.processes import wait_for_file

from b2b_jax import interrupts

ROOT = Path(__file__).parents[1]
# Works until it is told to stop, then saves, all the time printing as a progress bar does.
PROGRAM = """
import sys, time
from pathlib import Path
from b2b_jax import files, terminal
from b2b_jax.training import signals
terminal.protect()
stop = signals.Stop()
stop.ready = True
with signals.watch(stop):
    Path(sys.argv[1], "ready").touch()
    for _ in range(3000):
        print("\\rworking", end="", file=sys.stderr, flush=True)
        if stop.number:
            break
        time.sleep(0.01)
    for _ in range(20):
        print("saving", flush=True)
    files.write_text(Path(sys.argv[1], "saved"), str(stop.number))
sys.exit(128 + stop.number)
"""


def start(folder, **options):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder], cwd=ROOT, **options)
    wait_for_file(folder / "ready", process)
    return process


def lead_terminal():
    """Makes the terminal on stdin that of a session of this process, as a login does."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_closed_terminal_is_a_signal_and_what_is_printed_afterwards_is_lost(tmp_path):
    ours, theirs = pty.openpty()
    process = start(tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lead_terminal)
    os.close(theirs)
    os.close(ours)
    assert process.wait(timeout=30) == 129
    assert (tmp_path / "saved").read_text() == f"{int(signal.SIGHUP)}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_signal_that_asks_for_the_end_saves_first(tmp_path, number):
    process = start(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert (tmp_path / "saved").read_text() == f"{int(number)}"


def test_under_nohup_the_end_of_the_terminal_changes_nothing(tmp_path):
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = start(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143


def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path):
    absl = tmp_path / "absl.py"  # the first that main imports
    absl.write_text(f"import pathlib, time\npathlib.Path({str(tmp_path / 'ready')!r}).touch()\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "b2b_jax.main"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for_file(tmp_path / "ready", process)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "\nStopped by SIGINT.\n" and process.returncode == 130


def test_ctrl_c_without_an_output_is_a_line_too(monkeypatch, capfd):
    codes = []
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "b2b_jax.main"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(os, "_exit", codes.append)
    interrupts.watch_imports()
    monkeypatch.setattr(sys, "stdout", None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert codes == [130] and capfd.readouterr().err == "\nStopped by SIGINT.\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["python", "-m", "b2b_jax.deblur", "a.jpg"], True),
        (["python", "-X", "dev", "-m", "b2b_jax.main"], True),
        (["python", "/usr/bin/b2b-jax", "train"], True),
        (["python", "-m", "pytest", "b2b_jax.main"], False),
        (["python", "mine.py", "-m"], False),
        (["python"], False),
    ],
)
def test_only_our_commands_are_answered_for(words, answer):
    assert interrupts.ours(words) == answer
