"""Equations 3 to 5 (Section 3.4): target latency, step size of every operation, and the candidate that a step takes.

    L_T = max over the operations of Lat(N + delta)                     (3)
    k   = argmin over k >= 1 of |Lat(N + k delta) - L_T|                (4)
    choose the candidate with the largest gain in mIoU per gain in latency (5)

Latency need not grow with k (Figure 5), so every k up to a cap is measured, unless `patience` is given; of two equally
near k the smaller is taken. What Equation 5 leaves open: a candidate whose mIoU is not above its parent's is never
taken; one that gains and is not slower than its parent precedes all others, the highest mIoU first; ties go to the
smaller latency, then to the order of the operations.

The winner of several noisy scores is flattered: `expected_optimism` says by how much, and `trust` whether its lead is
more than noise once all comparisons of the step are counted.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, variance
from typing import NamedTuple, Protocol

from lpsnet.errors import ArchitectureError
from lpsnet.search.measurements import (
    CONFIDENCE,
    CostFunction,
    Latency,
    LatencyFunction,
    Limits,
    Score,
    exact,
    normal_cdf,
    t_quantile,
)
from lpsnet.search.operations import Design, Operation, SearchNetwork


class StepSize(NamedTuple):
    """One possible k of an operation, and the network `parent + k · delta`."""

    k: int
    network: SearchNetwork


@dataclass(frozen=True, slots=True)
class StepSizes:
    """The possible step sizes of an operation, in rising order; the first is 1."""

    operation: Operation
    sizes: tuple[StepSize, ...]


@dataclass(frozen=True, slots=True)
class Excluded:
    """An operation without a candidate in a step, and the reason."""

    operation: Operation
    reason: str


@dataclass(frozen=True, slots=True)
class StepSizeChoice:
    """The result of Equations 3 and 4.

    Attributes:
        target_ms: L_T; None if no operation is left.
        chosen: the step size of every operation that has one, in the order of the operations.
        excluded: the operations that have none.
    """

    target_ms: float | None
    chosen: dict[Operation, StepSize]
    excluded: tuple[Excluded, ...]


def possible_step_sizes(
    parent: SearchNetwork,
    operations: Iterable[Operation],
    *,
    max_step_size: int,
    limits: Limits,
    cost: CostFunction | None = None,
) -> tuple[list[StepSizes], list[Excluded]]:
    """The step sizes that each operation may take before latencies are known, and the operations that have none.

    A step size is excluded if the result is not a network, is the parent's own design, or breaks a limit on parameters
    or memory. An operation without k = 1, which Equation 3 needs, is excluded.
    """
    found, excluded = [], []
    for operation in operations:
        sizes, reason = _allowed(parent, operation, max_step_size, limits, cost)
        if sizes and sizes[0].k == 1:
            found.append(StepSizes(operation, tuple(sizes)))
        else:
            excluded.append(Excluded(operation, reason))
    return found, excluded


def choose_step_sizes(
    parent: SearchNetwork,
    found: Sequence[StepSizes],
    *,
    latency: LatencyFunction,
    limit_ms: float | None = None,
    patience: int | None = None,
) -> StepSizeChoice:
    """Equations 3 and 4 for the operations in `found`.

    Args:
        parent: the network to expand.
        found: from `possible_step_sizes`.
        latency: called with effort 0, the parent's design first.
        limit_ms: step sizes above this latency are excluded, and operations whose k = 1 is above it.
        patience: None measures every step size. A number measures them upwards and stops after so many in a row that
            lie, with their whole interval, further above the target than the operation's nearest so far.
    """
    known = _Known(parent.design, latency)
    known.measure(size for each in found for size in (each.sizes if patience is None else each.sizes[:1]))
    kept = [each for each in found if known.within(each.sizes[0], limit_ms)]
    excluded = tuple(
        Excluded(each.operation, f"{known.of(each.sizes[0]).median_ms:.3g} ms, limit {limit_ms:.3g} ms")
        for each in found
        if each not in kept
    )
    if not kept:
        return StepSizeChoice(None, {}, excluded)
    target_ms = max(known.of(each.sizes[0]).median_ms for each in kept)
    if patience is not None:
        _measure_upwards(kept, known, target_ms, patience)
    chosen = {each.operation: _nearest(each, known, target_ms, limit_ms) for each in kept}
    return StepSizeChoice(target_ms, chosen, excluded)


class _Known:
    """Latencies of one step in one scale: every call measures the parent, whose first latency is the unit.

    This makes calls comparable on a machine whose speed drifts.
    """

    def __init__(self, parent: Design, latency: LatencyFunction) -> None:
        self._parent, self._latency = parent, latency
        self._found: dict[Design, Latency] = {}

    def measure(self, sizes: Iterable[StepSize]) -> None:
        designs = dict.fromkeys(size.network.design for size in sizes)
        missing = [design for design in designs if design not in self._found]
        if not missing:
            return
        measured = self._latency([self._parent, *missing], effort=0)
        unit = self._found.setdefault(self._parent, measured[self._parent]).median_ms
        scale = unit / measured[self._parent].median_ms
        self._found.update({design: measured[design].times(scale) for design in missing})

    def of(self, size: StepSize) -> Latency:
        return self._found[size.network.design]

    def within(self, size: StepSize, limit_ms: float | None) -> bool:
        """Whether it is measured and not above the limit."""
        return size.network.design in self._found and (limit_ms is None or self.of(size).median_ms <= limit_ms)


def _measure_upwards(kept: Sequence[StepSizes], known: _Known, target_ms: float, patience: int) -> None:
    """Measure the step sizes upwards, one of every operation that is not given up at a time."""
    pending = [_until_hopeless(each, known, target_ms, patience) for each in kept]
    while sizes := [size for size in (next(each, None) for each in pending) if size is not None]:
        known.measure(sizes)


def _until_hopeless(each: StepSizes, known: _Known, target_ms: float, patience: int) -> Iterator[StepSize]:
    """The step sizes to measure; each must be measured before the next is asked for."""
    nearest, hopeless = _distance(known.of(each.sizes[0]), target_ms), 0
    for size in each.sizes[1:]:
        yield size
        latency = known.of(size)
        hopeless = hopeless + 1 if exact(latency.low_ms) - exact(target_ms) > nearest else 0
        nearest = min(nearest, _distance(latency, target_ms))
        if hopeless >= patience:
            return


def _nearest(each: StepSizes, known: _Known, target_ms: float, limit_ms: float | None) -> StepSize:
    """Equation 4."""
    sizes = [size for size in each.sizes if known.within(size, limit_ms)]
    return min(sizes, key=lambda size: (_distance(known.of(size), target_ms), size.k))


def _distance(latency: Latency, target_ms: float) -> Fraction:
    return abs(exact(latency.median_ms) - exact(target_ms))


def _allowed(
    parent: SearchNetwork, operation: Operation, max_step_size: int, limits: Limits, cost: CostFunction | None
) -> tuple[list[StepSize], str]:
    """The step sizes, and why the first excluded one is."""
    sizes: list[StepSize] = []
    reason = ""
    for k in range(1, max_step_size + 1):
        try:
            network = operation.apply(parent, k)
        except ArchitectureError as error:
            return sizes, reason or str(error)
        objection = "leads to the same network" if network.design == parent.design else ""
        if not objection and cost is not None and limits.needs_cost:
            objection = limits.broken_by(cost(network.design))
        reason = reason or objection
        if not objection:
            sizes.append(StepSize(k, network))
    return sizes, reason


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
    """The result of Equation 5 for the candidates of a step.

    Attributes:
        chosen: index of the candidate to take; None if none gains.
        rivals: indices of the candidates that would be taken for other values inside the intervals.
        gain_in_doubt: whether the chosen candidate's gain over its parent lies inside the intervals.
    """

    chosen: int | None
    rivals: tuple[int, ...]
    gain_in_doubt: bool

    @property
    def settled(self) -> bool:
        """True if no values inside the intervals would change the decision."""
        return not self.rivals and not self.gain_in_doubt


def decide(parent: Measured, candidates: Sequence[Measured], *, freedom: int = 0) -> Decision:
    """Equation 5 with the rules above.

    Args:
        parent: what the candidates were made from.
        candidates: in the order of the operations.
        freedom: degrees of freedom of the spread of the scores. If it is given, a rival of the chosen one is what
            `leads` does not set apart from it, all comparisons of the step counted; 0 compares each with the ends of
            the spreads.
    """
    merits = [_merit(_middle(parent), _middle(candidate)) for candidate in candidates]
    chosen = max((i for i, merit in enumerate(merits) if merit), key=lambda i: merits[i] or (), default=None)
    if chosen is None:
        rivals = [i for i, it in enumerate(candidates) if _best(it).miou > _worst(parent).miou]
        return Decision(None, tuple(rivals), gain_in_doubt=False)
    winner = candidates[chosen]
    if freedom and winner.score.spread:
        found = leads(parent, candidates, chosen, freedom=freedom)
        open_to = [it.candidate for it in found if not it.is_clear]
        return Decision(chosen, tuple(it for it in open_to if it is not None), gain_in_doubt=None in open_to)
    rivals = [index for index, it in enumerate(candidates) if index != chosen and _may_overtake(parent, winner, it)]
    return Decision(chosen, tuple(rivals), gain_in_doubt=not surely_gains(parent, winner))


def better_half(parent: Measured, candidates: Sequence[Measured]) -> list[int]:
    """The indices of the better half of the candidates by Equation 5, rounded up, and of all that tie with its last.

    A tie: some values inside the measured intervals put the candidate in front of that one. Of two that do not gain the
    one with the higher mIoU is better, then the faster one.
    """
    points = [_middle(it) for it in candidates]
    merits = [_merit(_middle(parent), point) for point in points]
    keys = [
        (merit is not None, merit or (False, point.miou, -point.latency))
        for merit, point in zip(merits, points, strict=True)
    ]
    order = sorted(range(len(candidates)), key=lambda index: keys[index], reverse=True)
    half = order[: -(-len(order) // 2)]
    last = half[-1] if half else 0
    ties = [
        index
        for index in order[len(half) :]
        if keys[index] == keys[last] or _may_overtake(parent, candidates[last], candidates[index])
    ]
    return sorted([*half, *ties])


def miou_per_ms(parent: Measured, candidate: Measured) -> float | None:
    """The quotient of Equation 5 in points of mIoU per millisecond; None where the latency does not grow."""
    before, after = _middle(parent), _middle(candidate)
    if after.latency <= before.latency:
        return None
    return float((after.miou - before.miou) / (after.latency - before.latency))


def surely_gains(parent: Measured, candidate: Measured) -> bool:
    """Whether the candidate's mIoU is above the parent's for all values inside both intervals."""
    return _worst(candidate).miou > _best(parent).miou


class _Point(NamedTuple):
    miou: Fraction
    latency: Fraction


# Larger is better: (not slower than its parent?, gain or quotient, minus the latency). None: no gain.
_Merit = tuple[bool, Fraction, Fraction] | None


def _merit(parent: _Point, candidate: _Point) -> _Merit:
    gain, delay = candidate.miou - parent.miou, candidate.latency - parent.latency
    if gain <= 0:
        return None
    return (True, gain, -candidate.latency) if delay <= 0 else (False, gain / delay, -candidate.latency)


def _beats(merit: _Merit, other: _Merit) -> bool:
    return merit is not None and (other is None or merit > other)


def _middle(it: Measured) -> _Point:
    return _Point(exact(it.score.miou), exact(it.latency.median_ms))


def _best(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) + exact(it.score.spread), exact(it.latency.low_ms))


def _worst(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) - exact(it.score.spread), exact(it.latency.high_ms))


def _may_overtake(parent: Measured, winner: Measured, rival: Measured) -> bool:
    """Whether the rival at its best beats the winner at its worst, for some parent inside the parent's intervals.

    With the denominators cleared, the difference of two quotients is linear in the parent's mIoU and in its latency.
    So the ends of its intervals suffice, and the points where a rule changes: the winner's mIoU, where it stops
    gaining, and the rival's latency, where it stops being slower.
    """
    best, worst = _best(rival), _worst(winner)
    mious = _ends(_worst(parent).miou, worst.miou, _best(parent).miou)
    latencies = _ends(_best(parent).latency, best.latency, _worst(parent).latency)
    corners = [_Point(miou, latency) for miou in mious for latency in latencies]
    return any(_beats(_merit(corner, best), _merit(corner, worst)) for corner in corners)


def _ends(low: Fraction, turning: Fraction, high: Fraction) -> tuple[Fraction, ...]:
    return (low, turning, high) if low < turning < high else (low, high)


class Lead(NamedTuple):
    """How far the chosen candidate is ahead of another one.

    Attributes:
        candidate: index of the other one; None for the parent.
        points: what the other one's mIoU lacks to be taken instead, in points; for the parent, the gain.
        half_width: of the interval of `points`, so wide that those of all comparisons of the step hold at once.
    """

    candidate: int | None
    points: float
    half_width: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval lies above 0."""
        return self.points > self.half_width


