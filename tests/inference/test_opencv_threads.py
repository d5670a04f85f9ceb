"""The number of OpenCV's threads is borrowed and given back, also by several threads at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import cv2
import pytest

from lpsnet.inference.segmenter import opencv_threads


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield
    cv2.setNumThreads(before)


def test_a_number_is_borrowed() -> None:
    with opencv_threads(1):
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == 3


def test_none_changes_nothing() -> None:
    with opencv_threads(None):
        assert cv2.getNumThreads() == 3


def test_an_error_gives_it_back() -> None:
    with pytest.raises(ZeroDivisionError), opencv_threads(2):
        _ = 1 / 0
    assert cv2.getNumThreads() == 3


def test_the_last_to_leave_gives_it_back() -> None:
    inside = Barrier(4, timeout=10)

    def borrow(number: int) -> int:
        with opencv_threads(number):
            inside.wait()
            return cv2.getNumThreads()

    with ThreadPoolExecutor(4) as pool:
        seen = set(pool.map(borrow, [1, 2, 4, 5]))
    assert len(seen) == 1
    assert seen <= {1, 2, 4, 5}
    assert cv2.getNumThreads() == 3
