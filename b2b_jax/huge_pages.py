"""Large pages of memory for what is computed on a CPU; imports nothing heavy, so that it can come first.

Linux hands memory out in pages of 4 KiB and clears each when it is first touched. XLA asks for its temporary arrays
anew at every call, which takes up to two fifths of a training step (docs/benchmarks.md). With pages of 2 MiB next to
nothing is left of it. Many systems give those only to programs that ask, and glibc asks only if told so before a
program starts.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path

MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")  # as "always [madvise] never"
TUNABLE = "glibc.malloc.hugetlb"  # since glibc 2.35; older ones pass over it


def restart(modes: Path = MODES) -> None:
    """Starts this program anew, in the same process and as it was called, with glibc told to ask for large pages.

    Returns instead where that would change nothing: pages are large anyway or never, the C library is another one, or
    the environment's GLIBC_TUNABLES already says what to do. Also beside other threads: then this is a debugger's or a
    notebook's process, which is not to be replaced.
    """
    told = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE in told or threading.active_count() > 1 or not _has_glibc() or not _on_request(modes):
        return
    os.environ["GLIBC_TUNABLES"] = f"{told}:{TUNABLE}=1".lstrip(":")
    with contextlib.suppress(OSError):  # where Python cannot find itself, small pages do, too
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _has_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # of other systems and C libraries
        return False


def _on_request(modes: Path) -> bool:
    try:
        return "[madvise]" in modes.read_text()
    except OSError:
        return False
