"""The journal of a search (Section 3.4): every measurement and training is one JSON line, on disk before it is used.

A search is resumed by running it again with the journal's answers (`JournalledLatency`, `JournalledPerformance`): what
the journal holds is not measured or trained again, everything else is, and is written before the search sees it. So it
may be killed at any point and loses only what was unfinished. A finished line that cannot be read is refused, with its
number. Where a training or a step has several lines, the first one counts. Designs and operations are written in their
one-line forms, numbers with their unit in the key.
"""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from lpsnet.errors import RunError
from lpsnet.inference.hub import bundled_name
from lpsnet.io import append_line, exclusive, finished_lines, reason, refuse_streams
from lpsnet.search.executors import Beside
from lpsnet.search.family import Doubt, Member, Row, Sparse, Step, StepRecord, step_fields
from lpsnet.search.measurements import Failure, Latency, Outcome, Score, TrainingSpec, absolute, compared
from lpsnet.search.operations import Design
from lpsnet.search.step_size import Trust

JOURNAL_FORMAT = 1


class _Line(Sparse):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: str  # first: an incomplete first line is still recognised as a journal's
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class Header(_Line):
    """The first line.

    Attributes:
        settings: what all later lines depend on; a journal is resumed only with the same.
    """

    kind: Literal["header"] = "header"
    format: int = JOURNAL_FORMAT
    lpsnet_version: str
    settings: dict[str, JsonValue]


class LatencyRepetition(_Line):
    """One repetition of an interleaved measurement: every design timed once.

    Attributes:
        designs: in the order measured; the others are compared with the first.
        ms: their times.
        seconds: that it took.
    """

    kind: Literal["latency"] = "latency"
    designs: tuple[str, ...]
    ms: tuple[Annotated[float, Field(gt=0)], ...]
    seconds: Annotated[float, Field(ge=0)] = 0.0
    later = ("seconds",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.designs or len(self.designs) != len(self.ms):
            raise ValueError("a repetition has one time per design")
        return self


class TrainingStarted(_Line):
    """A training of designs was started. Without a `TrainingFinished` after it, it was interrupted."""

    kind: Literal["training_started"] = "training_started"
    designs: tuple[str, ...]
    parent: str | None
    seed: int = 0
    length: int = 1
    part: int = 1
    later = ("part",)


class TrainingFinished(_Line):
    """A trained design.

    Attributes:
        design: the trained design.
        parent, seed, length, part: see `TrainingSpec`.
        miou, spread, at_start: see `Score`; `miou` is None if the training failed.
        failure: why there is no score.
        details: of the trainer, such as seconds, seed, and the path of the weights.
    """

    kind: Literal["training"] = "training"
    design: str
    parent: str | None
    seed: int = 0
    length: int = 1
    part: int = 1
    later = ("part",)
    miou: Annotated[float, Field(ge=0, le=100)] | None
    spread: Annotated[float, Field(ge=0, le=100)] = 0.0
    at_start: Annotated[float, Field(ge=0, le=100)] | None = None
    failure: str = ""
    details: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def of(cls, design: Design, spec: TrainingSpec, outcome: Outcome, details: dict[str, JsonValue]) -> Self:
        """The line for an outcome."""
        found: dict[str, Any] = {"miou": None, "failure": outcome.reason} if isinstance(outcome, Failure) else {}
        if isinstance(outcome, Score):
            found = {"miou": outcome.miou, "spread": outcome.spread, "at_start": outcome.at_start}
        return cls.model_validate({"design": str(design), "details": details, **spec_fields(spec), **found})

    @property
    def is_first(self) -> bool:
        """Whether it is the training whose weights are inherited and exported: a whole first seed, no control."""
        return self.seed == 0 and self.part == 1 and self.design != self.parent

    @property
    def outcome(self) -> Outcome:
        """The outcome the line was written for."""
        return Failure(self.failure) if self.miou is None else Score(self.miou, self.spread, self.at_start)


def spec_fields(spec: TrainingSpec) -> dict[str, JsonValue]:
    """The fields of a line for a training specification."""
    parent = None if spec.parent is None else str(spec.parent)
    return {"parent": parent, "seed": spec.seed, "length": spec.length, "part": spec.part}


class StartKnown(_Line):
    """The trained and measured network that the search starts from."""

    kind: Literal["start"] = "start"
    row: Row


class StepDecided(_Line):
    """A step that chose a network, `row`; the other fields are those of `StepRecord`."""

    kind: Literal["step"] = "step"
    number: int
    target_ms: float | None
    parent: Row
    row: Row
    candidates: tuple[Row, ...]
    excluded: dict[str, str]
    rivals: tuple[str, ...]
    doubt: Doubt
    trust: Trust | None = None
    later = ("trust",)

    @classmethod
    def of(cls, step: Step) -> Self:
        """The line for a step that chose a network."""
        assert step.chosen is not None
        return cls(**step_fields(step), row=Row.of(step.chosen))

    @property
    def step(self) -> Step:
        """The step the line was written for.

        Raises:
            LpsnetError: the line's values describe none.
        """
        kept = {name: getattr(self, name) for name in StepRecord.model_fields if hasattr(self, name)}
        return StepRecord(chosen=self.row, **kept).step


class Stopped(_Line):
    """The search ended before its last step."""

    kind: Literal["stop"] = "stop"
    number: int
    reason: str


Event = Header | LatencyRepetition | TrainingStarted | TrainingFinished | StartKnown | StepDecided | Stopped

_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])
_START = b'{"kind":"header"'  # of every journal


