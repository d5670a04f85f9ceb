"""A fuzz target, and how it is run: cases from a strategy, one rule for all of them.

The rule: what is handed a damaged or hostile file either does its work or raises an `LpsnetError`, soon. What 'its
work' means is the target's own assertion. Any other exception, a crash or a hang is a bug.
"""

import contextlib
import faulthandler
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from lpsnet.errors import LpsnetError

HANG_SECONDS = 60  # a case takes milliseconds; this distinguishes a hang from a slow machine
MAX_MESSAGE = 20_000  # characters: a message may repeat what was handed in, and not pages of its own


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        name: of the target.
        cases: what is handed over.
        check: handed a case and an empty folder; does the work and asserts what must hold. May raise `LpsnetError`.
        many: cases of the long run.
        few: cases of the default run.
    """

    name: str
    cases: SearchStrategy[Any]
    check: Callable[[Any, Path], None]
    many: int
    few: int = 25

    def __str__(self) -> str:
        return self.name


def fuzz(target: Target, count: int, *, repeatable: bool) -> None:
    """Run `count` cases; with `repeatable` the same ones every time, so that the default tests never flicker."""

    @settings(
        max_examples=count,
        derandomize=repeatable,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def run(case: Any) -> None:
        with tempfile.TemporaryDirectory() as folder, _no_hang():
            refused_or(lambda: target.check(case, Path(folder)))

    run()


def refused_or(work: Callable[[], object]) -> str:
    """Do `work`; returns "" if it succeeded, and the message if it was refused as the user's mistake."""
    try:
        work()
    except LpsnetError as error:
        message = str(error)
        assert message.strip(), "an error without a word"
        assert len(message) < MAX_MESSAGE, f"a message of {len(message)} characters"
        return message
    return ""


@contextlib.contextmanager
def _no_hang() -> Iterator[None]:
    """Raise in Python code that takes too long; where it is a library that hangs, show where and end the process."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"a case took more than {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANG_SECONDS)
    faulthandler.dump_traceback_later(2 * HANG_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
