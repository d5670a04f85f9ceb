"""How many threads OpenCV uses: one number for the whole process, which `opencv_threads` borrows and gives back."""

import contextlib
import threading
from collections.abc import Iterator

import cv2

_lock = threading.Lock()
_num_inside = 0  # callers that are in a `with` block now
_number_before = 0  # OpenCV's number when the first of them came


@contextlib.contextmanager
def opencv_threads(num_threads: int | None) -> Iterator[None]:
    """While in the block, OpenCV uses `num_threads` threads, and afterwards as many as before; None changes nothing.

    May be entered by several threads at once: the first one's number holds until the last has left.
    """
    if num_threads is None:
        yield
        return
    _enter(num_threads)
    try:
        yield
    finally:
        _leave()


def _enter(num_threads: int) -> None:
    global _num_inside, _number_before
    with _lock:
        if _num_inside == 0:
            _number_before = cv2.getNumThreads()
            _set(num_threads)
        _num_inside += 1


def _leave() -> None:
    global _num_inside
    with _lock:
        _num_inside -= 1
        if _num_inside == 0:
            _set(_number_before)


def _set(num_threads: int) -> None:
    if cv2.getNumThreads() != num_threads:  # setting it may end threads that wait for work
        cv2.setNumThreads(num_threads)
