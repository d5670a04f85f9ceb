"""A search as `lpsnet expand` runs it: Algorithm 1 (Section 3.4) with measured latencies and real trainings.

The run's folder: `journal.jsonl` holds every measurement and training, `plan.json` the options of the last start,
`candidates/` the trainings, `family/` the result. Starting again resumes: the search is repeated with the journal's
answers. A journal is never resumed on another machine, since latencies differ, but trainings can be reused there: same
recipe, data, seeds and start weights; digits may differ as between processors.
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
from lpsnet.search import journal as log
from lpsnet.search import replay
from lpsnet.search.algorithm import expand
from lpsnet.search.executors import Executor, InProcess, Progress
from lpsnet.search.family import Expansion, Step, comparable_latencies, distinct, pareto_front, remeasured
from lpsnet.search.journal import Header, Journal, TrainingFinished
from lpsnet.search.measure import Device, ThisMachine
from lpsnet.search.measurements import TrainingSpec
from lpsnet.search.operations import Design
from lpsnet.search.plan import PLAN, ExpansionRun, check_plan
from lpsnet.search.replay import REPETITIONS, TrainingResult, chosen_length, first_training
from lpsnet.search.results import FAMILY, RankingCheck, SearchResult, page, progress_table, write_models
from lpsnet.search.train import CandidateTask, train_candidate
from lpsnet.training.run import training_inputs
from lpsnet.training.run_folder import INPUTS, RunFolder

TAKEN_FROM = "taken_from"  # in a training's details: the run that it was reused from
JOURNAL = "journal.jsonl"
FINAL_EFFORT = 2  # of the family's measurement at the end
NUM_IMAGES = 2  # validation images that every exported file is verified on

TrainCandidate = Callable[[CandidateTask], TrainingResult]


class ReusableRun:
    """A run on another machine whose trainings are reused.

    Args:
        folder: of the run.
        settings: of the run that reuses them; all but the device must be equal.
        defaults: see `open_journal`.

    Raises:
        RunError: there is no journal, or it was made with other settings.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue] | None = None
    ) -> None:
        path = folder / JOURNAL
        self._journal = Journal(path, log.read_journal(path))
        header = self._journal.events[0]
        assert isinstance(header, Header), "a journal begins with its header"
        if changes := log.differences(_portable(header.settings), _portable(settings), defaults or {}):
            raise RunError(f"trainings of {path} cannot be reused: {changes}")
        device = header.settings.get("device")
        machine = str(device.get("machine", "unknown")) if isinstance(device, dict) else "unknown"
        self.folder, self.name = folder, f"{machine}, begun {header.at}"
        self._inherits = bool(settings.get("inherit"))

    def find(self, design: Design, spec: TrainingSpec, *, own: Journal) -> TrainingResult | None:
        """The training of `design`, if it has weights and started from weights that the journal `own` has too."""
        line = self._journal.training(design, spec)
        if line is None or line.miou is None or not inside(self.folder, line.details.get("model", "")).is_file():
            return None
        if self._inherits and spec.parent is not None and not self._gave(spec.parent, own):
            return None
        return TrainingResult(design, line.outcome, {**line.details, TAKEN_FROM: self.name})

    def _gave(self, parent: Design, own: Journal) -> bool:
        """Whether `own` reuses the weights of `parent` from this run, and both chose them."""
        length = chosen_length(own.events, parent)
        line = first_training(own.events, parent, length)
        reused = line is not None and line.details.get(TAKEN_FROM) == self.name
        return reused and chosen_length(self._journal.events, parent) == length


def reuse_training(
    runs: Sequence[ReusableRun], design: Design, spec: TrainingSpec, *, own: Journal, out: Path
) -> TrainingResult | None:
    """The training of a design from the first run that has it, with its weights copied into `out`; None otherwise."""
    for run in runs:
        if (found := run.find(design, spec, own=own)) is not None:
            source, target = (inside(folder, found.details["model"]) for folder in (run.folder, out))
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
            return found
    return None


def _portable(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in settings.items() if key != "device"}


def run_expansion(
    run: ExpansionRun,
    out: Path,
    *,
    executor: Executor | None = None,
    device: Device | None = None,
    train: TrainCandidate = train_candidate,
    repetitions: Sequence[int] = REPETITIONS,
    trainings_from: Sequence[Path] = (),
    on_progress: Progress = lambda line: None,
) -> SearchResult:
    """Run or resume a search, and write the family to `out`/family.

    Args:
        run: the options.
        out: the run's folder.
        executor: where candidates are trained; default: one after another in this process.
        device: where latencies are measured; default: this machine.
        train: trains one candidate.
        repetitions: of interleaved measurements, by effort; see `replay.REPETITIONS`.
        trainings_from: folders of runs on other machines, to reuse trainings of.
        on_progress: called with a line of text for each thing begun.

    Raises:
        LpsnetError: data, recipe, engine or folder cannot be used, the folder's journal was made with other settings or
            on another machine, or another process is writing it.
    """
    out = out.resolve()  # a candidate's record has the path of the weights it started from
    num_classes = check_plan(run)
    inputs: dict[str, JsonValue] = {INPUTS: {**training_inputs(open_dataset(run.data), run.init, run.split, run.val)}}
    defaults = {
        "recipe": run.recipe.defaults(),
        **inputs,
    }  # a journal without these keys is assumed to have the same values
    wanted = {**run.settings({}), **inputs}
    others = [ReusableRun(folder, settings=wanted, defaults=defaults) for folder in trainings_from]
    machine = ThisMachine(
        run.target, out / "latency", num_classes=num_classes, interaction=run.interaction, on_progress=on_progress
    )
    measured_on = device or machine
    settings = {**run.settings(measured_on.describe(run.start.design)), **inputs}
    opened = log.open_journal(out / JOURNAL, settings=settings, lpsnet_version=__version__, defaults=defaults)
    with opened as journal, _planned(run, out / PLAN, journal):
        running = _Running(
            run, out, journal, measured_on, executor or InProcess(), train, repetitions, others, on_progress
        )
        result = running.write_result(running.search(num_classes), num_classes)
        machine.clear()
    return result


