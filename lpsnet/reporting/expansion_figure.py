"""The paper's Figure 7: mIoU over latency, every segment of the family in the colour of the dimension it expands."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from lpsnet.charts.axis import Axis
from lpsnet.charts.frame import Entry, Plot, Size, framed, path
from lpsnet.charts.svg import Drawing
from lpsnet.search.family import Member
from lpsnet.search.operations import DIMENSIONS, Dimension, braces

WIDE, NARROW = Size(1120.0, 520.0), Size(360.0, 380.0)
_TOUCH = 10.0  # pixels around a dot that answer to the pointer

# dimension -> number of its colour in `charts.css`
COLOURS: Mapping[Dimension, int] = {"depth": 1, "width": 2, "resolution": 3, "block": 4}


def draw_family(
    members: Sequence[Member],
    front: Sequence[Member],
    others: Sequence[Member],
    size: Size,
    *,
    budgets_ms: Sequence[float] = (),
) -> Drawing:
    """The figure.

    Args:
        members: the family, the start first.
        front: the networks that no other beats, by rising latency.
        others: the trained networks that are not in the family.
        size: of the drawing.
        budgets_ms: drawn as lines where they lie within the axis.
    """
    shown = [*members, *front, *others]
    ends = [end for it in members for end in (it.latency.low_ms, it.latency.high_ms)]
    plot = framed(
        size,
        label="mIoU over latency of all trained networks",
        x=Axis.around([*ends, *(it.latency.median_ms for it in shown)]),
        y=Axis.around([it.score.miou + sign * it.score.spread for it in shown for sign in (-1, 1)], top=100.0),
        x_name="latency (ms)",
        y_name="mIoU (%)",
        legend=_legend(members, others),
    )
    _draw_budgets(plot, budgets_ms)
    _draw_front(plot, front)
    for member in others:
        _draw_dot(plot, member, css=f"hollow s{_colour(member)}", radius=4.0, what="not chosen")
    _draw_segments(plot, members)
    for number, member in enumerate(members):
        _draw_member(plot, member, number)
    return plot.drawing


def describe(member: Member, *, what: str = "") -> str:
    """A network in lines, for whoever points at its dot."""
    network, latency, score = member.network, member.latency, member.score
    lines = [f"Step {member.step}{f', {what}' if what else ''}"]
    lines += [f"{member.operation} ×{member.step_size}"] if member.operation else []
    lines += [f"B {braces(network.blocks)}", f"C {braces(network.widths)}", f"R {braces(network.ratio_slots)}"]
    lines += [
        f"{latency.median_ms:.3g} ms ({latency.low_ms:.3g} to {latency.high_ms:.3g})",
        f"{score.miou:.2f}{f' ± {score.spread:.2f}' if score.spread else ''} mIoU",
    ]
    return "\n".join(lines)


def _legend(members: Sequence[Member], others: Sequence[Member]) -> list[Entry]:
    used = {it.operation.dimension for it in (*members, *others) if it.operation}
    names = [Entry(f"f{COLOURS[it]}", it.capitalize()) for it in DIMENSIONS if it in used]
    return [*names, Entry("front-mark", "Pareto front"), *([Entry("hollow axis", "not chosen")] if others else [])]


def _colour(member: Member) -> int:
    return COLOURS[member.operation.dimension] if member.operation else 6


def _point(plot: Plot, member: Member) -> tuple[float, float]:
    return plot.x.at(member.latency.median_ms), plot.y.at(member.score.miou)


def _draw_budgets(plot: Plot, budgets_ms: Sequence[float]) -> None:
    for budget in budgets_ms:
        if plot.x.low < budget < plot.x.high:
            x = plot.x.at(budget)
            plot.drawing.add("line", css="budget", x1=x, x2=x, y1=plot.y.start, y2=plot.y.end)
            plot.drawing.add("text", css="tick end", x=x - 5, y=plot.y.end + 12, text=f"{budget:g} ms")


def _draw_front(plot: Plot, front: Sequence[Member]) -> None:
    """Steps: between two networks on the front, the faster one is the best there is."""
    corners: list[tuple[float, float]] = []
    for x, y in (_point(plot, it) for it in front):
        corners += [(x, corners[-1][1])] if corners else []
        corners.append((x, y))
    if corners:
        plot.drawing.add("path", css="front", d=path([*corners, (plot.x.end, corners[-1][1])]))


def _draw_segments(plot: Plot, members: Sequence[Member]) -> None:
    for before, after in pairwise(members):
        ends = path([_point(plot, before), _point(plot, after)])
        plot.drawing.add("path", css=f"curve thick s{_colour(after)}", d=ends)


def _draw_member(plot: Plot, member: Member, number: int) -> None:
    x, y = _point(plot, member)
    low, high = plot.x.at(member.latency.low_ms), plot.x.at(member.latency.high_ms)
    plot.drawing.add("line", css="whisker across", x1=low, x2=high, y1=y, y2=y)
    for end in (low, high):
        plot.drawing.add("line", css="whisker", x1=end, x2=end, y1=y - 3, y2=y + 3)
    if spread := member.score.spread:
        ends = plot.y.at(member.score.miou - spread), plot.y.at(member.score.miou + spread)
        plot.drawing.add("line", css="whisker upright", x1=x, x2=x, y1=ends[0], y2=ends[1])
    _draw_dot(plot, member, css="knot", radius=6.0, what="")
    plot.drawing.add("text", css="strong halo end", x=x - 8, y=y - 7, text=str(number))


def _draw_dot(plot: Plot, member: Member, *, css: str, radius: float, what: str) -> None:
    """A dot, and around it an invisible one that is easier to hit."""
    x, y = _point(plot, member)
    plot.drawing.add("circle", css=css, cx=x, cy=y, r=radius)
    plot.drawing.add("circle", css="target", cx=x, cy=y, r=_TOUCH, tip=describe(member, what=what))
