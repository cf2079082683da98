"""Command lines run in forks of one process, so that what all of them import is imported once."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
# None of these imports starts JAX's threads.
PROGRAM = """
import contextlib, io, json, os, runpy, sys
from b2b_jax import deblur, main, serve
results = []
for command in json.loads(sys.argv[1]):
    ours, theirs = os.pipe()
    if not os.fork():
        out, err = io.StringIO(), io.StringIO()
        sys.argv = command
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = runpy.run_path(command[0], run_name="__main__") and 0
            except SystemExit as exit:
                code = exit.code or 0
        os.write(theirs, json.dumps([code, out.getvalue(), err.getvalue()]).encode())
        os._exit(0)
    os.close(theirs)
    results.append(json.loads(open(ours).read() or '[1, "", "ended without a word"]'))
    os.wait()
print(json.dumps(results))
"""


class Ran(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str


def run_each(commands: Sequence[Sequence[str]]) -> list[Ran]:
    """Runs files as programs, each with its arguments behind it."""
    options = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    ran = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(commands)], **options, timeout=600)
    assert ran.returncode == 0, ran.stderr
    return [Ran(*result) for result in json.loads(ran.stdout)]
