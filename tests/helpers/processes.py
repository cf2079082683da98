"""Commands that tests start, in this process or beside it: fresh flags, where they listen, how to wait for them."""

import socket
import subprocess
import time
from pathlib import Path

from absl import flags


def wait_for(happened, seconds: float = 60):
    """What `happened` returns once it is true; an assertion when it never is."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)
    return found


def wait_for_file(path: Path, process: subprocess.Popen) -> None:
    """Waits until the process has made the file; an assertion when it ends before."""
    wait_for(lambda: path.exists() or process.poll() is not None)
    assert process.poll() is None


def free_port() -> int:
    """A port of this computer that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fresh_flags() -> None:
    """Forgets the flags that an earlier command of this process was given."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
