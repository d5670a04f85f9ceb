"""The widths at which a device does the most for its time: the paper's "sweet spots" (Section 3.2, Figure 5).

The paper reads them off its curves. Here a width is a sweet spot if its FLOPs-efficiency is a local maximum: greater
than that of the next narrower and of the next wider width measured, by `MARGIN` at least and beyond noise. Beyond noise
means that the whole interval of the ratio, taken round by round of a measurement in turn, lies above the margin. The
narrowest and the widest have one neighbour and are not judged. And "setups of channel width with high FLOPs-efficiency"
(Section 3.2) they are only with `MIN_SHARE` of the greatest efficiency measured: a peak among the very worst is none.

Figure 5: latency and multiply-accumulates of 3x3 convolutions of width 1 to 17 and 8 to 72, and the sweet spots.

Work grows with the square of the width, time in steps: a device computes so many channels at once. Just below a step
much is done for the time; the paper found its GPU's sweet spots at 8 and 16, and at 32 and 64, and makes widths
divisible by a power of 2 as large as possible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lpsnet.benchmark.timing import compare
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.block_timing import DIFFERENCES, BlockTime, Case, block_run, block_times, engine_of
from lpsnet.studies.study import Known, Outcome, Report, Row, Run, Settings, Study

MARGIN = 1.05
MIN_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class SweetSpots:
    """Widths in rising order.

    Attributes:
        certain: the sweet spots.
        unclear: those that would be by the middle of the ratios alone: the measurement was too noisy to say.
    """

    certain: tuple[int, ...]
    unclear: tuple[int, ...] = ()


def sweet_spots(times: Sequence[BlockTime]) -> SweetSpots:
    """The sweet spots among widths measured in turn and given in rising order."""
    certain, unclear = [], []
    best = max((time.mmacs_per_ms for time in times), default=0.0)
    for left, middle, right in zip(times, times[1:], times[2:], strict=False):
        if middle.mmacs_per_ms < MIN_SHARE * best:
            continue
        advantages = [_advantage(middle, left), _advantage(middle, right)]
        if all(least > MARGIN for least, _ in advantages):
            certain.append(middle.case.width)
        elif all(likely > MARGIN for _, likely in advantages):
            unclear.append(middle.case.width)
    return SweetSpots(tuple(certain), tuple(unclear))


def _advantage(a: BlockTime, b: BlockTime) -> tuple[float, float]:
    """How many times as efficient A is as B: at least (0 where there were too few rounds), and in the middle."""
    comparison = compare(a.latency, b.latency)  # of A's time divided by B's
    work = a.macs / b.macs
    least = work / comparison.interval[1] if comparison.confidence >= a.latency.confidence else 0.0
    return least, work / comparison.ratio


def in_words(widths: Sequence[int]) -> str:
    """`8 and 16`, `8`, or `none`."""
    *first, last = [str(width) for width in widths] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


SIZE = (128, 128)
GROUPS: Mapping[str, tuple[int, ...]] = {
    "a": tuple(range(1, 18)),  # Figure 5 (a): 1 to 17 by 1
    "b": tuple(range(8, 73, 8)),  # Figure 5 (b): 8 to 72 by 8
}
PAPER_SWEET_SPOTS = {"a": (8, 16), "b": (32, 64)}  # Section 3.2, GTX 1070 Ti


def plan(settings: Settings, known: Known) -> list[Run]:
    """A run for both parts of the figure by every engine: all its widths in turn."""
    return [
        block_run(f"widths {group}", [Case("conv3x3", width, SIZE) for width in widths], runtime, settings)
        for runtime in settings.runtimes
        for group, widths in GROUPS.items()
    ]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for every width, and the sweet spots of every engine."""
    found: dict[str, dict[str, list[BlockTime]]] = {}
    for outcome in outcomes:
        group = str(outcome.key["measured"]).removeprefix("widths ")
        found.setdefault(engine_of(outcome), {})[group] = block_times(outcome.result)
    spots = {engine: {group: sweet_spots(times) for group, times in groups.items()} for engine, groups in found.items()}
    rows = [
        _row(engine, group, time, spots=spots[engine][group])
        for engine, groups in found.items()
        for group, times in groups.items()
        for time in times
    ]
    findings = [_finding(engine, groups) for engine, groups in spots.items()]
    return Report(tuple(rows), tuple(findings), partial(_draw, found, spots), figure_size=(10.5, 6.5))


