"""Algorithm 1: the progressive expansion (Section 3.4, Equations 3 to 5).

Pure: Lat(·) and Perf(·) are given as functions, nothing is written, nothing is random; the same answers give the same
search, which is how one is resumed. A step:

1. Equations 3 and 4 find a step size for every operation, from a quick measurement of latencies (effort 0).
2. Parent and candidates are measured interleaved (effort 1); candidates above the limit are excluded.
3. Designs not trained before in this search are trained, and Equation 5 ranks the candidates.
4. The start, and in each step the best two candidates, are trained with a second seed: this estimates the spread.
5. While latencies leave the decision open, all are measured with more effort; while scores do, the best two are trained
   with more seeds (and the parent, if it is open whether anything gains); both up to a bound.
6. Where no candidate surely gains, trainings may have been too short: all are trained `LONGER` times as long, here and
   in later steps, up to a bound. Then a search without a gain ends, and an undecided step takes the best candidate.

As a race, point 3 is successive halving (Jamieson and Talwalkar 2016): candidates and control are scored after a
quarter of their training, the better half of the candidates and what ties with it goes on to half of it, and the better
half of those to its end.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lpsnet.errors import RunError
from lpsnet.search import measurements
from lpsnet.search.family import Doubt, Expansion, Member, Step, distinct
from lpsnet.search.measurements import Control, Failure, Latency, Outcome, Score, SeedScores, Trained, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork, table_1
from lpsnet.search.step_size import (
    Decision,
    Excluded,
    StepSize,
    Trust,
    better_half,
    choose_step_sizes,
    decide,
    possible_step_sizes,
    trust,
)


class Candidate(NamedTuple):
    """The network that a step has for an operation."""

    operation: Operation
    size: StepSize

    @property
    def design(self) -> Design:
        return self.size.network.design


class _Runner(NamedTuple):
    """A design in a race."""

    design: Design
    latency: Latency
    score: Score


class StepRanking(NamedTuple):
    """Equation 5 applied to the candidates of a step, and what leaves it open."""

    parent: Member
    candidates: tuple[Member, ...]
    decision: Decision
    distinct: tuple[Member, ...]  # the candidates with every design once; the decision's indices are of these
    doubt: Doubt
    trust: Trust | None = None

    @property
    def gain_is_open(self) -> bool:
        """Whether a candidate gains for some scores inside the intervals and none for others."""
        found = self.decision
        return bool(found.rivals) if found.chosen is None else found.gain_in_doubt

    @property
    def leaders(self) -> list[Member]:
        """The chosen candidate and its strongest rival; the best candidate alone if none gains."""
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
    *,
    freedom: int = 0,
    simultaneous: bool = False,
) -> StepRanking:
    """Rank the candidates of step `number`; `outcomes` of trainings of that length, the parent's included.

    `freedom` is that of the spread of the scores, 0 if it is not known; see `SearchOptions` for `simultaneous`.
    """
    score = outcomes[parent.design]
    assert isinstance(score, Score), "a parent has a score"
    parent = replace(parent, latency=latencies.get(parent.design, parent.latency), score=score)
    members = tuple(
        Member(number, size.network, latencies[size.network.design], score, operation, size.k, length)
        for operation, size in candidates
        if isinstance(score := outcomes[size.network.design], Score)
    )
    different = distinct(members)
    counted = freedom if simultaneous else 0
    decision, found = decide(parent, different, freedom=counted), None
    if decision.chosen is not None:
        names = [str(it.operation) for it in different]
        found = trust(parent, different, decision.chosen, names, freedom=freedom)
    return StepRanking(parent, members, decision, different, _doubt(decision, parent, different, counted), found)


def _doubt(decision: Decision, parent: Member, candidates: Sequence[Member], freedom: int) -> Doubt:
    """What leaves the decision open: the scores if exact latencies would leave it open too, else the latencies."""
    if decision.settled:
        return ""
    it, *others = (replace(it, latency=Latency.exactly(it.latency.median_ms)) for it in (parent, *candidates))
    return "latency" if decide(it, others, freedom=freedom).settled else "score"


def step_of(number: int, ranked: StepRanking, target_ms: float | None, excluded: tuple[Excluded, ...]) -> Step:
    rivals, chosen, stop = tuple(ranked.distinct[index] for index in ranked.decision.rivals), None, ""
    if ranked.decision.chosen is not None:
        chosen = ranked.distinct[ranked.decision.chosen]
    elif not ranked.candidates:
        stop = "no operation leads to a network that keeps the limits, if there are any, and could be trained"
    else:
        best = max(member.score.miou for member in ranked.candidates)
        stop = f"no candidate gains: the best has {best:.2f} mIoU, their parent {ranked.parent.score.miou:.2f}"
    return Step(
        number, ranked.parent, target_ms, ranked.candidates, excluded, chosen, rivals, ranked.doubt, stop, ranked.trust
    )


def split_by_limit(
    candidates: Sequence[Candidate], latencies: Mapping[Design, Latency], limit_ms: float | None
) -> tuple[list[Candidate], list[Excluded]]:
    """The candidates within the limit, all without one, and those above it."""
    if limit_ms is None:
        return list(candidates), []
    fast, slow = [], []
    for candidate in candidates:
        median_ms = latencies[candidate.design].median_ms
        if median_ms <= limit_ms:
            fast.append(candidate)
        else:
            slow.append(Excluded(candidate.operation, f"{median_ms:.4g} ms, limit {limit_ms:.4g} ms"))
    return fast, slow


def designs_of(candidates: Sequence[Candidate]) -> list[Design]:
    return list(dict.fromkeys(candidate.design for candidate in candidates))


RACE = (4, 2)  # the parts of a training after which a race drops the worse half
LONGER = 3  # factor on the length of trainings, where no candidate surely gains
_LEAST = {"num_steps": 0, "max_step_size": 1, "patience": 1, "max_effort": 1, "max_seeds": 1, "max_length": 1}


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The numbers of a search.

    Attributes:
        num_steps: I of Algorithm 1. Table 4 has 14.
        max_step_size: the cap on k.
        patience: None measures every k up to the cap; a number stops earlier (see `choose_step_sizes`).
        max_effort: the highest effort of a step's latency measurements, at least 1.
        max_seeds: the most seeds a design is trained with, and the most rounds of repeated trainings in a step. With 1
            nothing is repeated, and scores keep the spread that the performance function returns.
        control: whether the parent is trained further in the same way as its candidates, which are compared with that
            score: what starts from its weights has been trained for longer and may gain from that alone.
        max_length: the largest factor on the length of trainings where no candidate gains beyond the noise.
        race: whether candidates that are behind after a quarter, and half, of their training are trained no further.
        simultaneous: whether a step is decided only where the chosen candidate is set apart from its parent and all
            others by intervals of scores that hold at once (`step_size.leads`), and not by each other's spreads alone.
            How long candidates are trained does not depend on it.
        limits: of all chosen networks.
    """

    num_steps: int = 14
    max_step_size: int = 16
    patience: int | None = None
    max_effort: int = 3
    max_seeds: int = 1
    control: bool = False
    max_length: int = 1
    race: bool = False
    simultaneous: bool = False
    limits: measurements.Limits = field(default_factory=measurements.Limits)

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise RunError(f"{name} of a search is at least {least}; got {value}")
        if self.race and not self.control:
            raise RunError(
                "in a race candidates are compared with their parent trained on for as long: it needs the control, and "
                "candidates that inherit"
            )


