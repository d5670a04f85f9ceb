"""The candidates of one step against each other: Equation 5, and what leaves it open (Section 3.4).

Algorithm 1: the progressive expansion (Section 3.4, Equations 3 to 5).

Pure: Lat(·) and Perf(·) come in as functions, nothing is written, nothing is random. The same answers from the
functions give the same search, and that is how one is resumed: it is run again with the answers it had. A step:

1. Equations 3 and 4 find a step size for every operation, from a first look at the latencies (effort 0).
2. The parent and the candidates are measured in turn (effort 1), as line 23 does. Candidates above the limit drop out.
3. Every design not trained before in this search is trained once, and Equation 5 ranks the candidates.
4. The start, and in each step the best candidate and the one that comes after it, are trained with another seed too:
   that tells how much of a score is luck (`seeds.py`).
5. While the latencies are too uncertain to decide, parent and candidates are measured again with more effort, and while
   the scores are, the best and its strongest rival are trained with more seeds (the parent, too, if it is open whether
   anything gains), both up to a bound.
6. Where no candidate gains, or what the best gains is still within the noise of the scores, the trainings may have been
   too short to tell: what a wider network can do shows late. All are trained `LONGER` times as long, and so are those
   of the steps after it, up to a bound. Past it a search without a gain ends, and a step that is undecided takes the
   candidate that looks best and says that it is undecided.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lpsnet.errors import RunError
from lpsnet.search.family import Doubt, Expansion, Member, Step
from lpsnet.search.measurements import (
    Control,
    CostFunction,
    Failure,
    Latency,
    LatencyFunction,
    Limits,
    Outcome,
    PerformanceFunction,
    Score,
    SeedScores,
    Trained,
    TrainingSpec,
)
from lpsnet.search.operations import Design, Operation, SearchNetwork, table_1
from lpsnet.search.step_size import Decision, Excluded, StepSize, choose_step_sizes, decide, possible_step_sizes


class Candidate(NamedTuple):
    operation: Operation
    rung: StepSize

    @property
    def design(self) -> Design:
        return self.rung.network.design


class StepRanking(NamedTuple):
    parent: Member
    candidates: tuple[Member, ...]
    decision: Decision
    distinct: tuple[Member, ...]  # the candidates with every design once; the decision's indices count these
    doubt: Doubt

    @property
    def gain_is_open(self) -> bool:
        """Whether it depends on where in their intervals the scores lie that a candidate gains, or that none does."""
        found = self.decision
        return bool(found.rivals) if found.chosen is None else found.gain_in_doubt

    @property
    def leaders(self) -> list[Member]:
        """The candidate that Equation 5 takes and its strongest rival; the best candidate alone if none gains."""
        chosen = self.decision.chosen
        rivals = [self.distinct[index] for index in self.decision.rivals]
        if chosen is None:
            return sorted(rivals or self.distinct, key=lambda it: -it.score.miou)[:1]
        others = rivals or [it for index, it in enumerate(self.distinct) if index != chosen]
        second = decide(self.parent, others).chosen
        return [self.distinct[chosen], *([] if second is None else [others[second]])]


def rank_candidates(
    number: int,
    parent: Member,
    candidates: Sequence[Candidate],
    latencies: Mapping[Design, Latency],
    outcomes: Mapping[Design, Outcome],
    length: int,
) -> StepRanking:
    """The candidates of step `number`; `outcomes` are theirs and the parent's, all of trainings of that length."""
    score = outcomes[parent.design]
    assert isinstance(score, Score), "a parent has a score"
    parent = replace(parent, latency=latencies.get(parent.design, parent.latency), score=score)
    members = tuple(_member(number, it, latencies[it.design], outcomes[it.design], length) for it in candidates)
    first: dict[Design, Member] = {}
    for member in members:
        first.setdefault(member.design, member)
    distinct = tuple(first.values())
    decision = decide(parent, distinct)
    return StepRanking(parent, members, decision, distinct, _doubt(decision, parent, distinct))


def _doubt(decision: Decision, parent: Member, candidates: Sequence[Member]) -> Doubt:
    """What leaves the decision open: the scores, if it were open with exact latencies too; else the latencies."""
    if decision.settled:
        return ""
    sharp = decide(_sharp(parent), [_sharp(member) for member in candidates])
    return "latency" if sharp.settled else "score"


