"""Charts as SVG: curves, distributions and a heat map over axes with ticks; every text is escaped by the XML tree.

Figures of studies are drawn with matplotlib in the same colours (`charts.css`, light).
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import MissingDependencyError
from lpsnet.io import atomic_path

Element = ElementTree.Element

STYLE = Path(__file__).with_name("charts.css")  # the colours of every class used in charts, light and dark

_NAMESPACE = "http://www.w3.org/2000/svg"
# What XML cannot hold
_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """The text with a question mark in place of what no page or image can hold: control characters, half pairs."""
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


class Drawing:
    """An image being drawn.

    Args:
        width, height: in pixels.
        label: what it shows, for screen readers.
    """

    def __init__(self, width: float, height: float, *, label: str) -> None:
        self.width, self.height = width, height
        attributes = {"class": "chart", "role": "img", "aria-label": clean(label)}
        self._root = Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", **attributes})

    def add(
        self, tag: str, parent: Element | None = None, *, text: str = "", tip: str = "", **attributes: str | float
    ) -> Element:
        """Add an element.

        Args:
            tag: of SVG.
            parent: the group it belongs to; the image itself unless given.
            text: inside it.
            tip: shown when it is pointed at.
            attributes: `_` stands for `-`, `css` for `class`; numbers are pixels.
        """
        named = {"class" if key == "css" else key.replace("_", "-"): _value(it) for key, it in attributes.items()}
        element = ElementTree.SubElement(self._root if parent is None else parent, tag, named)
        if tip:
            ElementTree.SubElement(element, "title").text = clean(tip)
        elif text:
            element.text = clean(text)
        return element

    def inline(self) -> str:
        """For a page whose style holds `STYLE`."""
        return ElementTree.tostring(self._root, encoding="unicode")

    def document(self) -> str:
        """For a file of its own."""
        root = Element("svg", {"xmlns": _NAMESPACE, "width": _value(self.width), "height": _value(self.height)})
        root.attrib |= self._root.attrib
        ElementTree.SubElement(root, "style").text = STYLE.read_text(encoding="utf-8")
        ElementTree.SubElement(root, "rect", {"width": "100%", "height": "100%", "class": "paper"})
        root.extend(self._root)
        return ElementTree.tostring(root, encoding="unicode") + "\n"


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


_STEPS = (1, 2, 2.5, 5, 10)
_MARGIN = 0.05  # of the range, on either side
_LEAST = 1e-12  # a range below is none
_MAX_DECIMALS = 14


@dataclass(frozen=True, slots=True)
class Axis:
    """Values between `low` and `high`, drawn between the pixels `start` and `end`."""

    low: float  # low, high: the ends, finite and in order; above 0 for a logarithmic axis
    high: float
    start: float = 0.0  # start, end: their pixels; `start` may be the larger, as it is for axes that go up
    end: float = 1.0
    logarithmic: bool = False  # whether equal ratios, and not equal differences, are equally far apart

    def __post_init__(self) -> None:
        assert -math.inf < self.low < self.high < math.inf, "an axis has a finite range"
        assert not self.logarithmic or self.low > 0, "a logarithmic axis is above 0"

    @classmethod
    def around(cls, values: Iterable[float], *, with_zero: bool = False, top: float | None = None) -> Self:
        """An axis for all values with a margin, of pixels 0 to 1; any range if there is none.

        Args:
            values: finite; others are left out.
            with_zero: begin at 0; for values that are not below it.
            top: no further up than this, as 100 for percent.
        """
        known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = (0.0 if with_zero else min(known)), max(known)
        margin = (high - low) * _MARGIN or abs(high) * _MARGIN
        margin = margin if margin > _LEAST else 1.0
        low, high = (low if with_zero else max(low - margin, 0.0) if low >= 0 else low - margin), high + margin
        return cls(low, high if top is None or max(known) > top else min(high, top))

    @classmethod
    def ratios(cls, values: Iterable[float]) -> Self:
        """A logarithmic axis for all values, which are above 0, with a margin."""
        known = list(values)
        margin = max(max(known) / min(known), 1.1) ** _MARGIN
        return cls(min(known) / margin, max(known) * margin, logarithmic=True)

    def between(self, start: float, end: float) -> "Axis":
        """The same values between other pixels."""
        return Axis(self.low, self.high, start, end, self.logarithmic)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = map(math.log if self.logarithmic else float, (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 6) -> list[tuple[float, str]]:
        """About `count` round values inside the axis, each with its text."""
        values = self._ratio_ticks(count) if self.logarithmic else []
        if len(values) >= 3:
            return [(value, f"{value:g}") for value in values]
        least = (self.high - self.low) / (1.4 * count)
        power = 10.0 ** math.floor(math.log10(least))
        step = next(factor * power for factor in _STEPS if factor * power >= least * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        decimals = next((n for n in range(_MAX_DECIMALS) if abs(round(step, n) - step) < 1e-6 * step), _MAX_DECIMALS)
        return [(number * step, f"{number * step:,.{decimals}f}") for number in range(first, last + 1)]

    def _ratio_ticks(self, count: int) -> list[float]:
        """1, 2 and 5 of every power of ten inside; the powers alone where that is too many."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1,)):
            inside = [digit * 10.0**power for power in powers for digit in digits]
            inside = [value for value in inside if self.low <= value <= self.high]
            if len(inside) <= 1.5 * count:
                break
        return inside


