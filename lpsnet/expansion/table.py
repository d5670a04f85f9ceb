"""The family as a table like Table 4, in Markdown."""

from collections.abc import Mapping, Sequence

from lpsnet.expansion.family import Member
from lpsnet.expansion.measurements import Latency, Score
from lpsnet.expansion.operations import DEFAULT_BLOCK, Design, braces

FAMILY_COLUMNS = ("Step", "B", "C", "R", "Latency (ms)", "Interval (ms)", "mIoU (%)", "At start (%)", "Dimension", "k")


def family_table(members: Sequence[Member], *, parameters: Mapping[Design, int] | None = None) -> str:
    """A Markdown table with a row a member, columns as in Table 4 and, beside them, the measurements' intervals and k.

    Args:
        members: in the order of the rows.
        parameters: number of parameters by design, for one more column; designs not in it get a dash.
    """
    blocks = any(member.network.block != DEFAULT_BLOCK for member in members)
    header = [*FAMILY_COLUMNS, *(["Block"] if blocks else []), *(["Parameters"] if parameters is not None else [])]
    rows = [header, ["---"] * len(header)]
    for member in members:
        cells = family_cells(member) + ([member.network.block] if blocks else [])
        rows.append(cells + ([_count(parameters.get(member.design))] if parameters is not None else []))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def lengths_note(members: Sequence[Member]) -> str:
    """Which networks were trained for longer than the others, in a sentence; empty if all were trained alike."""
    longer = [f"{it.network} ({it.length} times)" for it in members if it.length > 1]
    if not longer:
        return ""
    told = "; ".join(longer)
    return f"Trained for longer, since no candidate surely gained; their mIoU is not that of the others: {told}."


def family_cells(member: Member) -> list[str]:
    """A network as texts, one for each of `FAMILY_COLUMNS`."""
    network, score, operation = member.network, member.score, member.operation
    return [
        str(member.step),
        braces(network.blocks),
        braces(network.widths),
        braces(network.ratio_slots),
        _ms(member.latency.median_ms),
        _interval(member.latency),
        mean_and_spread(score),
        "-" if score.at_start is None else f"{score.at_start:.1f}",
        operation.dimension.capitalize() if operation else "-",
        str(member.step_size) if operation else "-",
    ]


def mean_and_spread(score: Score) -> str:
    """`54.2 ± 0.3`, in points; the spread only where one is known."""
    return f"{score.miou:.1f} ± {score.spread:.1f}" if score.spread else f"{score.miou:.1f}"


def parent_score(score: Score) -> str:
    """What candidates are compared with; a parent that was trained on, too, has its own score at the start."""
    if score.at_start is None:
        return f"{score.miou:.1f} mIoU"
    return f"{score.miou:.1f} mIoU, {score.at_start:.1f} before it was trained on as they are"


def _interval(latency: Latency) -> str:
    exact = latency.low_ms == latency.high_ms
    return "-" if exact else f"{_ms(latency.low_ms)} to {_ms(latency.high_ms)}"


def _ms(value: float) -> str:
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
