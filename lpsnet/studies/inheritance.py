"""Children with the weights inherited from their parent, and from random weights: what inheritance costs and saves.

Not in the paper, which trains every candidate of Algorithm 1 (line 21) from random weights. A parent is trained once;
children made of it by operations of Table 1 are trained both ways, for several numbers of iterations. Every number is a
training of its own with a learning rate that falls to zero, so a short one is not a long one cut off.

`inheritance` compares children after a few epochs, as a search does; most curves still rise there.
`inheritance-until-flat` trains children from scratch until their curves are flat, on few images with a small network.
A finished training leaves a file in OUT/results; an interrupted study resumes with the missing ones.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError
from lpsnet.io import write_text
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.search.measurements import Failure
from lpsnet.search.operations import Operation, SearchNetwork
from lpsnet.search.train import CandidateTask, train_candidate
from lpsnet.studies.network_training import data_of, describe_training, schedule_of, set_threads
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study, rank_correlation
from lpsnet.training.config import Recipe
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder

Start = Literal["scratch", "inherited"]
Change = tuple[Operation, int]  # an operation and its step size k
Curve = list[tuple[int, float]]  # iterations of a run, mIoU after it in percent
OnStatus = Callable[[str, Status], None]  # called with a training's name after each of its iterations
FLAT_POINTS = 0.5  # mIoU that a longer training must add, or the curve counts as flat

PARENT = "step_3"  # of Table 4: one path, the first step with widths that learn something
# Rows of Table 1; the last one adds a path
CHANGES = (
    ("depth=0,0,1,1,1", 1),
    ("width=0,0,16,32,32", 1),
    ("resolution=1/8,0,0", 1),
    ("resolution=0,1/8,0", 2),
)
# Of the parent's iterations, a training each. From scratch, half as many show whether the curve is flat at the longest;
# inherited trainings are short, as in a search.
SCRATCH_SHARES = (0.25, 0.5, 1.0)
INHERITED_SHARES = (0.0625, 0.125, 0.25, 0.5)

FLAT_DATA = "scenes:size=128x256,num_train=10,num_val=200"
FLAT_PARENT = "tiny"
FLAT_CHANGES = (
    ("depth=0,0,0,1,1", 1),
    ("width=0,0,0,32,32", 1),
    ("resolution=1/8,0,0", 1),
    ("resolution=0,1/8,0", 2),
)
FIRST_ITERATIONS, MOST_ITERATIONS = 1000, 64_000
FLAT_SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)  # of the iterations at which a curve is flat


@dataclass(frozen=True, slots=True)
class TrainedChild:
    """One finished training.

    Attributes:
        start: origin of the first weights.
        iterations: of the training.
        seed: of its recipe.
        miou: at the end, in percent.
        at_start: mIoU with the inherited weights before training; None from scratch.
        curve: (iteration, mIoU) of all evaluations, including the last.
        seconds: duration, if it was not interrupted.
        inherited: report on the inherited weights; None from scratch.
        name: of its folder in OUT/runs.
        settings: of the training run, as JSON values.
    """

    start: Start
    iterations: int
    seed: int
    miou: float
    at_start: float | None
    curve: tuple[tuple[int, float], ...]
    seconds: float
    inherited: dict[str, Any] | None
    name: str
    settings: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All trainings of one child.

    Attributes:
        operation: as text, with its step size: `depth=0,0,0,1,1 x 3`.
        child: the child's architecture.
        parent_miou: of the trained parent in percent, mean over seeds.
        runs: the trainings of this child.
    """

    operation: str
    child: str
    parent_miou: float
    runs: tuple[TrainedChild, ...]

    def curve(self, start: Start) -> Curve:
        """(iterations, mean mIoU over seeds) of the trainings with that start, shortest first."""
        return _curve(self.runs, start)

    @property
    def at_start(self) -> float | None:
        """mIoU with the inherited weights before training, mean over seeds."""
        found = {run.seed: run.at_start for run in self.runs if run.at_start is not None}
        return fmean(found.values()) if found else None

    @property
    def flat(self) -> tuple[int, float]:
        """The shortest training from scratch that no longer one exceeds by more than `FLAT_POINTS`."""
        return _flat(self.curve("scratch"))

    @property
    def is_flat(self) -> bool:
        """Whether there is a longer training than `flat`, which shows that the curve does not rise further."""
        return _is_flat(self.curve("scratch"))

    @property
    def reached(self) -> tuple[int, float] | None:
        """The shortest inherited training that is as good as `flat`; None if none is."""
        return next((point for point in self.curve("inherited") if point[1] >= self.flat[1]), None)

    @property
    def share(self) -> float | None:
        """The iterations of `reached` over those of `flat`."""
        return None if self.reached is None else self.reached[0] / self.flat[0]