def _sharp(member: Member) -> Member:
    return replace(member, latency=Latency.exactly(member.latency.median_ms))


def step_of(number: int, ranked: StepRanking, target_ms: float | None, excluded: tuple[Excluded, ...]) -> Step:
    decision = ranked.decision
    chosen = None if decision.chosen is None else ranked.distinct[decision.chosen]
    rivals = tuple(ranked.distinct[index] for index in decision.rivals)
    stop = "" if chosen is not None else _stop(ranked)
    return Step(number, ranked.parent, target_ms, ranked.candidates, excluded, chosen, rivals, ranked.doubt, stop)


def _stop(ranked: StepRanking) -> str:
    if not ranked.candidates:
        return "no operation leads to a network that keeps the limits, if there are any, and could be trained"
    best = max(member.score.miou for member in ranked.candidates)
    return f"no candidate gains: the best has {best:.2f} mIoU, their parent {ranked.parent.score.miou:.2f}"


def split_by_limit(
    candidates: Sequence[Candidate], latencies: Mapping[Design, Latency], limit_ms: float | None
) -> tuple[list[Candidate], list[Excluded]]:
    """The candidates within the limit, and those above it."""
    fast, slow = [], []
    for candidate in candidates:
        median_ms = latencies[candidate.design].median_ms
        if limit_ms is None or median_ms <= limit_ms:
            fast.append(candidate)
        else:
            slow.append(Excluded(candidate.operation, f"{median_ms:.4g} ms, limit {limit_ms:.4g} ms"))
    return fast, slow


def _member(number: int, candidate: Candidate, latency: Latency, outcome: Outcome, length: int) -> Member:
    assert isinstance(outcome, Score), "only scored candidates are ranked"
    operation, rung = candidate
    return Member(number, rung.network, latency, outcome, operation, rung.step_size, length)


def failure_of(candidate: Candidate, outcome: Outcome) -> Excluded:
    assert isinstance(outcome, Failure)
    return Excluded(candidate.operation, f"training failed: {outcome.reason}")


def designs_of(candidates: Sequence[Candidate]) -> list[Design]:
    return list(dict.fromkeys(candidate.design for candidate in candidates))


