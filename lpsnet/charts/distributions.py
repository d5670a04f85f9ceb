"""How samples are spread: a histogram a row over one axis, with median, interval and 90th percentile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lpsnet.charts.axis import Axis
from lpsnet.charts.frame import colour, draw_x_axis
from lpsnet.charts.svg import Drawing

_ROW, _BARS, _BOTTOM = 66.0, 36.0, 42.0  # pixels: a row, the highest bar in it, what is below all rows
_BIN = 5.0  # pixels of a bar
_RATIO = 6.0  # greatest by least value, from which the axis is logarithmic
_SHOWN = 99.5  # percentile of a row's samples that the axis reaches to at least


@dataclass(frozen=True, slots=True)
class Distribution:
    """The samples of one thing.

    Attributes:
        name: what was measured.
        samples: at least one, above 0.
        median: of the samples.
        interval: that the median lies in.
        p90: that nine in ten are below.
    """

    name: str
    samples: Sequence[float]
    median: float
    interval: tuple[float, float]
    p90: float


def draw_distributions(rows: Sequence[Distribution], width: float, *, label: str, x_name: str) -> Drawing:
    """The chart: below each name its histogram, a line at the median, a small one at the 90th percentile."""
    height = _ROW * len(rows) + _BOTTOM
    drawing = Drawing(width, height, label=label)
    axis = _axis(rows).between(1, width - 12)
    draw_x_axis(drawing, axis, at=height - _BOTTOM, name=x_name, grid_to=0)
    for number, row in enumerate(rows):
        _draw_row(drawing, axis, row, bottom=_ROW * (number + 1) - 6, number=colour(number))
    return drawing


def _axis(rows: Sequence[Distribution]) -> Axis:
    ends = [min(min(row.samples) for row in rows)]
    ends += [max(row.p90, *row.interval, float(np.percentile(row.samples, _SHOWN))) for row in rows]
    return Axis.ratios(ends) if max(ends) > _RATIO * min(ends) else Axis.around(ends)


def _draw_row(drawing: Drawing, axis: Axis, row: Distribution, *, bottom: float, number: int) -> None:
    drawing.add("text", css="strong", x=axis.start, y=bottom - _BARS - 10, text=row.name)
    if beyond := sum(sample > axis.high for sample in row.samples):
        text = f"{beyond} of {len(row.samples):,} lie beyond"
        drawing.add("text", css="tick end", x=axis.end, y=bottom - _BARS - 10, text=text)
    low, high = map(axis.at, row.interval)
    _draw_bars(drawing, axis, row.samples, bottom=bottom, number=number)
    drawing.add("rect", css=f"band f{number}", x=low, y=bottom - _BARS, width=max(high - low, 1), height=_BARS)
    x = axis.at(row.median)
    drawing.add("line", css="mark", x1=x, x2=x, y1=bottom - _BARS, y2=bottom)
    x = axis.at(min(row.p90, axis.high))
    drawing.add("line", css="mark", x1=x, x2=x, y1=bottom - 10, y2=bottom)
    drawing.add("rect", css="target", x=0, y=bottom - _BARS, width=axis.end, height=_BARS, tip=_tip(row))


def _tip(row: Distribution) -> str:
    middle = f"median {row.median:.4g} ms ({row.interval[0]:.4g} to {row.interval[1]:.4g})"
    return f"{row.name}\n{middle}\n90th percentile {row.p90:.4g} ms\n{len(row.samples):,} samples"


def _draw_bars(drawing: Drawing, axis: Axis, samples: Sequence[float], *, bottom: float, number: int) -> None:
    places = [axis.at(sample) for sample in samples if sample <= axis.high]
    counts, edges = np.histogram(places, bins=max(1, int((axis.end - axis.start) / _BIN)), range=(axis.start, axis.end))
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if count:
            height = max(1.0, _BARS * count / counts.max())
            drawing.add("rect", css=f"f{number}", x=left, y=bottom - height, width=right - left - 0.5, height=height)
