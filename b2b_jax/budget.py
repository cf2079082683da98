"""Bytes that the threads of a process may use at once: many small photos are read side by side, huge ones in turn."""

import contextlib
import threading
from collections.abc import Iterator


class Budget:
    """A number of bytes, taken for as long as a block lasts; who finds too few left waits.

    What asks for more than there is in all is served alone. A thread that holds bytes and asks for more gets them at
    once: two that wait for each other would wait for ever.
    """

    def __init__(self, total: int):
        self.total, self.used = total, 0
        self._changed = threading.Condition()
        self._mine = threading.local()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Holds `size` bytes."""
        depth = getattr(self._mine, "depth", 0)
        with self._changed:
            self._changed.wait_for(lambda: depth or not self.used or self.used + size <= self.total)
            self.used += size
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            with self._changed:
                self.used -= size
                self._changed.notify_all()


BYTES_PER_PIXEL = 16  # at most, while a photo is decoded, developed or measured
READERS = Budget(2 << 30)
"""What all readers of photos in this process share: five photos of 24 million pixels, or one of 128 million."""
