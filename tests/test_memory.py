"""Memory that is kept: what was freed comes back without the system clearing it anew, in threads, too."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from b2b_jax import memory

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
# Page faults of taking and freeing some memory a second time, in the main thread and in one as XLA's are.
SCRIPT = """
import ctypes, resource, sys, threading
from b2b_jax import memory
size, *ways = sys.argv[2:]
for way in ways: getattr(memory, way)()
libc, size = ctypes.CDLL(None), int(size)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def use():
    pointer = libc.malloc(size)
    libc.memset(pointer, 1, size)
    libc.free(pointer)
def work():
    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
if sys.argv[1] == "main":
    work()
else:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


def has_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False


def counted(script: str, *arguments: object) -> int:
    """What a script prints in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.skipif(not has_glibc(), reason="not Linux with glibc")
@pytest.mark.parametrize(
    ("way", "thread", "size"),
    [
        ("keep", "another", 256 * MIB),
        ("keep_for_training", "another", memory.HEAP // 2),  # the small arrays of XLA's threads
        ("keep_for_training", "main", 256 * MIB),
    ],
)
def test_what_was_freed_is_taken_again_without_page_faults(way, thread, size):
    assert counted(SCRIPT, thread, size) >= size // os.sysconf("SC_PAGE_SIZE")
    assert counted(SCRIPT, thread, size, way) < 100


# Page faults of running a program ten times more whose only temporary array has 128 MiB. It may be freed a little after
# the result is there; then the next call takes new memory, which is kept as well.
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from b2b_jax import memory
for way in sys.argv[1:]: getattr(memory, way)()
def run(): program(jnp.ones((8192, 1))).block_until_ready()
program = jax.jit(lambda x: jnp.cos(x + jnp.arange(4096.0)) @ jnp.ones(4096))
run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not has_glibc(), reason="not Linux with glibc")
def test_a_step_in_training_takes_its_large_temporaries_again():
    pages = 128 * MIB // os.sysconf("SC_PAGE_SIZE")
    assert counted(PROGRAM) >= 10 * pages
    assert counted(PROGRAM, "keep_for_training") < 5 * pages


HEAPS = """
import ctypes, importlib, sys
importlib.import_module(f"b2b_jax.{sys.argv[2]}")
libc = ctypes.CDLL(None)
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(not has_glibc(), reason="not Linux with glibc")
@pytest.mark.parametrize("command", ["main", "deblur"])
def test_no_import_leaves_a_second_heap_for_xla_to_share(tmp_path, command):
    file = tmp_path / "heaps.xml"
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", HEAPS, str(file), command], env=environment, check=True, timeout=60)
    assert file.read_text().count("<heap nr=") == 1


@pytest.mark.parametrize("libc", [object(), None])
def test_another_c_library_is_left_as_it_is(monkeypatch, libc):
    def load(name):
        if libc is None:
            raise OSError("no such library")
        return libc

    monkeypatch.setattr(ctypes, "CDLL", load)
    memory.keep()
    memory.keep_for_training()
