"""Equation 5: which candidate a step takes, and whether that is decided or lies inside the noise.

The paper divides the gain in mIoU by the gain in latency and says no more. What it leaves open is settled here:

- A candidate gains if its mIoU is above the parent's. One that does not gain is never taken, however fast: the quotient
  of two losses would be positive.
- A candidate that gains and is not slower than its parent is better in both; the quotient says nothing (it is negative
  or has no value). Such candidates come before all others; among them the highest mIoU wins.
- Otherwise the largest quotient wins.
- Ties go to the smaller latency, then to the order of the table of operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

from lpsnet.expansion.measurements import Latency, Score, exact


class Measured(Protocol):
    """Anything with a latency and a score."""

    @property
    def latency(self) -> Latency:
        """Lat(N)."""
        ...

    @property
    def score(self) -> Score:
        """Perf(N)."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What Equation 5 says about the candidates of a step.

    Attributes:
        chosen: index of the candidate to take; None if none gains.
        rivals: indices of the candidates that would be taken instead if the numbers were others inside their intervals.
        gain_in_doubt: True if the chosen candidate's gain over its parent is itself inside the intervals.
    """

    chosen: int | None
    rivals: tuple[int, ...]
    gain_in_doubt: bool

    @property
    def settled(self) -> bool:
        """True if no number inside the intervals would change the decision."""
        return not self.rivals and not self.gain_in_doubt


def decide(parent: Measured, candidates: Sequence[Measured]) -> Decision:
    """Equation 5 with the rules above; candidates are in the order of the table of operations."""
    merits = [_merit(_middle(parent), _middle(candidate)) for candidate in candidates]
    chosen = _largest(merits)
    if chosen is None:
        rivals = [index for index, candidate in enumerate(candidates) if _may_gain(parent, candidate)]
        return Decision(None, tuple(rivals), gain_in_doubt=False)
    winner = candidates[chosen]
    rivals = [index for index, it in enumerate(candidates) if index != chosen and _may_overtake(parent, winner, it)]
    return Decision(chosen, tuple(rivals), gain_in_doubt=not surely_gains(parent, winner))


def miou_per_ms(parent: Measured, candidate: Measured) -> float | None:
    """The quotient of Equation 5 in points of mIoU a millisecond; None where the latency does not grow."""
    before, after = _middle(parent), _middle(candidate)
    if after.latency <= before.latency:
        return None
    return float((after.miou - before.miou) / (after.latency - before.latency))


def surely_gains(parent: Measured, candidate: Measured) -> bool:
    """Whether the candidate's mIoU is above the parent's wherever both lie inside their intervals."""
    return _worst(candidate).miou > _best(parent).miou


class _Point(NamedTuple):
    miou: Fraction
    latency: Fraction


# Larger is better: (in front of its parent in both?, gain or quotient, minus the latency). None: no gain.
_Merit = tuple[bool, Fraction, Fraction] | None


def _merit(parent: _Point, candidate: _Point) -> _Merit:
    gain, delay = candidate.miou - parent.miou, candidate.latency - parent.latency
    if gain <= 0:
        return None
    return (True, gain, -candidate.latency) if delay <= 0 else (False, gain / delay, -candidate.latency)


def _largest(merits: Sequence[_Merit]) -> int | None:
    """Index of the best; the first of several that are equal."""
    best: int | None = None
    for index, merit in enumerate(merits):
        if _beats(merit, None if best is None else merits[best]):
            best = index
    return best


def _beats(merit: _Merit, other: _Merit) -> bool:
    return merit is not None and (other is None or merit > other)


def _middle(it: Measured) -> _Point:
    return _Point(exact(it.score.miou), exact(it.latency.median_ms))


def _best(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) + exact(it.score.spread), exact(it.latency.low_ms))


def _worst(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) - exact(it.score.spread), exact(it.latency.high_ms))


def _may_gain(parent: Measured, candidate: Measured) -> bool:
    return _best(candidate).miou > _worst(parent).miou


def _may_overtake(parent: Measured, winner: Measured, rival: Measured) -> bool:
    """True if the rival at its best beats the winner at its worst, for some parent inside the parent's intervals.

    The parent's numbers count for both at once. With the denominators cleared, the difference of two quotients is
    linear in the parent's mIoU and in its latency, so the ends of its intervals suffice, and with them the turning
    points where a rule changes: the winner stops gaining at its own mIoU, the rival stops being slower at its own
    latency.
    """
    best, worst = _best(rival), _worst(winner)
    mious = _ends(_worst(parent).miou, worst.miou, _best(parent).miou)
    latencies = _ends(_best(parent).latency, best.latency, _worst(parent).latency)
    corners = [_Point(miou, latency) for miou in mious for latency in latencies]
    return any(_beats(_merit(corner, best), _merit(corner, worst)) for corner in corners)


def _ends(low: Fraction, turning: Fraction, high: Fraction) -> tuple[Fraction, ...]:
    return (low, turning, high) if low < turning < high else (low, high)
