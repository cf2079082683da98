"""Large pages of memory: who starts anew, and that nothing else changes by it."""

import json
import os
import subprocess
import sys
import threading

import pytest

from b2b_jax import huge_pages

SCRIPT = """
import json, os, sys
from pathlib import Path
from b2b_jax import huge_pages
started = len(Path("log").read_text()) if Path("log").exists() else 0
with open("log", "a") as log: log.write(".")
huge_pages.restart(Path("modes"))
print(json.dumps([os.getpid(), started, os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.utf8_mode]))
"""
glibc = pytest.mark.skipif(not huge_pages._has_glibc(), reason="not Linux with glibc")


def run(folder, modes, tunables=None):
    """Process number, and what the script says."""
    (folder / "modes").write_text(modes)
    (folder / "script.py").write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | {
        "PYTHONPATH": os.pathsep.join(sys.path)
    }
    environment |= {"GLIBC_TUNABLES": tunables} if tunables else {}
    command = [sys.executable, "-X", "utf8", "script.py", "a b", "--c=é"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, *json.loads(out)


@glibc
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
    ],
)
def test_starts_anew_once_in_the_same_process_with_all_arguments(tmp_path, before, after):
    pid, *got = run(tmp_path, "always [madvise] never\n", before)
    assert got == [pid, 1, after, ["a b", "--c=é"], 1]


@glibc
@pytest.mark.parametrize(
    ("modes", "tunables"),
    [("[always] madvise never", None), ("always madvise [never]", None), ("[madvise]", "glibc.malloc.hugetlb=0")],
)
def test_goes_on_where_nothing_would_change_or_the_user_has_decided(tmp_path, modes, tunables):
    pid, *got = run(tmp_path, modes, tunables)
    assert got == [pid, 0, tunables, ["a b", "--c=é"], 1]


@glibc
def test_goes_on_beside_other_threads_as_in_a_notebook(tmp_path, monkeypatch):
    (tmp_path / "modes").write_text("always [madvise] never\n")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    started = []
    monkeypatch.setattr(os, "execv", lambda *command: started.append(command))
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    huge_pages.restart(tmp_path / "modes")
    assert not started and "GLIBC_TUNABLES" not in os.environ
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    huge_pages.restart(tmp_path / "modes")
    assert started == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])]
    monkeypatch.delenv("GLIBC_TUNABLES")


def test_nothing_is_started_where_the_system_says_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    started = []
    monkeypatch.setattr(os, "execv", lambda *command: started.append(command))
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    huge_pages.restart(tmp_path / "absent")
    assert not started and "GLIBC_TUNABLES" not in os.environ
