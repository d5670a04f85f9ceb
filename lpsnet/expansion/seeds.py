"""How much of a score is luck: trainings repeated with other seeds, and what they say of all scores of a search.

A design's score is the mean over its seeds. The spread of one training is the standard deviation over seeds, pooled
over all designs that were trained more than once, since two or three scores of one design say little about it. A mean
over n seeds has that spread divided by the root of n. At equal latency, a lead is then decided when it exceeds the sum
of both spreads: twice the seed spread for two single trainings.
"""

from math import sqrt
from statistics import fmean
from typing import NamedTuple

from lpsnet.expansion.measurements import Failure, Outcome, Score
from lpsnet.expansion.operations import Design


class Control(NamedTuple):
    """A parent that was trained on, for its candidates to be compared with."""

    design: Design


Trained = Design | Control


class SeedScores:
    """The outcomes of a search's trainings, by design and seed; a control has scores of its own."""

    def __init__(self) -> None:
        self._outcomes: dict[Trained, dict[int, Outcome]] = {}

    def __contains__(self, design: Trained) -> bool:
        return design in self._outcomes

    def add(self, design: Trained, seed: int, outcome: Outcome) -> None:
        """Take note of an outcome. The first of a design decides whether it could be trained."""
        self._outcomes.setdefault(design, {})[seed] = outcome

    def num_tried(self, design: Trained) -> int:
        """Trainings of `design`, failed ones too."""
        return len(self._outcomes.get(design, {}))

    @property
    def spread_of_one(self) -> float | None:
        """Pooled standard deviation of a single training's mIoU, in points; None until a design has two scores."""
        squares, freedom = 0.0, 0
        for mious in map(self._mious, self._outcomes):
            if len(mious) > 1:
                mean = fmean(mious)
                squares += sum((miou - mean) ** 2 for miou in mious)
                freedom += len(mious) - 1
        return sqrt(squares / freedom) if freedom else None

    def outcome(self, design: Trained) -> Outcome:
        """The mean over the seeds of `design`, as far as its spread is known; a failure if the first one was."""
        first, mious, spread = next(iter(self._outcomes[design].values())), self._mious(design), self.spread_of_one
        if isinstance(first, Failure) or spread is None:
            return first
        return Score(fmean(mious), min(100.0, spread / sqrt(len(mious))), first.at_start, len(mious))

    def _mious(self, design: Trained) -> list[float]:
        return [it.miou for it in self._outcomes[design].values() if isinstance(it, Score)]