@contextmanager
def _planned(run: ExpansionRun, path: Path, journal: Journal) -> Iterator[None]:
    """Write the plan; restore the previous one if the run is refused before it has added to the journal."""
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
    """A run with an open journal."""

    run: ExpansionRun
    out: Path
    journal: Journal
    device: Device
    executor: Executor
    train: TrainCandidate
    repetitions: Sequence[int]
    others: Sequence[ReusableRun]
    on_progress: Progress

    @property
    def performance(self) -> replay.JournalledPerformance:
        return replay.JournalledPerformance(self.journal, self._train, on_progress=self.on_progress)

    @property
    def latency(self) -> replay.JournalledLatency:
        return replay.JournalledLatency(self.journal, self._measure_once, repetitions=self.repetitions)

    def search(self, num_classes: int) -> Expansion:
        """Algorithm 1."""
        self._report_state()
        return expand(
            self.run.start,
            latency=self.latency,
            performance=self.performance,
            operations=self.run.table,
            options=self.run.search_options,
            cost=partial(self.run.cost, num_classes=num_classes),
            lengths=replay.decided_lengths(self.journal.events),
            on_start=lambda member: replay.record_start(self.journal, member),
            on_step=self._on_step,
            on_progress=self.on_progress,
        )

    def write_result(self, found: Expansion, num_classes: int) -> SearchResult:
        """Measure the family interleaved and write all its files."""
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

    def _report_state(self) -> None:
        kinds = {
            log.LatencyRepetition: "repetitions of measurements",
            TrainingFinished: "trainings",
            log.StepDecided: "steps",
        }
        counts = {name: sum(isinstance(it, kind) for it in self.journal.events) for kind, name in kinds.items()}
        header = self.journal.events[0]
        if isinstance(header, Header) and header.lpsnet_version != __version__:
            self.on_progress(
                f"warning: this search was begun with lpsnet {header.lpsnet_version}, and is resumed with {__version__}"
            )
        if any(counts.values()):
            self.on_progress(
                f"resuming with {', '.join(f'{count} {name}' for name, count in counts.items())} done before"
            )

    def _measure_once(self, designs: Sequence[Design]) -> Sequence[float]:
        if not self.journal.repetitions([str(design) for design in designs]):
            self.on_progress(f"  measuring {len(designs)} networks interleaved")
        return self.device.measure_once(designs)

    def _on_step(self, step: Step) -> None:
        replay.record_step(self.journal, step)
        left = self.run.options.num_steps - step.number
        ahead = f"; {left} more to go" if left and step.chosen else ""
        self.on_progress(f"step {step.number} {step.verdict}{ahead}")
        for line in progress_table(replay.family_of(self.journal.events)[: step.number + 1]):
            self.on_progress(line)
        if step.number == self.run.check_step:
            self.on_progress(f"checking the ranking: {self._check_ranking(step)}")

    def _check_ranking(self, step: Step) -> RankingCheck:
        designs = [it.design for it in distinct(step.candidates)]
        spec = TrainingSpec(step.parent.design, length=self.run.check_length * step.length)
        return RankingCheck.of(step, self.performance(designs, spec), length=self.run.check_length)

    def _train(self, designs: Sequence[Design], spec: TrainingSpec) -> Iterator[TrainingResult]:
        """Train designs; the caller has written a result to the journal when it asks for the next one."""
        self.device.release()
        begun = time.monotonic()
        reused = [reuse_training(self.others, it, spec, own=self.journal, out=self.out) for it in designs]
        yield from filter(None, reused)
        parent = spec.parent
        weights = None if parent is None else self._weights(parent, chosen_length(self.journal.events, parent))
        untrained = [design for design, known in zip(designs, reused, strict=True) if known is None]
        tasks = [self.run.task(design, spec, out=self.out, parent_weights=weights) for design in untrained]
        folders = {task.design: task.folder for task in tasks}
        results = self.executor.run(self.train, tasks, on_progress=lambda line: self.on_progress(f"  {line}"))
        for done, result in enumerate(results, start=1):
            yield result
            if line := _start_note(result):
                self.on_progress(f"  {line}")
            RunFolder(folders[result.design]).state.unlink(missing_ok=True)  # as large as several models
            if left := len(tasks) - done:
                minutes = (time.monotonic() - begun) / done * left / 60
                self.on_progress(f"  {left} left in this step, about {minutes:.0f} min")

    def _weights(self, design: Design, length: int) -> Path:
        """The weights of a trained design that are inherited and exported."""
        line = first_training(self.journal.events, design, length)
        assert line is not None, f"{design} was trained"
        return inside(self.out, line.details.get("model", ""))

    def _images(self) -> list[Any]:
        images = open_dataset(self.run.data).split(self.run.val)
        return [images.image(index) for index in range(min(NUM_IMAGES, len(images)))]


def _start_note(result: TrainingResult) -> str:
    """Why a candidate does not start with its parent's function; empty if it does, or inherits by no option."""
    inherited = result.details.get("inherited")
    if not isinstance(inherited, dict):
        return ""
    if not inherited.get("taken_over"):
        return f"{result.design} inherits no weights: {inherited.get('why')}"
    reasons = inherited.get("reasons")
    if inherited.get("preserving") != "no" or not isinstance(reasons, list):
        return ""
    return f"{result.design} begins with other logits than its parent's: {'; '.join(map(str, reasons))}"