NUM_COLOURS = 6  # of `charts.css`
NARROW = 360.0  # pixels; below about twice that a chart is drawn for a telephone

_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 12.0, 10.0, 40.0
_LETTER = 6.6  # pixels a letter takes in a legend, on average
_LEGEND_ROW, _LEGEND_MARK = 18.0, 20.0


class Size(NamedTuple):
    """Width and height of a chart in pixels."""

    width: float
    height: float

    @classmethod
    def of(cls, width: float, heights: tuple[float, float]) -> Self:
        """A chart this wide, of one of the two heights: for wide pages and for telephones."""
        return cls(width, heights[width <= NARROW])


class Entry(NamedTuple):
    """A line of a legend: the style of its mark (`charts.css`) and the text."""

    css: str
    text: str


class Plot(NamedTuple):
    """A drawing with axes; things are drawn at `x.at(value)`, `y.at(value)`."""

    drawing: Drawing
    x: Axis
    y: Axis


def framed(size: Size, *, label: str, x: Axis, y: Axis, x_name: str, y_name: str, legend: Sequence[Entry] = ()) -> Plot:
    """Begin a chart.

    Args:
        size: of the whole.
        label: what it shows, for screen readers.
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


MAX_POINTS = 120  # of a curve; more are drawn as means with the band between least and greatest
_MAX_MARKED = 40  # points, up to which each is marked and has a tip with its value


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over others."""

    name: str  # in the legend, if there are several
    xs: Sequence[float]  # xs, ys: as many of one as of the other, all finite; `xs` rising
    ys: Sequence[float]


class _Bucket(NamedTuple):  # neighbouring points as one
    x: float
    mean: float
    low: float
    high: float


def draw_curves(
    curves: Sequence[Curve],
    size: Size,
    *,
    label: str,
    x_name: str,
    y_name: str,
    with_zero: bool = False,
    top: float | None = None,
) -> Drawing:
    """A chart of one curve or several; see `framed` and `Axis.around` for what the arguments mean.

    The axis shows all means; where a band reaches beyond it, it is cut off.
    """
    drawn = [_buckets(curve) for curve in curves]
    xs = [x for curve in curves for x in curve.xs]
    plot = framed(
        size,
        label=label,
        x=Axis(min(xs), max(xs)) if len(set(xs)) > 1 else Axis.around(xs),
        y=Axis.around([it.mean for buckets in drawn for it in buckets], with_zero=with_zero, top=top),
        x_name=x_name,
        y_name=y_name,
        legend=[Entry(f"f{colour(n)}", curve.name) for n, curve in enumerate(curves)] if len(curves) > 1 else (),
    )
    for number, (curve, buckets) in enumerate(zip(curves, drawn, strict=True)):
        _draw_curve(plot, curve.name, buckets, colour(number))
    return plot.drawing


