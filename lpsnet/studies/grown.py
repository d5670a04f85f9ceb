"""A grown network against the paper's step of the nearest latency: on this device, trained alike, measured in turn.

The paper compares its family with other people's networks; nothing in it says what growing on one's own device brings.
Here the network that `lpsnet expand` grew (`--models`: its model file, or the family's folder) is measured in turn with
the steps of Table 4 that are about as large. The one whose latency is nearest is trained with the same recipe, budget
and seeds, both from scratch: what the grown one learnt while it grew does not count.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError
from lpsnet.inference.model_file import read_record
from lpsnet.models.profile import complexity
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.expansion_steps import NUM_STEPS, networks
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
from lpsnet.studies.study import Json, Known, Outcome, Report, Row, Run, Settings, Spread, Study, of_kind

GROWN = "grown"
NUM_TIMED = 7  # of them, those with the nearest number of multiplications: the rival is among them
NUM_SEEDS = 3


def plan(settings: Settings, known: Known) -> list[Run]:
    """All latencies in turn; then, once it is known which step is nearest, both trainings with every seed."""
    data = data_of(settings)
    grown = StudyNetwork(GROWN, **_traits(_model(settings.models)))
    num_classes = open_dataset(data).label_space.num_classes
    candidates = [grown, *_as_large(grown, networks(NUM_STEPS["paper"]))]
    timing = latency_run(candidates, latency_size(settings, data), settings, num_classes=num_classes)
    rival = _rival(known(timing), candidates)
    # At the size that it was grown for
    schedule, threads = schedule_of(settings, data, halved=False), settings.num_threads
    trainings = [
        schedule.training(network, seed=seed)
        for seed in range(settings.num_seeds or NUM_SEEDS)
        for network in (grown, rival)
    ]
    paces = [pace_run(training, num_threads=threads) for training in trainings[:2]]
    return [timing, *paces, *(training_run(training, known, num_threads=threads) for training in trainings)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for the grown network and every step timed; scores of the two that were trained."""
    (timed,), trained = of_kind(outcomes, "timed"), of_kind(outcomes, "trained")
    times = by_name(times_of(timed), timed.key["runtimes"][0])
    built = {name: StudyNetwork(name, **_restored(traits)) for name, traits in timed.key["timed"].items()}
    rows = [_row(network, times[network.name], times[GROWN], trained) for network in built.values()]
    differences = (describe_training(trained[0].key["trained"]), describe_latency(timed))
    return Report(tuple(rows), _findings(rows), partial(_draw, rows), (7.5, 4.6), differences)


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


def _traits(model: Path) -> dict[str, Any]:
    record = read_record(model)
    return {"architecture": record.architecture, "block": record.block, "interaction": record.interaction}


def _restored(traits: Mapping[str, Json]) -> dict[str, Any]:
    return {**traits, "architecture": get_architecture(traits["architecture"])}


def _as_large(grown: StudyNetwork, steps: Sequence[StudyNetwork]) -> list[StudyNetwork]:
    """Those with the nearest number of multiplications, in the order of the steps."""

    def macs(network: StudyNetwork) -> int:
        return complexity(network.architecture, block=network.block, interaction=network.interaction).macs

    nearest = sorted(steps, key=lambda it: abs(log(macs(it) / macs(grown))))[:NUM_TIMED]
    return [step for step in steps if step in nearest]


def _rival(timed: Mapping[str, Json] | None, candidates: Sequence[StudyNetwork]) -> StudyNetwork:
    """The step of the nearest latency; until it is known, the last one stands for it."""
    if timed is None:
        return candidates[-1]
    medians = {row["name"]: median(row["turn_medians_ms"]) for row in timed["results"]}
    grown_ms = medians[GROWN]
    steps = [network for network in candidates if network.name in medians and network.name != GROWN]
    return min(steps, key=lambda network: abs(medians[network.name] - grown_ms))


def _row(network: StudyNetwork, time: Timed, grown: Timed, trained: Sequence[Outcome]) -> Row:
    scores = scores_of(trained, network)
    spread = Spread(tuple(scores)) if scores else None
    ratio = time.over(grown)
    return {
        "network": network.name,
        "architecture": str(network.architecture),
        "median_ms": time.median_ms,
        "times_grown": ratio.ratio,
        "times_grown_low": ratio.interval[0],
        "times_grown_high": ratio.interval[1],
        "miou": None if spread is None else spread.mean,
        "miou_deviation": None if spread is None else spread.deviation,
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
    """mIoU over latency of the trained ones; the latencies of the other steps as ticks below."""
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
