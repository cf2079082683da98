"""Memory that is kept for the next step, for what is computed on a CPU.

XLA asks for its temporary arrays anew at every call and frees them afterwards. glibc gives large ones back to the
system, which hands them out again in pages of 4 KiB and clears each at its first touch. That takes half of a training
step and more (docs/benchmarks.md).
"""

import contextlib
import ctypes

import jax

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # of <malloc.h>
KEPT = 2**31 - 1  # bytes, the most that mallopt takes
HEAP = 2**26  # bytes, the most that a thread's own heap holds in one piece


def keep() -> None:
    """Has this process keep up to 2 GiB of what it frees, and take large arrays from that; for commands that deblur.

    For commands, not for the library: it holds for all of the process. Threads that are already running keep to what
    they did before, and if one of them took memory, XLA's threads may share its part of the heap, where large arrays
    are mapped one by one. So no import may start such a thread. Does nothing where the C library is not glibc.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEPT, M_ARENA_MAX: 1})  # one heap, for arrays of any size in any thread


def keep_for_training() -> None:
    """The same for commands that train; to be called before JAX computes anything.

    Compiling leaves the main heap full of holes of thousands of sizes, and glibc walks through a list of them, under
    the heap's lock, for most of the small arrays that XLA's threads ask for. Here every thread has a heap of its own.
    Those cannot hold more than `HEAP` in one piece, so the thread that runs the steps, which is the main one, also
    runs XLA's programs: it has the main heap, and asks for what is large.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEPT, M_TOP_PAD: 2 * HEAP})  # the last: empty heaps are kept, too


def _set(options: dict[int, int]) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of other systems and C libraries
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)