def _row(engine: str, group: str, time: BlockTime, *, spots: SweetSpots) -> Row:
    (low, high), width = time.interval_ms, time.case.width
    return {
        "engine": engine,
        "figure_5": group,
        "width": width,
        "mmacs": time.macs / 1e6,
        "median_ms": time.median_ms,
        "interval_low_ms": low,
        "interval_high_ms": high,
        "mean_ms": time.mean_ms,
        "mmacs_per_ms": time.mmacs_per_ms,
        "sweet_spot": "yes" if width in spots.certain else "perhaps" if width in spots.unclear else "",
        "paper_sweet_spot": "yes" if width in PAPER_SWEET_SPOTS[group] else "",
    }


def _finding(engine: str, spots: Mapping[str, SweetSpots]) -> str:
    parts = [_part(group, found) for group, found in spots.items()]
    return f"Sweet spots of {engine} on this device: {'; '.join(parts)}."


def _part(group: str, found: SweetSpots) -> str:
    unclear = f", perhaps {in_words(found.unclear)}, which noise hides" if found.unclear else ""
    first, *_, last = GROUPS[group]
    paper = in_words(PAPER_SWEET_SPOTS[group])
    return f"{in_words(found.certain)} among {first} to {last}{unclear} (paper: {paper})"


Found = Mapping[str, Mapping[str, Sequence[BlockTime]]]
Spots = Mapping[str, Mapping[str, SweetSpots]]


def _draw(found: Found, spots: Spots, figure: Any) -> None:
    """Above latency and work as in the paper's figure, below their quotient with the sweet spots; (a) is left."""
    axes = figure.subplots(2, 2, sharex="col")
    for column, group in enumerate(GROUPS):
        above, below = axes[0][column], axes[1][column]
        _draw_latency(above, {engine: groups[group] for engine, groups in found.items()})
        for number, engine in enumerate(found):
            _draw_efficiency(below, found[engine][group], spots[engine][group], COLOURS[number])
        for width in PAPER_SWEET_SPOTS[group]:
            below.axvline(width, color=GREY, linewidth=6, alpha=0.2, zorder=0)
        above.set_title(f"({group})", fontsize="medium")
        below.margins(y=0.12)
        below.set(xlabel="width (channels)", ylabel="10⁶ multiply-accumulates / ms", ylim=(0, None))
        below.set_xticks(GROUPS[group])
    axes[0][0].legend(frameon=False, fontsize="small", loc="upper left")
    _add_key(axes[1][0])
    figure.suptitle("3x3 convolutions at 128x128", fontsize="medium")


def _draw_latency(axes: Any, series: Mapping[str, Sequence[BlockTime]]) -> None:
    tidy(axes)
    for (engine, times), colour in zip(series.items(), COLOURS, strict=False):
        widths = [time.case.width for time in times]
        low, high = zip(*(time.interval_ms for time in times), strict=True)
        axes.plot(widths, [time.median_ms for time in times], "o-", markersize=3.5, color=colour, label=engine)
        axes.fill_between(widths, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(ylabel="latency (ms)", ylim=(0, None))
    times = next(iter(series.values()))
    work = axes.twinx()
    work.plot([time.case.width for time in times], [time.macs / 1e6 for time in times], "--", color=GREY, linewidth=1)
    work.spines["top"].set_visible(False)
    work.set_ylabel("10⁶ multiply-accumulates (dashed)", color=GREY)
    work.set_ylim(0, None)
    work.tick_params(colors=GREY)


def _draw_efficiency(axes: Any, times: Sequence[BlockTime], spots: SweetSpots, colour: str) -> None:
    tidy(axes)
    axes.plot([t.case.width for t in times], [t.mmacs_per_ms for t in times], "o-", markersize=3.5, color=colour)
    best = [time for time in times if time.case.width in spots.certain]
    axes.plot([t.case.width for t in best], [t.mmacs_per_ms for t in best], "*", markersize=13, color=colour, zorder=3)


def _add_key(axes: Any) -> None:
    axes.plot([], [], "*", color="0.3", markersize=11, label="sweet spot of this device")
    axes.plot([], [], color=GREY, linewidth=6, alpha=0.3, label="sweet spot in the paper")
    axes.legend(frameon=False, fontsize="small", loc="upper left")


STUDY = Study(
    name="widths",
    title="The width of convolutions",
    reference="The paper's Figure 5: latency of 3x3 convolutions at 128x128 on a GTX 1070 Ti with TensorRT, with sweet "
    "spots at 8 and 16 among the widths 1 to 17, and at 32 and 64 among 8 to 72. It gives no table of values.",
    differences=(
        *DIFFERENCES,
        (
            "The paper reads the sweet spots off its curves. Here a width is one if it does more multiply-accumulates "
            f"in a millisecond than the next narrower and the next wider one, by {100 * (MARGIN - 1):.0f} % at least "
            "and with the whole 95 % interval of the ratio, and at least a third of the most that any width does."
        ),
    ),
    plan=plan,
    report=report,
)
