"""The frame of a chart: axes with ticks and names around a plot, and a legend above it."""

from collections.abc import Sequence
from dataclasses import dataclass

from lpsnet.charts.axis import Axis
from lpsnet.charts.svg import Drawing

NUM_COLOURS = 6  # of `charts.css`
NARROW = 360.0  # pixels; below about twice that a chart is drawn for a telephone

_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 12.0, 10.0, 40.0
_LETTER = 6.6  # pixels a letter takes in a legend, on average
_LEGEND_ROW, _LEGEND_MARK = 18.0, 20.0


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height of a chart in pixels."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a legend: the style of its mark (`charts.css`) and the text."""

    css: str
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing with axes; things are drawn at `x.at(value)`, `y.at(value)`."""

    drawing: Drawing
    x: Axis
    y: Axis


def framed(size: Size, *, label: str, x: Axis, y: Axis, x_name: str, y_name: str, legend: Sequence[Entry] = ()) -> Plot:
    """Begin a chart.

    Args:
        size: of the whole.
        label: what it shows, for those who do not see it.
        x, y: the values; their pixels are set here.
        x_name, y_name: with the unit.
        legend: written above the plot.
    """
    drawing = Drawing(size.width, size.height, label=label)
    top = _draw_legend(drawing, legend, size.width) + _TOP + 16
    x = x.between(_LEFT, size.width - _RIGHT)
    y = y.between(size.height - _BOTTOM, top)
    drawing.add("text", css="name", x=0, y=top - 12, text=y_name)
    for value, text in y.ticks(max(3, int((y.start - y.end) / 42))):
        drawing.add("line", css="grid", x1=x.start, x2=x.end, y1=y.at(value), y2=y.at(value))
        drawing.add("text", css="tick end", x=x.start - 6, y=y.at(value) + 4, text=text)
    draw_x_axis(drawing, x, at=y.start, name=x_name)
    return Plot(drawing, x, y)


def draw_x_axis(drawing: Drawing, x: Axis, *, at: float, name: str, grid_to: float | None = None) -> None:
    """A horizontal axis at the height `at`, with its name at the right below it; with lines up to `grid_to`."""
    for value, text in x.ticks(max(3, int((x.end - x.start) / 100))):
        if grid_to is not None:
            drawing.add("line", css="grid", x1=x.at(value), x2=x.at(value), y1=at, y2=grid_to)
        drawing.add("line", css="axis", x1=x.at(value), x2=x.at(value), y1=at, y2=at + 4)
        drawing.add("text", css="tick middle", x=x.at(value), y=at + 17, text=text)
    drawing.add("line", css="axis", x1=x.start, x2=x.end, y1=at, y2=at)
    drawing.add("text", css="name end", x=x.end, y=at + 34, text=name)


def path(points: Sequence[tuple[float, float]]) -> str:
    """The path of a line through pixels."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def colour(number: int) -> int:
    """The number of the colour of the n-th thing, from 0; they begin again after the last."""
    return number % NUM_COLOURS + 1


def _draw_legend(drawing: Drawing, entries: Sequence[Entry], width: float) -> float:
    """Write the entries in rows; returns their height."""
    x, y = 0.0, 0.0
    for entry in entries:
        needed = _LEGEND_MARK + _LETTER * len(entry.text) + 14
        if x and x + needed > width:
            x, y = 0.0, y + _LEGEND_ROW
        drawing.add("rect", css=entry.css, x=x + 1, y=y + 3, width=12, height=9, rx=2)
        drawing.add("text", x=x + _LEGEND_MARK, y=y + 12, text=entry.text)
        x += needed
    return y + _LEGEND_ROW if entries else 0.0
