"""How long a study will still take: what its runs are expected to take, set right by what those before really took.

By kind: that latencies took half the time expected of them says nothing about trainings.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from lpsnet.studies.study import Run


class TimeLeft:
    """What is left of a study.

    Args:
        clock: seconds, going up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected: defaultdict[str, float] = defaultdict(float)  # seconds, by kind of run
        self._taken: defaultdict[str, float] = defaultdict(float)
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
            self._expected[self._run.kind] += self._run.seconds * (1 - max(0.0, self._first_part))
            self._taken[self._run.kind] += self._clock() - self._start
        self._run = None

    def took(self, run: Run, seconds: float) -> None:
        """A run that was made apart took so long."""
        if run.seconds:
            self._expected[run.kind] += run.seconds
            self._taken[run.kind] += seconds

    def seconds(self, missing: Sequence[Run], *, num_workers: int = 1) -> float | None:
        """Until all of `missing` are done, the one that is being made first; None if one may take any time.

        Runs that may be made apart are shared out among as many workers.
        """
        total = 0.0
        for number, run in enumerate(missing):
            if run.seconds is None:
                return None
            part = self._part if number == 0 and self._run is not None else 0.0
            total += run.seconds * (1 - part) * self._factor(run.kind) / (num_workers if run.apart else 1)
        return total

    def _factor(self, kind: str) -> float:
        return self._taken[kind] / self._expected[kind] if self._expected[kind] > 0 else 1.0


def in_words(seconds: float) -> str:
    """`2 h 5 min`, `4 min`, `less than a minute`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
