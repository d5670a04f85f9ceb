"""Table 4 and Figure 7: the networks of the paper's expansion, trained alike and timed on this device.

`lpsnet expand` grows other networks, on this device.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.report.figures import COLOURS, tidy
from lpsnet.studies import network_training, study
from lpsnet.studies.network_latency import StudyNetwork, Timed, first_times, time_columns
from lpsnet.studies.published import TABLE_4
from lpsnet.studies.study import Known, Outcome, Report, Row, Run, Scale, Settings

DIMENSIONS = dict(zip(("depth", "width", "resolution"), COLOURS, strict=False))  # the colour of a segment
NUM_STEPS: dict[Scale, int] = {"small": 11, "paper": 15}  # steps 0 to 10, and all


def networks(num_steps: int) -> list[StudyNetwork]:
    """The networks of Table 4."""
    return [StudyNetwork(f"step {step}", get_architecture(f"step_{step}")) for step in range(num_steps)]


def plan(settings: Settings, known: Known) -> list[Run]:
    """Latencies, then trainings, the smallest network first."""
    chosen = networks(NUM_STEPS[settings.scale])
    schedule = network_training.schedule_of(settings, network_training.data_of(settings))
    seeds = range(settings.num_seeds or 1)
    trainings = [schedule.training(network, seed=seed) for seed in seeds for network in chosen]
    timing = network_training.latencies(chosen, settings)
    return [timing, *network_training.training_runs(trainings, known, settings.num_threads)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row a step."""
    (timed,), trained = study.of_kind(outcomes, "timed"), study.of_kind(outcomes, "trained")
    times = first_times(timed)
    rows = [
        _row(step, network, times.get(network.name), network_training.scores_of(trained, network))
        for step, network in enumerate(networks(len(timed.key["timed"])))
    ]
    differences = network_training.differences(timed, trained)
    return Report(tuple(rows), _findings(rows), partial(_draw, rows), (10.5, 4.6), differences)


def _row(step: int, network: StudyNetwork, time: Timed | None, scores: Sequence[float]) -> Row:
    paper = TABLE_4[step]
    return {
        "step": step,
        "name": paper.name,
        "architecture": str(network.architecture),
        "dimension": paper.dimension,
        **study.score_columns(scores),
        **time_columns(time),
        "paper_miou": paper.miou,
        "paper_ms": paper.latency_ms,
    }


def _findings(rows: Sequence[Row]) -> tuple[str, ...]:
    findings = []
    for figure, paper, title in (("miou", "paper_miou", "mIoU"), ("median_ms", "paper_ms", "latency")):
        known = [row for row in rows if row[figure] is not None]
        correlation = study.rank_correlation([row[figure] for row in known], [row[paper] for row in known])
        if correlation is not None:
            findings.append(f"Rank correlation of {title} with Table 4, {len(known)} steps: {correlation:.2f}.")
    falls = [
        f"step {after['step']}"
        for before, after in pairwise(rows)
        if None not in (before["miou"], after["miou"]) and after["miou"] < before["miou"]
    ]
    findings.append(f"Steps with a lower mIoU than the one before: {', '.join(falls) or 'none'} (Table 4: none).")
    return tuple(findings)


def _draw(rows: Sequence[Row], figure: Any) -> None:
    """Figure 7 twice: as published, and here; each with its own scale of milliseconds."""
    left, right = figure.subplots(1, 2)
    _curve(left, [(row["paper_ms"], row["paper_miou"], row) for row in rows], "paper: GTX 1070 Ti, TensorRT")
    here = [(r["median_ms"], r["miou"], r) for r in rows if None not in (r["median_ms"], r["miou"])]
    _curve(right, here, "here")
    lines = [right.plot([], [], "-", color=colour, linewidth=2)[0] for colour in DIMENSIONS.values()]
    figure.legend(lines, list(DIMENSIONS), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.suptitle("Figure 7: the steps of the expansion", fontsize="medium")


def _curve(axes: Any, points: Sequence[tuple[float, float, Row]], title: str) -> None:
    tidy(axes)
    for before, after in pairwise(points):
        colour = DIMENSIONS[after[2]["dimension"]]
        axes.plot([before[0], after[0]], [before[1], after[1]], "-", color=colour, linewidth=2)
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", color="0.2", markersize=4)
    for latency, miou, row in points:
        text = str(row["name"]).removeprefix("LPS-Net-") or str(row["step"])
        font = {"fontsize": "small", "weight": "bold" if row["name"] else "normal"}
        axes.annotate(text, (latency, miou), xytext=(4, -9), textcoords="offset points", **font)
    axes.set(xlabel="latency (ms)", ylabel="mIoU (%)", xlim=(0, None))
    axes.set_title(title, fontsize="small", color="0.35")


STUDY = study.Study(
    name="expansion",
    title="The steps of the expansion",
    reference="The paper's Table 4 and Figure 7: 24.1 to 74.8 mIoU at 0.38 to 31.18 ms on a GTX 1070 Ti.",
    differences=("The networks are the paper's; they were not grown on this device.",),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)
