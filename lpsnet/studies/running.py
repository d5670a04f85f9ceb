"""Performing the runs of a study in a folder: every result is kept as soon as it is there.

A study that is started again resumes: runs with the same settings on the same machine are not repeated, and an
interrupted run finds its folder as it left it. Results of other data under the same name are refused.
"""

import importlib
import itertools
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from lpsnet.benchmark.machine import Load, LoadWatch, describe_machine
from lpsnet.data.dataset import changed_contents, data_contents, open_dataset
from lpsnet.errors import RunError, unknown_name
from lpsnet.io import append_line, finished_lines, locked_folder, write_text
from lpsnet.report.charts import check_drawing
from lpsnet.search.executors import LocalPool
from lpsnet.studies.study import Json, Outcome, Place, Progress, Report, Run, Settings, Study, slug_of, write_study

RESULTS, RUNS = "results.jsonl", "runs"
_log = logging.getLogger(__name__)

INPUTS = "inputs.json"  # in a study's folder: data set, as text -> `data_contents` of all its splits

# name -> "module:variable" of a `Study`, imported when it is needed
STUDIES: dict[str, str] = {
    "conv-blocks": "lpsnet.studies.blocks_interactions:CONV_BLOCKS",
    "interactions": "lpsnet.studies.blocks_interactions:INTERACTIONS",
    "conv-types": "lpsnet.studies.convolutions:CONV_TYPES",
    "widths": "lpsnet.studies.convolutions:WIDTHS",
    "expansion": "lpsnet.studies.paper_networks:EXPANSION",
    "qualitative": "lpsnet.studies.paper_networks:QUALITATIVE",
    "comparison": "lpsnet.studies.comparison:STUDY",
    "generalisation": "lpsnet.studies.paper_networks:GENERALISATION",
    "embedded": "lpsnet.studies.comparison:EMBEDDED",
    "end-to-end": "lpsnet.studies.end_to_end:STUDY",
    "precisions": "lpsnet.studies.exports:PRECISIONS_STUDY",
    "exports": "lpsnet.studies.exports:EXPORTS",
    "label-map": "lpsnet.studies.end_to_end:LABEL_MAP",
    "training-speed": "lpsnet.studies.training_speed:STUDY",
    "inheritance": "lpsnet.studies.inheritance:STUDY",
    "inheritance-until-flat": "lpsnet.studies.inheritance:UNTIL_FLAT",
    "front": "lpsnet.studies.comparison:FRONT",
    "grown": "lpsnet.studies.paper_networks:GROWN_STUDY",
}


class Results:
    """The finished runs in a folder: a line of JSON each.

    Args:
        folder: of one study or several, which share the runs they have in common.
        machine: identity of this machine; of others, only portable results are used.

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
        """The newest outcome of a run that is valid on this machine."""
        key = _text(run.key)
        if (found := self._outcomes.get((key, self._machine))) is not None:
            return found
        elsewhere = (outcome for (text, _), outcome in self._outcomes.items() if text == key)
        return next(elsewhere, None) if run.portable else None

    def result(self, run: Run) -> Mapping[str, Json] | None:
        """The result of a run, None if it is not finished."""
        found = self.find(run)
        return None if found is None else found.result

    def place(self, run: Run) -> Path:
        """The run's folder."""
        return self._folder / RUNS / run.slug

    def add(self, outcome: Outcome) -> None:
        """Write an outcome to disk; RunError if that fails."""
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


def check_inputs(data: Sequence[str], out: Path) -> None:
    """Write digests of the data sets into the folder `out`.

    Raises:
        RunError: `out` has results of other data under the same name, or its digests cannot be read.
        DataError: a data set cannot be opened.
    """
    path = out / INPUTS
    held = _read(path) if path.exists() else {}
    for spec in data:
        dataset = open_dataset(spec)
        now = data_contents(dataset, *dataset.splits)
        then = held.setdefault(spec, now)
        if changed := changed_contents(then, now):
            key = changed[0]
            raise RunError(
                f"{out} holds results of other data by the name {spec!r}: {key}: {then.get(key, 'none')} then, "
                f"{now.get(key, 'none')} now; put back what was there, or choose another folder"
            )
    if held:
        write_text(path, json.dumps(held, indent=2) + "\n")


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or not all(isinstance(value, dict) for value in held.values()):
        raise RunError(f"{path} is damaged; put it back, or choose another folder")
    return held


