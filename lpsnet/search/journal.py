"""The journal of a search (Section 3.4): every measurement and training is one JSON line, on disk before it is used.

A search is resumed by running it again with the journal's answers (`replay.py`), so it may be killed at any point and
loses only what was unfinished. A finished line that cannot be read is refused, with its number. Where a training or a
step has several lines, the first one counts. Designs and operations are written in their one-line forms, numbers with
their unit in the key.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from lpsnet.errors import RunError
from lpsnet.inference.hub import bundled_name
from lpsnet.io import append_line, exclusive, finished_lines, refuse_streams
from lpsnet.search.family import Doubt, Row, Step, StepRecord, step_fields
from lpsnet.search.measurements import Failure, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design

JOURNAL_FORMAT = 1


class _Line(BaseModel):
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
    """

    kind: Literal["latency"] = "latency"
    designs: tuple[str, ...]
    ms: tuple[Annotated[float, Field(gt=0)], ...]

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


class TrainingFinished(_Line):
    """A trained design.

    Attributes:
        design: the trained design.
        parent, seed, length: see `TrainingSpec`.
        miou, spread, at_start: see `Score`; `miou` is None if the training failed.
        failure: why there is no score.
        details: of the trainer, such as seconds, seed, and the path of the weights.
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
        found: dict[str, Any] = {"miou": None, "failure": outcome.reason} if isinstance(outcome, Failure) else {}
        if isinstance(outcome, Score):
            found = {"miou": outcome.miou, "spread": outcome.spread, "at_start": outcome.at_start}
        return cls.model_validate({"design": str(design), "details": details, **spec_fields(spec), **found})

    @property
    def is_first(self) -> bool:
        """Whether it is the training whose weights are inherited and exported: the first seed, and no control."""
        return self.seed == 0 and self.design != self.parent

    @property
    def outcome(self) -> Outcome:
        """The outcome the line was written for."""
        return Failure(self.failure) if self.miou is None else Score(self.miou, self.spread, self.at_start)


def spec_fields(spec: TrainingSpec) -> dict[str, JsonValue]:
    """The fields of a line for a training specification."""
    parent = None if spec.parent is None else str(spec.parent)
    return {"parent": parent, "seed": spec.seed, "length": spec.length}


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
            self._trainings.setdefault((event.design, event.parent, event.seed, event.length), event)
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
                f"{path} was made with other settings, and its measurements do not count here: {changes}. "
                "Start with the journal's settings to resume it, or in another folder"
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
        raise RunError(f"{path} cannot be used: {error.strerror or error}; give another folder") from None
