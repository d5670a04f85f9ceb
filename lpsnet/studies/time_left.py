"""How long a study will still take: what its runs are expected to take, set right by what those before really took."""

import time
from collections.abc import Callable, Sequence

from lpsnet.studies.study import Run


class TimeLeft:
    """What is left of a study.

    Args:
        clock: seconds, going up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected = self._taken = 0.0
        self._run: Run | None = None
        self._start = self._first_part = self._part = 0.0

    def begin(self, run: Run) -> None:
        """A run begins."""
        self._run, self._start, self._first_part, self._part = run, self._clock(), -1.0, 0.0

    def tell(self, part: float) -> None:
        """So much of it is done, 0 to 1; the first call says where a run that was stopped goes on."""
        if self._first_part < 0:
            self._first_part = part
        self._part = part

    def end(self) -> None:
        """It is done: from now on expectations are corrected by what it took."""
        assert self._run is not None, "it began"
        if self._run.seconds:
            self._expected += self._run.seconds * (1 - max(0.0, self._first_part))
            self._taken += self._clock() - self._start
        self._run = None

    def seconds(self, missing: Sequence[Run]) -> float | None:
        """Until all of `missing`, the one that is being made first, are done; None if one may take any time."""
        expected = [run.seconds for run in missing]
        if any(seconds is None for seconds in expected):
            return None
        total = sum(seconds for seconds in expected if seconds is not None)
        if self._run is not None and self._run.seconds:
            total -= self._run.seconds * self._part
        return max(0.0, total * self._factor())

    def _factor(self) -> float:
        return self._taken / self._expected if self._expected > 0 else 1.0


def in_words(seconds: float) -> str:
    """`2 h 5 min`, `4 min`, `less than a minute`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