LONGER = 3  # times, where no candidate surely gains
_LEAST = {"num_steps": 0, "max_step_size": 1, "patience": 1, "max_effort": 1, "max_seeds": 1, "max_length": 1}


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The numbers of a search.

    Attributes:
        num_steps: I of Algorithm 1. Table 4 has 14.
        max_step_size: the cap on k.
        patience: None looks at every k up to the cap; a number gives an operation up earlier (see `choose_step_sizes`).
        max_effort: the most effort a step puts into its latencies, at least 1.
        max_seeds: the most seeds a design is trained with, and the most times that a step repeats trainings. With 1
            nothing is repeated, and scores have the spread that the performance function gives them.
        control: whether the parent is trained on, too, as its candidates are, and they are compared with that: one that
            started from its weights has been trained for longer than it, and may gain by nothing else.
        max_length: how many times as long as usual the candidates of a step are trained at most, where none gains
            beyond the noise of the scores.
        limits: what no chosen network may exceed.
    """

    num_steps: int = 14
    max_step_size: int = 16
    patience: int | None = None
    max_effort: int = 3
    max_seeds: int = 1
    control: bool = False
    max_length: int = 1
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
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
    lengths: Mapping[int, int] | None = None,
    on_start: Callable[[Member], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Expansion:
    """Grow a family of networks from `start`.

    Args:
        start: N^0, for example `SearchNetwork.start("tiny")`.
        latency: Lat(·).
        performance: Perf(·). Called with seed 0 once for the start, once a step for the designs not scored before in
            this search and the parent, which is trained on; with other seeds to repeat some.
        operations: Delta; Table 1 for the start's number of slots if not given.
        options: number of steps, cap on k, limits.
        cost: parameters and memory of a design; needed for limits on them.
        lengths: of the trainings that steps were decided with before, by the number of the step: those keep them,
            whatever `max_length` is now.
        on_start, on_step: told of the start and of every step as soon as it is known, the one the search stops at too.
        on_progress: called with a line of text for each thing begun.

    Raises:
        RunError: the start could not be trained, or there is a limit but no function for what it limits.
    """
    options = options or SearchOptions()
    if options.limits.needs_cost and cost is None:
        raise RunError("a limit on parameters or memory needs the function that counts them: pass cost=")
    table = tuple(dict.fromkeys(table_1(num_slots=len(start.ratio_slots)) if operations is None else operations))
    search = _Search(table, options, latency, performance, cost, lengths or {}, on_progress or (lambda line: None))
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


@dataclass(slots=True)
class _Search:
    operations: tuple[Operation, ...]
    options: SearchOptions
    latency: LatencyFunction
    performance: PerformanceFunction
    cost: CostFunction | None
    lengths: Mapping[int, int]
    on_progress: Callable[[str], None]
    length: int = 1  # of trainings, see `TrainingSpec.length`
    scores_by_length: dict[int, SeedScores] = field(default_factory=dict)  # Perf(N) of all that was trained so far

    @property
    def scores(self) -> SeedScores:
        """Those of trainings as long as now."""
        return self.scores_by_length.setdefault(self.length, SeedScores())

    def start(self, network: SearchNetwork) -> Member:
        """Line 10: P = Perf(N^0), L = Lat(N^0)."""
        self.on_progress(f"step 0: measuring and training the start, {network}")
        design = network.design
        latency = self.latency([design], effort=1)[design]
        outcome = self._train([design], parent=None)[design]
        if isinstance(outcome, Failure):
            raise RunError(f"the start {network} could not be trained: {outcome.reason}")
        if self.options.max_seeds > 1:
            self._repeat([design], parent=None)
            outcome = self.scores.outcome(design)
        assert isinstance(outcome, Score), "the mean has a score if the first training has"
        return Member(0, network, latency, outcome)

    def step(self, number: int, parent: Member) -> Step:
        """Lines 13 to 27."""
        self.on_progress(f"step {number} of {self.options.num_steps}: step sizes for {len(self.operations)} operations")
        candidates, target_ms, excluded = self._candidates(parent)
        latencies = self._measure(parent, candidates, effort=1) if candidates else {}
        fast, slow = split_by_limit(candidates, latencies, self.options.limits.latency_ms)
        if target_ms is not None:
            self.on_progress(f"step {number}: target {target_ms:.4g} ms, {len(designs_of(fast))} candidates to train")
        longest = self.lengths.get(number, self.options.max_length)
        while True:
            ranked, failed = self._hold(number, parent, candidates, fast, latencies)
            step = step_of(number, ranked, target_ms, self._in_order((*excluded, *slow, *failed)))
            if step.gain_is_sure or not step.candidates or self.length >= longest:
                return step
            self.length = min(self.length * LONGER, longest)
            small = step.chosen and f"what {step.chosen.operation} gains lies within the noise of the scores"
            self.on_progress(
                f"step {number}: {small or step.stop}; training all of them {self.length} times as long as at first"
            )

    def _hold(
        self,
        number: int,
        parent: Member,
        candidates: Sequence[Candidate],
        fast: Sequence[Candidate],
        latencies: Mapping[Design, Latency],
    ) -> tuple[StepRanking, list[Excluded]]:
        """Lines 19 to 26 with trainings as long as now; and the candidates that failed or broke the limit after all."""
        designs = designs_of(fast)
        outcomes = self._train(designs, parent=parent.design, control=self.options.control and bool(designs))
        failed = [failure_of(it, outcomes[it.design]) for it in fast if isinstance(outcomes[it.design], Failure)]
        trained = [it for it in fast if isinstance(outcomes[it.design], Score)]
        ranked, late = self._ranked(number, parent, candidates, trained, latencies)
        return ranked, [*failed, *late]

    def _candidates(self, parent: Member) -> tuple[list[Candidate], float | None, tuple[Excluded, ...]]:
        limits = self.options.limits
        found, impossible = possible_step_sizes(
            parent.network, self.operations, max_step_size=self.options.max_step_size, limits=limits, cost=self.cost
        )
        if not found:
            return [], None, tuple(impossible)
        sizes = choose_step_sizes(
            parent.network, found, latency=self.latency, limit_ms=limits.latency_ms, patience=self.options.patience
        )
        candidates = [Candidate(operation, rung) for operation, rung in sizes.chosen.items()]
        return candidates, sizes.target_ms, (*impossible, *sizes.excluded)

    def _measure(self, parent: Member, candidates: Sequence[Candidate], *, effort: int) -> Mapping[Design, Latency]:
        return self.latency([parent.design, *designs_of(candidates)], effort=effort)

    def _train(
        self, designs: Sequence[Design], *, parent: Design | None, control: bool = False
    ) -> dict[Design, Outcome]:
        """Train what has no score yet. The control is among them, so that no worker waits for it alone."""
        missing: list[Trained] = [design for design in designs if design not in self.scores]
        if control and parent is not None and Control(parent) not in self.scores:
            missing.append(Control(parent))
        if missing:
            self._train_with(0, missing, parent)
        return self._outcomes(designs)

    def _repeat(self, networks: Sequence[Trained], *, parent: Design | None) -> None:
        """Train each with its next seed."""
        for seed in sorted({self.scores.num_tried(it) for it in networks}):
            self._train_with(seed, [it for it in networks if self.scores.num_tried(it) == seed], parent)

    def _train_with(self, seed: int, networks: Sequence[Trained], parent: Design | None) -> None:
        designs = {it: it.design if isinstance(it, Control) else it for it in networks}
        found = self.performance(list(designs.values()), TrainingSpec(parent, seed, self.length))
        for it, design in designs.items():
            self.scores.add(it, seed, found[design])

    def _baseline(self, parent: Member) -> Outcome:
        """What candidates are compared with."""
        design = parent.design
        control = self.scores.outcome(Control(design)) if Control(design) in self.scores else None
        if isinstance(control, Score):
            return control
        return self.scores.outcome(design) if design in self.scores else parent.score

    def _outcomes(self, designs: Sequence[Design]) -> dict[Design, Outcome]:
        return {design: self.scores.outcome(design) for design in designs}

    def _ranked(
        self,
        number: int,
        parent: Member,
        candidates: Sequence[Candidate],
        trained: Sequence[Candidate],
        latencies: Mapping[Design, Latency],
    ) -> tuple[StepRanking, list[Excluded]]:
        """Equation 5, with as much measuring and repeating as it takes; and who broke the limit after all."""
        effort, rounds = 1, 1
        while True:
            fast, slow = split_by_limit(trained, latencies, self.options.limits.latency_ms)
            outcomes = {**self._outcomes(designs_of(fast)), parent.design: self._baseline(parent)}
            ranked = rank_candidates(number, parent, fast, latencies, outcomes, self.length)
            if again := self._to_repeat(ranked) if rounds <= self.options.max_seeds else []:
                rounds += 1
                count = f"{len(again)} training{'s' * (len(again) > 1)}"
                self.on_progress(f"step {number}: {count} with another seed, for the spread of the scores")
                self._repeat(again, parent=parent.design)
            elif ranked.doubt == "latency" and effort < self.options.max_effort:
                effort += 1
                self.on_progress(
                    f"step {number}: undecided, measuring again (effort {effort} of {self.options.max_effort})"
                )
                latencies = self._measure(parent, candidates, effort=effort)
            else:
                return ranked, slow

    def _to_repeat(self, ranked: StepRanking) -> list[Trained]:
        """The best design and its strongest rival: until each has two seeds, and while their scores leave it open.

        And the control, while it is open whether the best gains anything.
        """
        most = self.options.max_seeds if ranked.doubt == "score" else min(2, self.options.max_seeds)
        networks: list[Trained] = [member.design for member in ranked.leaders]
        control = Control(ranked.parent.design)
        if ranked.gain_is_open and control in self.scores:
            networks.append(control)
        return [it for it in networks if self.scores.num_tried(it) < most]

    def _in_order(self, excluded: Sequence[Excluded]) -> tuple[Excluded, ...]:
        return tuple(sorted(excluded, key=lambda it: self.operations.index(it.operation)))
