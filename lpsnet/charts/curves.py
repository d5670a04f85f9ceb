"""Curves over a common axis, each with the band its values lie in where there are many."""

from collections.abc import Sequence
from dataclasses import dataclass

from lpsnet.charts.axis import Axis
from lpsnet.charts.frame import Entry, Plot, Size, colour, framed, path
from lpsnet.charts.svg import Drawing

MAX_POINTS = 120  # of a curve; more are drawn as means with the band between least and greatest
_MAX_MARKED = 40  # points, up to which each is marked and says its value


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over others.

    Attributes:
        name: in the legend, if there are several.
        xs, ys: as many of one as of the other, all finite; `xs` rising.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Neighbouring points as one."""

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

    The axis has room for the means; where a band reaches beyond it, it is cut off.
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
    return [_bucket(curve.xs[part], curve.ys[part]) for part in parts]


def _bucket(xs: Sequence[float], ys: Sequence[float]) -> _Bucket:
    return _Bucket(sum(xs) / len(xs), sum(ys) / len(ys), min(ys), max(ys))
