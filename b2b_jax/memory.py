"""Memory that is kept for the next step, for what is computed on a CPU; imports nothing heavy.

XLA asks for its temporary arrays anew at every call and frees them afterwards. glibc gives large ones back to the
system, which hands them out again in pages of 4 KiB and clears each at its first touch. That takes half of a training
step and more (docs/benchmarks.md).
"""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of <malloc.h>
KEPT = 2**31 - 1  # bytes, the most that mallopt takes


def keep() -> None:
    """Has this process keep up to 2 GiB of what it frees, and take large arrays from that.

    For commands, not for the library: it holds for all of the process. Threads that are already running keep to what
    they did before, and if one of them took memory, XLA's threads may share its part of the heap, where large arrays
    are mapped one by one. So no import may start such a thread. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of other systems and C libraries
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)  # large arrays lie among the small ones, not each in a mapping of its own,
        mallopt(M_ARENA_MAX, 1)  # also those of XLA's threads,
        mallopt(M_TRIM_THRESHOLD, KEPT)  # and so much free memory is no reason to give any back
