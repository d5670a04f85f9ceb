"""Running studies: every run's result is kept, a line of JSON, as soon as it is there.

A study that was stopped goes on when it is started again, and runs that were made with the same settings on the same
machine are not made twice.
"""

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lpsnet.deployment.load import LoadWatch
from lpsnet.deployment.machine import describe_machine
from lpsnet.errors import RunError, unknown_name
from lpsnet.files import locked_folder, write_text
from lpsnet.studies.drawing import check_drawing
from lpsnet.studies.page import write_study
from lpsnet.studies.study import Json, Outcome, Progress, Report, Run, Settings, Study

# name -> "module:variable" of a `Study`; imported when it is asked for
STUDIES: dict[str, str] = {
    "conv-types": "lpsnet.studies.conv_types:STUDY",
    "widths": "lpsnet.studies.widths:STUDY",
}


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study leaves.

    Attributes:
        report: rows and findings.
        files: those written, the page first.
        num_kept: runs whose results were there already.
    """

    report: Report
    files: tuple[Path, ...]
    num_kept: int


def find_study(name: str) -> Study:
    """The study of a name in `STUDIES`.

    Raises:
        RunError: there is none.
    """
    if name not in STUDIES:
        raise RunError(unknown_name("study", name, STUDIES))
    module, _, variable = STUDIES[name].partition(":")
    study: Study = getattr(importlib.import_module(module), variable)
    return study


def run_study(study: Study, settings: Settings, out: Path, *, progress: Progress | None = None) -> StudyResult:
    """Make those runs that are missing in the folder `out`, and write what the study found.

    Raises:
        RunError: the folder is in use or cannot be written to, or its results are damaged.
        MissingDependencyError: matplotlib, or what the study needs, is not installed.
    """
    check_drawing()
    machine = describe_machine()
    with locked_folder(out):
        kept = _Results(out / "results.jsonl")
        outcomes, num_kept = [], 0
        for run in study.plan(settings):
            known = kept.find(run.key, machine.identity)
            num_kept += known is not None
            outcomes.append(known or kept.add(_perform(run, machine.identity, progress or _tell_nobody)))
        report = study.report(outcomes)
        files = write_study(study, settings, outcomes, report, out)
    return StudyResult(report, files, num_kept)


def _tell_nobody(what: str, part: float) -> None:
    pass


def _perform(run: Run, machine: str, progress: Progress) -> Outcome:
    watch = LoadWatch.start()
    result = run.work(progress)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Outcome(dict(run.key), result, machine, watch.load().to_dict(), date)


class _Results:
    """The finished runs in a file, a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes = self._read() if path.exists() else []

    def find(self, key: Mapping[str, Json], machine: str) -> Outcome | None:
        """The newest result of a run on a machine."""
        wanted = json.loads(json.dumps(dict(key)))
        found = [outcome for outcome in self._outcomes if outcome.key == wanted and outcome.machine == machine]
        return found[-1] if found else None

    def add(self, outcome: Outcome) -> Outcome:
        """Keep a result; it is on the disk when this returns."""
        line = json.dumps(asdict(outcome), allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return Outcome(**json.loads(line))

    def _read(self) -> list[Outcome]:
        *lines, unfinished = self._path.read_text(encoding="utf-8").split("\n")
        if unfinished:  # the machine or the program stopped while it was written
            write_text(self._path, "".join(f"{line}\n" for line in lines))
        try:
            return [Outcome(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise RunError(f"{self._path} is damaged: {error}; remove it to measure everything again") from None
