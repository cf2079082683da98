"""What is slow is postponed until everything else has been checked."""

import pytest

from b2b_jax.data import domains
from b2b_jax.data.quickly import PutOff, attempt, once, quickly, takes_long, together
from b2b_jax.errors import UserError
from b2b_jax.images import ImageError
from b2b_jax.stages.run import Run
from configs import demo


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


def test_a_run_begins_to_open_its_photos_once(monkeypatch, tmp_path):
    begun = []
    for side in ("open_known", "open_unknown"):
        monkeypatch.setattr(domains, side, lambda config, side=side: (begun.append(side), slow()))
    run = Run(demo.get_config("quick"), tmp_path)
    with quickly():
        tried = attempt(3 * [lambda: run.known, lambda: run.unknown])
    assert tried.results == [] and begun == ["open_known", "open_unknown"]
    assert run.known[1] == run.unknown[1] == "done"
