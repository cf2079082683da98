"""Makes `configs` importable however pytest is started, and compiles quickly: in tests that takes longer than running.

`XLA_FLAGS= pytest` compiles as users do; `.ci/run` runs the slow tests so. Programs that tests start obey SIGHUP and
Ctrl-C, also where pytest itself was started by nohup or in the background of a script.
"""

import os
import signal
import sys
from pathlib import Path

from helpers import FLAGS

sys.path.insert(0, str(Path(__file__).parents[1]))
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what is ignored is inherited
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("XLA_FLAGS", FLAGS)  # read when JAX first compiles; programs that tests start inherit it


def pytest_collection_modifyitems(items):
    """The tortures take longest, so they start first; `--no-loadscope-reorder` keeps that order."""
    items.sort(key=lambda item: item.path.stem != "test_torture")
