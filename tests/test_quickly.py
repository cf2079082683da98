"""What is slow is postponed until everything else has been checked."""

import pytest

from b2b_jax.data.quickly import PutOff, attempt, once, quickly, takes_long, together
from b2b_jax.errors import UserError
from b2b_jax.images import ImageError


def wrong():
    raise UserError("wrong")


def broken():
    raise ImageError("broken")


def slow():
    takes_long()
    return "done"


def test_mistakes_come_before_what_is_slow():
    with quickly():
        with pytest.raises(UserError, match=r"^wrong\nbroken$"):
            attempt([slow, wrong, broken, wrong])
        assert attempt([slow, lambda: 1]) == ([1], [slow])
        with pytest.raises(PutOff):
            together([slow, lambda: 1])
    assert together([slow, lambda: 1]) == ["done", 1]


def test_what_is_postponed_is_begun_once():
    begun = []

    def photos():
        begun.append(1)
        return slow()

    with quickly():
        for _ in range(3):
            with pytest.raises(PutOff):
                once("unknown", photos)
    assert len(begun) == 1 and once("unknown", photos) == "done"
