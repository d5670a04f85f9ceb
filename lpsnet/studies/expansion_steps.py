"""Table 4 and Figure 7: the networks of the paper's expansion, trained alike, with latencies of this device.

The paper's networks as they are; `lpsnet expand` grows others on this device.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.report.figures import COLOURS, tidy
from lpsnet.studies.network_latency import StudyNetwork, Timed, by_name, describe_latency, latency_run, times_of
from lpsnet.studies.network_training import (
    data_of,
    describe_training,
    latency_size,
    pace_run,
    schedule_of,
    scores_of,
    training_run,
)
from lpsnet.studies.published import TABLE_4
from lpsnet.studies.study import (
    Known,
    Outcome,
    Report,
    Row,
    Run,
    Scale,
    Settings,
    Spread,
    Study,
    of_kind,
    rank_correlation,
)

DIMENSIONS = dict(zip(("depth", "width", "resolution"), COLOURS, strict=False))  # the colour of a segment
NUM_STEPS: dict[Scale, int] = {"small": 11, "paper": 15}  # steps 0 to 10, and all


def networks(num_steps: int) -> list[StudyNetwork]:
    """The networks of Table 4."""
    return [StudyNetwork(f"step {step}", get_architecture(f"step_{step}")) for step in range(num_steps)]


def plan(settings: Settings, known: Known) -> list[Run]:
    """Latencies in turn, how fast each trains, trainings; the smallest network first."""
    data = data_of(settings)
    num_classes = open_dataset(data).label_space.num_classes
    chosen = networks(NUM_STEPS[settings.scale])
    schedule = schedule_of(settings, data)
    seeds = range(settings.num_seeds or 1)
    trainings = [schedule.training(network, seed=seed) for seed in seeds for network in chosen]
    return [
        latency_run(chosen, latency_size(settings, data), settings, num_classes=num_classes),
        *(pace_run(training, num_threads=settings.num_threads) for training in trainings[: len(chosen)]),
        *(training_run(training, known, num_threads=settings.num_threads) for training in trainings),
    ]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row a step."""
    (timed,), trained = of_kind(outcomes, "timed"), of_kind(outcomes, "trained")
    times = by_name(times_of(timed), timed.key["runtimes"][0])
    rows = [
        _row(step, network, times.get(network.name), scores_of(trained, network))
        for step, network in enumerate(networks(len(timed.key["timed"])))
    ]
    differences = (describe_training(trained[0].key["trained"]), describe_latency(timed))
    return Report(tuple(rows), _findings(rows), partial(_draw, rows), (10.5, 4.6), differences)


def _row(step: int, network: StudyNetwork, time: Timed | None, scores: Sequence[float]) -> Row:
    spread, paper = Spread(tuple(scores)) if scores else None, TABLE_4[step]
    return {
        "step": step,
        "name": paper.name,
        "architecture": str(network.architecture),
        "dimension": paper.dimension,
        "miou": None if spread is None else spread.mean,
        "miou_deviation": None if spread is None else spread.deviation,
        "median_ms": None if time is None else time.median_ms,
        "interval_low_ms": None if time is None else time.interval_ms[0],
        "interval_high_ms": None if time is None else time.interval_ms[1],
        "paper_miou": paper.miou,
        "paper_ms": paper.latency_ms,
    }


def _findings(rows: Sequence[Row]) -> tuple[str, ...]:
    findings = []
    for figure, paper, title in (("miou", "paper_miou", "mIoU"), ("median_ms", "paper_ms", "latency")):
        known = [row for row in rows if row[figure] is not None]
        correlation = rank_correlation([row[figure] for row in known], [row[paper] for row in known])
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
    figure.legend(*_key(right), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.suptitle("Figure 7: the steps of the expansion", fontsize="medium")


def _curve(axes: Any, points: Sequence[tuple[float, float, Row]], title: str) -> None:
    tidy(axes)
    for before, after in pairwise(points):
        colour = DIMENSIONS[after[2]["dimension"]]
        axes.plot([before[0], after[0]], [before[1], after[1]], "-", color=colour, linewidth=2)
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", color="0.2", markersize=4)
    for latency, miou, row in points:
        text = str(row["name"]).removeprefix("LPS-Net-") or str(row["step"])
        weight = "bold" if row["name"] else "normal"
        axes.annotate(
            text, (latency, miou), xytext=(4, -9), textcoords="offset points", fontsize="small", weight=weight
        )
    axes.set(xlabel="latency (ms)", ylabel="mIoU (%)", xlim=(0, None))
    axes.set_title(title, fontsize="small", color="0.35")


def _key(axes: Any) -> tuple[list[Any], list[str]]:
    lines = [axes.plot([], [], "-", color=colour, linewidth=2)[0] for colour in DIMENSIONS.values()]
    return lines, list(DIMENSIONS)


STUDY = Study(
    name="expansion",
    title="The steps of the expansion",
    reference="The paper's Table 4 and Figure 7: 24.1 to 74.8 mIoU at 0.38 to 31.18 ms on a GTX 1070 Ti.",
    differences=("The networks are the paper's; they were not grown on this device.",),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)