class TimeLeft:
    """Estimates the time left: expected durations, corrected for each kind of run by those of finished runs.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected: defaultdict[str, float] = defaultdict(float)  # seconds, by kind of run
        self._taken: defaultdict[str, float] = defaultdict(float)
        self._run: Run | None = None
        self._start = self._first_part = self._part = 0.0

    def begin(self, run: Run) -> None:
        self._run, self._start, self._first_part, self._part = run, self._clock(), -1.0, 0.0

    def update(self, part: float) -> None:
        """Note the part of the run that is done, 0 to 1; the first call is where an interrupted run resumes."""
        if self._first_part < 0:
            self._first_part = part
        self._part = part

    def end(self) -> None:
        assert self._run is not None, "it began"
        if self._run.seconds:
            self._expected[self._run.kind] += self._run.seconds * (1 - max(0.0, self._first_part))
            self._taken[self._run.kind] += self._clock() - self._start
        self._run = None

    def took(self, run: Run, seconds: float) -> None:
        """Note the duration of a run in another process."""
        if run.seconds:
            self._expected[run.kind] += run.seconds
            self._taken[run.kind] += seconds

    def seconds(self, missing: Sequence[Run], *, num_workers: int = 1) -> float | None:
        """Until all of `missing` are done, the current run first; None if the duration of one is unknown.

        Runs that may run apart are divided among the workers.
        """
        total = 0.0
        for number, run in enumerate(missing):
            if run.seconds is None:
                return None
            part = self._part if number == 0 and self._run is not None else 0.0
            total += run.seconds * (1 - part) * self._factor(run.kind) / (num_workers if run.apart else 1)
        return total

    def _factor(self, kind: str) -> float:
        return self._taken[kind] / self._expected[kind] if self._expected[kind] > 0 else 1.0


def in_words(seconds: float) -> str:
    """`2 h 5 min`, `4 min`, `less than a minute`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


@dataclass(frozen=True, slots=True)
class StudyResult:
    """The report of a study, the files written (the page first), and the number of runs with existing results."""

    report: Report
    files: tuple[Path, ...]
    num_kept: int


def find_study(name: str) -> Study:
    """The study of that name; RunError if there is none."""
    if name not in STUDIES:
        raise RunError(unknown_name("study", name, STUDIES))
    module, _, variable = STUDIES[name].partition(":")
    study: Study = getattr(importlib.import_module(module), variable)
    return study


def run_study(
    study: Study,
    settings: Settings,
    out: Path,
    *,
    num_workers: int = 1,
    on_progress: Progress | None = None,
) -> StudyResult:
    """Perform the runs that are missing in the folder `out`, and write the study's report; the time left is logged.

    Args:
        study: what to run.
        settings: of the study.
        out: folder of results; several studies may share one, and with it the runs they have in common.
        num_workers: trainings at a time, each in its own process; latencies are always measured alone.
        on_progress: called with a description that includes the time left, and the part of this run that is done.

    Raises:
        RunError: the study does not use a setting, the folder is in use or not writable, or its results are damaged
            or of other data under the same name.
        MissingDependencyError: matplotlib, or what the study needs, is not installed.
        LpsnetError: a run failed; results of earlier ones are kept.
    """
    study.check(settings)
    check_drawing()
    with locked_folder(out):
        check_inputs(settings.data, out)
        results = Results(out, describe_machine().identity)
        work = _Work(study, settings, results, num_workers, on_progress or _ignore)
        outcomes, num_made = work.finish()
        report = study.report(outcomes)
        files = write_study(study, settings, outcomes, report, out)
    return StudyResult(report, files, len(outcomes) - num_made)


