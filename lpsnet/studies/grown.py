"""A network grown by `lpsnet expand` beside the paper's step of the nearest latency on this device; not in the paper.

The grown network (`--models`: its model file, or the family's folder) and the steps of Table 4 of about its size are
timed, interleaved. The grown network and the step of the nearest latency are then trained from scratch with the same
recipe and seeds.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.errors import RunError
from lpsnet.inference.model_file import read_record
from lpsnet.models.profile import complexity
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.expansion_steps import NUM_STEPS, networks
from lpsnet.studies.network_latency import StudyNetwork, Timed, first_times
from lpsnet.studies.network_training import data_of, differences, latencies, schedule_of, scores_of, training_runs
from lpsnet.studies.study import Json, Known, Outcome, Report, Row, Run, Settings, Study, of_kind, score_columns

GROWN = "grown"
NUM_TIMED = 7  # steps, those with the nearest number of multiplications; the rival is one of them
NUM_SEEDS = 3


def plan(settings: Settings, known: Known) -> list[Run]:
    """All latencies; then, once the step of the nearest latency is known, both trainings with every seed."""
    data = data_of(settings)
    record = read_record(_model(settings.models))
    grown = _network(GROWN, {name: getattr(record, name) for name in ("architecture", "block", "interaction")})
    candidates = [grown, *_as_large(grown, networks(NUM_STEPS["paper"]))]
    timing = latencies(candidates, settings)
    rival = _rival(known(timing), candidates)
    schedule = schedule_of(settings, data, halved=False)  # at the size that the network was grown for
    trainings = [
        schedule.training(network, seed=seed)
        for seed in range(settings.num_seeds or NUM_SEEDS)
        for network in (grown, rival)
    ]
    return [timing, *training_runs(trainings, known, settings.num_threads)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for the grown network and every step timed; scores of the two that were trained."""
    (timed,), trained = of_kind(outcomes, "timed"), of_kind(outcomes, "trained")
    times = first_times(timed)
    built = [_network(name, config) for name, config in timed.key["timed"].items()]
    rows = [_row(network, times[network.name], times[GROWN], trained) for network in built]
    return Report(tuple(rows), _findings(rows), partial(_draw, rows), (7.5, 4.6), differences(timed, trained))


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


def _network(name: str, config: Mapping[str, Json]) -> StudyNetwork:
    return StudyNetwork(name, get_architecture(config["architecture"]), config["block"], config["interaction"])


def _as_large(grown: StudyNetwork, steps: Sequence[StudyNetwork]) -> list[StudyNetwork]:
    """The `NUM_TIMED` steps with the nearest number of multiplications, in their order."""

    def macs(network: StudyNetwork) -> int:
        return complexity(network.architecture, block=network.block, interaction=network.interaction).macs

    nearest = sorted(steps, key=lambda it: abs(log(macs(it) / macs(grown))))[:NUM_TIMED]
    return [step for step in steps if step in nearest]


def _rival(timed: Mapping[str, Json] | None, candidates: Sequence[StudyNetwork]) -> StudyNetwork:
    """The step of the nearest latency; the last one as a placeholder until it is known."""
    if timed is None:
        return candidates[-1]
    medians = {row["name"]: median(row["turn_medians_ms"]) for row in timed["results"]}
    grown_ms = medians[GROWN]
    steps = [network for network in candidates if network.name in medians and network.name != GROWN]
    return min(steps, key=lambda network: abs(medians[network.name] - grown_ms))


def _row(network: StudyNetwork, time: Timed, grown: Timed, trained: Sequence[Outcome]) -> Row:
    scores, ratio = scores_of(trained, network), time.over(grown)
    return {
        "network": network.name,
        "architecture": str(network.architecture),
        "median_ms": time.median_ms,
        "times_grown": ratio.ratio,
        "times_grown_low": ratio.interval[0],
        "times_grown_high": ratio.interval[1],
        **score_columns(scores),
        "seeds": len(scores),
    }


def _findings(rows: Sequence[Row]) -> tuple[str, ...]:
    grown = next(row for row in rows if row["network"] == GROWN)
    rivals = [row for row in rows if row["network"] != GROWN and row["miou"] is not None]
    return tuple(_finding(grown, rival) for rival in rivals if grown["miou"] is not None)


def _finding(grown: Row, rival: Row) -> str:
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


def _draw(rows: Sequence[Row], figure: Any) -> None:
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


STUDY = Study(
    name="grown",
    title="A network grown here against the paper's of the same latency",
    reference="Section 3.4 grows networks on a GTX 1070 Ti; Table 4 lists them.",
    differences=("The paper makes no such comparison.",),
    plan=plan,
    report=report,
    options=frozenset(
        {"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs", "form", "models"}
    ),
)
