"""Tables 4, 6, 7 and Figures 7, 8: the paper's networks, trained alike and timed on this device; and a grown one.

- `expansion`: the steps of the expansion (Table 4, Figure 7); `lpsnet expand` grows other networks, on this device.
- `generalisation`: LPS-Net-S, M and L on CamVid and BDD100K (Tables 6, 7), each with the recipe for that data set.
  Latencies at both sizes are always measured; networks are trained on those of the two data sets that are given.
- `grown`, not in the paper: the network that `lpsnet expand` grew (`--models`: its model file, or the family's folder)
  and the steps of Table 4 of about its size are timed, interleaved. The grown network and the step of the nearest
  latency are then trained from scratch with the same recipe and seeds.
- `qualitative`: label maps of S, M and L side by side, with boxes where a larger network corrects the smallest (Figure
  8). The networks are the user's files (`--models`, named after the networks), or are trained as in `expansion`, whose
  trainings are reused if both studies share a folder.
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

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.architecture import get_architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.data.images import read_image, write_png
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import Sample, Split, select
from lpsnet.errors import RunError, unknown_name
from lpsnet.inference.model_file import read_record
from lpsnet.inference.result import colourise
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.profile import complexity
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies import network_latency, network_training, study
from lpsnet.studies.comparison import OURS, TABLE_4, TABLE_6, TABLE_7, Published
from lpsnet.studies.network_latency import StudyNetwork, Timed, first_times
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Scale, Settings

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


Labels = NDArray[np.uint8]  # H x W class ids, 255 for no label
Box = tuple[int, int, int, int]  # top, left, height, width in pixels

NUM_BOXES = 3
MIN_SHARE = 5e-4  # of the image; smaller regions are not shown
MARGIN = 2  # pixels around a box
NUM_SHOWN = 3  # images, as in Figure 8
NUM_LOOKED_AT = 60  # images of val that they are chosen from
SHOWN = {name: StudyNetwork(title, get_architecture(name)) for title, name in OURS.items()}
SMALLEST, LARGEST = next(iter(SHOWN)), list(SHOWN)[-1]


def corrected_regions(before: Labels, after: Labels, truth: Labels) -> list[Box]:
    """Boxes around the largest connected regions that `after` has right and `before` wrong, largest first.

    All maps are H x W uint8 class ids, 255 for no label.
    """
    found = _regions(before, after, truth)
    large = [region for region in found if region[0] >= MIN_SHARE * truth.size]
    return [_widened(box, truth.shape) for _, box in large[:NUM_BOXES]]


def largest_gain(before: Labels, after: Labels, truth: Labels) -> int:
    """Pixels of the largest region that `after` has right and `before` wrong; 0 without any."""
    found = _regions(before, after, truth)
    return found[0][0] if found else 0


def accuracy(labels: Labels, truth: Labels) -> float:
    """Correct share of the labelled pixels in percent; 0 if none is labelled."""
    known = truth != IGNORE_INDEX
    return 100 * float((labels == truth)[known].mean()) if known.any() else 0.0


def _regions(before: Labels, after: Labels, truth: Labels) -> list[tuple[int, Box]]:
    """(pixels, box) of all regions that `after` has right and `before` wrong, largest first."""
    better = (after == truth) & (before != truth) & (truth != IGNORE_INDEX)
    count, _, stats, _ = cv2.connectedComponentsWithStats(better.astype(np.uint8), connectivity=8)
    boxes = [tuple(map(int, stats[number])) for number in range(1, count)]  # 0 is everything else
    regions = [(area, (top, left, height, width)) for left, top, width, height, area in boxes]
    return sorted(regions, key=lambda region: -region[0])


def _widened(box: Box, shape: tuple[int, ...]) -> Box:
    top, left, height, width = box
    first_row, first_column = max(0, top - MARGIN), max(0, left - MARGIN)
    end_row, end_column = min(shape[0], top + height + MARGIN), min(shape[1], left + width + MARGIN)
    return first_row, first_column, end_row - first_row, end_column - first_column


def plan_qualitative(settings: Settings, known: Known) -> list[Run]:
    """Trainings, unless files are given; then the images."""
    data = network_training.data_of(settings)
    if settings.models is not None:
        files = _named_files(settings.models)
        return [_image_run(data, settings, files, [network_latency.fingerprint(file) for file in files.values()])]
    schedule = network_training.schedule_of(settings, data)
    runs = network_training.training_runs(
        [schedule.training(network) for network in SHOWN.values()], known, settings.num_threads
    )
    trained = runs[-len(SHOWN) :]
    folders = {name: run.slug for name, run in zip(SHOWN, trained, strict=True)}
    return [*runs, _image_run(data, settings, folders, [run.key for run in trained])]


def _named_files(models: Path) -> dict[str, Path]:
    """The files of S, M and L, recognised by the start of their names."""
    files = network_latency.model_files(models)
    found = {name: [file for file in files if file.stem.startswith(name)] for name in SHOWN}
    if missing := [name for name, own in found.items() if not own]:
        raise RunError(
            f"no model file in {models} has a name that begins with {missing[0]}; this study shows all three"
        )
    return {name: own[0] for name, own in found.items()}


def _image_run(data: str, settings: Settings, models: Mapping[str, str | Path], key: Json) -> Run:
    """A run that segments images; `models` are files, or names of the trainings' folders."""

    def work(place: Place) -> dict[str, Json]:
        files = {
            name: model if isinstance(model, Path) else place.folder.parent / model / "model.safetensors"
            for name, model in models.items()
        }
        segmenters = {name: Segmenter(file, num_threads=settings.num_threads) for name, file in files.items()}
        split = open_dataset(data).split("val")
        return _segment(segmenters, split, settings.pictures, place)

    return Run({"shown": list(settings.pictures), "data": data, "models": key}, work, portable=True, seconds=60.0)


