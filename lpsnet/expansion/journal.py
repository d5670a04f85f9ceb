"""The journal of a search: every measurement and training is a line, on disk before anything is done with it.

JSON lines (`jsonl.py`). A search is resumed by running it again with the journal's answers (`replay.py`), so it may be
killed at any point; what is lost is what was not finished. A finished line that cannot be read is refused, with its
number. Where lines were doubled by hand, the first of a training or a step counts, here and in reports.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from lpsnet.errors import RunError
from lpsnet.expansion.events import (
    EVENTS,
    JOURNAL_FORMAT,
    Event,
    Header,
    LatencyPass,
    StepDecided,
    TrainingFinished,
    course_fields,
)
from lpsnet.expansion.measurements import Course
from lpsnet.expansion.operations import Design
from lpsnet.io import append_line, exclusive, finished_lines, refuse_streams

_START = b'{"kind":"header"'  # how every journal begins


class Journal:
    """An open journal. Made by `open_journal`.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, events: Sequence[Event]) -> None:
        self.path = path
        self._events: list[Event] = []
        self._passes: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
        self._trainings: dict[tuple[JsonValue, ...], TrainingFinished] = {}
        self._steps: dict[int, StepDecided] = {}
        for event in events:
            self._remember(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """All lines, the header first."""
        return tuple(self._events)

    def passes(self, designs: Sequence[str]) -> list[tuple[float, ...]]:
        """The times in ms of every pass over exactly these designs in this order."""
        return list(self._passes.get(tuple(designs), ()))

    def training(self, design: Design, course: Course) -> TrainingFinished | None:
        """The finished training of `design` on that course, or None."""
        return self._trainings.get((str(design), *course_fields(course).values()))

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
        if isinstance(event, LatencyPass):
            self._passes.setdefault(event.designs, []).append(event.ms)
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