def _draw_curve(plot: Plot, name: str, buckets: Sequence[_Bucket], number: int) -> None:
    if any(it.low < it.high for it in buckets):
        upper = [(plot.x.at(it.x), plot.y.at(min(it.high, plot.y.high))) for it in buckets]
        lower = [(plot.x.at(it.x), plot.y.at(max(it.low, plot.y.low))) for it in reversed(buckets)]
        plot.drawing.add("path", css=f"band f{number}", d=path(upper + lower) + "Z")
    points = [(plot.x.at(it.x), plot.y.at(it.mean)) for it in buckets]
    plot.drawing.add("path", css=f"curve s{number}", d=path(points))
    if len(buckets) <= _MAX_MARKED:
        for (x, y), bucket in zip(points, buckets, strict=True):
            tip = f"{name}\n{bucket.mean:.4g} at {bucket.x:,.0f}"
            plot.drawing.add("circle", css=f"f{number}", cx=x, cy=y, r=3.5, tip=tip)


def _buckets(curve: Curve) -> list[_Bucket]:
    """At most `MAX_POINTS` points."""
    size = max(1, -(-len(curve.xs) // MAX_POINTS))
    parts = [slice(start, start + size) for start in range(0, len(curve.xs), size)]
    points = ((curve.xs[part], curve.ys[part]) for part in parts)
    return [_Bucket(sum(xs) / len(xs), sum(ys) / len(ys), min(ys), max(ys)) for xs, ys in points]


_ROW, _BARS, _HISTOGRAM_BOTTOM = 66.0, 36.0, 42.0  # pixels: a row, the highest bar in it, what is below all rows
_BIN = 5.0  # pixels of a bar
_RATIO = 6.0  # greatest by least value, from which the axis is logarithmic
_SHOWN = 99.5  # percentile of a row's samples that the axis reaches to at least


@dataclass(frozen=True, slots=True)
class Distribution:
    """The samples of one thing."""

    name: str  # what was measured
    samples: Sequence[float]  # at least one, above 0
    median: float  # of the samples
    interval: tuple[float, float]  # that the median lies in
    p90: float  # that nine in ten are below


def draw_distributions(rows: Sequence[Distribution], width: float, *, label: str, x_name: str) -> Drawing:
    """The chart: below each name its histogram, a line at the median, a small one at the 90th percentile."""
    height = _ROW * len(rows) + _HISTOGRAM_BOTTOM
    drawing = Drawing(width, height, label=label)
    ends = [min(min(row.samples) for row in rows)]
    ends += [max(row.p90, *row.interval, float(np.percentile(row.samples, _SHOWN))) for row in rows]
    axis = Axis.ratios(ends) if max(ends) > _RATIO * min(ends) else Axis.around(ends)
    axis = axis.between(1, width - 12)
    draw_x_axis(drawing, axis, at=height - _HISTOGRAM_BOTTOM, name=x_name, grid_to=0)
    for number, row in enumerate(rows):
        _draw_row(drawing, axis, row, bottom=_ROW * (number + 1) - 6, number=colour(number))
    return drawing


def _draw_row(drawing: Drawing, axis: Axis, row: Distribution, *, bottom: float, number: int) -> None:
    drawing.add("text", css="strong", x=axis.start, y=bottom - _BARS - 10, text=row.name)
    if beyond := sum(sample > axis.high for sample in row.samples):
        text = f"{beyond} of {len(row.samples):,} lie beyond"
        drawing.add("text", css="tick end", x=axis.end, y=bottom - _BARS - 10, text=text)
    low, high = map(axis.at, row.interval)
    _draw_bars(drawing, axis, row.samples, bottom=bottom, number=number)
    drawing.add("rect", css=f"band f{number}", x=low, y=bottom - _BARS, width=max(high - low, 1), height=_BARS)
    for x, length in ((axis.at(row.median), _BARS), (axis.at(min(row.p90, axis.high)), 10)):
        drawing.add("line", css="mark", x1=x, x2=x, y1=bottom - length, y2=bottom)
    middle = f"median {row.median:.4g} ms ({row.interval[0]:.4g} to {row.interval[1]:.4g})"
    tip = f"{row.name}\n{middle}\n90th percentile {row.p90:.4g} ms\n{len(row.samples):,} samples"
    drawing.add("rect", css="target", x=0, y=bottom - _BARS, width=axis.end, height=_BARS, tip=tip)


def _draw_bars(drawing: Drawing, axis: Axis, samples: Sequence[float], *, bottom: float, number: int) -> None:
    places = [axis.at(sample) for sample in samples if sample <= axis.high]
    counts, edges = np.histogram(places, bins=max(1, int((axis.end - axis.start) / _BIN)), range=(axis.start, axis.end))
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if count:
            height = max(1.0, _BARS * count / counts.max())
            drawing.add("rect", css=f"f{number}", x=left, y=bottom - height, width=right - left - 0.5, height=height)


MAX_NAME = 16  # letters of a name beside the cells; the rest is in the cell's tip

_CELL_LETTER = 6.4  # pixels
_MAX_CELL, _MIN_TEXT_CELL = 46.0, 24.0  # pixels of a cell; from the second on it holds its number
# share up to which text of a style can be read on a cell, light and dark
_STYLES = ((0.62, "on-pale"), (0.8, "on-middle"), (1.0, "on-accent"))
_LEAST_SHOWN = 0.5  # percent below which a cell has no number, so that the eye finds what matters


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str], width: float, *, label: str) -> Drawing:
    """The confusion matrix, each row in shares of its class's true pixels; cells without pixels stay empty.

    Args:
        matrix: K x K pixel counts; rows are the truth, columns the prediction.
        names: of the K classes.
        width: of the drawing in pixels, at most.
        label: what it shows, for screen readers.
    """
    short = [shortened(name) for name in names]
    left = max(map(len, short)) * _CELL_LETTER + 10
    cell = min(_MAX_CELL, (width - left) / len(names))
    top = left + 4
    drawing = Drawing(left + cell * len(names) + 1, top + cell * len(names) + 1, label=label)
    for number, name in enumerate(short):
        centre = (number + 0.5) * cell
        drawing.add("text", css="tick end", x=left - 6, y=top + centre + 4, text=name)
        x, y = left + centre + 4, top - 6
        drawing.add("text", css="tick", x=x, y=y, transform=f"rotate(-90 {x:.1f} {y:.1f})", text=name)
    for number in range(len(names) + 1):
        near, far = number * cell, len(names) * cell
        drawing.add("line", css="grid", x1=left, x2=left + far, y1=top + near, y2=top + near)
        drawing.add("line", css="grid", x1=left + near, x2=left + near, y1=top, y2=top + far)
    totals = matrix.sum(axis=1)
    for row, column in np.argwhere(matrix > 0):
        share = matrix[row, column] / totals[row]
        names_of = f"truth: {names[row]}\nprediction: {names[column]}"
        tip = f"{names_of}\n{100 * share:.2f} % of it, {matrix[row, column]:,} pixels"
        _draw_cell(drawing, left + column * cell, top + row * cell, cell, share, tip)
    return drawing


def text_style(share: float) -> str:
    """The style of text on a cell that is this deep in colour."""
    return next(style for bound, style in _STYLES if share <= bound)


def shortened(name: str) -> str:
    """At most `MAX_NAME` letters of a name."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"


def _draw_cell(drawing: Drawing, x: float, y: float, cell: float, share: float, tip: str) -> None:
    written = cell >= _MIN_TEXT_CELL and 100 * share >= _LEAST_SHOWN
    place: dict[str, Any] = {"x": x, "y": y, "width": cell, "height": cell}
    drawing.add("rect", css="cell", **place, fill_opacity=share, tip="" if written else tip)
    if written:
        css, middle = f"count middle {text_style(share)}", cell / 2
        drawing.add("text", css=css, x=x + middle, y=y + middle + 4, text=f"{100 * share:.0f}")
        drawing.add("rect", css="target", **place, tip=tip)


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
