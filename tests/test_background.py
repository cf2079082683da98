"""Threads that read ahead and write behind: in order, no further than told, and ended with their context."""

import itertools
import threading
import time

import pytest

from b2b_jax.inference.background import ahead, behind, made_ahead

TIMEOUT = 60  # seconds after which a thread is taken for stuck


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def numbers(made: list[int], count: int = 10):
    """Counts, and notes how far."""
    for i in range(count):
        made.append(i)
        yield i


@pytest.mark.parametrize("size", [1, 3, 20])
def test_items_come_in_order_and_no_more_are_made_than_told(size):
    made = []
    with made_ahead(numbers(made), size) as items:
        for i, item in enumerate(items):
            time.sleep(0.01)  # for the thread to go too far
            assert item == i and i < len(made) <= i + 1 + size
        assert i == 9


def test_the_next_call_is_made_while_an_item_is_in_use():
    called = [threading.Event() for _ in range(3)]
    with ahead(lambda i: called[i].set() or 10 * i, range(3), 1) as pairs:
        for i, future in pairs:
            assert future.result() == 10 * i
            assert called[min(i + 1, 2)].wait(TIMEOUT)


def test_an_error_comes_in_its_turn():
    def broken():
        yield from (1, 2)
        raise OSError("broken")

    found = []
    with pytest.raises(OSError, match="broken"), made_ahead(broken(), 5) as items:
        found.extend(items)
    assert found == [1, 2]
    with made_ahead(broken(), 5) as items:
        assert list(itertools.islice(items, 2)) == [1, 2]
    with ahead(lambda i: 1 // i, (0, 1), 1) as pairs:
        (_, first), (_, second) = pairs
        assert isinstance(first.exception(), ZeroDivisionError) and second.result() == 1


def test_leaving_early_makes_no_more():
    made = []
    with pytest.raises(KeyboardInterrupt), made_ahead(numbers(made), 2) as items:
        next(items)
        raise KeyboardInterrupt
    assert len(made) <= 3


def test_calls_are_made_in_order_behind_the_caller():
    done, go = [], threading.Event()
    with behind(2) as call:
        call(lambda: go.wait(TIMEOUT))
        call(done.append, 1)
        assert done == []  # the caller went on
        go.set()
        for i in range(2, 9):
            call(done.append, i)
    assert done == list(range(1, 9))


def test_a_caller_waits_when_too_many_calls_do():
    go, went_on = threading.Event(), threading.Event()

    def caller():
        with behind(2) as call:
            for _ in range(3):
                call(go.wait, TIMEOUT)
            went_on.set()

    thread = threading.Thread(target=caller)
    thread.start()
    assert not went_on.wait(0.2)
    go.set()
    thread.join(TIMEOUT)
    assert went_on.is_set()


def test_the_error_of_a_call_is_raised():
    with pytest.raises(ZeroDivisionError), behind(2) as call:
        call(lambda: 1 // 0)


def test_after_an_error_what_has_begun_is_finished_and_the_rest_dropped():
    done, begun = [], threading.Event()

    def slow():
        begun.set()
        time.sleep(0.1)
        done.append("slow")

    with pytest.raises(KeyboardInterrupt), behind(5) as call:
        call(slow)
        call(done.append, "never")
        assert begun.wait(TIMEOUT)
        raise KeyboardInterrupt
    assert done == ["slow"]
