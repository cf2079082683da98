"""The readers' memory: threads that take more than there is go one after the other."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from b2b_jax import budget, images
from b2b_jax.budget import Budget


def most_at_once(total: int, sizes: list[int]) -> int:
    """The largest sum of bytes that threads of these sizes held together."""
    shared, held, most, lock = Budget(total), 0, 0, threading.Lock()
    start = threading.Barrier(len(sizes))

    def work(size):
        nonlocal held, most
        start.wait()
        with shared.take(size):
            with lock:
                held += size
                most = max(most, held)
            threading.Event().wait(0.02)
            with lock:
                held -= size

    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(work, sizes))
    assert shared.used == held == 0
    return most


@pytest.mark.parametrize(("sizes", "most"), [([40] * 6, 80), ([300, 300, 10], 300), ([50, 50], 100)])
def test_threads_share(sizes, most):
    assert most_at_once(100, sizes) <= most


def test_a_thread_that_holds_some_gets_more(timeout=20):
    shared, done = Budget(10), []

    def work():
        with shared.take(6), shared.take(6):
            done.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert len(done) == 3 and shared.used == 0


def test_what_fails_gives_its_bytes_back():
    shared = Budget(10)
    with pytest.raises(KeyError), shared.take(10):
        raise KeyError
    assert shared.used == 0


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_stays_within_its_bytes(tmp_path, mode):
    side = 1500
    values = np.random.default_rng(0).integers(0, 65536, (side, side), np.uint16)
    kind = {"I;16": values, "I": values.astype(np.int32), "F": (values / 65535).astype(np.float32)}[mode]
    Image.fromarray(kind).save(tmp_path / "a.tif")
    tracemalloc.start()
    pixels = images.read(tmp_path / "a.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(pixels[..., 0], np.rint(values / 257))
    assert peak <= budget.BYTES_PER_PIXEL * side * side + (1 << 25)
