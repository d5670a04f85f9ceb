"""Tables 4, 6, 7 and Figure 7: the paper's networks, trained alike and timed on this device; and a grown one.

- `expansion`: the steps of the expansion (Table 4, Figure 7); `lpsnet expand` grows other networks, on this device.
- `generalisation`: LPS-Net-S, M and L on CamVid and BDD100K (Tables 6, 7), each with the recipe for that data set.
  Latencies at both sizes are always measured; networks are trained on those of the two data sets that are given.
- `grown`, not in the paper: the network that `lpsnet expand` grew (`--models`: its model file, or the family's folder)
  and the steps of Table 4 of about its size are timed, interleaved. The grown network and the step of the nearest
  latency are then trained from scratch with the same recipe and seeds.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.errors import RunError
from lpsnet.inference.model_file import read_record
from lpsnet.models.profile import complexity
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies import network_latency, network_training, study
from lpsnet.studies.comparison import OURS, TABLE_4, TABLE_6, TABLE_7, Published
from lpsnet.studies.network_latency import StudyNetwork, Timed, first_times
from lpsnet.studies.study import Json, Known, Outcome, Report, Row, Run, Scale, Settings

DIMENSIONS = dict(zip(("depth", "width", "resolution"), COLOURS, strict=False))  # the colour of a segment
NUM_STEPS: dict[Scale, int] = {"small": 11, "paper": 15}  # steps 0 to 10, and all


def networks(num_steps: int) -> list[StudyNetwork]:
    """The networks of Table 4."""
    return [StudyNetwork(f"step {step}", get_architecture(f"step_{step}")) for step in range(num_steps)]


def plan_expansion(settings: Settings, known: Known) -> list[Run]:
    """Latencies, then trainings, the smallest network first."""
    chosen = networks(NUM_STEPS[settings.scale])
    schedule = network_training.schedule_of(settings, network_training.data_of(settings))
    seeds = range(settings.num_seeds or 1)
    trainings = [schedule.training(network, seed=seed) for seed in seeds for network in chosen]
    timing = network_training.latencies(chosen, settings)
    return [timing, *network_training.training_runs(trainings, known, settings.num_threads)]


def report_expansion(outcomes: Sequence[Outcome]) -> Report:
    """A row a step."""
    (timed,), trained = study.of_kind(outcomes, "timed"), study.of_kind(outcomes, "trained")
    times = first_times(timed)
    rows = [
        _expansion_row(step, network, times.get(network.name), network_training.scores_of(trained, network))
        for step, network in enumerate(networks(len(timed.key["timed"])))
    ]
    differences = network_training.differences(timed, trained)
    return Report(tuple(rows), _expansion_findings(rows), partial(_draw_expansion, rows), (10.5, 4.6), differences)


def _expansion_row(step: int, network: StudyNetwork, time: Timed | None, scores: Sequence[float]) -> Row:
    paper = TABLE_4[step]
    return {
        "step": step,
        "name": paper.name,
        "architecture": str(network.architecture),
        "dimension": paper.dimension,
        **study.score_columns(scores),
        **network_latency.time_columns(time),
        "paper_miou": paper.miou,
        "paper_ms": paper.latency_ms,
    }


def _expansion_findings(rows: Sequence[Row]) -> tuple[str, ...]:
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


def _draw_expansion(rows: Sequence[Row], figure: Any) -> None:
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


EXPANSION = study.Study(
    name="expansion",
    title="The steps of the expansion",
    reference="The paper's Table 4 and Figure 7: 24.1 to 74.8 mIoU at 0.38 to 31.18 ms on a GTX 1070 Ti.",
    differences=("The networks are the paper's; they were not grown on this device.",),
    plan=plan_expansion,
    report=report_expansion,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table of the paper.

    Attributes:
        title: of the data set.
        size: (height, width) of its images in pixels (Section 4.1), at which latencies are measured.
        num_classes: of its labels.
        recipe: at paper scale.
        published: the table's rows.
    """

    title: str
    size: tuple[int, int]
    num_classes: int
    recipe: str
    published: tuple[Published, ...]


# kind of data set, as in `--data KIND:PATH` -> its table
TABLES: dict[str, DataTable] = {
    "camvid": DataTable("CamVid", (720, 960), 11, "paper_camvid", TABLE_6),
    "bdd100k": DataTable("BDD100K", (720, 1280), 19, "paper_bdd100k", TABLE_7),
}
OUR_NETWORKS = [StudyNetwork(title, get_architecture(name)) for title, name in OURS.items()]


def plan_generalisation(settings: Settings, known: Known) -> list[Run]:
    """Latencies at both sizes, then the trainings on the data given."""
    latencies = [
        network_latency.latency_run(OUR_NETWORKS, table.size, settings, num_classes=table.num_classes)
        for table in TABLES.values()
    ]
    trainings = []
    for data in settings.data:
        if (table := TABLES.get(data.partition(":")[0])) is None:
            raise RunError(f"this study trains on camvid:PATH and bdd100k:PATH; got {data!r}")
        schedule = network_training.schedule_of(settings, data, paper=table.recipe)
        for seed in range(settings.num_seeds or 1):
            trainings += [schedule.training(network, seed=seed) for network in OUR_NETWORKS]
    return [*latencies, *network_training.training_runs(trainings, known, settings.num_threads)]


