"""Working ahead: one stage of a stream computes its next items in a thread while a later stage uses the last ones."""

import queue
import threading
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any, Self, TypeVar

Item = TypeVar("Item")

NUM_WAITING = 2  # items between two stages: enough to even out, little memory
_PATIENCE_S = 0.1  # between looks at whether anyone still wants the next item
_END = object()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def ahead(items: Generator[Item, None, None], *, num_waiting: int = NUM_WAITING) -> Generator[Item, None, None]:
    """The same items in the same order, computed in a thread of their own; at most `num_waiting` wait to be used.

    An error among the items is raised at its place. When this generator is closed, the items are closed, in their
    thread, and the thread has ended.
    """
    waiting: queue.Queue[Any] = queue.Queue(num_waiting)
    closed = threading.Event()
    worker = threading.Thread(target=_work, args=(items, waiting, closed), daemon=True)
    worker.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        closed.set()
        worker.join()


def _work(items: Generator[Any, None, None], waiting: "queue.Queue[Any]", closed: threading.Event) -> None:
    try:
        for item in items:
            if not _put(item, waiting, closed):
                return
        _put(_END, waiting, closed)
    except BaseException as error:  # whatever it is, it belongs to the one who uses the items
        _put(_Failure(error), waiting, closed)
    finally:
        items.close()


def _put(item: object, waiting: "queue.Queue[Any]", closed: threading.Event) -> bool:
    """Whether the item was taken in; not if nobody wants it any more."""
    while not closed.is_set():
        try:
            waiting.put(item, timeout=_PATIENCE_S)
        except queue.Full:
            continue
        return True
    return False


class Stopwatch:
    """Adds up the time spent in its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def __enter__(self) -> Self:
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._since


def timed(items: Generator[Item, None, None], watch: Stopwatch) -> Generator[Item, None, None]:
    """The same items; the watch adds up what it took to get them."""
    with closing(items):
        while True:
            with watch:
                item: Any = next(items, _END)
            if item is _END:
                return
            yield item