@dataclass(frozen=True, slots=True)
class _Apart:
    run: Run
    folder: Path
    num_threads: int  # of torch, unless the run sets it

    def __str__(self) -> str:
        return self.run.name or self.run.slug


def _make_apart(task: _Apart) -> tuple[str, Mapping[str, Json], float]:
    """In that process: the run's slug, its result, and its duration in seconds."""
    import torch

    torch.set_num_threads(task.num_threads)
    start = time.monotonic()
    result = task.run.work(Place(task.folder, _ignore))
    return task.run.slug, result, time.monotonic() - start


@dataclass
class _Work:
    study: Study
    settings: Settings
    results: Results
    num_workers: int
    on_progress: Progress
    left: TimeLeft = field(default_factory=TimeLeft)
    unknown_logged: bool = False  # whether it was logged that the time left is unknown

    def finish(self) -> tuple[list[Outcome], int]:
        """All outcomes of the plan, and the number of runs performed now."""
        num_made = 0
        while missing := [run for run in self._plan() if self.results.find(run) is None]:
            self._announce(missing)
            for outcome in self._make_next(missing):
                self.results.add(outcome)
                num_made += 1
        found = [self.results.find(run) for run in self._plan()]
        return [outcome for outcome in found if outcome is not None], num_made

    def _plan(self) -> list[Run]:
        return list(self.study.plan(self.settings, self.results.result))

    def _announce(self, missing: list[Run]) -> None:
        seconds = self.left.seconds(missing, num_workers=self.num_workers)
        runs = f"{self.study.name}: {len(missing)} run{'s' * (len(missing) > 1)} to make"
        if seconds is None and not self.unknown_logged:
            self.unknown_logged = True
            _log.info(f"{runs} so far; how long all take is known once a few steps were timed")
        if seconds is not None and seconds >= 60:
            _log.info(f"{runs}, about {in_words(seconds)}")

    def _make_next(self, missing: list[Run]) -> Iterator[Outcome]:
        """Perform the first missing run; with several workers also those after it that may run beside it."""
        together = list(itertools.takewhile(lambda run: run.apart, missing)) if self.num_workers > 1 else []
        if len(together) > 1:
            yield from self._make_together(together, missing)
        else:
            yield self._make(missing)

    def _make_together(self, runs: list[Run], missing: list[Run]) -> Iterator[Outcome]:
        num_threads = max(1, (os.cpu_count() or 1) // self.num_workers)
        by_slug = {run.slug: run for run in runs}
        tasks = [_Apart(run, self.results.place(run), num_threads) for run in by_slug.values()]
        pool, watch = LocalPool(self.num_workers), LoadWatch.start()
        for slug, result, seconds in pool.run(_make_apart, tasks, on_progress=_log.info):
            run = by_slug.pop(slug)
            self.left.took(run, seconds)
            # Other work is unknown: it would include the other workers
            yield self._outcome(run, result, replace(watch.load(), other_cores=None))
            missing = [each for each in missing if each.slug != slug]
            self.on_progress(f"{run.name} is trained{self._time_left(missing)}", 1 - len(by_slug) / len(tasks))

    def _make(self, missing: list[Run]) -> Outcome:
        run, watch = missing[0], LoadWatch.start()
        self.left.begin(run)

        def on_progress(what: str, part: float) -> None:
            self.left.update(part)
            self.on_progress(f"{what}{self._time_left(missing)}", part)

        result = run.work(Place(self.results.place(run), on_progress))
        self.left.end()
        return self._outcome(run, result, watch.load())

    def _time_left(self, missing: list[Run]) -> str:
        seconds = self.left.seconds(missing, num_workers=self.num_workers)
        return "" if seconds is None else f"; {in_words(seconds)} left in all"

    @staticmethod
    def _outcome(run: Run, result: Mapping[str, Json], load: Load) -> Outcome:
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return Outcome(dict(run.key), result, describe_machine().identity, load.to_dict(), date)


def _ignore(*_: object) -> None:
    pass