def _curve(runs: Sequence[TrainedChild], start: Start) -> Curve:
    mious: dict[int, list[float]] = {}
    for run in runs:
        if run.start == start:
            mious.setdefault(run.iterations, []).append(run.miou)
    return [(length, fmean(mious[length])) for length in sorted(mious)]


def _flat(curve: Curve) -> tuple[int, float]:
    best = max(miou for _, miou in curve)
    return next(point for point in curve if best - point[1] <= FLAT_POINTS)


def _is_flat(curve: Curve) -> bool:
    return _flat(curve)[0] < curve[-1][0]


def compare_inheritance(
    parent: SearchNetwork,
    changes: Sequence[Change],
    *,
    data: str,
    recipe: Recipe,
    parent_iterations: int,
    scratch_iterations: Sequence[int],
    inherited_iterations: Sequence[int],
    out: Path,
    seeds: Sequence[int] = (0,),
    on_progress: OnStatus = lambda name, status: None,
) -> list[Comparison]:
    """Train a parent, and every child both ways.

    Args:
        parent: the network to start from.
        changes: to the parent, a child each.
        data: the data set, as `open_dataset` takes it; trained on "train", scored on "val".
        recipe: of all trainings, except iterations and seed.
        parent_iterations: of the parent's training.
        scratch_iterations, inherited_iterations: of the children's trainings, one each.
        out: folder for results and trainings.
        seeds: of every training; a child inherits from the parent with its own seed.
        on_progress: see `OnStatus`.

    Raises:
        RunError: `out` holds results of other settings, or a training diverged.
        LpsnetError: the data or an operation cannot be used.
    """
    study = _Study(data, recipe, seeds, out, on_progress)
    parents = study.scratch(parent, [parent_iterations])
    comparisons = []
    for change in changes:
        child = change[0].apply(parent, change[1])
        scratch = study.scratch(child, scratch_iterations)
        inherited = study.inherited(child, inherited_iterations, parents)
        comparisons.append(_comparison(change, child, parents, [*scratch, *inherited]))
    return comparisons


def compare_until_flat(
    parent: SearchNetwork,
    changes: Sequence[Change],
    *,
    data: str,
    recipe: Recipe,
    first_iterations: int,
    most_iterations: int,
    inherited_shares: Sequence[float],
    out: Path,
    seeds: Sequence[int] = (0,),
    on_progress: OnStatus = lambda name, status: None,
) -> list[Comparison]:
    """`compare_inheritance` with trainings from scratch that double in length until the child's curve is flat.

    Args:
        parent, changes, data, recipe, out, seeds, on_progress: as for `compare_inheritance`. The parent is trained for
            the longest number of iterations of any child.
        first_iterations: of a child's shortest training from scratch.
        most_iterations: limit of the longest one.
        inherited_shares: lengths of the inherited trainings, as shares of the iterations at which the curve is flat.

    Raises:
        RunError, LpsnetError: as `compare_inheritance`.
    """
    study = _Study(data, recipe, seeds, out, on_progress)
    children = [operation.apply(parent, step_size) for operation, step_size in changes]
    scratch = [study.until_flat(child, first_iterations, most_iterations) for child in children]
    parents = study.scratch(parent, [max(run.iterations for runs in scratch for run in runs)])
    comparisons = []
    for change, child, runs in zip(changes, children, scratch, strict=True):
        flat, _ = _flat(_curve(runs, "scratch"))
        inherited = study.inherited(child, _lengths(inherited_shares, flat), parents)
        comparisons.append(_comparison(change, child, parents, [*runs, *inherited]))
    return comparisons


def _comparison(
    change: Change, child: SearchNetwork, parents: Sequence[TrainedChild], runs: Sequence[TrainedChild]
) -> Comparison:
    operation, step_size = change
    parent_miou = fmean(run.miou for run in parents)
    return Comparison(f"{operation} x {step_size}", str(child.design.architecture), parent_miou, tuple(runs))


