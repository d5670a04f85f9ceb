"""Trainings taken over from runs on other machines: weights and scores do not depend on where they were made.

Latencies do, so a journal is never gone on with on another machine. But a run there can be given the folder of one
here: where its search comes to a candidate that was trained with the very same settings, from the very same weights, it
takes the score and a copy of the weights, and its journal says where they are from. What is the same is the recipe,
data and seeds, not every digit: arithmetic such as bf16 differs in the last digits between processors, as it does
between two trainings of which one was cut off.

A whole expansion as one command runs it: Algorithm 1 (Section 3.4) with real latencies and real trainings.

The run's folder: `journal.jsonl` is all that was ever measured and trained, `plan.json` how far the search is to go,
`candidates/` holds each one's training, `family/` what is handed over. Start it again to go on: the search is run anew
with the journal's answers.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lpsnet import __version__
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError, RunError
from lpsnet.io import atomic_path, inside, write_text
from lpsnet.search.algorithm import expand
from lpsnet.search.executors import Executor, InProcess
from lpsnet.search.family import Expansion, Step, comparable_latencies, pareto_front, remeasured
from lpsnet.search.journal import (
    Header,
    Journal,
    LatencyRepetition,
    StepDecided,
    TrainingFinished,
    differences,
    open_journal,
    read_journal,
    spec_fields,
)
from lpsnet.search.measure import Device, ThisMachine
from lpsnet.search.measurements import TrainingSpec
from lpsnet.search.operations import Design
from lpsnet.search.plan import PLAN, ExpansionRun, check_plan
from lpsnet.search.replay import (
    REPETITIONS,
    JournalledLatency,
    JournalledPerformance,
    TrainingResult,
    chosen_length,
    decided_lengths,
    family_of,
    first_training,
    record_start,
    record_step,
)
from lpsnet.search.results import FAMILY, RankingCheck, SearchResult, page, progress_table, write_models
from lpsnet.search.train import CandidateTask, train_candidate
from lpsnet.training.run import training_inputs
from lpsnet.training.run_folder import INPUTS, RunFolder

TAKEN_FROM = "taken_from"  # in a training's details: the run it was taken over from


class ReusableRun:
    """A run whose trainings may be taken over.

    Args:
        folder: of the run.
        settings: of the run that takes them; all but the device must be the same.
        defaults: see `open_journal`.

    Raises:
        RunError: there is no journal, or it was made with other settings.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue] | None = None
    ) -> None:
        path = folder / "journal.jsonl"
        header, *lines = read_journal(path)
        assert isinstance(header, Header), "a journal begins with its header"
        if changes := differences(_portable(header.settings), _portable(settings), defaults or {}):
            raise RunError(f"trainings of {path} cannot be taken over: {changes}")
        self._lines = lines
        self.folder, self.name = folder, f"{_machine(header.settings)}, begun {header.at}"
        self._inherits = bool(settings.get("inherit"))
        self._trainings: dict[tuple[JsonValue, ...], TrainingFinished] = {}
        for it in lines:
            if isinstance(it, TrainingFinished):  # the first counts, as in `Journal`
                self._trainings.setdefault((it.design, it.parent, it.seed, it.length), it)

    def find(self, design: Design, spec: TrainingSpec, *, own: Journal) -> TrainingResult | None:
        """The training of `design`, if it is here with its weights and started from weights that `own` has too."""
        line = self._trainings.get((str(design), *spec_fields(spec).values()))
        if line is None or line.miou is None or not self.weights(line).is_file():
            return None
        if self._inherits and spec.parent is not None and not self._gave(spec.parent, own):
            return None
        return TrainingResult(design, line.outcome, {**line.details, TAKEN_FROM: self.name})

    def weights(self, line: TrainingFinished) -> Path:
        """The file of a training's weights."""
        return inside(self.folder, line.details.get("model", ""))

    def _gave(self, parent: Design, own: Journal) -> bool:
        """Whether the weights of `parent` in the journal `own` are those of this run, and the ones chosen in both."""
        length = chosen_length(own.events, parent)
        line = first_training(own.events, parent, length)
        taken = line is not None and line.details.get(TAKEN_FROM) == self.name
        return taken and chosen_length(self._lines, parent) == length


def reuse_training(
    runs: Sequence[ReusableRun], design: Design, spec: TrainingSpec, *, own: Journal, out: Path
) -> TrainingResult | None:
    """The training of a design from the first run that has it, its weights copied into `out`; None if none has."""
    for run in runs:
        if (found := run.find(design, spec, own=own)) is not None:
            source, target = (inside(folder, found.details["model"]) for folder in (run.folder, out))
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
            return found
    return None


def _portable(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in settings.items() if key != "device"}