class Journal:
    """The lines of a journal, to look up and to append to; see `open_journal`.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, events: Sequence[Event]) -> None:
        self.path = path
        self._lock = threading.Lock()  # a device far away measures while candidates are trained
        self._events: list[Event] = []
        self._repetitions: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
        self._trainings: dict[tuple[JsonValue, ...], TrainingFinished] = {}
        self._steps: dict[int, StepDecided] = {}
        for event in events:
            self._remember(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """All lines, the header first."""
        return tuple(self._events)

    def repetitions(self, designs: Sequence[str]) -> list[tuple[float, ...]]:
        """The times in ms of every repetition over exactly these designs in this order."""
        return list(self._repetitions.get(tuple(designs), ()))

    def training(self, design: Design, spec: TrainingSpec) -> TrainingFinished | None:
        """The finished training of `design` with that specification, or None."""
        return self._trainings.get((str(design), *spec_fields(spec).values()))

    def step(self, number: int) -> StepDecided | None:
        """The decision of a step, or None."""
        return self._steps.get(number)

    def append(self, event: Event) -> None:
        """Write a line; returns once it is on disk.

        Raises:
            RunError: it could not be written; the journal is as it was.
        """
        with self._lock:
            try:
                append_line(self.path, event.model_dump_json())
            except OSError as error:
                raise RunError(f"{self.path} cannot be written: {error}; free some space and start again") from None
            self._remember(event)

    def _remember(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, LatencyRepetition):
            self._repetitions.setdefault(event.designs, []).append(event.ms)
        elif isinstance(event, TrainingFinished):
            key = (event.design, event.parent, event.seed, event.length, event.part)
            self._trainings.setdefault(key, event)
        elif isinstance(event, StepDecided):
            self._steps.setdefault(event.number, event)


@contextlib.contextmanager
def open_journal(
    path: str | Path,
    *,
    settings: Mapping[str, JsonValue],
    lpsnet_version: str,
    defaults: Mapping[str, JsonValue] | None = None,
) -> Iterator[Journal]:
    """The journal at `path`, new or resumed; locked against other processes until the end of the `with`.

    Args:
        path: the file; its folder is created.
        settings: everything that its measurements and trainings depend on: data, recipe, block, input size, engine and
            its version, precision, threads, and the machine (CPU or GPU model and cores, no host name). What may change
            between runs, such as the number of steps, does not belong here.
        lpsnet_version: written to a new journal's header.
        defaults: values of settings that a journal of an earlier version lacks.

    Raises:
        RunError: another process writes it, it was made with other settings, or a line of it cannot be read.
    """
    path = Path(path)
    with _readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(path.name + ".lock")):
        with _readable_errors(path):
            events = _read(path) if path.exists() else []
            header = Header(lpsnet_version=lpsnet_version, settings=_plain(settings))
        found = events[0] if events else header
        assert isinstance(found, Header), "`_event` checks it"
        if changes := differences(found.settings, header.settings, defaults or {}):
            raise RunError(
                f"{path} was made with other settings: {changes}. Start with these to resume it, or in another folder"
            )
        journal = Journal(path, events)
        if not events:
            journal.append(header)
        yield journal


def read_journal(path: str | Path) -> list[Event]:
    """The lines of a journal, the header first, without an unfinished last line. Takes no lock.

    Raises:
        RunError: there is no journal, or a line of it cannot be read.
    """
    path = Path(path)
    with _readable_errors(path):
        events = _read(path)
    if not events:
        raise RunError(f"{path} holds nothing yet; start the expansion first")
    return events


def _read(path: Path) -> list[Event]:
    """The events of all finished lines."""
    refuse_streams(path)
    content = path.read_bytes()
    if not _START.startswith(content[: len(_START)]):
        raise RunError(f"{path} is not the journal of an expansion; give another folder")
    return [_event(line, number, path) for number, line in enumerate(finished_lines(content), start=1)]


def _event(line: bytes, number: int, path: Path) -> Event:
    where = f"{path}, line {number}"
    try:
        event = _EVENTS.validate_json(line)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deeply"}
        key = ".".join(map(str, first["loc"])) or "line"
        raise RunError(
            f"{where} cannot be used: {key}: {first['msg']}; correct or delete that line, or start in another folder"
        ) from None
    if (number == 1) != isinstance(event, Header):
        raise RunError(f"{where}: only the first line of a journal is its header; start in another folder")
    if isinstance(event, Header) and event.format != JOURNAL_FORMAT:
        raise RunError(
            f"{where}: journal format {event.format} is not known to this version (it reads {JOURNAL_FORMAT})"
        )
    return event


def differences(
    journal: Mapping[str, JsonValue], now: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue]
) -> str:
    """The settings in which a journal and a run differ, in one line, or ""; `defaults` as in `open_journal`."""
    old, new = dict(_flat(dict(journal))), dict(_flat(_plain(now)))
    old = {**{key: value for key, value in _flat(_plain(defaults)) if key in new}, **old}
    if isinstance(init := old.get("init"), str) and (name := bundled_name(init)):
        old["init"] = name  # earlier versions have the file's path, and a digest of it
        old.pop("inputs.init", None)
    keys = [key for key in {**old, **new} if old.get(key, _ABSENT) != new.get(key, _ABSENT)]
    return "; ".join(f"{key}: {_shown(old, key)} in the journal, {_shown(new, key)} now" for key in keys)


_ABSENT = object()


def _shown(values: Mapping[str, object], key: str) -> str:
    text = json.dumps(values[key], ensure_ascii=False) if key in values else "not set"
    return text if len(text) <= 80 else text[:77] + "..."


def _flat(value: JsonValue, prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """The leaves of nested objects with dotted keys."""
    if not isinstance(value, dict) or not value:
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else key)


def _plain(settings: Mapping[str, JsonValue]) -> dict[str, Any]:
    """The settings as they come back from JSON, so that tuples compare as lists."""
    try:
        return dict(json.loads(json.dumps(dict(settings), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise RunError(f"settings of a journal are JSON values: {error}") from None


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be used: {reason(error, path)}; give another folder") from None


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
        self.beside = Beside()

    def ahead(self, designs: Sequence[Design]) -> None:
        """Begin to measure with effort 1, and return at once; whatever is asked next waits for it."""
        self.beside.start(lambda: self._repetitions(designs, 1))

    def __call__(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        """Latencies for decisions: ratios to the first design in the same repetition."""
        self.beside.wait()
        return dict(zip(designs, compared(self._repetitions(designs, effort)), strict=True))

    def absolute(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        """Latencies for tables: each with the interval of its own median, from the same repetitions."""
        self.beside.wait()
        return dict(zip(designs, absolute(self._repetitions(designs, effort)), strict=True))

    def _repetitions(self, designs: Sequence[Design], effort: int) -> list[tuple[float, ...]]:
        names = tuple(map(str, designs))
        wanted = self._num_repetitions[min(effort, len(self._num_repetitions) - 1)]
        for _ in range(len(self._journal.repetitions(names)), wanted):
            begun = time.monotonic()
            times = tuple(float(ms) for ms in self._measure_once(designs))
            if self.beside.given_up.is_set():
                break
            if len(times) != len(names) or not all(0 < ms < math.inf for ms in times):
                raise RunError(f"{len(names)} networks have as many finite times above 0 ms; got {times}")
            seconds = round(time.monotonic() - begun, 1)
            self._journal.append(LatencyRepetition(designs=names, ms=times, seconds=seconds))
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
        self._journal.append(TrainingStarted.model_validate({"designs": names, **spec_fields(spec)}))
        for done, result in enumerate(self._train(missing, spec), start=num_all - len(missing) + 1):
            line = TrainingFinished.of(result.design, spec, result.outcome, dict(result.details))
            self._journal.append(line)
            score = line.failure or f"{line.miou:.2f} mIoU"
            so_far = f" for 1/{spec.part} of their length" if spec.part > 1 else ""
            self._on_progress(f"  trained {done} of {num_all}{so_far}: {result.design}: {score}")


def record_start(journal: Journal, member: Member) -> None:
    """Write the start of a search, once. For `expand(on_start=…)`."""
    if not any(isinstance(event, StartKnown) for event in journal.events):
        journal.append(StartKnown(row=Row.of(member)))


def is_known(journal: Journal, step: Step) -> bool:
    """Whether the journal holds the step's decision, or that the search ended with it."""
    ends = [(it.number, it.reason) for it in journal.events if isinstance(it, Stopped)]
    return journal.step(step.number) is not None or (step.number, step.stop) in ends


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
    elif not is_known(journal, step):
        journal.append(Stopped(number=step.number, reason=step.stop))


