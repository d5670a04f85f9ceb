"""What inheritance costs and saves, as a study; not in the paper, which trains every candidate from scratch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.search.operations import Operation, SearchNetwork
from lpsnet.studies.agreement import rank_correlation
from lpsnet.studies.schedule import data_of, describe_training, schedule_of
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study
from lpsnet.training.config import Recipe
from lpsnet.training.run import Status

if TYPE_CHECKING:
    from lpsnet.studies.inheritance import Comparison


PARENT = "step_3"  # of Table 4: one path, the first with widths that learn something
# Rows of Table 1; the last one brings a new path.
CHANGES = (
    ("depth=0,0,1,1,1", 1),
    ("width=0,0,16,32,32", 1),
    ("resolution=1/8,0,0", 1),
    ("resolution=0,1/8,0", 2),
)
# Of the parent's iterations, a run each. From scratch half as long tells whether the curve is flat at the longest;
# inherited they are short, as those of a search are.
SCRATCH_SHARES = (0.25, 0.5, 1.0)
INHERITED_SHARES = (0.0625, 0.125, 0.25, 0.5)


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run, which keeps its own trainings in its folder and goes on with them."""
    data = data_of(settings)
    recipe = schedule_of(settings, data, halved=False).recipe
    seeds = list(range(settings.num_seeds or 1))
    key = {
        "inherited": PARENT,
        "changes": [list(change) for change in CHANGES],
        "scratch_shares": list(SCRATCH_SHARES),
        "inherited_shares": list(INHERITED_SHARES),
        "data": data,
        "recipe": recipe.model_dump(mode="json"),
        "seeds": seeds,
    }
    return [Run(key, partial(_compare, data, recipe, seeds, settings.num_threads), portable=True)]


def _compare(data: str, recipe: Recipe, seeds: Sequence[int], num_threads: int | None, place: Place) -> dict[str, Json]:
    from lpsnet.data.dataset import open_dataset
    from lpsnet.studies.inheritance import compare_inheritance

    full = recipe.num_iterations(len(open_dataset(data).split("train")))
    lengths = {
        "parent_iterations": full,
        "scratch_iterations": _lengths(SCRATCH_SHARES, full),
        "inherited_iterations": _lengths(INHERITED_SHARES, full),
    }
    return compared(compare_inheritance, PARENT, CHANGES, lengths, data, recipe, seeds, num_threads, place)


def compared(
    compare: Callable[..., Sequence["Comparison"]],
    parent: str,
    changes: Sequence[tuple[str, int]],
    lengths: Mapping[str, Any],
    data: str,
    recipe: Recipe,
    seeds: Sequence[int],
    num_threads: int | None,
    place: Place,
) -> dict[str, Json]:
    """The result of a study's run, as JSON values: `compare`, a function of `inheritance.py`, with these `lengths`."""
    from lpsnet.studies.network_training import set_threads

    set_threads(num_threads)

    def tell(name: str, status: Status) -> None:
        place.progress(f"training {name}", status.iteration / status.num_iterations)

    found = compare(
        SearchNetwork.start(parent),
        [(Operation.parse(text), k) for text, k in changes],
        data=data,
        recipe=recipe,
        out=place.folder,
        seeds=seeds,
        on_status=tell,
        **lengths,
    )
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
    """A row for every child and number of iterations; how many it took, and whether the order is the same."""
    found = report_curves(outcomes)
    return replace(found, findings=(*found.findings, *_ranking(outcomes[0].result["children"])))


def report_curves(outcomes: Sequence[Outcome]) -> Report:
    """The same without the order of the children, who may each have lengths of their own."""
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
    """Whether the children have the same order both ways: that is all a search asks of a short training."""
    longest = [child["scratch"][-1][1] for child in children]
    found = []
    for number, (iterations, _) in enumerate(children[0]["inherited"]):
        order = rank_correlation(longest, [child["inherited"][number][1] for child in children])
        if order is not None:
            found.append(f"{order:.2f} after {iterations:,} iterations")
    scratch = children[0]["scratch"][-1][0]
    told = f"Rank correlation of the inherited children with those trained from scratch for {scratch:,} iterations"
    return [f"{told}: {', '.join(found)}."] if found else []


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
