"""Many images through one function, a batch at a time."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

Array = jax.Array


def batches(images: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields batches (size, h, w, 3) and how many images count; the last is filled up, so that one shape compiles."""
    images = iter(images)
    while group := list(itertools.islice(images, size)):
        yield np.stack(group + group[-1:] * (size - len(group))), len(group)


def stream(function: Callable[[np.ndarray], Array], images: Iterable[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """What `function` makes of each image (h, w, 3), computed `batch` at a time.

    JAX returns before it has computed: the next batch is handed over before the results of one are waited for, so that
    what is done with them, and with the images, takes no time from the device.
    """
    started: deque[tuple[Array, int]] = deque()
    for x, n in batches(images, batch):
        started.append((function(x), n))
        if len(started) > 1:
            yield from _fetched(*started.popleft())
    for results, n in started:
        yield from _fetched(results, n)


def _fetched(results: Array, count: int) -> np.ndarray:
    return np.asarray(results)[:count]


def run(function: Callable[[Array], Array], images: np.ndarray, batch: int) -> np.ndarray:
    """`function` over images (n, h, w, 3), `batch` at a time: float32 (n, ...)."""
    size = min(batch, len(images))
    return np.concatenate([np.asarray(function(x))[:n] for x, n in batches(images, size)])
