"""The finished runs of a folder: a line of JSON each, on the disk as soon as the run is done."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lpsnet.errors import RunError
from lpsnet.io import append_line, finished_lines
from lpsnet.studies.study import Json, Outcome, Run, slug_of

RESULTS, RUNS = "results.jsonl", "runs"


class Results:
    """The finished runs in a study's folder.

    Args:
        folder: of one study or several; runs that they have in common are made once.
        machine: identity of this one: times of another are not known here.

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, folder: Path, machine: str) -> None:
        self._folder, self._machine = folder, machine
        self._path = folder / RESULTS
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        for outcome in self._read() if self._path.exists() else []:
            self._remember(outcome)

    def find(self, run: Run) -> Outcome | None:
        """The newest outcome of a run that holds here."""
        key = _text(run.key)
        if (found := self._outcomes.get((key, self._machine))) is not None:
            return found
        elsewhere = (outcome for (text, _), outcome in self._outcomes.items() if text == key)
        return next(elsewhere, None) if run.portable else None

    def result(self, run: Run) -> Mapping[str, Json] | None:
        """Its result."""
        found = self.find(run)
        return None if found is None else found.result

    def place(self, run: Run) -> Path:
        """The folder of a run."""
        return self._folder / RUNS / run.slug

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome of a run; it is on the disk when this returns.

        Raises:
            RunError: it cannot be written.
        """
        line = json.dumps(outcome.to_dict(), allow_nan=False)
        try:
            append_line(self._path, line)
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror or error}") from None
        self._remember(Outcome(**json.loads(line)))

    def _remember(self, outcome: Outcome) -> None:
        folder = self._folder / RUNS / slug_of(outcome.key)
        self._outcomes[_text(outcome.key), outcome.machine] = replace(outcome, folder=folder)

    def _read(self) -> list[Outcome]:
        try:
            return [Outcome(**json.loads(line)) for line in finished_lines(self._path.read_bytes())]
        except (ValueError, TypeError) as error:
            raise RunError(f"{self._path} is damaged: {error}; remove it to measure everything again") from None


def _text(key: Mapping[str, Json]) -> str:
    return json.dumps(dict(key), sort_keys=True)
