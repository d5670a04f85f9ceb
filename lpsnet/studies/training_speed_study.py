"""How much faster the trainer is than a plain loop, as a study; not a figure of the paper."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lpsnet.errors import RunError
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Run, Scale, Settings, Study

ARCHITECTURE, RECIPE = "lpsnet_s", "camvid_small"
SCENES = "scenes:size=360x480,num_train=32,num_val=2"
REPEATS: dict[Scale, int] = {"small": 5, "paper": 15}


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run: both loops in turn."""
    if len(settings.data) > 1:
        raise RunError(f"this study trains on one data set; got {', '.join(settings.data)}")
    data, repeats = (settings.data or (SCENES,))[0], REPEATS[settings.scale]
    key = {"sped": ARCHITECTURE, "recipe": RECIPE, "data": data, "repeats": repeats, "threads": settings.num_threads}

    def work(place: Place) -> dict[str, Json]:
        import torch

        from lpsnet.studies.training_speed import compare_speed

        place.progress("training by turns", 0.0)
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        return compare_speed(data, ARCHITECTURE, RECIPE, repeats=repeats).to_dict()

    return [Run(key, work, seconds=180.0)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row a loop."""
    result = outcomes[0].result
    rows = [
        {
            "loop": name,
            "pictures_per_second": result[f"{key}_pictures_per_second"],
            "turns_s": _list(result[f"{key}_s"]),
        }
        for name, key in (("plain", "plain"), ("trainer", "trainer"))
    ]
    low, high = result["lowest_and_highest_ratio"]
    finding = f"The trainer learns from {result['ratio']:.2f} times as many pictures a second, {low:.2f} to {high:.2f}."
    return Report(tuple(rows), (finding,), partial(_draw, rows), (5.0, 3.5))


def _list(seconds: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in seconds)


def _draw(rows: Sequence[Any], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    bars = axes.bar(
        [row["loop"] for row in rows], [row["pictures_per_second"] for row in rows], color=[GREY, COLOURS[0]]
    )
    axes.bar_label(bars, fmt="%.2f")
    axes.set_ylabel("pictures a second")


STUDY = Study(
    name="training-speed",
    title="The trainer beside a plain loop",
    reference="Not in the paper.",
    differences=("Both follow one recipe from the same first weights over the same samples, in turn.",),
    plan=plan,
    report=report,
    options=frozenset({"data", "num_threads"}),
)
