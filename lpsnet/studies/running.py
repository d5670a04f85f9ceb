"""The finished runs of a folder: a line of JSON each, on the disk as soon as the run is done.

The data that a study's folder holds results of: those of other images under the same name do not mix with them.

How long a study will still take: what its runs are expected to take, set right by what those before really took.

By kind: that latencies took half the time expected of them says nothing about trainings.

Running studies: every run's result is kept as soon as it is there (`results.py`).

A study that was stopped goes on when it is started again, and runs that were made with the same settings on the same
machine are not made twice. A run that was stopped half way finds its folder as it left it.
"""

import importlib
import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lpsnet.benchmark.machine import Load, LoadWatch, describe_machine
from lpsnet.data.dataset import changed_contents, data_contents, open_dataset
from lpsnet.errors import RunError, unknown_name
from lpsnet.io import append_line, finished_lines, locked_folder, write_text
from lpsnet.report.figures import check_drawing
from lpsnet.search.executors import LocalPool
from lpsnet.studies.study import Json, Outcome, Place, Progress, Report, Run, Settings, Study, slug_of, write_study

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


INPUTS = "inputs.json"  # in a study's folder: data set, as text -> `data_contents` of all its splits


def check_inputs(data: Sequence[str], out: Path) -> None:
    """Note what the data sets hold, and raise where the folder `out` has results of something else under their names.

    Raises:
        RunError: it has, or what it notes cannot be read.
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
    """What is left of a study.

    Args:
        clock: seconds, going up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected: defaultdict[str, float] = defaultdict(float)  # seconds, by kind of run
        self._taken: defaultdict[str, float] = defaultdict(float)
        self._run: Run | None = None
        self._start = self._first_part = self._part = 0.0

    def begin(self, run: Run) -> None:
        """A run begins."""
        self._run, self._start, self._first_part, self._part = run, self._clock(), -1.0, 0.0

    def tell(self, part: float) -> None:
        """So much of it is done, 0 to 1; the first call says where a run that was stopped goes on."""
        if self._first_part < 0:
            self._first_part = part
        self._part = part

    def end(self) -> None:
        """It is done: from now on expectations are corrected by what it took."""
        assert self._run is not None, "it began"
        if self._run.seconds:
            self._expected[self._run.kind] += self._run.seconds * (1 - max(0.0, self._first_part))
            self._taken[self._run.kind] += self._clock() - self._start
        self._run = None

    def took(self, run: Run, seconds: float) -> None:
        """A run that was made apart took so long."""
        if run.seconds:
            self._expected[run.kind] += run.seconds
            self._taken[run.kind] += seconds

    def seconds(self, missing: Sequence[Run], *, num_workers: int = 1) -> float | None:
        """Until all of `missing` are done, the one that is being made first; None if one may take any time.

        Runs that may be made apart are shared out among as many workers.
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


# name -> "module:variable" of a `Study`; imported when it is asked for
STUDIES: dict[str, str] = {
    "conv-blocks": "lpsnet.studies.conv_blocks:STUDY",
    "interactions": "lpsnet.studies.interactions:STUDY",
    "conv-types": "lpsnet.studies.convolutions:CONV_TYPES",
    "widths": "lpsnet.studies.convolutions:WIDTHS",
    "expansion": "lpsnet.studies.expansion_steps:STUDY",
    "qualitative": "lpsnet.studies.qualitative:STUDY",
    "comparison": "lpsnet.studies.comparison:STUDY",
    "generalisation": "lpsnet.studies.generalisation:STUDY",
    "embedded": "lpsnet.studies.comparison:EMBEDDED",
    "end-to-end": "lpsnet.studies.end_to_end:STUDY",
    "precisions": "lpsnet.studies.precisions:STUDY",
    "exports": "lpsnet.studies.exports:STUDY",
    "label-map": "lpsnet.studies.label_map:STUDY",
    "training-speed": "lpsnet.studies.training_speed:STUDY",
    "inheritance": "lpsnet.studies.inheritance:STUDY",
    "inheritance-until-flat": "lpsnet.studies.inheritance:UNTIL_FLAT",
    "grown": "lpsnet.studies.grown:STUDY",
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


def run_study(
    study: Study,
    settings: Settings,
    out: Path,
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> StudyResult:
    """Make those runs that are missing in the folder `out`, and write what the study found.

    Args:
        study, settings: what is done.
        out: folder of results; several studies may share one, and then also the runs they have in common.
        num_workers: trainings at a time, each in a process of its own; latencies are always measured alone.
        progress: told what is being done, how long all will take, and which part of this run is done.
        say: called with a line on how much is left, once that is known and after every run.

    Raises:
        RunError: a setting is not one of this study, the folder is in use or cannot be written to, or its results are
            damaged or of other data by the same name.
        MissingDependencyError: matplotlib, or what the study needs, is not installed.
        LpsnetError: what a run raises; those finished before it are kept.
    """
    study.check(settings)
    check_drawing()
    with locked_folder(out):
        check_inputs(settings.data, out)
        results = Results(out, describe_machine().identity)
        work = _Work(study, settings, results, num_workers, progress or _tell_nobody, say or _say_to_nobody)
        outcomes, num_made = work.finish()
        report = study.report(outcomes)
        files = write_study(study, settings, outcomes, report, out)
    return StudyResult(report, files, len(outcomes) - num_made)


@dataclass(frozen=True, slots=True)
class _Apart:
    """A run for another process."""

    run: Run
    folder: Path
    num_threads: int  # for what is not told how many it may use

    def __str__(self) -> str:
        return self.run.name or self.run.slug


def _make_apart(task: _Apart) -> tuple[str, Mapping[str, Json], float]:
    """In that process: the run's slug, its result, and the seconds it took."""
    import torch

    torch.set_num_threads(task.num_threads)
    start = time.monotonic()
    result = task.run.work(Place(task.folder, _tell_nobody))
    return task.run.slug, result, time.monotonic() - start


