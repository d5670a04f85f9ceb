"""What an expansion is: what is expanded, on what, for what, and how each of its candidates is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path

from pydantic import JsonValue

from lpsnet.benchmark.machine import command_line
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError, unknown_name
from lpsnet.expansion.candidates import CandidateTask
from lpsnet.expansion.device_latency import Target
from lpsnet.expansion.measurements import Cost, Course
from lpsnet.expansion.operations import Design, Operation, SearchNetwork, check_operations, table_1
from lpsnet.expansion.search import SearchOptions
from lpsnet.expansion.step_size import ladders
from lpsnet.inference.model_file import read_record
from lpsnet.models.blocks import BLOCKS, unknown_block
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.profile import complexity, inference_memory_mib
from lpsnet.training.config import Recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import FREE_SETTINGS

PLAN = "plan.json"  # in the folder of a run, and beside a family: what it was handed over for


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
        init: a checkpoint for networks that do not; None for random weights, which networks of other blocks get too.
        budgets_ms: latencies to name a network for. The largest is a limit of the search unless it has one.
        num_threads: processor cores of a training; None leaves the choice to PyTorch.
        check_step: the step whose candidates are trained again, longer, to check the proxy's ranking; 0 for none.
        check_length: how many times as long.
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
    check_step: int = 0
    check_length: int = 5

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

    def asked(self) -> dict[str, JsonValue]:
        """How far the search is to go, and by which command it was started, for reports.

        All but the command decides what is handed over.
        """
        return {
            "command": command_line(),
            **asdict(self.options),
            "budgets_ms": list(self.budgets_ms),
            "check_step": self.check_step,
            "check_length": self.check_length,
        }

    def cost(self, design: Design, *, num_classes: int) -> Cost:
        """Parameters of the deployed network, and the memory that it needs for one picture (`model.memory`)."""
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

    def task(self, design: Design, course: Course, *, out: Path, parent_weights: Path | None) -> CandidateTask:
        """The training of a candidate, in a folder of its own in the run's folder `out`."""
        recipe, init = _recipe(self.recipe, course), self.init
        if init is not None and read_record(init).block != design.block:  # other blocks share no weights
            recipe, init = recipe.with_overrides({"init_required": False}), None
        training = TrainingRun(
            data=self.data,
            architecture=design.architecture,
            recipe=recipe,
            split=self.split,
            block=design.block,
            interaction=self.interaction,
            init=init,
            input_size=self.target.size,
        )
        folder = out / "candidates" / _folder_name(design, course)
        return CandidateTask(
            design, training, self.val, folder, parent_weights if self.inherit else None, self.num_threads
        )


def _folder_name(design: Design, course: Course) -> str:
    parent = "" if course.parent is None else f"-from-{course.parent.slug}"
    seed = f"-seed{course.seed}" if course.seed else ""
    return f"{design.slug}{parent}{seed}{f'-x{course.length}' if course.length > 1 else ''}"


def _recipe(recipe: Recipe, course: Course) -> Recipe:
    key, length = ("iterations", recipe.iterations) if recipe.epochs is None else ("epochs", recipe.epochs)
    assert length is not None, "a recipe has one of them"
    return recipe.with_overrides({key: length * course.length, "seed": recipe.seed + course.seed})


def check_plan(run: ExpansionRun) -> int:
    """The number of classes of the data, once it is sure that the run can be begun.

    Raises:
        LpsnetError: it cannot.
    """
    for budget_ms in run.budgets_ms:
        if not 0 < budget_ms < inf:
            raise RunError(f"a latency budget is a finite number of milliseconds above 0; got {budget_ms:g}")
    _check_names(run)
    check_operations(run.start, run.operations)
    if run.recipe.init_required and run.init is None:
        raise RunError(
            f"recipe {run.recipe.name!r} starts from pre-trained weights: give them with --init, "
            "or train from scratch with --set init_required=false"
        )
    if run.init is not None:
        read_record(run.init)
    dataset = open_dataset(run.data)
    dataset.split(run.split)
    dataset.split(run.val)
    if shared := set(run.split.split("+")) & set(run.val.split("+")):
        raise RunError(f"candidates are scored on {run.val!r}, so they are not trained on {sorted(shared)[0]!r} too")
    _check_first_step(run, num_classes=dataset.label_space.num_classes)
    return dataset.label_space.num_classes


def _check_names(run: ExpansionRun) -> None:
    blocks = [run.start.block, *(it.block for it in run.operations if it.dimension == "block")]
    if unknown := [block for block in blocks if block not in BLOCKS]:
        raise RunError(unknown_block(unknown[0]))
    if run.interaction not in INTERACTIONS:
        raise RunError(unknown_name("interaction", run.interaction, INTERACTIONS))


def _check_first_step(run: ExpansionRun, *, num_classes: int) -> None:
    """Whether an operation leads from the start to another network; how fast that is comes later."""
    if not run.options.num_steps:
        return
    limits, cost = run.options.limits, partial(run.cost, num_classes=num_classes)
    found, excluded = ladders(run.start, run.table, max_step_size=1, limits=limits, cost=cost)
    if not found:
        reasons = "; ".join(f"{it.operation}: {it.reason}" for it in excluded)
        more = ", or raise the limits" if limits.needs_cost else ""
        raise RunError(f"no operation leads from {run.start} to another network ({reasons}); give others{more}")