@dataclass(frozen=True)
class _Study:
    data: str
    recipe: Recipe
    seeds: Sequence[int]
    out: Path
    on_progress: OnStatus

    def scratch(self, network: SearchNetwork, lengths: Sequence[int]) -> list[TrainedChild]:
        """Train from random weights with every seed."""
        return [self.run(network, "scratch", length, seed) for length in lengths for seed in self.seeds]

    def inherited(
        self, child: SearchNetwork, lengths: Sequence[int], parents: Sequence[TrainedChild]
    ) -> list[TrainedChild]:
        """Train from the weights of the parents, one per seed."""
        return [
            self.run(child, "inherited", length, parent.seed, parent=parent) for length in lengths for parent in parents
        ]

    def until_flat(self, child: SearchNetwork, first: int, most: int) -> list[TrainedChild]:
        """Train from random weights, doubling the length."""
        runs = self.scratch(child, [first])
        length = 2 * first
        while length <= most and not _is_flat(_curve(runs, "scratch")):
            runs += self.scratch(child, [length])
            length *= 2
        return runs

    def run(
        self, network: SearchNetwork, start: Start, iterations: int, seed: int, *, parent: TrainedChild | None = None
    ) -> TrainedChild:
        """The result of a training, from its file if there is one."""
        name = f"{network.design.slug}-{start}-{iterations}-{seed}"
        source = None
        if parent is not None:
            name += f"-from-{parent.name}"
            source = RunFolder(self.out / "runs" / parent.name).model
        path = self.out / "results" / f"{name}.json"
        recipe = self.recipe.with_overrides({"iterations": iterations, "seed": seed})
        training = TrainingRun(self.data, network.design.architecture, recipe, block=network.block)
        if path.exists():
            return _read(path, training.settings())
        task = CandidateTask(network.design, training, "val", self.out / "runs" / name, source)
        done = self._do(name, start, task)
        write_text(path, json.dumps(asdict(done), indent=2) + "\n")
        return done

    def _do(self, name: str, start: Start, task: CandidateTask) -> TrainedChild:
        trained = train_candidate(task, on_progress=lambda status: self.on_progress(name, status))
        if isinstance(trained.outcome, Failure):
            raise RunError(f"the run {name} has no score: {trained.outcome.reason}")
        assert task.run.recipe.iterations is not None
        inherited, seconds = trained.details["inherited"], trained.details["seconds"]
        assert inherited is None or isinstance(inherited, dict)
        assert isinstance(seconds, float)
        return TrainedChild(
            start=start,
            iterations=task.run.recipe.iterations,
            seed=task.run.recipe.seed,
            miou=trained.outcome.miou,
            at_start=trained.outcome.at_start,
            curve=tuple((int(it["iteration"]), float(it["miou"])) for it in RunFolder(task.folder).read_evaluations()),
            seconds=seconds,
            inherited=inherited,
            name=name,
            settings=task.run.settings(),
        )


def _read(path: Path, settings: dict[str, Any]) -> TrainedChild:
    """The result in a file; RunError if it is damaged or of other settings."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = TrainedChild(**{**values, "curve": tuple((int(step), float(miou)) for step, miou in values["curve"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no result of this study: {error}; remove it to run it again") from None
    if found.settings != json.loads(json.dumps(settings)):
        raise RunError(f"{path} is the result of other settings; choose another folder, or remove {path.parent.parent}")
    return found


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run, which keeps and resumes its trainings in its folder."""
    data = data_of(settings)
    recipe = schedule_of(settings, data, halved=False).recipe
    seeds = list(range(settings.num_seeds or 1))
    key = {
        "inherited": PARENT,
        "changes": [list(change) for change in CHANGES],
        "scratch_shares": list(SCRATCH_SHARES),
        "inherited_shares": list(INHERITED_SHARES),
        **_training_key(data, recipe, seeds),
    }

    def lengths() -> dict[str, Any]:
        full = recipe.num_iterations(len(open_dataset(data).split("train")))
        return {
            "parent_iterations": full,
            "scratch_iterations": _lengths(SCRATCH_SHARES, full),
            "inherited_iterations": _lengths(INHERITED_SHARES, full),
        }

    compare = partial(compare_inheritance, data=data, recipe=recipe, seeds=seeds)
    return [Run(key, partial(_compare, compare, PARENT, CHANGES, lengths, settings.num_threads), portable=True)]


def plan_until_flat(settings: Settings, known: Known) -> list[Run]:
    """As `plan`."""
    data = data_of(settings, scenes=FLAT_DATA)
    recipe = schedule_of(settings, data, halved=False).recipe.with_overrides({"iterations": MOST_ITERATIONS})
    seeds = list(range(settings.num_seeds or 2))
    lengths = {
        "first_iterations": FIRST_ITERATIONS,
        "most_iterations": MOST_ITERATIONS,
        "inherited_shares": list(FLAT_SHARES),
    }
    key = {
        "inherited_until_flat": FLAT_PARENT,
        "changes": [list(change) for change in FLAT_CHANGES],
        **lengths,
        **_training_key(data, recipe, seeds),
    }
    compare = partial(compare_until_flat, data=data, recipe=recipe, seeds=seeds)
    work = partial(_compare, compare, FLAT_PARENT, FLAT_CHANGES, lambda: lengths, settings.num_threads)
    return [Run(key, work, portable=True)]


def _training_key(data: str, recipe: Recipe, seeds: list[int]) -> dict[str, Json]:
    return {"data": data, "recipe": recipe.model_dump(mode="json"), "seeds": seeds}


