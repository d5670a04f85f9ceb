"""Figures 4 and 5 (Section 3.2): single 3x3 convolutions, timed in stacks (`network_latency.py`).

`conv-types` compares the standard with the depthwise separable convolution at 32x128x128. The separable one does a
seventh of the multiply-accumulates, but on the paper's GPU so few of them in a millisecond that it is slower.

`widths` finds the "sweet spots" among widths. Work grows with the square of the width, time in steps, as a device
computes several channels at once; just below a step much work is done for the time. The paper reads its sweet spots off
its curves. Here a width is one if its FLOPs-efficiency exceeds that of both neighbours measured by `MARGIN`, with the
whole interval of the ratio, and is at least `MIN_SHARE` of the greatest. The narrowest and the widest are not judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lpsnet.benchmark.timing import compare
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import DIFFERENCES, BlockTime, Case, block_run, block_times, engine_of
from lpsnet.studies.study import Known, Outcome, Report, Row, Run, Settings, Study

SIZE = (128, 128)
WIDTH = 32  # of Figure 4
STANDARD, SEPARABLE = "conv3x3", "sepconv3x3"
TITLES = {STANDARD: "standard", SEPARABLE: "separable"}
PAPER_MMACS_PER_MS = {STANDARD: 3987.0, SEPARABLE: 357.0}  # Figure 4 and Section 3.2, GTX 1070 Ti
GROUPS: Mapping[str, tuple[int, ...]] = {
    "a": tuple(range(1, 18)),  # Figure 5 (a): 1 to 17 by 1
    "b": tuple(range(8, 73, 8)),  # Figure 5 (b): 8 to 72 by 8
}
PAPER_SWEET_SPOTS = {"a": (8, 16), "b": (32, 64)}  # Section 3.2, GTX 1070 Ti
MARGIN = 1.05
MIN_SHARE = 1 / 3


def plan_types(settings: Settings, known: Known) -> list[Run]:
    """One run for every engine."""
    cases = (Case(STANDARD, WIDTH, SIZE), Case(SEPARABLE, WIDTH, SIZE))
    return [block_run("conv-types", cases, runtime, settings) for runtime in settings.runtimes]


def report_types(outcomes: Sequence[Outcome]) -> Report:
    """Two rows and a sentence for every engine."""
    found = [(engine_of(outcome), block_times(outcome.result)) for outcome in outcomes]
    rows = [_types_row(engine, time) for engine, times in found for time in times]
    findings = [_types_finding(engine, *times) for engine, times in found]
    return Report(tuple(rows), tuple(findings), partial(_draw_types, rows), figure_size=(9.0, 3.8))


def _types_row(engine: str, time: BlockTime) -> Row:
    title, paper = TITLES[time.case.block], PAPER_MMACS_PER_MS[time.case.block]
    return {"engine": engine, "convolution": title, **_time_columns(time), "paper_mmacs_per_ms": paper}


def _time_columns(time: BlockTime) -> Row:
    return {
        "mmacs": time.macs / 1e6,
        "median_ms": time.median_ms,
        "interval_low_ms": time.interval_ms[0],
        "interval_high_ms": time.interval_ms[1],
        "mean_ms": time.mean_ms,
        "mmacs_per_ms": time.mmacs_per_ms,
    }


def _types_finding(engine: str, standard: BlockTime, separable: BlockTime) -> str:
    ratio = standard.mmacs_per_ms / separable.mmacs_per_ms
    paper = PAPER_MMACS_PER_MS[STANDARD] / PAPER_MMACS_PER_MS[SEPARABLE]
    comparison = compare(separable.latency, standard.latency)
    low, high = comparison.interval
    paper_time = paper * separable.macs / standard.macs
    return (
        f"{engine}: the standard convolution does {ratio:.1f} times as many multiply-accumulates in a millisecond as "
        f"the separable one (paper: {paper:.1f}). {_VERDICTS[comparison.verdict]}: the separable one takes "
        f"{comparison.ratio:.2f} of the standard one's time, {low:.2f} to {high:.2f} (paper: {paper_time:.2f})."
    )


# by the verdict of comparing the separable convolution with the standard one
_VERDICTS = {
    "A faster": "It is slower nevertheless",
    "B faster": "It is faster too",
    "cannot tell apart": "Which one is faster is undecided",
}


def _draw_types(rows: Sequence[Row], figure: Any) -> None:
    """The paper's two bars, and beside them two for every engine; each panel has its own scale."""
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    left, right = figure.subplots(1, 2, width_ratios=(1, max(1, len(engines))))
    paper = [PAPER_MMACS_PER_MS[block] for block in TITLES]
    _bars(left, ["GTX 1070 Ti, TensorRT"], [paper], title="paper, Figure 4")
    found = [[row["mmacs_per_ms"] for row in rows if row["engine"] == engine] for engine in engines]
    _bars(right, engines, found, title="this device")
    left.set_ylabel("10⁶ multiply-accumulates / ms")
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle("3x3 convolution at 32x128x128: work done in a millisecond", fontsize="medium")


