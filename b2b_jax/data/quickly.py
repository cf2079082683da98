"""What takes minutes when a run opens its photos is put off until everything else has been checked.

Drawing scenes, reading videos and preparing a download should not come before the line about a wrong setting.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

from b2b_jax.errors import UserError

_putting_off: ContextVar[bool] = ContextVar("putting_off", default=False)


class PutOff(Exception):
    """It would take long."""


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Within, `takes_long` raises PutOff."""
    token = _putting_off.set(True)
    try:
        yield
    finally:
        _putting_off.reset(token)


def takes_long() -> None:
    """Stands before what takes long."""
    if _putting_off.get():
        raise PutOff


def together(calls: Sequence[Callable[[], object]]) -> list:
    """What each returns. UserError with the lines of all that fail; without any, PutOff if one was put off."""
    found, problems, put_off = [], [], None
    for call in calls:
        try:
            found.append(call())
        except PutOff as error:
            put_off = error
        except UserError as error:
            problems += error.args
    if problems:
        raise UserError(*problems)
    if put_off:
        raise put_off
    return found