def family_of(events: Iterable[Event]) -> list[Member]:
    """The family in a journal, from its start: the rows of its Table 4, each step once and in order."""
    members: dict[int, Member] = {}
    for event in events:
        if isinstance(event, StartKnown | StepDecided):
            members.setdefault(event.row.step, event.row.member)
    return [members[step] for step in sorted(members)]


def chosen_length(events: Iterable[Event], design: Design) -> int:
    """The `TrainingSpec.length` that a design of the family was chosen with; 1 for other designs."""
    return next((it.length for it in family_of(events) if it.design == design), 1)


def decided_lengths(events: Iterable[Event]) -> dict[int, int]:
    """The `TrainingSpec.length` of every decided step's trainings, by its number."""
    return {it.step: it.length for it in family_of(events) if it.step}


def steps_without_trust(events: Iterable[Event]) -> set[int]:
    """The numbers of the decided steps that say nothing of how far they can be trusted: those of earlier versions."""
    return {it.number for it in events if isinstance(it, StepDecided) and it.trust is None}


FRESH_SEED = 1000  # the first seed of trainings that no step has seen
HELD_OUT = "held_out_miou"  # in a training's details: mIoU in percent on images that no step has seen


@dataclass(frozen=True, slots=True)
class Unseen:
    """Scores of a step that took no part in its choice, in percent; None where there are none.

    Attributes:
        fresh: mean mIoU of the chosen network's trainings with seeds that no step has seen, and `num_fresh` of them.
        held_out: mean mIoU of the chosen network's trainings that the step saw, on the images held out.
        parent_held_out: likewise of the parent trained on, or else of the parent.
    """

    fresh: float | None = None
    num_fresh: int = 0
    held_out: float | None = None
    parent_held_out: float | None = None


