"""The options of a search, and proxies: recipes made cheaper, since candidates only have to be ranked (Section 3.4).

`lpsnet expand --check-step` tests how well a proxy ranks on the user's data. The proxies for small images save epochs
and the branches of the re-parameterised form, not crop size: with crops of half the height and width of 256x512
images, children of the tiny network scored below their parent.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lpsnet.benchmark.machine import command_line
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError, unknown_name
from lpsnet.inference.hub import recorded_name
from lpsnet.inference.model_file import read_record
from lpsnet.models.blocks import BLOCKS, unknown_block
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.profile import complexity, inference_memory_mib
from lpsnet.search.algorithm import SearchOptions
from lpsnet.search.measure import Target
from lpsnet.search.measurements import Cost, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork, check_operations, table_1
from lpsnet.search.step_size import possible_step_sizes
from lpsnet.search.train import CandidateTask
from lpsnet.training.config import RECIPES, Recipe, get_recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import FREE_SETTINGS

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


PLAN = "plan.json"  # in the folder of a run, and a copy with the family that was made for it


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
        budgets_ms: latency budgets to choose networks for. The largest limits the search unless `options` does.
        num_threads: processor cores of a training; None for the default of PyTorch.
        check_step: the step whose candidates are trained again, longer, to check the ranking; 0 for none.
        check_length: factor on the length of these trainings.
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
            "recipe": self.recipe.model_dump(mode="json", exclude=set(FREE_SETTINGS)),
            "device": dict(device),
        }

    def asked(self) -> dict[str, JsonValue]:
        """The extent of the search, which the result depends on, and for reports the command."""
        return {
            "command": command_line(),
            **asdict(self.options),
            "budgets_ms": list(self.budgets_ms),
            "check_step": self.check_step,
            "check_length": self.check_length,
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
        recipe, init = _recipe(self.recipe, spec), self.init
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
        folder = out / "candidates" / _folder_name(design, spec)
        return CandidateTask(
            design, training, self.val, folder, parent_weights if self.inherit else None, self.num_threads
        )


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
    blocks = [run.start.block, *(it.block for it in run.operations if it.dimension == "block")]
    if unknown := [block for block in blocks if block not in BLOCKS]:
        raise RunError(unknown_block(unknown[0]))
    if run.interaction not in INTERACTIONS:
        raise RunError(unknown_name("interaction", run.interaction, INTERACTIONS))
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
