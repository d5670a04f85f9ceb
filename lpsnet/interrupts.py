"""How commands end on Ctrl-C, `kill`, `docker stop` (SIGTERM) and a closed terminal (SIGHUP): all three alike.

A command that can put things in order first asks for time with `postponed`; a second signal ends it at once. A signal
that was ignored when the process began, as under nohup, stays ignored.
"""

import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(BaseException):
    """The process was asked to end; `number` is the signal's. Not an `Exception`, which a library might swallow."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """Turn the first signal into an `Interrupted` in the main thread; later ones are ignored while it tidies up."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    for each in _heeded():
        signal.signal(each, stop)


class Request(threading.Event):
    """Set when a signal came. While `at_once`, a signal has its usual effect instead."""

    at_once = False


@contextmanager
def postponed(*, raises: bool = False) -> Iterator[Request]:
    """The event is set by a signal, so that work can be finished; a second signal has its usual effect at once.

    Args:
        raises: give the signal its usual effect when the block is left.
    """
    asked, before = Request(), {each: signal.getsignal(each) for each in _heeded()}
    numbers: list[int] = []

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def ask(number: int, frame: types.FrameType | None) -> None:
        numbers.append(number)
        asked.set()
        restore()
        if asked.at_once:
            numbers.clear()
            signal.raise_signal(number)

    for each in before:
        signal.signal(each, ask)
    try:
        yield asked
    finally:
        restore()
    if numbers and raises:
        signal.raise_signal(numbers[0])


def _heeded() -> list[signal.Signals]:
    """The signals that are not ignored; none in threads, which cannot have handlers."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [each for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
