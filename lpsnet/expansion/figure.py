"""The family as a figure like Figure 7: mIoU over latency, every segment in the colour of the dimension it expands."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any

from lpsnet.errors import MissingDependencyError
from lpsnet.expansion.delivery import Delivery
from lpsnet.expansion.family import Member
from lpsnet.expansion.operations import DIMENSIONS, Dimension
from lpsnet.files import atomic_path

# Apart for eyes that do not tell red from green too (Okabe and Ito 2008)
COLOURS: dict[Dimension, str] = {
    "depth": "#0072B2",
    "width": "#D55E00",
    "resolution": "#009E73",
    "block": "#CC79A7",
}
TITLE_WIDTH = 90  # characters a line


def draw_family(path: Path, delivery: Delivery, *, title: str) -> None:
    """Write a PNG: the family, the Pareto front, and the trained networks that were not chosen.

    Args:
        path: the file.
        delivery: what is drawn.
        title: the line above the figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError.for_extra("matplotlib", "report") from None
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no window system is asked for
    axes = figure.add_subplot()
    _draw_front(axes, delivery.front)
    _draw_others(axes, delivery.others)
    _draw_family(axes, delivery.members)
    axes.set(xlabel="latency (ms), median and 95 % interval", ylabel="mIoU (%)")
    axes.set_title("\n".join(wrap(title, TITLE_WIDTH)), fontsize="medium")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_front(axes: Any, front: Sequence[Member]) -> None:
    xs, ys = _points(front)
    axes.step(xs, ys, where="post", color="0.75", linewidth=4, solid_capstyle="round", label="Pareto front", zorder=1)


def _draw_others(axes: Any, others: Sequence[Member]) -> None:
    for dimension in DIMENSIONS:
        if found := [it for it in others if it.operation and it.operation.dimension == dimension]:
            style = {"s": 14, "facecolors": "none", "edgecolors": COLOURS[dimension], "zorder": 2}
            axes.scatter(*_points(found), **style, label=f"{dimension.capitalize()}, not chosen")


def _draw_family(axes: Any, members: Sequence[Member]) -> None:
    named: set[Dimension] = set()
    for before, after in pairwise(members):
        assert after.operation is not None
        dimension = after.operation.dimension
        label = None if dimension in named else dimension.capitalize()
        named.add(dimension)
        axes.plot(*_points([before, after]), color=COLOURS[dimension], linewidth=2, label=label, zorder=3)
    for member in members:
        latency, miou = member.latency, member.score.miou
        around = [[latency.median_ms - latency.low_ms], [latency.high_ms - latency.median_ms]]
        style = {"fmt": "o", "color": "0.15", "markersize": 5, "capsize": 2, "zorder": 4}
        axes.errorbar([latency.median_ms], [miou], xerr=around, **style)
        axes.annotate(str(member.step), (latency.median_ms, miou), textcoords="offset points", xytext=(5, -11))


def _points(members: Sequence[Member]) -> tuple[list[float], list[float]]:
    return [it.latency.median_ms for it in members], [it.score.miou for it in members]