def _segment(segmenters: Mapping[str, Segmenter], split: Split, names: Sequence[str], place: Place) -> dict[str, Json]:
    indices = [_index(split, name) for name in names] or _choose(segmenters, split, place)
    place.folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number, index in enumerate(indices):
        sample = split[index]
        labels = {name: segmenter(sample.image) for name, segmenter in segmenters.items()}
        maps = {"truth": sample.labels, **labels}
        panels = {"picture": sample.image, **{name: colourise(own, split.label_space) for name, own in maps.items()}}
        for name, panel in panels.items():
            write_png(place.folder / f"{number}_{name}.png", panel)
        images.append(_figures(sample, labels))
    return {"pictures": images, "chosen": not names}


def _figures(sample: Sample, labels: Mapping[str, NDArray[np.uint8]]) -> dict[str, Json]:
    smallest, truth = labels[SMALLEST], sample.labels
    return {
        "name": sample.name,
        "aspect": truth.shape[0] / truth.shape[1],
        "accuracy": {name: accuracy(own, truth) for name, own in labels.items()},
        "regions": {name: corrected_regions(smallest, labels[name], truth) for name in labels if name != SMALLEST},
    }


def _index(split: Split, name: str) -> int:
    if name not in split.names:
        raise RunError(f"{unknown_name('image', name, split.names)}, in split {split.name!r}")
    return list(split.names).index(name)


def _choose(segmenters: Mapping[str, Segmenter], split: Split, place: Place) -> list[int]:
    """Images on which the largest network corrects the largest regions of the smallest network."""
    some = select(split, NUM_LOOKED_AT)
    gains = []
    for number in range(len(some)):
        place.on_progress("choosing images", number / len(some))
        image, truth = some.image(number), some.labels(number)
        gains.append(largest_gain(segmenters[SMALLEST](image), segmenters[LARGEST](image), truth))
    best = sorted(range(len(some)), key=lambda number: -gains[number])[:NUM_SHOWN]
    return [_index(split, some.names[number]) for number in sorted(best)]


def report_qualitative(outcomes: Sequence[Outcome]) -> Report:
    """A row for every image."""
    (shown,), trained = study.of_kind(outcomes, "shown"), study.of_kind(outcomes, "trained")
    images = shown.result["pictures"]
    rows: list[Row] = [
        {
            "picture": image["name"],
            **{f"{name}_accuracy": image["accuracy"][name] for name in SHOWN},
            **{f"{name}_boxes": len(boxes) for name, boxes in image["regions"].items()},
        }
        for image in images
    ]
    choice = (
        f"The images are those of up to {NUM_LOOKED_AT} of val, spread evenly, on which L corrects the largest "
        "region of S: a choice in favour of L. The paper does not say how it chose its own."
    )
    differences = [choice] if shown.result["chosen"] else []
    differences += [network_training.describe_training(each.key["trained"]) for each in trained[:1]]
    height = 13.0 / (2 + len(SHOWN)) * images[0]["aspect"] if images else 0.0
    size = (13.0, 0.6 + len(images) * height)
    draw = partial(_draw_qualitative, images, shown.folder)
    return Report(tuple(rows), tuple(map(_qualitative_finding, rows)), draw, size, tuple(differences))


def _qualitative_finding(row: Row) -> str:
    each = ", ".join(f"{SHOWN[name].name} {row[f'{name}_accuracy']:.1f} %" for name in SHOWN)
    return f"{row['picture']}: pixels right {each}."


def _draw_qualitative(images: Sequence[Mapping[str, Json]], folder: Path, figure: Any) -> None:
    titles = {"picture": "image", "truth": "ground truth", **{name: n.name for name, n in SHOWN.items()}}
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    for number, (image, row) in enumerate(zip(images, grid, strict=True)):
        for (name, title), axes in zip(titles.items(), row, strict=True):
            axes.imshow(read_image(folder / f"{number}_{name}.png"))
            axes.set_axis_off()
            axes.autoscale(enable=False)  # boxes at the border must not enlarge the axes
            if number == 0:
                axes.set_title(title, fontsize="small")
            for top, left, height, width in image["regions"].get(name, []):
                _box(axes, top, left, height, width)


def _box(axes: Any, top: int, left: int, height: int, width: int) -> None:
    x, y = [left, left + width, left + width, left, left], [top, top, top + height, top + height, top]
    for colour, linewidth in (("white", 2.4), ("red", 1.2)):  # to be seen on red labels too
        axes.plot(x, y, "-", color=colour, linewidth=linewidth)


QUALITATIVE = study.Study(
    name="qualitative",
    title="What S, M and L see",
    reference="The paper's Figure 8: three images of Cityscapes on which the larger networks see poles, cars and "
    "walls that the smaller ones miss.",
    differences=("Boxes are drawn by rule: around the largest regions where S is wrong and the larger network right.",),
    plan=plan_qualitative,
    report=report_qualitative,
    options=frozenset({"data", "epochs", "num_threads", "models", "pictures"}),
)