def _bars(axes: Any, groups: Sequence[str], heights: Sequence[Sequence[float]], *, title: str) -> None:
    tidy(axes)
    axes.grid(visible=False, axis="x")
    for number, (name, colour) in enumerate(zip(TITLES.values(), COLOURS, strict=False)):
        places = [place + (number - 0.5) * 0.38 for place in range(len(groups))]
        bars = axes.bar(places, [pair[number] for pair in heights], width=0.34, color=colour, label=name)
        axes.bar_label(bars, fmt=_short, padding=2, fontsize="small")
    axes.set_xticks(range(len(groups)), groups, fontsize="small")
    axes.set_title(title, fontsize="small", color=GREY)
    axes.margins(x=0.15, y=0.12)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class SweetSpots:
    """Sweet spots, in rising order, and widths that would be some by the median ratios but not beyond noise."""

    certain: tuple[int, ...]
    unclear: tuple[int, ...] = ()


def sweet_spots(times: Sequence[BlockTime]) -> SweetSpots:
    """The sweet spots among widths that were measured interleaved and are given in rising order."""
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
    """Efficiency of A over that of B: the interval's lower end (0 with too few rounds), and the median."""
    comparison = compare(a.latency, b.latency)  # of A's time divided by B's
    work = a.macs / b.macs
    least = work / comparison.interval[1] if comparison.confidence >= a.latency.confidence else 0.0
    return least, work / comparison.ratio


def in_words(widths: Sequence[int]) -> str:
    """`8 and 16`, `8`, or `none`."""
    *first, last = [str(width) for width in widths] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def plan_widths(settings: Settings, known: Known) -> list[Run]:
    """A run for both parts of the figure with every engine."""
    return [
        block_run(f"widths {group}", [Case("conv3x3", width, SIZE) for width in widths], runtime, settings)
        for runtime in settings.runtimes
        for group, widths in GROUPS.items()
    ]


def report_widths(outcomes: Sequence[Outcome]) -> Report:
    """A row for every width, and the sweet spots of every engine."""
    found: dict[str, dict[str, list[BlockTime]]] = {}
    for outcome in outcomes:
        group = str(outcome.key["measured"]).removeprefix("widths ")
        found.setdefault(engine_of(outcome), {})[group] = block_times(outcome.result)
    spots = {engine: {group: sweet_spots(times) for group, times in groups.items()} for engine, groups in found.items()}
    rows = [
        _width_row(engine, group, time, spots[engine][group])
        for engine, groups in found.items()
        for group, times in groups.items()
        for time in times
    ]
    findings = [
        f"Sweet spots of {engine} on this device: {'; '.join(_part(*each) for each in groups.items())}."
        for engine, groups in spots.items()
    ]
    return Report(tuple(rows), tuple(findings), partial(_draw, found, spots), figure_size=(10.5, 6.5))


def _width_row(engine: str, group: str, time: BlockTime, spots: SweetSpots) -> Row:
    width = time.case.width
    return {
        "engine": engine,
        "figure_5": group,
        "width": width,
        **_time_columns(time),
        "sweet_spot": "yes" if width in spots.certain else "perhaps" if width in spots.unclear else "",
        "paper_sweet_spot": "yes" if width in PAPER_SWEET_SPOTS[group] else "",
    }


def _part(group: str, found: SweetSpots) -> str:
    unclear = f", perhaps {in_words(found.unclear)}, which noise hides" if found.unclear else ""
    first, *_, last = GROUPS[group]
    paper = in_words(PAPER_SWEET_SPOTS[group])
    return f"{in_words(found.certain)} among {first} to {last}{unclear} (paper: {paper})"


Found = Mapping[str, Mapping[str, Sequence[BlockTime]]]
Spots = Mapping[str, Mapping[str, SweetSpots]]


def _draw(found: Found, spots: Spots, figure: Any) -> None:
    """Top: latency and work as in the paper's figure; bottom: their quotient with the sweet spots; left: (a)."""
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
    axes[1][0].plot([], [], "*", color="0.3", markersize=11, label="sweet spot of this device")
    axes[1][0].plot([], [], color=GREY, linewidth=6, alpha=0.3, label="sweet spot in the paper")
    axes[1][0].legend(frameon=False, fontsize="small", loc="upper left")
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


CONV_TYPES = Study(
    name="conv-types",
    title="Standard and depthwise separable convolution",
    reference="The paper's Figure 4: 3987 MFLOPs/ms for the standard and 357 for the separable 3x3 convolution at "
    "32x128x128, on a GTX 1070 Ti with TensorRT.",
    differences=DIFFERENCES,
    plan=plan_types,
    report=report_types,
)
WIDTHS = Study(
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
    plan=plan_widths,
    report=report_widths,
)
