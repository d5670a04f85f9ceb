"""A whole expansion as one command runs it: Algorithm 1 (Section 3.4) with real latencies and real trainings.

The run's folder: `journal.jsonl` is all that was ever measured and trained, `candidates/` holds each one's training,
`family/` what is handed over. Start it again to go on: the search is run anew with the journal's answers.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lpsnet import __version__
from lpsnet.data.datasets import open_dataset
from lpsnet.errors import MissingDependencyError, RunError
from lpsnet.expansion.candidates import CandidateTask, train_candidate
from lpsnet.expansion.delivery import Delivery, write_models
from lpsnet.expansion.device_latency import Device, Target, ThisMachine
from lpsnet.expansion.events import LatencyPass, StepDecided, TrainingFinished
from lpsnet.expansion.executors import Executor, InProcess
from lpsnet.expansion.family import Expansion, Step, pareto_front, remeasured
from lpsnet.expansion.figure import draw_family
from lpsnet.expansion.journal import Journal, open_journal
from lpsnet.expansion.measurements import Cost
from lpsnet.expansion.operations import Design, Operation, SearchNetwork, table_1
from lpsnet.expansion.page import page, progress_table, verdict
from lpsnet.expansion.replay import (
    PASSES,
    JournalledLatency,
    JournalledPerformance,
    TrainingResult,
    family_of,
    record_start,
    record_step,
)
from lpsnet.expansion.search import SearchOptions, expand
from lpsnet.files import write_text
from lpsnet.model.complexity import complexity
from lpsnet.training.recipe import Recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import RunFolder

JOURNAL = "journal.jsonl"
FINAL_EFFORT = 1  # of measuring the family in turn at the end
NUM_PICTURES = 2  # of the validation pictures, that every exported file is compared on
# Settings of a recipe that change how fast a training goes and not what comes out of it
FREE_SETTINGS = ("num_workers", "cache_mib", "evaluate_every")

Say = Callable[[str], None]
TrainCandidate = Callable[[CandidateTask], TrainingResult]


@dataclass(frozen=True)
class ExpansionRun:
    """What is expanded, on what, for what.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        recipe: how candidates are trained, for instance one of `PROXIES`.
        target: what latencies are measured on.
        split, val: the pictures candidates are trained and scored on.
        start: N^0.
        operations: Delta; Table 1 for the start's slots unless given.
        options: number of steps, cap on k, limits.
        interaction: of all networks.
        inherit: whether candidates start from their parent's weights.
        init: a checkpoint for networks that do not; None for random weights.
        budgets_ms: latencies to name a network for. The largest is a limit of the search unless it has one.
        num_threads: processor cores of a training; None leaves the choice to PyTorch.
    """

    data: str
    recipe: Recipe
    target: Target
    split: str = "train"
    val: str = "val"
    start: SearchNetwork = field(default_factory=SearchNetwork.start)
    operations: tuple[Operation, ...] = ()
    options: SearchOptions = field(default_factory=SearchOptions)
    interaction: str = "bilateral_b"
    inherit: bool = True
    init: Path | None = None
    budgets_ms: tuple[float, ...] = ()
    num_threads: int | None = None

    @property
    def table(self) -> tuple[Operation, ...]:
        """The operations."""
        return self.operations or table_1(num_slots=len(self.start.ratio_slots))

    @property
    def search_options(self) -> SearchOptions:
        """The options, with the largest budget as the limit on latency where there is none."""
        limits = self.options.limits
        if limits.latency_ms is not None or not self.budgets_ms:
            return self.options
        return replace(self.options, limits=replace(limits, latency_ms=max(self.budgets_ms)))

    def settings(self, device: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """All that measurements and trainings depend on; how far the search goes is not part of it."""
        return {
            "data": self.data,
            "split": self.split,
            "val": self.val,
            "start": str(self.start),
            "operations": [str(operation) for operation in self.table],
            "interaction": self.interaction,
            "inherit": self.inherit,
            "init": None if self.init is None else str(self.init),
            "recipe": self.recipe.model_dump(mode="json", exclude=set(FREE_SETTINGS)),
            "device": dict(device),
        }


def run_expansion(
    run: ExpansionRun,
    out: Path,
    *,
    executor: Executor | None = None,
    device: Device | None = None,
    train: TrainCandidate = train_candidate,
    passes: Sequence[int] = PASSES,
    say: Say = lambda line: None,
) -> Delivery:
    """Expand, or go on, and leave the family in `out`/family.

    Args:
        run: what is expanded.
        out: the run's folder.
        executor: where candidates are trained; one after another in this process unless given.
        device: what latencies are measured on; this machine unless given.
        train: trains one candidate.
        passes: how often networks are measured in turn, by effort; see `replay.PASSES`.
        say: told what is being done, a line at a time.

    Raises:
        LpsnetError: data, recipe, engine or folder cannot be used, the folder's journal was made with other settings or
            on another machine, or another process is writing it.
    """
    out = out.resolve()  # a candidate's record names the weights it started from
    num_classes = _num_classes(run)
    machine = ThisMachine(run.target, out / "latency", num_classes=num_classes, interaction=run.interaction)
    measured_on = device or machine
    settings = run.settings(measured_on.describe(run.start.design))
    with open_journal(out / JOURNAL, settings=settings, lpsnet_version=__version__) as journal:
        running = _Running(run, out, journal, measured_on, executor or InProcess(), train, passes, say)
        delivery = running.deliver(running.search(num_classes), num_classes)
        machine.clear()
    return delivery


def _num_classes(run: ExpansionRun) -> int:
    """Of the data, once it is sure that the run can be begun."""
    if not all(budget_ms > 0 for budget_ms in run.budgets_ms):
        raise RunError(f"a latency budget is a number of milliseconds above 0; got {min(run.budgets_ms):g}")
    if run.search_options.limits.memory_mib is not None:
        raise RunError("a limit on memory is not possible here; give one on the number of parameters")
    if run.recipe.init_required and run.init is None:
        raise RunError(
            f"recipe {run.recipe.name!r} starts from pre-trained weights: give them with --init, "
            "or train from scratch with --set init_required=false"
        )
    dataset = open_dataset(run.data)
    dataset.split(run.split)
    dataset.split(run.val)
    if shared := set(run.split.split("+")) & set(run.val.split("+")):
        raise RunError(f"candidates are scored on {run.val!r}, so they are not trained on {sorted(shared)[0]!r} too")
    return dataset.label_space.num_classes


@dataclass(frozen=True)
class _Running:
    """A run with its journal open."""

    run: ExpansionRun
    out: Path
    journal: Journal
    device: Device
    executor: Executor
    train: TrainCandidate
    passes: Sequence[int]
    say: Say

    @property
    def latency(self) -> JournalledLatency:
        return JournalledLatency(self.journal, self._measure_pass, passes=self.passes)

    def search(self, num_classes: int) -> Expansion:
        """Algorithm 1."""
        self._say_where_it_stands()
        performance = JournalledPerformance(self.journal, self._train, progress=self.say)

        def cost(design: Design) -> Cost:
            counted = complexity(
                design.architecture, num_classes=num_classes, block=design.block, interaction=self.run.interaction
            )
            return Cost(counted.parameters, memory_mib=0.0)  # there is no limit on it, see `_num_classes`

        return expand(
            self.run.start,
            latency=self.latency,
            performance=performance,
            operations=self.run.table,
            options=self.run.search_options,
            cost=cost,
            on_start=lambda member: record_start(self.journal, member),
            on_step=self._on_step,
            progress=self.say,
        )

    def deliver(self, found: Expansion, num_classes: int) -> Delivery:
        """Measure the family in turn and write all its files."""
        run, folder = self.run, self.out / "family"
        members = list(dict.fromkeys([*found.members, *pareto_front(found.trained)]))
        self.say(f"measuring the {len(members)} best networks against each other")
        measured = remeasured(members, self.latency.absolute, effort=FINAL_EFFORT)
        delivery = Delivery.of(found, measured, budgets_ms=run.budgets_ms, folder=folder)
        self.say("exporting the family and comparing the files with the networks")
        write_models(delivery, self._checkpoints(), size=run.target.size, pictures=self._pictures())
        write_text(folder / "family.json", json.dumps(delivery.to_dict(), indent=2, allow_nan=False) + "\n")
        title = f"{run.data}, {run.recipe.name}: expanded for {run.target}"
        write_text(folder / "table.md", page(delivery, title=title, num_classes=num_classes))
        try:
            draw_family(folder / "figure.png", delivery, title=title)
        except MissingDependencyError as error:
            self.say(f"no figure was drawn: {error}")
        return delivery

    def _say_where_it_stands(self) -> None:
        kinds = {LatencyPass: "passes of measurements", TrainingFinished: "trainings", StepDecided: "steps"}
        counts = {name: sum(isinstance(it, kind) for it in self.journal.events) for kind, name in kinds.items()}
        if any(counts.values()):
            self.say(f"going on with {', '.join(f'{count} {name}' for name, count in counts.items())} done before")

    def _measure_pass(self, designs: Sequence[Design]) -> Sequence[float]:
        if not self.journal.passes([str(design) for design in designs]):
            self.say(f"  measuring {len(designs)} networks in turn")
        return self.device.measure_pass(designs)

    def _on_step(self, step: Step) -> None:
        record_step(self.journal, step)
        left = self.run.options.num_steps - step.number
        ahead = f"; {left} more to go" if left and step.chosen else ""
        self.say(f"step {step.number} {verdict(step)}{ahead}")
        for line in progress_table(family_of(self.journal.events)[: step.number + 1]):
            self.say(line)

    def _train(self, designs: Sequence[Design], parent: Design | None) -> Iterator[TrainingResult]:
        """Trains designs; a result is in the journal when the next one is asked for."""
        self.device.release()
        begun = time.monotonic()
        tasks = [self._task(design, parent) for design in designs]
        folders = {task.design: task.folder for task in tasks}
        results = self.executor.run(self.train, tasks, say=lambda line: self.say(f"  {line}"))
        for done, result in enumerate(results, start=1):
            yield result
            RunFolder(folders[result.design]).state.unlink(missing_ok=True)  # as large as several models
            if left := len(tasks) - done:
                minutes = (time.monotonic() - begun) / done * left / 60
                self.say(f"  {left} left in this step, about {minutes:.0f} min")

    def _task(self, design: Design, parent: Design | None) -> CandidateTask:
        run = self.run
        name = design.slug if parent is None else f"{design.slug}-from-{parent.slug}"
        training = TrainingRun(
            data=run.data,
            architecture=design.architecture,
            recipe=run.recipe,
            split=run.split,
            block=design.block,
            interaction=run.interaction,
            init=run.init,
            input_size=run.target.size,
        )
        inherited = self._checkpoints()[parent] if run.inherit and parent is not None else None
        return CandidateTask(design, training, run.val, self.out / "candidates" / name, inherited, run.num_threads)

    def _checkpoints(self) -> dict[Design, Path]:
        """The weights of every trained design."""
        found = {}
        for event in self.journal.events:
            if isinstance(event, TrainingFinished) and event.miou is not None:
                found[Design.parse(event.design)] = self.out / str(event.details["model"])
        return found

    def _pictures(self) -> list[Any]:
        pictures = open_dataset(self.run.data).split(self.run.val)
        return [pictures.image(index) for index in range(min(NUM_PICTURES, len(pictures)))]
