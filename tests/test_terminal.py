"""Outputs that are closed, broken or full do not stop a program, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
