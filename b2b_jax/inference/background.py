"""Reading ahead and writing behind: one thread each, in order, with bounded queues.

Files are decoded and encoded while the networks compute. What a thread has begun it finishes before its context ends,
also after an error or a signal, so that a file is whole or absent and no thread outlives its files.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")


@contextlib.contextmanager
def ahead(function: Callable[[T], R], items: Iterable[T], size: int) -> Iterator[Iterator[tuple[T, Future[R]]]]:
    """A context that gives each item with the future of function(item), which is called up to `size` items ahead."""
    with _worker() as pool:
        pairs = ((item, pool.submit(function, item)) for item in items)
        yield _kept_ahead(pairs, size)


def _kept_ahead(items: Iterator[T], size: int) -> Iterator[T]:
    """The items, of which `size` are taken before they are asked for."""
    waiting = deque(itertools.islice(items, size))
    for item in items:
        waiting.append(item)
        yield waiting.popleft()
    yield from waiting


@contextlib.contextmanager
def made_ahead(items: Iterable[T], size: int) -> Iterator[Iterator[T]]:
    """A context that gives the items, which are made up to `size` ahead; what making one raises comes in its turn."""
    items, end = iter(items), object()
    with ahead(lambda _: next(items, end), itertools.count(), size) as futures:
        yield itertools.takewhile(lambda item: item is not end, (future.result() for _, future in futures))


@contextlib.contextmanager
def behind(size: int) -> Iterator[Callable[..., None]]:
    """A context that gives call(function, *arguments), which returns at once unless `size` calls wait to be made.

    The error of a call is raised by one of the next, or at the context's end, which waits for all.
    """
    waiting: deque[Future] = deque()

    def call(function: Callable[..., object], *arguments: object) -> None:
        while len(waiting) >= size:
            waiting.popleft().result()
        waiting.append(pool.submit(function, *arguments))

    with _worker() as pool:
        yield call
        while waiting:
            waiting.popleft().result()


@contextlib.contextmanager
def _worker() -> Iterator[ThreadPoolExecutor]:
    """One thread; when the context ends, what it has begun is finished and what waits is dropped."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