def leads(
    parent: Measured, candidates: Sequence[Measured], chosen: int, *, freedom: int, level: float = CONFIDENCE
) -> list[Lead]:
    """The lead of the chosen candidate over its parent, first, and over every other one that might be taken.

    With y the score and d the latency beyond the parent's, a rival r is taken instead of the chosen one w if y_r
    exceeds p + a (y_w - p), where p is the parent's score and a = d_r / d_w (see `_weight`). What it lacks is therefore

        a y_w + (1 - a) p - y_r,  with the variance  a² s_w² + (1 - a)² s_p² + s_r²,

    s being the spreads. Its lower bound has the level 1 - (1 - level) / m of Student's t, m being the number of
    comparisons (Bonferroni): all bounds hold at once with probability `level` or more. Latencies stand at the less
    favourable ends of their intervals.

    Args:
        parent: what the candidates were made from, with the score that they are compared with.
        candidates: of the step, every design once; scores with spreads.
        chosen: index of the one taken.
        freedom: degrees of freedom of the spreads, 1 or more.
        level: of all bounds together.
    """
    winner, base = candidates[chosen], parent.score
    before = parent.latency.median_ms
    compared: list[tuple[int | None, float, float]] = [(None, winner.score.miou - base.miou, _norm(winner, parent))]
    for index, rival in enumerate(candidates):
        weight = _weight(winner.latency.high_ms - before, rival.latency.low_ms - before)
        if index == chosen or weight is None:
            continue
        needed = base.miou + weight * (winner.score.miou - base.miou)
        parts = (weight * winner.score.spread, (1 - weight) * base.spread, rival.score.spread)
        compared.append((index, needed - rival.score.miou, math.hypot(*parts)))
    width = t_quantile(1 - (1 - level) / len(compared), freedom)
    return [Lead(index, points, width * deviation) for index, points, deviation in compared]