def _machine(settings: Mapping[str, JsonValue]) -> str:
    device = settings.get("device")
    return str(device.get("machine", "unknown")) if isinstance(device, dict) else "unknown"


JOURNAL = "journal.jsonl"
FINAL_EFFORT = 2  # of measuring the family in turn at the end
NUM_IMAGES = 2  # of the validation images, that every exported file is compared on

Say = Callable[[str], None]
TrainCandidate = Callable[[CandidateTask], TrainingResult]


def run_expansion(
    run: ExpansionRun,
    out: Path,
    *,
    executor: Executor | None = None,
    device: Device | None = None,
    train: TrainCandidate = train_candidate,
    repetitions: Sequence[int] = REPETITIONS,
    trainings_from: Sequence[Path] = (),
    on_progress: Say = lambda line: None,
) -> SearchResult:
    """Expand, or go on, and leave the family in `out`/family.

    Args:
        run: what is expanded.
        out: the run's folder.
        executor: where candidates are trained; one after another in this process unless given.
        device: what latencies are measured on; this machine unless given.
        train: trains one candidate.
        passes: how often networks are measured in turn, by effort; see `replay.REPETITIONS`.
        trainings_from: folders of runs on other machines, whose trainings are taken over (`borrowing.py`).
        say: told what is being done, a line at a time.

    Raises:
        LpsnetError: data, recipe, engine or folder cannot be used, the folder's journal was made with other settings or
            on another machine, or another process is writing it.
    """
    out = out.resolve()  # a candidate's record names the weights it started from
    num_classes = check_plan(run)
    learnt = training_inputs(open_dataset(run.data), run.init, run.split, run.val)
    inputs: dict[str, JsonValue] = {INPUTS: {**learnt}}
    defaults = {"recipe": run.recipe.defaults(), **inputs}  # a journal that does not say is believed
    wanted = {**run.settings({}), **inputs}
    others = [ReusableRun(folder, settings=wanted, defaults=defaults) for folder in trainings_from]
    machine = ThisMachine(
        run.target, out / "latency", num_classes=num_classes, interaction=run.interaction, on_progress=on_progress
    )
    measured_on = device or machine
    settings = {**run.settings(measured_on.describe(run.start.design)), **inputs}
    opened = open_journal(out / JOURNAL, settings=settings, lpsnet_version=__version__, defaults=defaults)
    with opened as journal, _planned(run, out / PLAN, journal):
        running = _Running(
            run, out, journal, measured_on, executor or InProcess(), train, repetitions, others, on_progress
        )
        result = running.deliver(running.search(num_classes), num_classes)
        machine.clear()
    return result


@contextmanager
def _planned(run: ExpansionRun, path: Path, journal: Journal) -> Iterator[None]:
    """The plan is what is asked for now; after a refusal before anything was done for it, it is as it was."""
    before, known = path.read_text(encoding="utf-8") if path.exists() else None, len(journal.events)
    write_text(path, json.dumps(run.asked(), indent=2) + "\n")
    try:
        yield
    except LpsnetError:
        if before is not None and len(journal.events) == known:
            write_text(path, before)
        raise