def report_generalisation(outcomes: Sequence[Outcome]) -> Report:
    """A row for every network on every data set."""
    timed, trained = study.of_kind(outcomes, "timed"), study.of_kind(outcomes, "trained")
    rows, differences = [], [network_latency.describe_latency(timed[0])]
    for (kind, table), times in zip(TABLES.items(), timed, strict=True):
        own = [outcome for outcome in trained if outcome.key["trained"]["data"].partition(":")[0] == kind]
        rows += [_generalisation_row(table, network, times, own) for network in OUR_NETWORKS]
        if own:
            differences.append(network_training.describe_training(own[0].key["trained"], paper=table.recipe))
    findings, draw = _generalisation_findings(rows), partial(_draw_generalisation, rows)
    return Report(tuple(rows), findings, draw, (10.5, 4.6), tuple(differences))


def _generalisation_row(table: DataTable, network: StudyNetwork, timed: Outcome, trained: Sequence[Outcome]) -> Row:
    time = network_latency.first_times(timed).get(network.name)
    paper = next(row for row in table.published if row.method == network.name)
    return {
        "data": table.title,
        "network": network.name,
        "latency_size": "x".join(map(str, table.size)),
        **study.score_columns(network_training.scores_of(trained, network)),
        "median_ms": None if time is None else time.median_ms,
        "fps": None if time is None else 1000 / time.median_ms,
        "paper_miou": paper.miou_val if paper.miou_test is None else paper.miou_test,
        "paper_fps": paper.fps,
    }


def _generalisation_findings(rows: Sequence[Row]) -> tuple[str, ...]:
    findings = []
    for table in TABLES.values():
        own = [row for row in rows if row["data"] == table.title]
        scored = [row for row in own if row["miou"] is not None]
        if not scored:
            findings.append(f"{table.title}: not trained, no data was given or no training ended with a score.")
            continue
        order = " < ".join(row["network"] for row in sorted(scored, key=lambda row: row["miou"]))
        findings.append(f"{table.title}: {order} in mIoU (paper: LPS-Net-S < LPS-Net-M < LPS-Net-L).")
    return tuple(findings)


def _draw_generalisation(rows: Sequence[Row], figure: Any) -> None:
    names = [f"{row['data']}, {row['network'].removeprefix('LPS-Net-')}" for row in rows]
    panels = ("mIoU (%)", "miou", "paper_miou"), ("images a second", "fps", "paper_fps")
    study.draw_two(figure, rows, names, *panels, title="Tables 6 and 7: other data sets")


GENERALISATION = study.Study(
    name="generalisation",
    title="CamVid and BDD100K",
    reference="The paper's Tables 6 and 7: LPS-Net-S, M and L have 73.6, 75.1 and 76.5 mIoU on CamVid's test images "
    "and 55.9, 58.1 and 59.3 on BDD100K's validation images, on a GTX 1080 Ti with TensorRT.",
    differences=(
        "Scored on the split val of the data given; the paper scores CamVid on its test images.",
        "Networks start from random weights; the paper's start from ImageNet.",
    ),
    plan=plan_generalisation,
    report=report_generalisation,
    options=frozenset({"runtimes", "precision", "num_threads", "data", "num_seeds", "epochs"}),
)


GROWN = "grown"
NUM_TIMED = 7  # steps, those with the nearest number of multiplications; the rival is one of them
NUM_SEEDS = 3


def plan_grown(settings: Settings, known: Known) -> list[Run]:
    """All latencies; then, once the step of the nearest latency is known, both trainings with every seed."""
    data = network_training.data_of(settings)
    record = read_record(_model(settings.models))
    grown = _rebuilt(GROWN, {name: getattr(record, name) for name in ("architecture", "block", "interaction")})
    candidates = [grown, *_as_large(grown, networks(NUM_STEPS["paper"]))]
    timing = network_training.latencies(candidates, settings)
    rival = _rival(known(timing), candidates)
    schedule = network_training.schedule_of(settings, data, halved=False)  # at the size that the network was grown for
    trainings = [
        schedule.training(network, seed=seed)
        for seed in range(settings.num_seeds or NUM_SEEDS)
        for network in (grown, rival)
    ]
    return [timing, *network_training.training_runs(trainings, known, settings.num_threads)]


def report_grown(outcomes: Sequence[Outcome]) -> Report:
    """A row for the grown network and every step timed; scores of the two that were trained."""
    (timed,), trained = study.of_kind(outcomes, "timed"), study.of_kind(outcomes, "trained")
    times = first_times(timed)
    built = [_rebuilt(name, config) for name, config in timed.key["timed"].items()]
    rows = [_grown_row(network, times[network.name], times[GROWN], trained) for network in built]
    return Report(
        tuple(rows),
        _grown_findings(rows),
        partial(_draw_grown, rows),
        (7.5, 4.6),
        network_training.differences(timed, trained),
    )


