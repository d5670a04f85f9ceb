"""Figures of studies, drawn with matplotlib in the colours of the charts (`charts.css`, light)."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lpsnet.errors import MissingDependencyError
from lpsnet.io import atomic_path
from lpsnet.report.charts import NUM_COLOURS, STYLE

COLOURS = tuple(re.findall(r"--c\d: (#[0-9a-f]{6});", STYLE.read_text(encoding="utf-8"))[:NUM_COLOURS])
GREY = "0.55"
_DPI = 150


def check_drawing() -> None:
    """MissingDependencyError, naming the install command, unless figures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependencyError.for_extra("matplotlib", "report") from None


def save_figure(path: Path, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
    """Write a PNG.

    Args:
        path: the file.
        draw: draws into a `matplotlib.figure.Figure`.
        size: width and height in inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    check_drawing()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # no window system is asked for
    draw(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def tidy(axes: Any) -> None:
    """Axes with no more ink than their values need."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def draw_beside(
    axes: Any,
    names: Sequence[str],
    here: Sequence[float | None],
    paper: Sequence[float | None],
    *,
    label: str,
    seeds: Sequence[Sequence[float]] = (),
) -> None:
    """Two horizontal bars a name, what was measured here above what is published; the first name on top.

    Args:
        axes: to draw on.
        names: of the rows.
        here, paper: a value a name, None where there is none.
        label: of the values, with their unit.
        seeds: the values that each of `here` is the mean of, marked on its bar; none where there are not several.
    """
    tidy(axes)
    axes.grid(visible=False, axis="y")
    for values, shift, colour, title in ((here, -0.2, COLOURS[0], "here"), (paper, 0.2, GREY, "paper")):
        places = [number + shift for number in range(len(names))]
        axes.barh(places, [value or 0.0 for value in values], height=0.36, color=colour, label=title)
        for number, (place, value) in enumerate(zip(places, values, strict=True)):
            marks = seeds[number] if values is here and seeds else ()
            axes.plot(marks, [place] * len(marks), "|", color="black", markersize=7)
            # past the end of its bar and of the marks on it
            side, align = (3, "left") if (value or 0.0) >= 0 else (-3, "right")
            where = (max((value or 0.0, *marks)) if side > 0 else value, place)
            looks = {"textcoords": "offset points", "ha": align, "va": "center", "fontsize": "x-small"}
            axes.annotate("–" if value is None else f"{value:.3g}", where, xytext=(side, 0), **looks)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(label)


def add_legend(figure: Any, axes: Any) -> None:
    """What the colours of `axes` mean, below the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize="small")
