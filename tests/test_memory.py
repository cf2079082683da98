"""Memory that is kept: what was freed comes back without the system clearing it anew, in threads, too."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from b2b_jax import memory

ROOT = Path(__file__).parents[1]
# Page faults of taking and freeing 64 MiB a second time, in a thread as XLA's are.
SCRIPT = """
import ctypes, resource, sys, threading
from b2b_jax import memory
if sys.argv[1:] == ["keep"]: memory.keep()
libc, size = ctypes.CDLL(None), 64 << 20
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
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def has_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False


def faults(*arguments: str) -> int:
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.skipif(not has_glibc(), reason="not Linux with glibc")
def test_what_was_freed_is_taken_again_without_page_faults():
    assert faults() >= (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert faults("keep") < 100


HEAPS = """
import ctypes, importlib, sys
for name in sys.argv[2:]: importlib.import_module(f"b2b_jax.{name}")
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