@dataclass(frozen=True)
class _Running:
    """A run with its journal open."""

    run: ExpansionRun
    out: Path
    journal: Journal
    device: Device
    executor: Executor
    train: TrainCandidate
    repetitions: Sequence[int]
    others: Sequence[ReusableRun]
    on_progress: Say

    @property
    def performance(self) -> JournalledPerformance:
        return JournalledPerformance(self.journal, self._train, on_progress=self.on_progress)

    @property
    def latency(self) -> JournalledLatency:
        return JournalledLatency(self.journal, self._measure_once, repetitions=self.repetitions)

    def search(self, num_classes: int) -> Expansion:
        """Algorithm 1."""
        self._say_where_it_stands()
        return expand(
            self.run.start,
            latency=self.latency,
            performance=self.performance,
            operations=self.run.table,
            options=self.run.search_options,
            cost=partial(self.run.cost, num_classes=num_classes),
            lengths=decided_lengths(self.journal.events),
            on_start=lambda member: record_start(self.journal, member),
            on_step=self._on_step,
            on_progress=self.on_progress,
        )

    def deliver(self, found: Expansion, num_classes: int) -> SearchResult:
        """Measure the family in turn and write all its files."""
        run, folder = self.run, self.out / "family"
        front = {it.design for it in pareto_front(comparable_latencies(found))}
        members = [*found.members, *(it for it in found.trained if it.design in front and it not in found.members)]
        self.on_progress(f"measuring the {len(members)} best networks against each other")
        measured = remeasured(members, self.latency.absolute, effort=FINAL_EFFORT)
        result = SearchResult.of(found, measured, budgets_ms=run.budgets_ms, folder=folder)
        if run.check_step > len(found.steps):
            self.on_progress(f"the ranking is not checked: there is no step {run.check_step}")
        checks = (self._check_ranking(step) for step in found.steps if step.number == run.check_step)
        result = replace(result, check=next(checks, None))
        self.on_progress("exporting the family and comparing the files with the networks")
        checkpoints = {it.design: self._weights(it.design, it.length) for it in result.exported}
        write_models(result, checkpoints, size=run.target.size, images=self._images())
        write_text(folder / FAMILY, json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
        title = f"{run.data}, {run.recipe.name}: expanded for {run.target}"
        write_text(folder / "table.md", page(result, title=title, num_classes=num_classes, interaction=run.interaction))
        return result

    def _say_where_it_stands(self) -> None:
        kinds = {LatencyRepetition: "passes of measurements", TrainingFinished: "trainings", StepDecided: "steps"}
        counts = {name: sum(isinstance(it, kind) for it in self.journal.events) for kind, name in kinds.items()}
        header = self.journal.events[0]
        if isinstance(header, Header) and header.lpsnet_version != __version__:
            self.on_progress(
                f"warning: this search was begun with lpsnet {header.lpsnet_version}, and goes on with {__version__}"
            )
        if any(counts.values()):
            self.on_progress(
                f"going on with {', '.join(f'{count} {name}' for name, count in counts.items())} done before"
            )

    def _measure_once(self, designs: Sequence[Design]) -> Sequence[float]:
        if not self.journal.repetitions([str(design) for design in designs]):
            self.on_progress(f"  measuring {len(designs)} networks in turn")
        return self.device.measure_once(designs)

    def _on_step(self, step: Step) -> None:
        record_step(self.journal, step)
        left = self.run.options.num_steps - step.number
        ahead = f"; {left} more to go" if left and step.chosen else ""
        self.on_progress(f"step {step.number} {step.verdict}{ahead}")
        for line in progress_table(family_of(self.journal.events)[: step.number + 1]):
            self.on_progress(line)
        if step.number == self.run.check_step:
            self.on_progress(f"checking the ranking: {self._check_ranking(step)}")

    def _check_ranking(self, step: Step) -> RankingCheck:
        designs = list(dict.fromkeys(it.design for it in step.candidates))
        spec = TrainingSpec(step.parent.design, length=self.run.check_length * step.length)
        return RankingCheck.of(step, self.performance(designs, spec), length=self.run.check_length)

    def _train(self, designs: Sequence[Design], spec: TrainingSpec) -> Iterator[TrainingResult]:
        """Trains designs; a result is in the journal when the next one is asked for."""
        self.device.release()
        begun = time.monotonic()
        taken = [reuse_training(self.others, it, spec, own=self.journal, out=self.out) for it in designs]
        yield from filter(None, taken)
        parent = spec.parent
        weights = None if parent is None else self._weights(parent, chosen_length(self.journal.events, parent))
        untrained = [design for design, known in zip(designs, taken, strict=True) if known is None]
        tasks = [self.run.task(design, spec, out=self.out, parent_weights=weights) for design in untrained]
        folders = {task.design: task.folder for task in tasks}
        results = self.executor.run(self.train, tasks, on_progress=lambda line: self.on_progress(f"  {line}"))
        for done, result in enumerate(results, start=1):
            yield result
            if line := _beginning(result):
                self.on_progress(f"  {line}")
            RunFolder(folders[result.design]).state.unlink(missing_ok=True)  # as large as several models
            if left := len(tasks) - done:
                minutes = (time.monotonic() - begun) / done * left / 60
                self.on_progress(f"  {left} left in this step, about {minutes:.0f} min")

    def _weights(self, design: Design, length: int) -> Path:
        """Those of a trained design that are inherited and handed over."""
        line = first_training(self.journal.events, design, length)
        assert line is not None, f"{design} was trained before it is asked for"
        return inside(self.out, line.details.get("model", ""))

    def _images(self) -> list[Any]:
        images = open_dataset(self.run.data).split(self.run.val)
        return [images.image(index) for index in range(min(NUM_IMAGES, len(images)))]


def _beginning(result: TrainingResult) -> str:
    """Why a candidate did not begin where its parent was; empty if it did, or nothing was to be inherited."""
    inherited = result.details.get("inherited")
    if not isinstance(inherited, dict):
        return ""
    if not inherited.get("taken_over"):
        return f"{result.design} inherits no weights: {inherited.get('why')}"
    reasons = inherited.get("reasons")
    if inherited.get("preserving") != "no" or not isinstance(reasons, list):
        return ""
    return f"{result.design} begins with other logits than its parent's: {'; '.join(map(str, reasons))}"
