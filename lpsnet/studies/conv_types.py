"""Figure 4: standard and depthwise separable 3x3 convolution at 32x128x128, and what each does with its time.

The separable one does a seventh of the multiply-accumulates. On the paper's GPU it does so few of them in a millisecond
that it is slower all the same, which is why the paper builds its networks of standard convolutions.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lpsnet.benchmark.timing import compare
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.block_timing import DIFFERENCES, BlockTime, Case, block_run, block_times, engine_of
from lpsnet.studies.study import Known, Outcome, Report, Row, Run, Settings, Study

WIDTH, SIZE = 32, (128, 128)
STANDARD, SEPARABLE = "conv3x3", "sepconv3x3"
TITLES = {STANDARD: "standard", SEPARABLE: "separable"}
PAPER_MMACS_PER_MS = {STANDARD: 3987.0, SEPARABLE: 357.0}  # Figure 4 and Section 3.2, GTX 1070 Ti


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run for every engine: both convolutions in turn."""
    cases = (Case(STANDARD, WIDTH, SIZE), Case(SEPARABLE, WIDTH, SIZE))
    return [block_run("conv-types", cases, runtime, settings) for runtime in settings.runtimes]


def report(outcomes: Sequence[Outcome]) -> Report:
    """Two rows and a sentence for every engine."""
    found = [(engine_of(outcome), block_times(outcome.result)) for outcome in outcomes]
    rows = [_row(engine, time) for engine, times in found for time in times]
    findings = [_finding(engine, *times) for engine, times in found]
    return Report(tuple(rows), tuple(findings), partial(_draw, rows), figure_size=(9.0, 3.8))


def _row(engine: str, time: BlockTime) -> Row:
    low, high = time.interval_ms
    return {
        "engine": engine,
        "convolution": TITLES[time.case.block],
        "mmacs": time.macs / 1e6,
        "median_ms": time.median_ms,
        "interval_low_ms": low,
        "interval_high_ms": high,
        "mean_ms": time.mean_ms,
        "mmacs_per_ms": time.mmacs_per_ms,
        "paper_mmacs_per_ms": PAPER_MMACS_PER_MS[time.case.block],
    }


def _finding(engine: str, standard: BlockTime, separable: BlockTime) -> str:
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


# of comparing the separable convolution with the standard one
_VERDICTS = {
    "A faster": "It is slower nevertheless",
    "B faster": "It is faster too",
    "cannot tell apart": "Which one is faster cannot be told",
}


def _draw(rows: Sequence[Row], figure: Any) -> None:
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


STUDY = Study(
    name="conv-types",
    title="Standard and depthwise separable convolution",
    reference="The paper's Figure 4: 3987 MFLOPs/ms for the standard and 357 for the separable 3x3 convolution at "
    "32x128x128, on a GTX 1070 Ti with TensorRT.",
    differences=DIFFERENCES,
    plan=plan,
    report=report,
)
