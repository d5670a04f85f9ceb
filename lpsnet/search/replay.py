"""Lat(·) and Perf(·) answered from the journal: a search is resumed by running it again with these.

What the journal holds is not measured or trained again; everything else is, and is written before the search sees it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from lpsnet.errors import RunError
from lpsnet.search import journal as log
from lpsnet.search.family import Member, Row, Step
from lpsnet.search.journal import Event, Journal, StepDecided, TrainingFinished
from lpsnet.search.measurements import Latency, Outcome, TrainingSpec, absolute, compared
from lpsnet.search.operations import Design

REPETITIONS = (5, 9, 21, 45)  # of an interleaved measurement, by effort


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A trainer's result for a design.

    Attributes:
        design: the trained design.
        outcome: its score or failure.
        details: JSON values for the journal, such as seconds, seed, and the path of the weights.
    """

    design: Design
    outcome: Outcome
    details: dict[str, JsonValue] = field(default_factory=dict)


MeasureOnce = Callable[[Sequence[Design]], Sequence[float]]
Trainer = Callable[[Sequence[Design], TrainingSpec], Iterable[TrainingResult]]


class JournalledLatency:
    """Lat(·) by interleaved measurement, each repetition a line of the journal. A `LatencyFunction`.

    Args:
        journal: where repetitions are looked up and written.
        measure_once: measures every design once, in the order given; returns the times in ms.
        repetitions: their total number for each effort; the last entry serves all higher efforts.
    """

    def __init__(
        self, journal: Journal, measure_once: MeasureOnce, *, repetitions: Sequence[int] = REPETITIONS
    ) -> None:
        self._journal, self._measure_once, self._num_repetitions = journal, measure_once, tuple(repetitions)

    def __call__(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        """Latencies for decisions: ratios to the first design in the same repetition."""
        return dict(zip(designs, compared(self._repetitions(designs, effort)), strict=True))

    def absolute(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        """Latencies for tables: each with the interval of its own median, from the same repetitions."""
        return dict(zip(designs, absolute(self._repetitions(designs, effort)), strict=True))

    def _repetitions(self, designs: Sequence[Design], effort: int) -> list[tuple[float, ...]]:
        names = tuple(map(str, designs))
        wanted = self._num_repetitions[min(effort, len(self._num_repetitions) - 1)]
        for _ in range(len(self._journal.repetitions(names)), wanted):
            times = tuple(float(time) for time in self._measure_once(designs))
            if len(times) != len(names) or not all(0 < time < math.inf for time in times):
                raise RunError(f"{len(names)} networks have as many finite times above 0 ms; got {times}")
            self._journal.append(log.LatencyRepetition(designs=names, ms=times))
        return self._journal.repetitions(names)[:wanted]


class JournalledPerformance:
    """Perf(·) by trainings, each a line of the journal as soon as it ends. A `PerformanceFunction`.

    Args:
        journal: where trainings are looked up and written.
        train: trains designs and yields each result as soon as it is known, in any order.
        on_progress: called with a line of text for each result.
    """

    def __init__(self, journal: Journal, train: Trainer, *, on_progress: Callable[[str], None] | None = None) -> None:
        self._journal, self._train = journal, train
        self._on_progress = on_progress or (lambda line: None)

    def __call__(self, designs: Sequence[Design], spec: TrainingSpec) -> Mapping[Design, Outcome]:
        """The outcome of every design; only those not in the journal are trained."""
        missing = [design for design in designs if self._journal.training(design, spec) is None]
        if missing:
            self._train_missing(missing, spec, len(designs))
        found = {design: self._journal.training(design, spec) for design in designs}
        if lost := [str(design) for design, line in found.items() if line is None]:
            raise RunError(f"training ended without a result for {', '.join(lost)}; start the command again")
        return {design: line.outcome for design, line in found.items() if line is not None}

    def _train_missing(self, missing: Sequence[Design], spec: TrainingSpec, num_all: int) -> None:
        names = tuple(map(str, missing))
        self._journal.append(log.TrainingStarted.model_validate({"designs": names, **log.spec_fields(spec)}))
        for done, result in enumerate(self._train(missing, spec), start=num_all - len(missing) + 1):
            line = TrainingFinished.of(result.design, spec, result.outcome, dict(result.details))
            self._journal.append(line)
            score = line.failure or f"{line.miou:.2f} mIoU"
            self._on_progress(f"  trained {done} of {num_all}: {result.design}: {score}")


def record_start(journal: Journal, member: Member) -> None:
    """Write the start of a search, once. For `expand(on_start=…)`."""
    if not any(isinstance(event, log.StartKnown) for event in journal.events):
        journal.append(log.StartKnown(row=Row.of(member)))


def record_step(journal: Journal, step: Step) -> None:
    """Write a step, once; in a resumed search, check it against the earlier decision. For `expand(on_step=…)`.

    Raises:
        RunError: the journal holds another decision for this step.
    """
    before = journal.step(step.number)
    if before is not None:
        _check_decision(before, step, journal)
    elif step.chosen is not None:
        journal.append(StepDecided.of(step))
    elif (step.number, step.stop) not in [
        (it.number, it.reason) for it in journal.events if isinstance(it, log.Stopped)
    ]:
        journal.append(log.Stopped(number=step.number, reason=step.stop))


def family_of(events: Iterable[Event]) -> list[Member]:
    """The family in a journal, from its start: the rows of its Table 4.

    Each step once and in order, whatever the order of the lines.
    """
    members: dict[int, Member] = {}
    for event in events:
        if isinstance(event, log.StartKnown | StepDecided):
            members.setdefault(event.row.step, event.row.member)
    return [members[step] for step in sorted(members)]


def chosen_length(events: Iterable[Event], design: Design) -> int:
    """The `TrainingSpec.length` that a design of the family was chosen with; 1 for other designs."""
    return next((it.length for it in family_of(events) if it.design == design), 1)


def decided_lengths(events: Iterable[Event]) -> dict[int, int]:
    """The `TrainingSpec.length` of every decided step's trainings, by its number."""
    return {it.step: it.length for it in family_of(events) if it.step}


def first_training(events: Iterable[Event], design: Design, length: int) -> TrainingFinished | None:
    """The training of a design whose weights its children inherit and that is exported."""
    lines = (it for it in events if isinstance(it, TrainingFinished) and it.design == str(design))
    return next((it for it in lines if it.is_first and it.length == length and it.miou is not None), None)


def _check_decision(before: StepDecided, step: Step, journal: Journal) -> None:
    then = before.row.member
    if step.chosen is not None and (step.chosen.network, step.chosen.length) == (then.network, then.length):
        return
    now = f"takes {_choice(step.chosen)}" if step.chosen else f"stops, because {step.stop}"
    raise RunError(
        f"step {step.number} took {_choice(then)} before, and now {now}: {journal.path} "
        "was made with other options or another version; use those again, or another folder"
    )


def _choice(member: Member) -> str:
    length = f", trained {member.length} times as long" if member.length > 1 else ""
    return f"{member.operation} x{member.step_size}{length}"
