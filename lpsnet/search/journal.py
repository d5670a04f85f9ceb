"""The lines of a search's journal: one JSON object each, its kind first.

Networks, designs and operations are written in their one-line forms, numbers with their unit in the key, ready to be
read by other programs.

The journal of a search: every measurement and training is a line, on disk before anything is done with it.

JSON lines (`jsonl.py`). A search is resumed by running it again with the journal's answers (`replay.py`), so it may be
killed at any point; what is lost is what was not finished. A finished line that cannot be read is refused, with its
number. Where lines were doubled by hand, the first of a training or a step counts, here and in reports.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from lpsnet.errors import RunError
from lpsnet.io import append_line, exclusive, finished_lines, refuse_streams
from lpsnet.search.family import Doubt, Member, Step
from lpsnet.search.measurements import Failure, Latency, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork

JOURNAL_FORMAT = 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: str  # first, so that a line torn off anywhere can be told from another file
    at: str = Field(default_factory=_now)


class Header(_Line):
    """The first line.

    Attributes:
        settings: what all the lines below were made with; a journal goes on only with the same.
    """

    kind: Literal["header"] = "header"
    format: int = JOURNAL_FORMAT
    lpsnet_version: str
    settings: dict[str, JsonValue]


class LatencyRepetition(_Line):
    """One pass over designs measured in turn.

    Attributes:
        designs: in the order measured; the first is what the others are compared with.
        ms: the time of each.
    """

    kind: Literal["latency"] = "latency"
    designs: tuple[str, ...]
    ms: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.designs or len(self.designs) != len(self.ms):
            raise ValueError("a pass has one time a design")
        return self


class TrainingStarted(_Line):
    """Designs handed over for training. Without a `TrainingFinished` after it, the training was cut off."""

    kind: Literal["training_started"] = "training_started"
    designs: tuple[str, ...]
    parent: str | None
    seed: int = 0
    length: int = 1


class TrainingFinished(_Line):
    """A trained design.

    Attributes:
        design: what was trained.
        parent, seed, length: how, see `TrainingSpec`.
        miou, spread, at_start: the score, percent and points; `miou` is None if there is none.
        failure: why there is no score.
        details: whatever the trainer wants kept, such as seconds, seeds, or where the weights are.
    """

    kind: Literal["training"] = "training"
    design: str
    parent: str | None
    seed: int = 0
    length: int = 1
    miou: Annotated[float, Field(ge=0, le=100)] | None
    spread: Annotated[float, Field(ge=0, le=100)] = 0.0
    at_start: Annotated[float, Field(ge=0, le=100)] | None = None
    failure: str = ""
    details: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def of(cls, design: Design, spec: TrainingSpec, outcome: Outcome, details: dict[str, JsonValue]) -> Self:
        """The line for an outcome."""
        names = {"design": str(design), "details": details, **spec_fields(spec)}
        if isinstance(outcome, Failure):
            return cls.model_validate({**names, "miou": None, "failure": outcome.reason})
        score = {"miou": outcome.miou, "spread": outcome.spread, "at_start": outcome.at_start}
        return cls.model_validate({**names, **score})

    @property
    def is_first(self) -> bool:
        """Whether its weights may be inherited and handed over, if it is as long as its design was chosen with."""
        return self.seed == 0 and self.design != self.parent

    @property
    def outcome(self) -> Outcome:
        """The outcome the line was written for."""
        return Failure(self.failure) if self.miou is None else Score(self.miou, self.spread, self.at_start)


def spec_fields(spec: TrainingSpec) -> dict[str, JsonValue]:
    """A spec as a line's fields."""
    parent = None if spec.parent is None else str(spec.parent)
    return {"parent": parent, "seed": spec.seed, "length": spec.length}


