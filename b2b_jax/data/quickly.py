"""Postpones what takes minutes until everything else has been checked.

Drawing scenes, reading videos and preparing a download should not come before the line about a wrong setting.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from b2b_jax.errors import UserError
from b2b_jax.images import ImageError

T = TypeVar("T")
_postponed: ContextVar[set[str] | None] = ContextVar("postponed", default=None)  # names of `once`; None outside


class PutOff(Exception):
    """Raised in place of something slow."""


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Within, `takes_long` raises PutOff."""
    token = _postponed.set(set())
    try:
        yield
    finally:
        _postponed.reset(token)


def takes_long() -> None:
    """Call this before something slow."""
    if _postponed.get() is not None:
        raise PutOff


def once(name: str, call: Callable[[], T]) -> T:
    """What the call returns. Within `quickly`, a name that was postponed before raises PutOff at once."""
    postponed = _postponed.get()
    if postponed is not None and name in postponed:
        raise PutOff
    try:
        return call()
    except PutOff:
        if postponed is not None:
            postponed.add(name)
        raise


class Tried(NamedTuple):
    """What became of calls."""

    results: list
    postponed: list[Callable[[], object]]


def attempt(calls: Sequence[Callable[[], object]]) -> Tried:
    """Makes all calls. UserError with a line for everything that is wrong, each once."""
    results: list[Any] = []
    postponed, problems = [], []
    for call in calls:
        try:
            results.append(call())
        except PutOff:
            postponed.append(call)
        except (UserError, ImageError) as error:
            problems += error.args
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return Tried(results, postponed)


def together(calls: Sequence[Callable[[], object]]) -> list:
    """The results of all calls. UserError as `attempt`; else PutOff if any was postponed."""
    tried = attempt(calls)
    if tried.postponed:
        raise PutOff
    return tried.results