def _compare(
    compare: Callable[..., Sequence[Comparison]],
    parent: str,
    changes: Sequence[tuple[str, int]],
    lengths: Callable[[], Mapping[str, Any]],
    num_threads: int | None,
    place: Place,
) -> dict[str, Json]:
    set_threads(num_threads)

    def on_progress(name: str, status: Status) -> None:
        place.on_progress(f"training {name}", status.iteration / status.num_iterations)

    start, operations = SearchNetwork.start(parent), [(Operation.parse(text), k) for text, k in changes]
    found = compare(start, operations, out=place.folder, on_progress=on_progress, **lengths())
    return {
        "children": [
            {
                "operation": each.operation,
                "parent_miou": each.parent_miou,
                "at_start": each.at_start,
                "scratch": each.curve("scratch"),
                "inherited": each.curve("inherited"),
                "share": each.share,
                "is_flat": each.is_flat,
            }
            for each in found
        ]
    }


def _lengths(shares: Sequence[float], full: int) -> list[int]:
    return sorted({max(1, round(share * full)) for share in shares})


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for every child and number of iterations; the iterations needed, and whether the order is the same."""
    found = report_curves(outcomes)
    return replace(found, findings=(*found.findings, *_ranking(outcomes[0].result["children"])))


def report_curves(outcomes: Sequence[Outcome]) -> Report:
    """`report` without the order of children with trainings of different lengths."""
    (outcome,) = outcomes
    children = outcome.result["children"]
    rows: list[Row] = [
        {
            "operation": child["operation"],
            "iterations": iterations,
            "parent_miou": child["parent_miou"],
            "at_start_miou": child["at_start"],
            "scratch_miou": scratch.get(iterations),
            "inherited_miou": inherited.get(iterations),
        }
        for child in children
        for scratch, inherited in [(dict(child["scratch"]), dict(child["inherited"]))]
        for iterations in sorted({*scratch, *inherited})
    ]
    differences = (describe_training({**outcome.key, "input_size": None}),)
    return Report(tuple(rows), tuple(map(_finding, children)), partial(_draw, children), (13.0, 3.8), differences)


def _finding(child: Json) -> str:
    found = "no inherited training came to where the curve from scratch becomes flat."
    if child["share"] is not None:
        found = f"inherited, {child['share']:.2g} of the iterations do what all do from scratch."
    rising = "" if child["is_flat"] else " From scratch it still rises at the longest training."
    return f"{child['operation']}: {found}{rising}"


def _ranking(children: Sequence[Json]) -> list[str]:
    """Whether the children have the same order both ways, which is what a search needs of a short training."""
    longest = [child["scratch"][-1][1] for child in children]
    found = []
    for number, (iterations, _) in enumerate(children[0]["inherited"]):
        order = rank_correlation(longest, [child["inherited"][number][1] for child in children])
        if order is not None:
            found.append(f"{order:.2f} after {iterations:,} iterations")
    scratch = children[0]["scratch"][-1][0]
    lead = f"Rank correlation of the inherited children with those trained from scratch for {scratch:,} iterations"
    return [f"{lead}: {', '.join(found)}."] if found else []


def _draw(children: Sequence[Json], figure: Any) -> None:
    axes = figure.subplots(1, len(children), sharey=True, squeeze=False)[0]
    for panel, child in zip(axes, children, strict=True):
        tidy(panel)
        panel.plot(*zip(*child["scratch"], strict=True), "o-", color=GREY, label="from scratch")
        panel.plot(*zip(*child["inherited"], strict=True), "o-", color=COLOURS[0], label="inherited")
        panel.axhline(child["parent_miou"], color="0.3", linestyle=":", label="parent")
        panel.set_title(child["operation"], fontsize="small")
        panel.set_xscale("log")  # lengths double
        panel.set_xlabel("iterations")
    axes[0].set_ylabel("mIoU (%)")
    axes[0].legend(frameon=False, fontsize="small")


STUDY = Study(
    name="inheritance",
    title="Children with their parent's weights and without",
    reference="Not in the paper: Algorithm 1 trains every candidate from its beginning.",
    differences=(),
    plan=plan,
    report=report,
    options=frozenset({"data", "num_seeds", "epochs", "num_threads"}),
)
UNTIL_FLAT = Study(
    name="inheritance-until-flat",
    title="Children with their parent's weights, and without until their curves are flat",
    reference="Not in the paper: Algorithm 1 trains every candidate from its beginning.",
    differences=(
        (
            f"From scratch every child is trained for {FIRST_ITERATIONS:,} iterations, then anew for twice as many, "
            f"until the mean over seeds rises by no more than half a point, or for {MOST_ITERATIONS:,}; the parent for "
            "as long as the longest of them."
        ),
    ),
    plan=plan_until_flat,
    report=report_curves,
    options=frozenset({"data", "num_seeds", "num_threads"}),
)
