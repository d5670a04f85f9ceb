"""Whether what was measured here agrees with what is published: the order of things, and the spread over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, slots=True)
class Spread:
    """Scores of one network with different seeds.

    Attributes:
        scores: one a seed, at least one.
    """

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None with one."""
        return stdev(self.scores) if len(self.scores) > 1 else None


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: the correlation of the ranks of `a` and `b`, 1 for the same order and -1 for the reverse.

    Equal values share the mean of their ranks. None if there are less than two pairs, or one side is all the same.
    """
    if len(a) < 2:
        return None
    ranks = [_ranks(a), _ranks(b)]
    first, second = ([rank - fmean(side) for rank in side] for side in ranks)
    squares = sum(x * x for x in first) * sum(y * y for y in second)
    if squares == 0:
        return None
    return float(sum(x * y for x, y in zip(first, second, strict=True)) / squares**0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their places."""
    return [sum(other < value for other in values) + (1 + values.count(value)) / 2 for value in values]


def best_two(scores: Mapping[str, float]) -> list[str]:
    """The names with the highest scores, best first; equal ones in their order."""
    return sorted(scores, key=lambda name: -scores[name])[:2]


def describe_best(spreads: Mapping[str, Spread], *, paper: str) -> str:
    """Which of at least two networks has the highest mean mIoU, whether that is the paper's, and how sure it is."""
    first, second, *_ = sorted(spreads, key=lambda name: -spreads[name].mean)
    better, worse = spreads[first], spreads[second]
    agrees = "as in the paper" if first == paper else f"unlike in the paper, where it is {paper}"
    text = (
        f"{first} has the highest mIoU, {agrees}: {better.mean:.2f} before {second} with {worse.mean:.2f}, "
        f"{_seeds(better, worse)}."
    )
    if paper in (first, second) or paper not in spreads:
        return text
    own = spreads[paper]
    return f"{text} {paper}: {own.mean:.2f}, {_seeds(better, own)}."


def _seeds(better: Spread, worse: Spread) -> str:
    counts = len(better.scores), len(worse.scores)
    if min(counts) == 1:
        return "one seed each" if counts == (1, 1) else f"with {counts[0]} and {counts[1]} seeds"
    return "by every seed" if min(better.scores) > max(worse.scores) else "but not by every seed"
