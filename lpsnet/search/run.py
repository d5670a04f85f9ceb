"""A search as `lpsnet expand` runs it: Algorithm 1 (Section 3.4) with measured latencies and real trainings.

The run's folder: `journal.jsonl` holds every measurement and training, `plan.json` the options of the last start,
`candidates/` the trainings, `family/` the result. Starting again resumes: the search is repeated with the journal's
answers. A journal is never resumed on another machine, since latencies differ, but trainings can be reused there: same
recipe, data, seeds and start weights; digits may differ as between processors.

Candidates only have to be ranked, so they are trained with proxies: recipes made cheaper. `lpsnet expand --check-step`
tests how well a proxy ranks on the user's data. The proxies for small images save epochs and the branches of the
re-parameterised form, not crop size: with crops of half the height and width of 256x512 images, children of the tiny
network scored below their parent.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from math import inf
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lpsnet import __version__
from lpsnet.architecture import get_architecture
from lpsnet.benchmark.device import Device as RemoteDevice
from lpsnet.benchmark.machine import command_line
from lpsnet.data.channels import require_rgb
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import divided
from lpsnet.errors import LpsnetError, RunError, unknown_name
from lpsnet.inference.hub import recorded_name
from lpsnet.inference.model_file import read_record
from lpsnet.io import inside, write_text
from lpsnet.models.blocks import stage_blocks
from lpsnet.models.encoders import encoder_network, find_encoder
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import CONTEXTS
from lpsnet.models.profile import complexity, inference_memory_mib
from lpsnet.search import journal as log
from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.executors import Executor, InProcess, Progress
from lpsnet.search.family import Expansion, Step, comparable_latencies, distinct, pareto_front, remeasured
from lpsnet.search.journal import (
    REPETITIONS,
    Header,
    Journal,
    TrainingFinished,
    TrainingResult,
    chosen_length,
    first_training,
)
from lpsnet.search.measure import Deployment, Device, Target
from lpsnet.search.measurements import Cost, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork, braces, check_operations, table_1
from lpsnet.search.results import FAMILY, PLAN, RankingCheck, SearchResult, page, progress_table, write_models
from lpsnet.search.step_size import possible_step_sizes
from lpsnet.search.train import JOURNAL, CandidateTask, ReusableRun, reuse_training, train_candidate
from lpsnet.training.config import RECIPES, Recipe, get_recipe
from lpsnet.training.run import TrainingRun, training_inputs
from lpsnet.training.run_folder import FREE_SETTINGS, INPUTS, RunFolder

_PLAIN = {"form": "plain", "warmup_iterations": 30, "ema_decay": 0.99, "evaluate_every": 0}
# One row per proxy: its recipe, and what differs. Epochs and crop area together make it 10 (cityscapes_proxy: 20,
# paper_proxy: 36) times cheaper, the plain form cheaper still.
_ROWS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "camvid_proxy": ("camvid_small", {"epochs": 6, **_PLAIN}),
    "cityscapes_proxy": ("cityscapes_small", {"epochs": 2, **_PLAIN}),
    "paper_proxy": ("paper_cityscapes", {"iterations": 10_000, "crop_size": (384, 384), "evaluate_every": 0}),
    "demo_proxy": ("demo", {"epochs": 1.5, "crop_size": (96, 192), "warmup_iterations": 10, "ema_decay": 0.9}),
}
PROXIES: dict[str, Recipe] = {
    name: RECIPES[base].with_overrides({"name": name, "source": f"{base}, made cheaper", **changes})
    for name, (base, changes) in _ROWS.items()
}


def get_candidate_recipe(name: str) -> Recipe:
    """The proxy or recipe of that name, or the recipe in that YAML file.

    Raises:
        RunError: there is none.
    """
    if name in PROXIES:
        return PROXIES[name]
    if name in RECIPES or name.endswith((".yaml", ".yml")):
        return get_recipe(name)
    raise RunError(f"{unknown_name('recipe', name, [*PROXIES, *RECIPES])}, or a YAML file")


def full_recipe(name: str) -> str:
    """The recipe that a proxy was made from; `name` itself for other recipes."""
    return _ROWS[name][0] if name in _ROWS else name


_LATER = ("race", "simultaneous")  # options that plans of earlier versions do not have


@dataclass(frozen=True)
class ExpansionRun:
    """The options of a search.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        recipe: of the candidates' trainings, for instance one of `PROXIES`.
        target: of the latencies.
        split, val: the images that candidates are trained and scored on.
        start: N^0.
        operations: Delta; Table 1 for the start's slots unless given.
        options: number of steps, cap on k, limits.
        interaction: of all networks.
        inherit: whether candidates start from their parent's weights.
        init: a checkpoint for networks that do not inherit; None, or another block in it, means random weights.
        encoder: whose ImageNet weights the paths of networks start with that do not inherit, as in `TrainingRun`; a
            network with other blocks than the encoder's starts with random ones.
        budgets_ms: latency budgets to choose networks for. The largest limits the search unless `options` does.
        num_threads: processor cores of a training; None for the default of PyTorch.
        check_step: the step whose candidates are trained again, longer, to check the ranking; 0 for none.
        check_length: factor on the length of these trainings.
        holdout_share: share of the images of `val`, the last by name, that no step sees: every trained network is
            scored on them by itself, which shows what choosing on the others has flattered.
        fresh_seeds: how often each chosen network is trained again once the search has ended, with seeds that no step
            has seen; what they score, the choice did not pick.
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
    encoder: str = ""
    budgets_ms: tuple[float, ...] = ()
    num_threads: int | None = None
    check_step: int = 0
    check_length: int = 5
    holdout_share: float = 0.0
    fresh_seeds: int = 0

    @property
    def table(self) -> tuple[Operation, ...]:
        """The operations."""
        return self.operations or table_1(num_slots=len(self.start.ratio_slots))

    @property
    def search_options(self) -> SearchOptions:
        """The options, with the largest budget as the default limit on latency."""
        limits = self.options.limits
        if limits.latency_ms is not None or not self.budgets_ms:
            return self.options
        return replace(self.options, limits=replace(limits, latency_ms=max(self.budgets_ms)))

    def settings(self, device: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """All that measurements and trainings depend on, without the extent of the search (`asked`)."""
        return {
            "data": self.data,
            "split": self.split,
            "val": self.val,
            "start": str(self.start),
            "operations": [str(operation) for operation in self.table],
            "interaction": self.interaction,
            "inherit": self.inherit,
            "init": None if self.init is None else recorded_name(self.init),
            # Journals of earlier versions do not have these keys
            **({"encoder": self.encoder} if self.encoder else {}),
            **({"holdout_share": self.holdout_share} if self.holdout_share else {}),
            "recipe": self.recipe.model_dump(mode="json", exclude=set(FREE_SETTINGS)),
            "device": dict(device),
        }

    def asked(self) -> dict[str, JsonValue]:
        """The extent of the search, which the result depends on, and for reports the command."""
        return {
            "command": command_line(),
            **{key: value for key, value in asdict(self.options).items() if key not in _LATER or value},
            "budgets_ms": list(self.budgets_ms),
            "check_step": self.check_step,
            "check_length": self.check_length,
            **({"fresh_seeds": self.fresh_seeds} if self.fresh_seeds else {}),
        }

    def cost(self, design: Design, *, num_classes: int) -> Cost:
        """Parameters of the deployed network, and its memory for one image (`inference_memory_mib`)."""
        architecture, block = design.architecture, design.block
        counted = complexity(architecture, num_classes=num_classes, block=block, interaction=self.interaction)
        memory = inference_memory_mib(
            architecture,
            size=self.target.size,
            num_classes=num_classes,
            block=block,
            interaction=self.interaction,
            bytes_per_number=4 if self.target.precision == "f32" else 2,
        )
        return Cost(counted.parameters, memory)

    def task(self, design: Design, spec: TrainingSpec, *, out: Path, parent_weights: Path | None) -> CandidateTask:
        """The training of a candidate, in its own folder in the run's folder `out`."""
        recipe, init, encoder = _recipe(self.recipe, spec), self.init, self.encoder
        if init is not None and _other_blocks(read_record(init).block, design):
            recipe, init = recipe.with_overrides({"init_required": False}), None
        if encoder and _other_blocks(find_encoder(encoder).block, design):
            recipe, encoder = recipe.with_overrides({"init_required": False}), ""
        training = TrainingRun(
            data=self.data,
            architecture=design.architecture,
            recipe=recipe,
            split=self.split,
            block=design.block,
            interaction=self.interaction,
            init=init,
            encoder=encoder,
            input_size=self.target.size,
        )
        folder = out / "candidates" / _folder_name(design, spec)
        inherited = parent_weights if self.inherit else None
        return CandidateTask(
            design, training, self.val, folder, inherited, self.num_threads, spec.part, self.holdout_share
        )


def _other_blocks(block: str, design: Design) -> bool:
    """Whether a network of `block` shares no weights with the design: blocks by stage are compared as a whole."""
    return stage_blocks(block) != stage_blocks(design.block)


def _folder_name(design: Design, spec: TrainingSpec) -> str:
    parent = "" if spec.parent is None else f"-from-{spec.parent.slug}"
    seed = f"-seed{spec.seed}" if spec.seed else ""
    return f"{design.slug}{parent}{seed}{f'-x{spec.length}' if spec.length > 1 else ''}"


def _recipe(recipe: Recipe, spec: TrainingSpec) -> Recipe:
    key, length = ("iterations", recipe.iterations) if recipe.epochs is None else ("epochs", recipe.epochs)
    assert length is not None, "a recipe has one of them"
    return recipe.with_overrides({key: length * spec.length, "seed": recipe.seed + spec.seed})


def check_plan(run: ExpansionRun) -> int:
    """Check that the run can be started, and return the number of classes of its data.

    Raises:
        LpsnetError: it cannot.
    """
    for budget_ms in run.budgets_ms:
        if not 0 < budget_ms < inf:
            raise RunError(f"a latency budget is a finite number of milliseconds above 0; got {budget_ms:g}")
    _check_recipe(run)
    _check_names(run)
    check_operations(run.start, run.operations)
    run.recipe.check_weights(given=bool(run.init or run.encoder))
    if run.init is not None:
        read_record(run.init)
    if run.encoder:
        _check_encoder(run)
    dataset = open_dataset(run.data)
    for name in (run.split, run.val):
        require_rgb(dataset.split(name).channels, "an expansion grows networks for RGB images of 8 bits")
    if shared := set(run.split.split("+")) & set(run.val.split("+")):
        raise RunError(f"candidates are scored on {run.val!r}, so they are not trained on {sorted(shared)[0]!r} too")
    if run.holdout_share:
        divided(dataset.split(run.val), run.holdout_share)
        if run.recipe.keep_best or run.recipe.patience:
            raise RunError(
                "trainings that end or keep their weights by all of val leave nothing of it unseen: give "
                "--set keep_best=false and --set patience=0, or no --holdout-share"
            )
    _check_first_step(run, num_classes=dataset.label_space.num_classes)
    return dataset.label_space.num_classes


def _check_recipe(run: ExpansionRun) -> None:
    """Refuse a recipe by which trainings of candidates could not be compared."""
    if run.recipe.minutes is not None:
        raise RunError(
            f"candidates are compared after as many epochs each, and recipe {run.recipe.name} lasts "
            f"{run.recipe.minutes:g} minutes; give its length in epochs or iterations, e.g. --set epochs=5"
        )
    if run.options.race and run.recipe.patience:
        raise RunError(
            "a race evaluates candidates at other times than their recipe does, so its patience cannot count "
            "evaluations; give --set patience=0, or leave the race out"
        )


def _check_names(run: ExpansionRun) -> None:
    """Refuse blocks, contexts and interactions that there are not, in the start or in what operations make of it."""
    for block in (run.start.block, *(it.value for it in run.operations if it.dimension in ("block", "unit"))):
        stage_blocks(block)
    contexts = [run.start.context, *(it.value for it in run.operations if it.dimension == "context")]
    for kind, names, known in (("context", contexts, CONTEXTS), ("interaction", [run.interaction], INTERACTIONS)):
        if unknown := [name for name in names if name not in known]:
            raise RunError(unknown_name(kind, unknown[0], known))


def _check_encoder(run: ExpansionRun) -> None:
    """Refuse an encoder beside a checkpoint, one that fits no path of the start, or one without weights here."""
    if run.init is not None:
        raise RunError("the start has its weights from --init or from --encoder; give one of them")
    encoder, start = find_encoder(run.encoder), run.start
    given = get_architecture(encoder.architecture)
    if _other_blocks(encoder.block, start.design) or given.widths != start.widths:
        named = encoder.architecture if isinstance(encoder.architecture, str) else str(given)
        widths = braces(given.widths)
        raise RunError(
            f"encoder {run.encoder} gives weights to paths of blocks {encoder.block} and widths {widths}; "
            f"the start is {start}: give --start '{named}' --block {encoder.block}"
        )
    encoder_network(run.encoder)


def _check_first_step(run: ExpansionRun, *, num_classes: int) -> None:
    """Refuse a run where no operation leads from the start to another network."""
    if not run.options.num_steps:
        return
    limits, cost = run.options.limits, partial(run.cost, num_classes=num_classes)
    found, excluded = possible_step_sizes(run.start, run.table, max_step_size=1, limits=limits, cost=cost)
    if not found:
        reasons = "; ".join(f"{it.operation}: {it.reason}" for it in excluded)
        more = ", or raise the limits" if limits.needs_cost else ""
        raise RunError(f"no operation leads from {run.start} to another network ({reasons}); give others{more}")


FINAL_EFFORT = 2  # of the family's measurement at the end
NUM_IMAGES = 2  # validation images that every exported file is verified on

TrainCandidate = Callable[[CandidateTask], TrainingResult]


def run_expansion(
    run: ExpansionRun,
    out: Path,
    *,
    executor: Executor | None = None,
    device: Device | None = None,
    place: RemoteDevice | None = None,
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
        device: measures latencies; default: the run's engine at `place`.
        place: the device far away where it runs; None for this machine.
        train: trains one candidate.
        repetitions: of interleaved measurements, by effort; see `journal.REPETITIONS`.
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
    machine = Deployment(
        run.target,
        out / "latency",
        num_classes=num_classes,
        interaction=run.interaction,
        device=place,
        on_progress=on_progress,
    )
    measured_on = device or machine
    settings = {**run.settings(measured_on.describe(run.start.design)), **inputs}
    opened = log.open_journal(out / JOURNAL, settings=settings, lpsnet_version=__version__, defaults=defaults)
    with opened as journal, _planned(run, out / PLAN, journal):
        running = _Running(
            run, out, journal, measured_on, executor or InProcess(), train, repetitions, others, on_progress
        )
        try:
            result = running.write_result(running.search(num_classes, is_far=place is not None), num_classes)
        finally:
            running.latency.beside.give_up()
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
    def performance(self) -> log.JournalledPerformance:
        return log.JournalledPerformance(self.journal, self._train, on_progress=self.on_progress)

    @cached_property
    def latency(self) -> log.JournalledLatency:
        return log.JournalledLatency(self.journal, self._measure_once, repetitions=self.repetitions)

    def search(self, num_classes: int, *, is_far: bool) -> Expansion:
        """Algorithm 1; a device far away measures while candidates are trained."""
        self._report_state()
        return expand(
            self.run.start,
            latency=self.latency,
            performance=self.performance,
            operations=self.run.table,
            options=self.run.search_options,
            cost=partial(self.run.cost, num_classes=num_classes),
            lengths=log.decided_lengths(self.journal.events),
            old_steps=log.steps_without_trust(self.journal.events),
            ahead=self.latency.ahead if is_far else None,
            on_start=lambda member: log.record_start(self.journal, member),
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
        self._train_afresh(found)
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
        if not log.is_known(self.journal, step):  # decided now: nothing of it is trained further
            for state in (self.out / "candidates").glob(f"*/{RunFolder(self.out).state.name}"):
                state.unlink()
        log.record_step(self.journal, step)
        left = self.run.options.num_steps - step.number
        ahead = f"; {left} more to go" if left and step.chosen else ""
        self.on_progress(f"step {step.number} {step.verdict}{ahead}")
        for line in progress_table(log.family_of(self.journal.events)[: step.number + 1]):
            self.on_progress(line)
        if step.number == self.run.check_step:
            self.on_progress(f"checking the ranking: {self._check_ranking(step)}")

    def _check_ranking(self, step: Step) -> RankingCheck:
        designs = [it.design for it in distinct(step.candidates)]
        spec = TrainingSpec(step.parent.design, length=self.run.check_length * step.length)
        return RankingCheck.of(step, self.performance(designs, spec), length=self.run.check_length)

    def _train_afresh(self, found: Expansion) -> None:
        """Train every chosen network with seeds that no step has seen."""
        count = self.run.fresh_seeds
        for step in found.steps if count else ():
            if step.chosen is not None:
                self.on_progress(
                    f"step {step.number}: {step.chosen.operation} with {count} seeds that no step has seen"
                )
                for seed in range(log.FRESH_SEED, log.FRESH_SEED + count):
                    spec = TrainingSpec(step.parent.design, seed, step.length)
                    self.performance([step.chosen.design], spec)

    def _train(self, designs: Sequence[Design], spec: TrainingSpec) -> Iterator[TrainingResult]:
        """Train designs; the caller has written a result to the journal when it asks for the next one."""
        if not self.latency.beside.is_running:
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
            if spec.part == 1:
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