def _norm(*members: Measured) -> float:
    return math.hypot(*(it.score.spread for it in members))


def _weight(winner: float, rival: float) -> float | None:
    """How far the score that a rival needs to be taken moves with the winner's score, by their latencies beyond the
    parent's; None if it is not taken whatever its score, as long as the winner gains."""
    if winner > 0:
        return max(0.0, rival) / winner  # not slower than the parent: taken as soon as it gains
    return 1.0 if rival <= 0 else None


_GRID, _REACH = 0.1, 60  # of the integral over the winner's luck: its step and number of steps each way, in spreads


def expected_optimism(parent: Measured, candidates: Sequence[Measured], chosen: int) -> float:
    """By how much the chosen candidate's mIoU is expected to exceed its mean over seeds, in points; 0 without spreads.

    Candidate i has the score y_i = m_i + e_i with e_i normal of spread s. Equation 5 takes the one, I, whose score is
    furthest above what it needs, so it takes good luck rather than bad: E[e_I] > 0 (the winner's curse). With
    t_ij(y) = p + a_ij (y - p), the score that j needs where i has y (`leads`), and f, F the normal density and
    distribution,

        E[e_I] = sum over i of the integral over z of
                 s z f(z) [m_i + s z > p] product over j of F((t_ij(m_i + s z) - m_j) / s)

    divided by the same without s z, the probability that anything is taken. Equal means and latencies give s times the
    mean of the largest of k normal numbers: 1.54 s for ten.

    The m_i are not known. Scores are spread further than means are, so with scores in their place the luck comes out
    too small; they are drawn towards their mean M by the part of their variance that is noise (James and Stein 1961):
    m_i = M + (y_i - M) v / (v + s_i²), where v is the variance of the scores less the mean of s_i², 0 or more. And
    whichever leads is trained with more seeds: so all are given the spread s of the chosen one. In simulations of such
    steps the mean result is within a third of the spread of the luck that there was
    (`tests/search/test_search_trust.py`). The parent's score is taken as it is.

    It is the luck of seeds. That of images, which the scores of all candidates share, is not in their spread over
    seeds; a part of the split that no step sees shows it (`lpsnet expand --holdout-share`).

    Args:
        parent: what the candidates were made from, with the score that they are compared with.
        candidates: of the step, every design once.
        chosen: index of the one taken.
    """
    spread, base = candidates[chosen].score.spread, parent.score.miou
    if not spread:
        return 0.0
    delays = [it.latency.median_ms - parent.latency.median_ms for it in candidates]
    means = _shrunk([it.score for it in candidates])
    luck = chance = 0.0
    for own, (mean, delay) in enumerate(zip(means, delays, strict=True)):
        others = [
            (other, weight)
            for index, (other, further) in enumerate(zip(means, delays, strict=True))
            if index != own and (weight := _weight(delay, further)) is not None
        ]
        for number in range(-_REACH, _REACH + 1):
            z = number * _GRID
            gain = mean + spread * z - base
            above = min(1.0, gain / spread / _GRID + 0.5)  # the part of this strip of the integral that gains
            if above <= 0:
                continue
            share = above * math.exp(-z * z / 2)
            for other, weight in others:
                share *= normal_cdf((base + weight * gain - other) / spread)
            luck += share * spread * z
            chance += share
    return luck / chance if chance else 0.0