class _Work:
    """The runs of a study."""

    def __init__(
        self,
        study: Study,
        settings: Settings,
        results: Results,
        num_workers: int,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self._study, self._settings, self._results = study, settings, results
        self._num_workers, self._progress, self._say = num_workers, progress, say
        self._left = TimeLeft()
        self._unknown = False  # whether it was said that the time is not known yet

    def finish(self) -> tuple[list[Outcome], int]:
        """All outcomes of the plan, and how many were made now."""
        num_made = 0
        while missing := [run for run in self._plan() if self._results.find(run) is None]:
            self._announce(missing)
            for outcome in self._make_next(missing):
                self._results.add(outcome)
                num_made += 1
        found = [self._results.find(run) for run in self._plan()]
        return [outcome for outcome in found if outcome is not None], num_made

    def _plan(self) -> list[Run]:
        return list(self._study.plan(self._settings, self._results.result))

    def _announce(self, missing: list[Run]) -> None:
        seconds = self._left.seconds(missing, num_workers=self._num_workers)
        runs = f"{self._study.name}: {len(missing)} run{'s' * (len(missing) > 1)} to make"
        if seconds is None and not self._unknown:
            self._unknown = True
            self._say(f"{runs} so far; how long all take is known once a few steps were timed")
        if seconds is not None and seconds >= 60:
            self._say(f"{runs}, about {in_words(seconds)}")

    def _make_next(self, missing: list[Run]) -> Iterator[Outcome]:
        """The first of what is missing; with several workers also those after it that may be made beside it."""
        together = list(itertools.takewhile(lambda run: run.apart, missing)) if self._num_workers > 1 else []
        if len(together) > 1:
            yield from self._make_together(together, missing)
        else:
            yield self._make(missing)

    def _make_together(self, runs: list[Run], missing: list[Run]) -> Iterator[Outcome]:
        num_threads = max(1, (os.cpu_count() or 1) // self._num_workers)
        by_slug = {run.slug: run for run in runs}
        tasks = [_Apart(run, self._results.place(run), num_threads) for run in by_slug.values()]
        pool, watch = LocalPool(self._num_workers), LoadWatch.start()
        for slug, result, seconds in pool.run(_make_apart, tasks, on_progress=self._say):
            run = by_slug.pop(slug)
            self._left.took(run, seconds)
            # What else went on is not known: the other workers would be counted as other work
            yield self._outcome(run, result, replace(watch.load(), other_cores=None))
            missing = [each for each in missing if each.slug != slug]
            self._progress(f"{run.name} is trained{self._what_is_left(missing)}", 1 - len(by_slug) / len(tasks))

    def _make(self, missing: list[Run]) -> Outcome:
        run, watch = missing[0], LoadWatch.start()
        self._left.begin(run)

        def tell(what: str, part: float) -> None:
            self._left.tell(part)
            self._progress(f"{what}{self._what_is_left(missing)}", part)

        result = run.work(Place(self._results.place(run), tell))
        self._left.end()
        return self._outcome(run, result, watch.load())

    def _what_is_left(self, missing: list[Run]) -> str:
        seconds = self._left.seconds(missing, num_workers=self._num_workers)
        return "" if seconds is None else f"; {in_words(seconds)} left in all"

    @staticmethod
    def _outcome(run: Run, result: Mapping[str, Json], load: Load) -> Outcome:
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return Outcome(dict(run.key), result, describe_machine().identity, load.to_dict(), date)


def _tell_nobody(what: str, part: float) -> None:
    pass


def _say_to_nobody(line: str) -> None:
    pass
