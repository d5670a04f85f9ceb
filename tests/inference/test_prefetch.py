"""Stages in threads: order, bounds, errors, and that nothing is left running."""

import threading
from collections.abc import Generator

import pytest

from lpsnet.inference.pipeline import Stopwatch, prefetch, timed

PATIENCE_S = 20  # for what must happen at some time


class Counting:
    """Numbers from 0 on; knows how many it gave and whether it was closed, and in which thread."""

    def __init__(self, last: int = 1_000_000, fail_at: int | None = None) -> None:
        self.given, self.closed, self.thread = 0, False, ""
        self._last, self._fail_at = last, fail_at

    def numbers(self) -> Generator[int, None, None]:
        try:
            for number in range(self._last):
                if number == self._fail_at:
                    raise ValueError("no more")
                self.given += 1
                self.thread = threading.current_thread().name
                yield number
        finally:
            self.closed = True


def test_the_same_items_in_the_same_order() -> None:
    counting = Counting(500)
    assert list(prefetch(counting.numbers())) == list(range(500))
    assert counting.closed
    assert counting.thread != threading.current_thread().name


def test_it_waits_for_those_who_use_the_items() -> None:
    counting = Counting()
    items = prefetch(counting.numbers(), num_waiting=3)
    for number in range(50):
        assert next(items) == number
        assert counting.given <= number + 1 + 3 + 1  # used, waiting, and the one that waits to be let in
    items.close()


def test_an_error_comes_at_its_place() -> None:
    items = prefetch(Counting(fail_at=3).numbers())
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(items)


@pytest.mark.parametrize("num_used", [1, 7])
def test_closing_ends_the_whole_chain(num_used: int) -> None:
    before, counting = threading.active_count(), Counting()
    items = prefetch(prefetch(counting.numbers()))
    for _ in range(num_used):
        next(items)
    assert threading.active_count() == before + 2
    items.close()
    assert counting.closed
    assert threading.active_count() == before


def test_stages_work_at_the_same_time() -> None:
    """The second item is made only while the first is in use: without a thread this would wait for ever."""
    in_use = threading.Event()

    def items() -> Generator[bool, None, None]:
        yield True
        yield in_use.wait(PATIENCE_S)

    stage = prefetch(items())
    assert next(stage)
    in_use.set()
    assert next(stage)
    stage.close()


def test_a_stopwatch_counts_what_it_takes_to_get_the_items() -> None:
    watch, counting = Stopwatch(), Counting(10)
    assert list(timed(counting.numbers(), watch)) == list(range(10))
    assert watch.seconds > 0
    assert counting.closed
