"""Algorithm 1: the progressive expansion (Section 3.4, Equations 3 to 5).

Pure: Lat(·) and Perf(·) come in as functions, nothing is written, nothing is random. The same answers from the
functions give the same search, and that is how one is resumed: it is run again with the answers it had. A step:

1. Equations 3 and 4 find a step size for every operation, from a first look at the latencies (effort 0).
2. The parent and the candidates are measured in turn (effort 1), as line 23 does. Candidates above the limit drop out.
3. Every design not trained before in this search is trained once, and Equation 5 ranks the candidates.
4. While the latencies are too uncertain to decide, parent and candidates are measured again with more effort, up to a
   bound. A step that is undecided then takes the candidate that looks best and says that it is undecided.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lpsnet.errors import RunError
from lpsnet.expansion.family import Doubt, Expansion, Member, Step
from lpsnet.expansion.measurements import (
    CostFunction,
    Failure,
    Latency,
    LatencyFunction,
    Limits,
    Outcome,
    PerformanceFunction,
    Score,
)
from lpsnet.expansion.operations import Design, Operation, SearchNetwork, table_1
from lpsnet.expansion.ranking import Decision, decide
from lpsnet.expansion.step_size import Excluded, Rung, choose_step_sizes, ladders


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The numbers of a search.

    Attributes:
        num_steps: I of Algorithm 1. Table 4 has 14.
        max_step_size: the cap on k.
        patience: None looks at every k up to the cap; a number gives an operation up earlier (see `choose_step_sizes`).
        max_effort: the most effort a step puts into its latencies, at least 1.
        limits: what no chosen network may exceed.
    """

    num_steps: int = 14
    max_step_size: int = 16
    patience: int | None = None
    max_effort: int = 3
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, least in (("num_steps", 0), ("max_step_size", 1), ("patience", 1), ("max_effort", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RunError(f"{name} of a search is at least {least}; got {value}")


def expand(
    start: SearchNetwork,
    *,
    latency: LatencyFunction,
    performance: PerformanceFunction,
    operations: Iterable[Operation] | None = None,
    options: SearchOptions | None = None,
    cost: CostFunction | None = None,
    on_start: Callable[[Member], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Expansion:
    """Grow a family of networks from `start`.

    Args:
        start: N^0, for example `SearchNetwork.start("tiny")`.
        latency: Lat(·).
        performance: Perf(·). Called once for the start, once a step for the designs not scored before in this search.
        operations: Delta; Table 1 for the start's number of slots if not given.
        options: number of steps, cap on k, limits.
        cost: parameters and memory of a design; needed for limits on them.
        on_start, on_step: told of the start and of every step as soon as it is known, the one the search stops at too.
        progress: told what is being done, a line at a time.

    Raises:
        RunError: the start could not be trained, or there is a limit but no function for what it limits.
    """
    options = options or SearchOptions()
    if options.limits.needs_cost and cost is None:
        raise RunError("a limit on parameters or memory needs the function that counts them: pass cost=")
    table = tuple(dict.fromkeys(table_1(num_slots=len(start.ratio_slots)) if operations is None else operations))
    search = _Search(table, options, latency, performance, cost, progress or (lambda line: None), {})
    member = search.start(start)
    found = Expansion(member, ())
    (on_start or (lambda member: None))(member)
    for number in range(1, options.num_steps + 1):
        step = search.step(number, member)
        found = replace(found, steps=(*found.steps, step))
        (on_step or (lambda step: None))(step)
        if step.chosen is None:
            break
        member = step.chosen
    return found


class _Candidate(NamedTuple):
    operation: Operation
    rung: Rung

    @property
    def design(self) -> Design:
        return self.rung.network.design


class _Ranked(NamedTuple):
    parent: Member
    candidates: tuple[Member, ...]
    decision: Decision
    distinct: tuple[Member, ...]  # the candidates with every design once; the decision's indices count these
    doubt: Doubt


@dataclass(frozen=True, slots=True)
class _Search:
    operations: tuple[Operation, ...]
    options: SearchOptions
    latency: LatencyFunction
    performance: PerformanceFunction
    cost: CostFunction | None
    progress: Callable[[str], None]
    outcomes: dict[Design, Outcome]  # Perf(N) of all that was trained so far

    def start(self, network: SearchNetwork) -> Member:
        """Line 10: P = Perf(N^0), L = Lat(N^0)."""
        self.progress(f"step 0: measuring and training the start, {network}")
        design = network.design
        latency = self.latency([design], effort=1)[design]
        outcome = self._train([design], parent=None)[design]
        if isinstance(outcome, Failure):
            raise RunError(f"the start {network} could not be trained: {outcome.reason}")
        return Member(0, network, latency, outcome)

    def step(self, number: int, parent: Member) -> Step:
        """Lines 13 to 27."""
        self.progress(f"step {number} of {self.options.num_steps}: step sizes for {len(self.operations)} operations")
        candidates, target_ms, excluded = self._candidates(parent)
        latencies = self._measure(parent, candidates, effort=1) if candidates else {}
        fast, slow = _split(candidates, latencies, self.options.limits.latency_ms)
        if target_ms is not None:
            self.progress(f"step {number}: target {target_ms:.4g} ms, {len(_designs(fast))} candidates to train")
        outcomes = self._train(_designs(fast), parent=parent.design)
        failed = [_failure(it, outcomes[it.design]) for it in fast if isinstance(outcomes[it.design], Failure)]
        excluded = (*excluded, *slow, *failed)
        trained = [it for it in fast if isinstance(outcomes[it.design], Score)]
        ranked, late = self._ranked(number, parent, candidates, trained, latencies)
        return _step(number, ranked, target_ms, self._in_order((*excluded, *late)))

    def _candidates(self, parent: Member) -> tuple[list[_Candidate], float | None, tuple[Excluded, ...]]:
        limits = self.options.limits
        found, impossible = ladders(
            parent.network, self.operations, max_step_size=self.options.max_step_size, limits=limits, cost=self.cost
        )
        if not found:
            return [], None, tuple(impossible)
        sizes = choose_step_sizes(
            parent.network, found, latency=self.latency, limit_ms=limits.latency_ms, patience=self.options.patience
        )
        candidates = [_Candidate(operation, rung) for operation, rung in sizes.chosen.items()]
        return candidates, sizes.target_ms, (*impossible, *sizes.excluded)

    def _measure(self, parent: Member, candidates: Sequence[_Candidate], *, effort: int) -> Mapping[Design, Latency]:
        return self.latency([parent.design, *_designs(candidates)], effort=effort)

    def _train(self, designs: Sequence[Design], *, parent: Design | None) -> dict[Design, Outcome]:
        missing = [design for design in designs if design not in self.outcomes]
        if missing:
            found = self.performance(missing, parent=parent)
            self.outcomes.update({design: found[design] for design in missing})
        return {design: self.outcomes[design] for design in designs}

    def _ranked(
        self,
        number: int,
        parent: Member,
        candidates: Sequence[_Candidate],
        trained: Sequence[_Candidate],
        latencies: Mapping[Design, Latency],
    ) -> tuple[_Ranked, list[Excluded]]:
        """Equation 5, with as much measuring as it takes; and the trained candidates that broke the limit after all."""
        effort = 1
        while True:
            fast, slow = _split(trained, latencies, self.options.limits.latency_ms)
            ranked = _rank(number, parent, fast, latencies, self.outcomes)
            if ranked.doubt != "latency" or effort >= self.options.max_effort:
                return ranked, slow
            effort += 1
            self.progress(f"step {number}: undecided, measuring again (effort {effort} of {self.options.max_effort})")
            latencies = self._measure(parent, candidates, effort=effort)

    def _in_order(self, excluded: Sequence[Excluded]) -> tuple[Excluded, ...]:
        return tuple(sorted(excluded, key=lambda it: self.operations.index(it.operation)))


def _rank(
    number: int,
    parent: Member,
    candidates: Sequence[_Candidate],
    latencies: Mapping[Design, Latency],
    outcomes: Mapping[Design, Outcome],
) -> _Ranked:
    parent = replace(parent, latency=latencies.get(parent.design, parent.latency))
    members = tuple(_member(number, it, latencies[it.design], outcomes[it.design]) for it in candidates)
    first: dict[Design, Member] = {}
    for member in members:
        first.setdefault(member.design, member)
    distinct = tuple(first.values())
    decision = decide(parent, distinct)
    return _Ranked(parent, members, decision, distinct, _doubt(decision, parent, distinct))


def _doubt(decision: Decision, parent: Member, candidates: Sequence[Member]) -> Doubt:
    """What leaves the decision open: the scores, if it were open with exact latencies too; else the latencies."""
    if decision.settled:
        return ""
    sharp = decide(_sharp(parent), [_sharp(member) for member in candidates])
    return "latency" if sharp.settled else "score"


def _sharp(member: Member) -> Member:
    return replace(member, latency=Latency.exactly(member.latency.median_ms))


def _step(number: int, ranked: _Ranked, target_ms: float | None, excluded: tuple[Excluded, ...]) -> Step:
    decision = ranked.decision
    chosen = None if decision.chosen is None else ranked.distinct[decision.chosen]
    rivals = tuple(ranked.distinct[index] for index in decision.rivals)
    stop = "" if chosen is not None else _stop(ranked)
    return Step(number, ranked.parent, target_ms, ranked.candidates, excluded, chosen, rivals, ranked.doubt, stop)


def _stop(ranked: _Ranked) -> str:
    if not ranked.candidates:
        return "no operation leads to a network within the limits that could be trained"
    best = max(member.score.miou for member in ranked.candidates)
    return f"no candidate gains: the best has {best:.2f} mIoU, their parent {ranked.parent.score.miou:.2f}"


def _split(
    candidates: Sequence[_Candidate], latencies: Mapping[Design, Latency], limit_ms: float | None
) -> tuple[list[_Candidate], list[Excluded]]:
    """The candidates within the limit, and those above it."""
    fast, slow = [], []
    for candidate in candidates:
        median_ms = latencies[candidate.design].median_ms
        if limit_ms is None or median_ms <= limit_ms:
            fast.append(candidate)
        else:
            slow.append(Excluded(candidate.operation, f"{median_ms:.4g} ms, limit {limit_ms:.4g} ms"))
    return fast, slow


def _member(number: int, candidate: _Candidate, latency: Latency, outcome: Outcome) -> Member:
    assert isinstance(outcome, Score), "only scored candidates are ranked"
    return Member(number, candidate.rung.network, latency, outcome, candidate.operation, candidate.rung.step_size)


def _failure(candidate: _Candidate, outcome: Outcome) -> Excluded:
    assert isinstance(outcome, Failure)
    return Excluded(candidate.operation, f"training failed: {outcome.reason}")


def _designs(candidates: Sequence[_Candidate]) -> list[Design]:
    return list(dict.fromkeys(candidate.design for candidate in candidates))