def _shrunk(scores: Sequence[Score]) -> list[float]:
    """Estimates of the scores' means; see `expected_optimism`."""
    if len(scores) < 2:
        return [it.miou for it in scores]
    middle = fmean(it.miou for it in scores)
    real = max(0.0, variance(it.miou for it in scores) - fmean(it.spread**2 for it in scores))
    return [middle + (it.miou - middle) * real / (real + it.spread**2) for it in scores]


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a step's choice can be trusted, by the spread of its scores over seeds.

    Attributes:
        optimism: see `expected_optimism`, in points.
        comparisons: of the chosen candidate with its parent and others.
        freedom: degrees of freedom of the spread.
        nearest: operation of the candidate whose interval reaches furthest below 0, or least far above; "" for the
            parent.
        lead, half_width: over that one, in points; see `Lead`.
    """

    optimism: float
    comparisons: int
    freedom: int
    nearest: str
    lead: float
    half_width: float

    @property
    def stands(self) -> bool:
        """Whether the choice is set apart from the parent and all others at once, at 95 %."""
        return self.lead > self.half_width

    def __str__(self) -> str:
        """In one line."""
        over = f"over {self.nearest}" if self.nearest else "over the parent"
        interval = f"{self.lead:.2f} ± {self.half_width:.2f} points {over}, all {self.comparisons} comparisons counted"
        return f"{'stands' if self.stands else 'does not stand'}: {interval}; optimism {self.optimism:.2f} points"


def trust(
    parent: Measured, candidates: Sequence[Measured], chosen: int, names: Sequence[str], *, freedom: int
) -> Trust | None:
    """Of a choice; None if the spread of the scores is not known.

    Args:
        parent, candidates, chosen: as for `leads`; the spread of the scores may be 0, which means that it is not known.
        names: the candidates' operations.
        freedom: degrees of freedom of the spread; 0 if it is not known.
    """
    if not freedom or not candidates[chosen].score.spread:
        return None
    found = leads(parent, candidates, chosen, freedom=freedom)
    nearest = min(found, key=lambda it: it.points / it.half_width)
    return Trust(
        optimism=expected_optimism(parent, candidates, chosen),
        comparisons=len(found),
        freedom=freedom,
        nearest="" if nearest.candidate is None else names[nearest.candidate],
        lead=nearest.points,
        half_width=nearest.half_width,
    )
