"""SIGTERM, Ctrl-C and the end of the terminal (SIGHUP), noticed at once, even while the main thread compiles.

Python runs its signal handlers in the main thread between two of its instructions, so not while XLA compiles, which can
take minutes; and what a handler raises is dropped in the callbacks of the garbage collector, of which JAX has one. Its
wake-up descriptor is written at once; a thread reads it.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from typing import NoReturn

from b2b_jax import files, interrupts

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def watch(react: Callable[[int], None]) -> Iterator[None]:
    """Calls react(number), in a thread of its own, for every one of NUMBERS while the block runs.

    SIGHUP stays ignored where it is, as under nohup.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    outer = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    watched = set(NUMBERS) - ignored
    previous = {number: signal.signal(number, lambda number, frame: None) for number in watched}
    listener = threading.Thread(target=_listen, args=(receiver, react, watched), name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(outer)
        sender.close()
        if threading.current_thread() is not listener:
            listener.join(timeout=1)  # it ends with its socket, unless it is reacting


def _listen(receiver: socket.socket, react: Callable[[int], None], watched: Collection[int]) -> None:
    with receiver:
        while caught := receiver.recv(64):
            for number in filter(watched.__contains__, caught):
                react(number)


def leave(number: int) -> None:
    """Ends the process at once with the signal's exit code, as safely as `kill -9`: whatever was being saved is not."""
    end(number, interrupts.stopped(number))


def end(number: int, message: str) -> NoReturn:
    """Says `message`, removes what this process is writing, and ends it with the signal's exit code."""
    files.drop_drafts()
    with contextlib.suppress(OSError, ValueError):  # closed outputs
        print(message, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(128 + number)


class Stop:
    """What the training loop does at a signal: it goes on to the end of the step and its save, which `number` asks for.

    Before the first step of a start there is nothing to save, so the process ends at once; so it does at a second
    Ctrl-C. A second SIGTERM changes nothing: schedulers send several, and a SIGKILL when they are out of patience.
    """

    def __init__(self):
        self.number = 0  # of the first signal; 0: go on
        self.ready = False  # a step of this start is done

    def __call__(self, number: int) -> None:
        """Takes note of a signal."""
        if not self.ready or (self.number and number == signal.SIGINT):
            leave(number)
        if not self.number:
            self.number = number
            print("\nSaving, then stopping; a Ctrl-C more stops at once.", file=sys.stderr, flush=True)