def unseen_scores(events: Iterable[Event], step: Step) -> Unseen:
    """Of a step that chose a network; its trainings are those of its length from its parent."""
    if step.chosen is None:
        return Unseen()
    parent, lines = str(step.parent.design), [it for it in events if isinstance(it, TrainingFinished) and it.part == 1]
    taken = str(step.chosen.design)  # trained from itself it is the control of the next step
    own = [it for it in lines if it.design == taken != it.parent and it.length == step.length]
    before = [it for it in lines if it.design == parent]
    control = [it for it in before if it.parent == parent and it.length == step.length]
    fresh = [it.miou for it in own if it.seed >= FRESH_SEED and it.parent == parent and it.miou is not None]
    return Unseen(
        fresh=fmean(fresh) if fresh else None,
        num_fresh=len(fresh),
        held_out=_held_out(own, step.chosen.score.num_seeds),
        parent_held_out=_held_out(control or before, step.parent.score.num_seeds),
    )


def held_out_of_start(events: Iterable[Event], start: Member) -> float | None:
    """Mean mIoU in percent of the start's trainings on the images held out; None if none are."""
    lines = (it for it in events if isinstance(it, TrainingFinished) and it.parent is None and it.part == 1)
    return _held_out((it for it in lines if it.design == str(start.design)), start.score.num_seeds)


def _held_out(trainings: Iterable[TrainingFinished], num_seeds: int) -> float | None:
    """Mean mIoU on the images held out, over the first seeds, which the step saw."""
    found = {it.seed: it.details.get(HELD_OUT) for it in trainings if it.seed < num_seeds}
    known = [it for it in found.values() if isinstance(it, float)]
    return fmean(known) if known else None


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
