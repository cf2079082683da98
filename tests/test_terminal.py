"""Outputs that are closed, broken or full do not stop a program, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from b2b_jax import terminal

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
from b2b_jax import terminal
terminal.protect()
terminal.protect()
for _ in range(20000):
    print("caf\\udce9 and more of it")
    print("caf\\udce9", file=sys.stderr)
print("x" * 10**6)
sys.stdout.flush()
opened = open(sys.argv[1], "w")
opened.write(f"{opened.fileno()}")
"""


@pytest.mark.parametrize("streams", ["| head -n 1", ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full 2>&1", "2>/dev/full"])
def test_a_program_goes_on_whatever_becomes_of_its_outputs(tmp_path, streams):
    command = f'"$PY" -c "$PROGRAM" "$FILE" {streams} >"$FILE.out" 2>"$FILE.err"; exit ${{PIPESTATUS[0]}}'
    if "head" not in streams:
        command = f'"$PY" -c "$PROGRAM" "$FILE" {streams}'
    environment = os.environ | {"PY": sys.executable, "PROGRAM": PROGRAM, "FILE": str(tmp_path / "file")}
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr[-500:]
    assert int((tmp_path / "file").read_text()) > 2  # no file takes the place of a closed output
    assert b"Traceback" not in ran.stderr + ran.stdout


def test_imports_of_the_commands_leave_no_file_in_place_of_a_closed_output(tmp_path):
    program = "import os, sys; from b2b_jax import deblur, main, prepare, serve, synthesize\n"
    program += "open(sys.argv[1], 'w').write(repr([n for n in range(3) if os.path.exists(f'/proc/self/fd/{n}')]))"
    environment = os.environ | {"PY": sys.executable, "PROGRAM": program, "FILE": str(tmp_path / "file")}
    command = ["bash", "-c", '"$PY" -c "$PROGRAM" "$FILE" >&- 2>&- <&-']
    assert subprocess.run(command, cwd=ROOT, env=environment, timeout=120).returncode == 0
    assert (tmp_path / "file").read_text() == "[0]"  # the file itself, which takes the lowest free number


def test_what_cannot_be_encoded_is_escaped(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    program = PROGRAM.replace("20000", "1")
    command = [sys.executable, "-c", program, tmp_path / "file"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert ran.stdout.startswith(b"caf\\udce9 and") and ran.stderr == b"caf\\udce9\n"


AT_ONCE = """
import os, sys
from b2b_jax import terminal
terminal.protect()
print("a line")
print("a mistake", file=sys.stderr)
terminal.bar(total=2, desc="steps")
os._exit(3)
"""


def test_an_unbuffered_python_loses_no_line():
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # as in many containers
    ran = subprocess.run([sys.executable, "-c", AT_ONCE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (3, "a line\n")
    assert ran.stderr.startswith("a mistake\n") and "steps:   0%" in ran.stderr


@pytest.mark.parametrize(("module", "words", "code"), [("list_models", [], 1), ("cli", ["--version"], 0)])
def test_what_a_full_disk_did_not_take_is_told(tmp_path, module, words, code):
    command = [sys.executable, "-m", f"b2b_jax.{module}", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == code
    assert ran.stderr == (
        "The output could not be written: No space left on device. Make room and start again\n" * code
    )


def test_a_log_is_not_filled_with_progress(capfd, monkeypatch):
    for leave in (True, False):
        bar = terminal.bar(range(2000), desc="steps", leave=leave, miniters=1)
        for number in bar:
            bar.set_postfix(loss=number, refresh=False)  # as training does
        assert capfd.readouterr().err.count("steps") == 2 * leave  # the first and the last
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in terminal.bar(range(3), desc="steps", leave=False, mininterval=0):
        pass
    assert capfd.readouterr().err.count("steps") > 2