def expand(
    start: SearchNetwork,
    *,
    latency: measurements.LatencyFunction,
    performance: measurements.PerformanceFunction,
    operations: Iterable[Operation] | None = None,
    options: SearchOptions | None = None,
    cost: measurements.CostFunction | None = None,
    lengths: Mapping[int, int] | None = None,
    old_steps: Collection[int] = (),
    ahead: Callable[[Sequence[Design]], None] | None = None,
    on_start: Callable[[Member], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Expansion:
    """Grow a family of networks from `start`.

    Args:
        start: N^0, for example `SearchNetwork.start("tiny")`.
        latency: Lat(·).
        performance: Perf(·). Called with seed 0 for the start, and in each step for the designs without a score and the
            parent as control; with other seeds to repeat some.
        operations: Delta; Table 1 for the start's number of slots if not given.
        options: number of steps, cap on k, limits.
        cost: parameters and memory of a design; needed for limits on them.
        lengths: by step, the length of the trainings that an earlier run decided it with, which overrides `max_length`.
        old_steps: the steps that an earlier version decided, without `SearchOptions.simultaneous`.
        ahead: begins to measure designs with effort 1 and returns at once, for a device that measures while candidates
            are trained; `latency` then waits for it. Where there is a limit on latency, effort 0 tells before what
            exceeds it.
        on_start, on_step: called with the start and with every step, the one that ends the search included.
        on_progress: called with a line of text for each thing begun.

    Raises:
        RunError: the start could not be trained, or there is a limit but no function for what it limits.
    """
    options = options or SearchOptions()
    if options.limits.needs_cost and cost is None:
        raise RunError("a limit on parameters or memory needs the function that counts them: pass cost=")
    table = tuple(dict.fromkeys(table_1(num_slots=len(start.ratio_slots)) if operations is None else operations))
    progress = on_progress or (lambda line: None)
    search = _Search(table, options, latency, performance, cost, lengths or {}, old_steps, ahead, progress)
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
    latency: measurements.LatencyFunction
    performance: measurements.PerformanceFunction
    cost: measurements.CostFunction | None
    lengths: Mapping[int, int]
    old_steps: Collection[int]
    ahead: Callable[[Sequence[Design]], None] | None
    on_progress: Callable[[str], None]
    length: int = 1  # see `TrainingSpec.length`
    scores_by_length: dict[int, SeedScores] = field(default_factory=dict)  # of all trainings so far

    @property
    def scores(self) -> SeedScores:
        """Those of trainings of the current length."""
        return self.scores_by_length.setdefault(self.length, SeedScores())

    def start(self, network: SearchNetwork) -> Member:
        """Line 10: P = Perf(N^0), L = Lat(N^0)."""
        self.on_progress(f"step 0: measuring and training the start, {network}")
        design = network.design
        latencies = self._measured([design])
        outcome = self._train([design], parent=None)[design]
        if isinstance(outcome, Failure):
            raise RunError(f"the start {network} could not be trained: {outcome.reason}")
        if self.options.max_seeds > 1:
            self._repeat([design], parent=None)
            outcome = self.scores.outcome(design)
        assert isinstance(outcome, Score), "the mean has a score if the first training has"
        return Member(0, network, self._after([design], latencies)[design], outcome)

    def _measured(self, designs: Sequence[Design]) -> Mapping[Design, Latency]:
        """Latencies of effort 1. Where they are measured beside trainings, those that a limit needs: see `_after`."""
        if self.ahead is None:
            return self.latency(designs, effort=1)
        found = {} if self.options.limits.latency_ms is None else self.latency(designs, effort=0)
        self.ahead(designs)
        return found

    def _after(self, designs: Sequence[Design], before: Mapping[Design, Latency]) -> Mapping[Design, Latency]:
        """Latencies of effort 1, after a training; `before` is what `_measured` gave."""
        return before if self.ahead is None else self.latency(designs, effort=1)

    def step(self, number: int, parent: Member) -> Step:
        """Lines 13 to 27."""
        self.on_progress(f"step {number} of {self.options.num_steps}: step sizes for {len(self.operations)} operations")
        candidates, target_ms, excluded = self._candidates(parent)
        latencies = self._measured([parent.design, *designs_of(candidates)]) if candidates else {}
        fast, slow = split_by_limit(candidates, latencies, self.options.limits.latency_ms)
        if target_ms is not None:
            self.on_progress(f"step {number}: target {target_ms:.4g} ms, {len(designs_of(fast))} candidates to train")
        longest = self.lengths.get(number, self.options.max_length)
        while True:
            ranked, failed = self._rank(number, parent, candidates, fast, latencies)
            step = step_of(number, ranked, target_ms, self._in_order((*excluded, *slow, *failed)))
            if step.gain_is_sure or not step.candidates or self.length >= longest:
                return step
            self.length = min(self.length * LONGER, longest)
            small = step.chosen and f"the gain of {step.chosen.operation} lies within the noise of the scores"
            self.on_progress(
                f"step {number}: {small or step.stop}; training all candidates {self.length} times as long as at first"
            )

    def _rank(
        self,
        number: int,
        parent: Member,
        candidates: Sequence[Candidate],
        fast: Sequence[Candidate],
        latencies: Mapping[Design, Latency],
    ) -> tuple[StepRanking, list[Excluded]]:
        """Lines 19 to 26, and the candidates whose training failed or whose latency exceeds the limit after all.

        Measures and trains again as long as that may settle the decision.
        """
        fast, lost = self._race(number, parent, candidates, fast, latencies) if self.options.race else (fast, [])
        designs = designs_of(fast)
        outcomes = self._train(designs, parent=parent.design, control=self.options.control and bool(designs))
        latencies = self._after([parent.design, *designs_of(candidates)], latencies) if candidates else {}
        trained = [it for it in fast if isinstance(outcomes[it.design], Score)]
        failures = ((it.operation, outcomes[it.design]) for it in fast)
        failed = [Excluded(it, f"training failed: {end.reason}") for it, end in failures if isinstance(end, Failure)]
        effort, rounds = 1, 1
        while True:
            kept, slow = split_by_limit(trained, latencies, self.options.limits.latency_ms)
            outcomes = {**self._outcomes(designs_of(kept)), parent.design: self._baseline(parent)}
            ranked = rank_candidates(
                number,
                parent,
                kept,
                latencies,
                outcomes,
                self.length,
                freedom=self.scores.freedom,
                simultaneous=self.options.simultaneous and number not in self.old_steps,
            )
            if again := self._to_repeat(ranked) if rounds <= self.options.max_seeds else []:
                rounds += 1
                count = f"{len(again)} training{'s' * (len(again) > 1)}"
                self.on_progress(f"step {number}: {count} with another seed, for the spread of the scores")
                self._repeat(again, parent=parent.design)
            elif ranked.doubt == "latency" and effort < self.options.max_effort:
                effort += 1
                most = self.options.max_effort
                self.on_progress(f"step {number}: undecided, measuring again (effort {effort} of {most})")
                latencies = self.latency([parent.design, *designs_of(candidates)], effort=effort)
            else:
                return ranked, [*lost, *failed, *slow]

    def _race(
        self,
        number: int,
        parent: Member,
        candidates: Sequence[Candidate],
        fast: Sequence[Candidate],
        latencies: Mapping[Design, Latency],
    ) -> tuple[list[Candidate], list[Excluded]]:
        """The candidates that are left at the last part of `RACE`, or have a score already; the others, and why."""
        racing, lost = [it for it in fast if it.design not in self.scores], []
        for part in RACE:
            designs = designs_of(racing)
            if len(designs) < 2:
                break
            self.on_progress(f"step {number}: a race of {len(designs)} candidates, 1/{part} of their training")
            spec = TrainingSpec(parent.design, 0, self.length, part)
            outcomes = self.performance([*designs, parent.design], spec)
            latencies = self._after([parent.design, *designs_of(candidates)], latencies)
            kept, reasons = self._leaders(parent, designs, latencies, outcomes)
            lost += [
                Excluded(it.operation, f"out after 1/{part} of the training: {reasons[it.design]}")
                for it in racing
                if it.design not in kept
            ]
            racing = [it for it in racing if it.design in kept]
        return [it for it in fast if it.design in self.scores or it in racing], lost

    def _leaders(
        self,
        parent: Member,
        designs: Sequence[Design],
        latencies: Mapping[Design, Latency],
        outcomes: Mapping[Design, Outcome],
    ) -> tuple[set[Design], dict[Design, str]]:
        """The better half of a race, and what is to be said of each of its designs."""
        spread = self.scores.spread_of_one or 0.0
        base = outcomes[parent.design]
        parent = replace(parent, latency=latencies.get(parent.design, parent.latency))  # of this step, as theirs
        parent = replace(parent, score=replace(base, spread=spread)) if isinstance(base, Score) else parent
        reasons, members = {}, []
        for design in designs:
            outcome = outcomes[design]
            if isinstance(outcome, Failure):
                reasons[design] = f"training failed: {outcome.reason}"
                continue
            reasons[design] = f"{outcome.miou:.2f} mIoU, parent {parent.score.miou:.2f}"
            members.append(_Runner(design, latencies[design], replace(outcome, spread=spread)))
        return {members[index].design for index in better_half(parent, members)}, reasons

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
        candidates = [Candidate(operation, size) for operation, size in sizes.chosen.items()]
        return candidates, sizes.target_ms, (*impossible, *sizes.excluded)

    def _train(
        self, designs: Sequence[Design], *, parent: Design | None, control: bool = False
    ) -> dict[Design, Outcome]:
        """Train what has no score yet, the control together with the designs, so that no worker waits for it alone."""
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
        """The score that candidates are compared with."""
        design = parent.design
        control = self.scores.outcome(Control(design)) if Control(design) in self.scores else None
        if isinstance(control, Score):
            return control
        return self.scores.outcome(design) if design in self.scores else parent.score

    def _outcomes(self, designs: Sequence[Design]) -> dict[Design, Outcome]:
        return {design: self.scores.outcome(design) for design in designs}

    def _to_repeat(self, ranked: StepRanking) -> list[Trained]:
        """The two leaders, until each has two seeds and while scores leave the decision open, and the control while it
        is open whether anything gains."""
        most = self.options.max_seeds if ranked.doubt == "score" else min(2, self.options.max_seeds)
        networks: list[Trained] = [member.design for member in ranked.leaders]
        control = Control(ranked.parent.design)
        if ranked.gain_is_open and control in self.scores:
            networks.append(control)
        return [it for it in networks if self.scores.num_tried(it) < most]

    def _in_order(self, excluded: Sequence[Excluded]) -> tuple[Excluded, ...]:
        return tuple(sorted(excluded, key=lambda it: self.operations.index(it.operation)))
