"""Makes `configs` importable however pytest is started, and compiles quickly: in tests that takes longer than running.

`XLA_FLAGS= pytest` compiles as users do; `.ci/run` runs the slow tests so.
"""

import os
import sys
from pathlib import Path

from helpers import FLAGS

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("XLA_FLAGS", FLAGS)  # read when JAX first compiles; programs that tests start inherit it