def _model(path: Path | None) -> Path:
    """The model file given, or the last step's in the family's folder."""
    if path is None:
        raise RunError("study grown needs a network that was grown: --models FAMILY_FOLDER or a model file")
    if path.is_file():
        return path
    steps = {int(match[1]): it for it in path.glob("step_*.onnx") if (match := re.fullmatch(r"step_(\d+)", it.stem))}
    if not steps:
        raise RunError(f"{path} holds no step_N.onnx; give the folder 'family' of an expansion, or a model file")
    return steps[max(steps)]


def _rebuilt(name: str, config: Mapping[str, Json]) -> StudyNetwork:
    return StudyNetwork(name, get_architecture(config["architecture"]), config["block"], config["interaction"])


def _as_large(grown: StudyNetwork, steps: Sequence[StudyNetwork]) -> list[StudyNetwork]:
    """The `NUM_TIMED` steps with the nearest number of multiplications, in their order."""

    def macs(network: StudyNetwork) -> int:
        return complexity(network.architecture, block=network.block, interaction=network.interaction).macs

    nearest = sorted(steps, key=lambda it: abs(math.log(macs(it) / macs(grown))))[:NUM_TIMED]
    return [step for step in steps if step in nearest]


def _rival(timed: Mapping[str, Json] | None, candidates: Sequence[StudyNetwork]) -> StudyNetwork:
    """The step of the nearest latency; the last one as a placeholder until it is known."""
    if timed is None:
        return candidates[-1]
    medians = {row["name"]: median(row["turn_medians_ms"]) for row in timed["results"]}
    grown_ms = medians[GROWN]
    steps = [network for network in candidates if network.name in medians and network.name != GROWN]
    return min(steps, key=lambda network: abs(medians[network.name] - grown_ms))


def _grown_row(network: StudyNetwork, time: Timed, grown: Timed, trained: Sequence[Outcome]) -> Row:
    scores, ratio = network_training.scores_of(trained, network), time.over(grown)
    return {
        "network": network.name,
        "architecture": str(network.architecture),
        "median_ms": time.median_ms,
        "times_grown": ratio.ratio,
        "times_grown_low": ratio.interval[0],
        "times_grown_high": ratio.interval[1],
        **study.score_columns(scores),
        "seeds": len(scores),
    }


def _grown_findings(rows: Sequence[Row]) -> tuple[str, ...]:
    grown = next(row for row in rows if row["network"] == GROWN)
    rivals = [row for row in rows if row["network"] != GROWN and row["miou"] is not None]
    return tuple(_grown_finding(grown, rival) for rival in rivals if grown["miou"] is not None)


def _grown_finding(grown: Row, rival: Row) -> str:
    lead = grown["miou"] - rival["miou"]
    spreads = [row["miou_deviation"] for row in (grown, rival)]
    known = [spread for spread in spreads if spread is not None]
    sure = "" if len(known) < 2 else " more than" if abs(lead) > sum(known) else " not more than"
    against = f", which is{sure} both spreads over {grown['seeds']} seeds together" if sure else ", with one seed"
    order = "above" if lead > 0 else "below"
    return (
        f"The grown network has {grown['miou']:.2f} mIoU at {grown['median_ms']:.3g} ms, {abs(lead):.2f} {order} "
        f"{rival['network']} of the paper with {rival['miou']:.2f} at {rival['median_ms']:.3g} ms{against}. "
        f"That step takes {rival['times_grown']:.3f} times as long ({rival['times_grown_low']:.3f} to "
        f"{rival['times_grown_high']:.3f})."
    )


def _draw_grown(rows: Sequence[Row], figure: Any) -> None:
    """mIoU over latency of the trained networks; ticks for the latencies of the other steps."""
    axes = figure.subplots()
    tidy(axes)
    for row in (row for row in rows if row["miou"] is not None):
        colour = COLOURS[1] if row["network"] == GROWN else GREY
        axes.errorbar([row["median_ms"]], [row["miou"]], yerr=[row["miou_deviation"] or 0], fmt="o", color=colour)
        axes.annotate(row["network"], (row["median_ms"], row["miou"]), xytext=(6, 4), textcoords="offset points")
    others = [row["median_ms"] for row in rows if row["miou"] is None]
    bottom = axes.get_ylim()[0]
    axes.plot(others, [bottom] * len(others), "|", color="0.6", markersize=12)
    axes.set(xlabel="latency (ms); marks below: other steps of Table 4", ylabel="mIoU (%), mean and deviation")


GROWN_STUDY = study.Study(
    name="grown",
    title="A network grown here against the paper's of the same latency",
    reference="Section 3.4 grows networks on a GTX 1070 Ti; Table 4 lists them.",
    differences=("The paper makes no such comparison.",),
    plan=plan_grown,
    report=report_grown,
    options=frozenset(
        {"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs", "form", "models"}
    ),
)