class Row(BaseModel):
    """A trained and measured network: a row of a table like Table 4. Keys as in all of lpsnet's JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    step: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    ratio_slots: tuple[str, ...]
    block: str
    dimension: str | None
    operation: str | None
    step_size: int
    median_ms: float
    low_ms: float
    high_ms: float
    miou: float
    spread: float
    at_start: float | None
    num_seeds: int = 1
    length: int = 1

    @classmethod
    def of(cls, member: Member) -> Self:
        """The row of a member."""
        network, operation = member.network, member.operation
        return cls(
            step=member.step,
            blocks=network.blocks,
            widths=network.widths,
            ratio_slots=tuple(map(str, network.ratio_slots)),
            block=network.block,
            dimension=operation.dimension if operation else None,
            operation=str(operation) if operation else None,
            step_size=member.step_size,
            median_ms=member.latency.median_ms,
            low_ms=member.latency.low_ms,
            high_ms=member.latency.high_ms,
            miou=member.score.miou,
            spread=member.score.spread,
            at_start=member.score.at_start,
            num_seeds=member.score.num_seeds,
            length=member.length,
        )

    @property
    def member(self) -> Member:
        """The member the row was written for.

        Raises:
            LpsnetError: the row's values describe none.
        """
        network = SearchNetwork(self.blocks, self.widths, self.ratio_slots, self.block)
        latency = Latency(self.median_ms, self.low_ms, self.high_ms)
        operation = Operation.parse(self.operation) if self.operation else None
        score = Score(self.miou, self.spread, self.at_start, self.num_seeds)
        return Member(self.step, network, latency, score, operation, self.step_size, self.length)


class StartKnown(_Line):
    """The network the search starts from, trained and measured."""

    kind: Literal["start"] = "start"
    row: Row


class StepDecided(_Line):
    """A step that chose a network.

    Attributes:
        number: of the step, from 1.
        target_ms: L_T.
        parent: the network of the step before, its latency as measured in this step.
        row: the network chosen.
        candidates: all that were trained, the chosen one among them.
        excluded: operations without a candidate, and why.
        rivals: operations that could have been chosen instead; none if the step is decided.
        doubt: what left the step undecided, "latency" or "score"; empty if it is decided.
    """

    kind: Literal["step"] = "step"
    number: int
    target_ms: float | None
    parent: Row
    row: Row
    candidates: tuple[Row, ...]
    excluded: dict[str, str]
    rivals: tuple[str, ...]
    doubt: Doubt

    @classmethod
    def of(cls, step: Step) -> Self:
        """The line for a step that chose a network."""
        assert step.chosen is not None
        return cls(
            number=step.number,
            target_ms=step.target_ms,
            parent=Row.of(step.parent),
            row=Row.of(step.chosen),
            candidates=tuple(map(Row.of, step.candidates)),
            excluded={str(it.operation): it.reason for it in step.excluded},
            rivals=tuple(str(member.operation) for member in step.rivals),
            doubt=step.doubt,
        )


class Stopped(_Line):
    """The search ended before its last step."""

    kind: Literal["stop"] = "stop"
    number: int
    reason: str


Event = Header | LatencyRepetition | TrainingStarted | TrainingFinished | StartKnown | StepDecided | Stopped

EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


_START = b'{"kind":"header"'  # how every journal begins


class Journal:
    """An open journal. Made by `open_journal`.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, events: Sequence[Event]) -> None:
        self.path = path
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
        """The times in ms of every pass over exactly these designs in this order."""
        return list(self._repetitions.get(tuple(designs), ()))

    def training(self, design: Design, spec: TrainingSpec) -> TrainingFinished | None:
        """The finished training of `design` on that spec, or None."""
        return self._trainings.get((str(design), *spec_fields(spec).values()))

    def step(self, number: int) -> StepDecided | None:
        """The decision of a step, or None."""
        return self._steps.get(number)

    def append(self, event: Event) -> None:
        """Write a line and return when it is on disk.

        Raises:
            RunError: it could not be written; the journal is as it was.
        """
        try:
            append_line(self.path, event.model_dump_json())
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error}; make room and start the command again") from None
        self._remember(event)

    def _remember(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, LatencyRepetition):
            self._repetitions.setdefault(event.designs, []).append(event.ms)
        elif isinstance(event, TrainingFinished):
            key = (event.design, event.parent, event.seed, event.length)
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
    """The journal at `path`, new or to be gone on with; locked against other processes until the end of the `with`.

    Args:
        path: the file; its folder is made if need be.
        settings: everything that its measurements and trainings depend on: data, recipe, block, input size, engine and
            its version, precision, threads, and the machine (CPU or GPU model and cores, no host name). What may change
            between runs, such as the number of steps, does not belong here.
        lpsnet_version: written to a new journal's header.
        defaults: what settings mean that the journal does not name: it was begun before there were such.

    Raises:
        RunError: another process writes it, it was made with other settings, or a line of it cannot be read.
    """
    path = Path(path)
    with _readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(path.name + ".lock")):
        with _readable_errors(path):
            events = _parse(_read(path), path) if path.exists() else []
            header = Header(lpsnet_version=lpsnet_version, settings=_plain(settings))
            if events:
                _check_settings(events[0], header, path, defaults or {})
        journal = Journal(path, events)
        if not events:
            journal.append(header)
        yield journal


def read_journal(path: str | Path) -> list[Event]:
    """The lines of a journal, the header first; an unfinished last line is left out. For reports: takes no lock.

    Raises:
        RunError: there is no journal, or a line of it cannot be read.
    """
    path = Path(path)
    with _readable_errors(path):
        events = _parse(_read(path), path)
    if not events:
        raise RunError(f"{path} holds nothing yet; start the expansion first")
    return events


def _read(path: Path) -> bytes:
    refuse_streams(path)
    return path.read_bytes()


def _parse(content: bytes, path: Path) -> list[Event]:
    """The events of all finished lines."""
    if not _START.startswith(content[: len(_START)]):
        raise RunError(f"{path} is not the journal of an expansion; give another folder")
    return [_event(line, number, path) for number, line in enumerate(finished_lines(content), start=1)]


def _event(line: bytes, number: int, path: Path) -> Event:
    where = f"{path}, line {number}"
    try:
        event = EVENTS.validate_json(line)
    except (ValidationError, RecursionError) as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deeply"}
        what = ".".join(map(str, said["loc"])) or "line"
        raise RunError(
            f"{where} cannot be used: {what}: {said['msg']}; mend or delete that line, or start in another folder"
        ) from None
    if (number == 1) != isinstance(event, Header):
        raise RunError(f"{where}: a journal has one header, its first line; start in another folder")
    if isinstance(event, Header) and event.format != JOURNAL_FORMAT:
        raise RunError(
            f"{where}: journal format {event.format} is not known to this version (it reads {JOURNAL_FORMAT})"
        )
    return event


def _check_settings(found: Event, asked: Header, path: Path, defaults: Mapping[str, JsonValue]) -> None:
    assert isinstance(found, Header)
    if changes := differences(found.settings, asked.settings, defaults):
        raise RunError(
            f"{path} was made with other settings, and its measurements do not count here: {changes}. "
            "Start with the journal's settings to go on, or in another folder"
        )


def differences(
    journal: Mapping[str, JsonValue], now: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue]
) -> str:
    """In which settings a journal and a run differ, in words; empty if in none. `defaults`: see `open_journal`."""
    old, new = dict(_flat(dict(journal))), dict(_flat(_plain(now)))
    old = {**{key: value for key, value in _flat(_plain(defaults)) if key in new}, **old}
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
        raise RunError(f"{path} cannot be used: {error.strerror or error}; give another folder") from None
