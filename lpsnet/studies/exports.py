"""Exported files beside the network: `exports` compares outputs, `precisions` latency and mIoU; not in the paper.

`exports`, for every format and several sizes, on real images: a file's labels and logits beside torch's, and a
Segmenter's labels beside the reference way (normalised, resized, upsampled and argmax in float32 by torch).
`precisions`: one trained network in every precision of its engines; all files are made of one, timed interleaved, and
scored on the same images.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lpsnet.benchmark.benchmark import Benchmark, Candidate, Result, benchmark
from lpsnet.benchmark.timing import compare
from lpsnet.data.dataset import open_dataset
from lpsnet.data.images import Image, read_image
from lpsnet.data.split import Images, select
from lpsnet.errors import RunError
from lpsnet.export.export import QUANTISERS, checkpoint_for_runtime, export, quantise_file
from lpsnet.export.quantise import Quantisation
from lpsnet.export.verify import ODD_SIZES, Bounds, verify
from lpsnet.inference.engines import PRECISIONS, SessionOptions, open_session
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.any_network import Model
from lpsnet.models.checkpoint import default_record, load_checkpoint
from lpsnet.models.network import create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord
from lpsnet.report.charts import COLOURS, tidy
from lpsnet.studies.end_to_end import reference_segmenter
from lpsnet.studies.network_latency import fingerprint, input_size, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study

Size = tuple[int, int]

SIZES: tuple[Size, ...] = ((360, 480), (720, 960), (1024, 2048), ODD_SIZES[-1])
FORMATS = {"onnx": ("onnxruntime", ".onnx"), "openvino": ("openvino", ".openvino"), "ncnn": ("ncnn", ".ncnn")}
NUM_IMAGES = 4
_ANY = Bounds(score_difference=np.inf, label_agreement=0.0)  # differences are shown, not judged


def plan_exports(settings: Settings, known: Known) -> list[Run]:
    """A run a format."""
    files = model_files(settings.models)
    if len(files) > 1 or any(file.suffix.lower() != ".safetensors" for file in files):
        raise RunError("study exports takes one checkpoint (.safetensors): --models FILE")
    if len(settings.data) > 1:
        raise RunError("study exports takes the images of one data set: --data D")
    shared = {
        "file": [fingerprint(file) for file in files],
        "data": list(settings.data),
        "pictures": list(settings.pictures),
        "sizes": [list(size) for size in SIZES],
        "num_threads": settings.num_threads,
    }
    return [
        Run({"exported": name, **shared}, partial(_compare_exports, settings, name), seconds=30.0) for name in FORMATS
    ]


def _compare_exports(settings: Settings, name: str, place: Place) -> dict[str, Json]:
    runtime, suffix = FORMATS[name]
    net, record = _network(settings)
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        path = Path(folder) / f"model{suffix}"
        place.on_progress(f"{name}: writing", 0.0)
        export(net, path, to=name, record=record)
        session = open_session(runtime, SessionOptions(path, num_threads=settings.num_threads))
        rows, images = [], _images(settings)
        for number, size in enumerate(SIZES):
            place.on_progress(f"{name}: {size[0]}x{size[1]}", number / len(SIZES))
            checks = verify(net, session, record=record, sizes=[size], images=images, bounds=_ANY)
            real = [check for check in checks if check.image.startswith("image")]
            segment = Segmenter(path, runtime=runtime, input_size=size, num_threads=settings.num_threads)
            rows.append(
                {
                    "format": name,
                    "engine": session.engine,
                    "size": f"{size[0]}x{size[1]}",
                    "pictures": len(real),
                    "least_same_label_percent": min(check.label_agreement for check in real),
                    "scores_differ_by": max(check.score_difference for check in real),
                    "segmenter_least_same_label_percent": min(_agreement(segment, net, record, size, images)),
                }
            )
    return {"rows": rows}


def _network(settings: Settings) -> tuple[Model, ModelRecord]:
    """The checkpoint's, or LPS-Net-S with random weights; deployed."""
    for file in model_files(settings.models):
        return fuse(load_checkpoint(file)), read_record(file).model_copy(update={"input_size": None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = create_model("lpsnet_s")
    return fuse(net), default_record(net)


def _images(settings: Settings) -> list[Image]:
    """Files named by `--picture`, and images of a data set, or of generated scenes where there is neither."""
    found = [read_image(Path(name)) for name in settings.pictures]
    if found and not settings.data:
        return found
    split = select(open_dataset(settings.data[0] if settings.data else "scenes").split("val"), NUM_IMAGES)
    return [*found, *(split.image(index) for index in range(len(split)))]


def _agreement(segment: Segmenter, net: Model, record: ModelRecord, size: Size, images: Sequence[Image]) -> list[float]:
    reference = reference_segmenter(net, record, input_size=size)

    return [100 * float((np.asarray(segment(image)) == reference(image)).mean()) for image in images]


def report_exports(outcomes: Sequence[Outcome]) -> Report:
    """A row for each format and size."""
    rows = tuple(row for outcome in outcomes for row in outcome.result["rows"])
    findings = tuple(_exports_finding(outcome.result["rows"]) for outcome in outcomes)
    return Report(rows, findings, partial(_draw_exports, rows), (7.0, 4.0))


def _exports_finding(rows: Sequence[Row]) -> str:
    least = min(row["least_same_label_percent"] for row in rows)
    fast = min(row["segmenter_least_same_label_percent"] for row in rows)
    return (
        f"{rows[0]['format']}: at least {least:.4f} % of an image's labels are the network's own, at any of "
        f"{len(rows)} sizes; with the Segmenter, compared with the reference way, {fast:.4f} %."
    )


def _draw_exports(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    for number, name in enumerate(FORMATS):
        own = [row for row in rows if row["format"] == name]
        places = [sizes.index(row["size"]) + 0.2 * (number - 1) for row in own]
        differing = [100 - row["least_same_label_percent"] for row in own]
        bars = axes.bar(places, differing, width=0.18, color=COLOURS[number], label=name)
        axes.bar_label(bars, fmt="%.4f", fontsize="x-small")
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_ylabel("labels that differ from torch's, %, worst image")
    axes.legend(frameon=False)


EXPORTS = Study(
    name="exports",
    title="Exported files beside the network",
    reference="Not in the paper.",
    differences=("One file for any size a format, f32, on images brought to each size.",),
    plan=plan_exports,
    report=report_exports,
    options=frozenset({"num_threads", "data", "models", "pictures"}),
)


NUM_CALIBRATED = 100
PROTOCOL = "adaptive"
USUAL_SIZE = (360, 480)  # of a model without an input size in its record


def plan_precisions(settings: Settings, known: Known) -> list[Run]:
    """One run: all precisions, interleaved."""
    files = model_files(settings.models)
    if len(files) != 1 or len(settings.data) != 1:
        raise RunError("study precisions takes one trained model, --models FILE, and its data set, --data D")
    if missing := [runtime for runtime in settings.runtimes if runtime not in QUANTISERS]:
        raise RunError(f"study precisions runs {' and '.join(QUANTISERS)}; got {missing[0]}")
    size = settings.size or input_size(files[0], USUAL_SIZE)
    key = {
        "precisions": fingerprint(files[0]),
        "data": settings.data[0],
        "size": list(size),
        "runtimes": list(settings.runtimes),
        "num_threads": settings.num_threads,
        "num_calibrated": NUM_CALIBRATED,
    }
    return [Run(key, partial(_measure_precisions, settings, files[0], size), seconds=120.0 * len(settings.runtimes))]


def _measure_precisions(settings: Settings, file: Path, size: tuple[int, int], place: Place) -> dict[str, Json]:
    data = open_dataset(settings.data[0])
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        wholes = dict.fromkeys(settings.runtimes, file)
        if file.suffix.lower() != ".onnx":
            for name in wholes:
                wholes[name] = checkpoint_for_runtime(file, Path(folder), f"f32-{name}", runtime=name, size=size)
        place.on_progress("quantising", 0.0)
        quantisation = Quantisation(Images(select(data.split("train"), NUM_CALIBRATED)))
        found = benchmark(
            _precisions_candidates(wholes, quantisation, size, Path(folder)),
            size=size,
            num_threads=settings.num_threads,
            protocol=PROTOCOL,
            memory=False,
            image=data.split("val").image(0),
            image_name="the first of val",
            labelled=data.split("val"),
            on_progress=place.on_progress,
        )
    rows = [_measured(found, result) for result in found.results]
    problems = [f"{each.runtime}, {each.precision}: {each.problem}" for each in found.problems]
    return {"rows": rows, "num_scored": len(data.split("val")), "problems": problems}


def _precisions_candidates(
    wholes: Mapping[str, Path], quantisation: Quantisation, size: tuple[int, int], folder: Path
) -> list[Candidate]:
    """For every engine, of its f32 file: f32 and half precisions, which `benchmark` skips if unsupported, and int8."""
    found = list[Candidate]()
    for runtime, whole in wholes.items():
        record = read_record(whole)
        found += [Candidate("model", whole, runtime, precision) for precision in PRECISIONS if precision != "int8"]
        quantised = quantise_file(
            whole, runtime=runtime, quantisation=quantisation, record=record, size=size, folder=folder
        )
        found.append(Candidate("model", quantised, runtime, "int8"))
    return found


def _measured(found: Benchmark, result: Result) -> dict[str, Json]:
    same = [other for other in found.results if other.runtime == result.runtime]
    whole = next((other for other in same if other.precision == "f32"), None)
    if whole is None:
        raise RunError(f"{result.engine} does not compute the model in f32, which the others are compared with")
    assert result.end_to_end is not None
    return {
        "engine": result.engine,
        "precision": result.precision,
        "file_mib": result.num_bytes / 2**20,
        "network_ms": result.network.median_ms,
        "end_to_end_ms": result.end_to_end.median_ms,
        "times_as_fast_as_f32": compare(whole.network, result.network).ratio,
        "miou": result.miou,
        "miou_lost": None if result.miou is None or whole.miou is None else whole.miou - result.miou,
        "num_threads": result.num_threads,
    }


def report_precisions(outcomes: Sequence[Outcome]) -> Report:
    """A row for each engine and precision."""
    (outcome,) = outcomes
    rows = tuple(outcome.result["rows"])
    findings = [_precisions_finding(row) for row in rows if row["precision"] != "f32"]
    return Report(rows, (*findings, *outcome.result.get("problems", ())), partial(_draw_precisions, rows), (7.0, 4.0))


def _precisions_finding(row: Row) -> str:
    lost = "not scored" if row["miou_lost"] is None else f"{row['miou_lost']:.2f} points of mIoU lost"
    return f"{row['engine']}, {row['precision']}: {row['times_as_fast_as_f32']:.2f} times as fast as f32, {lost}."


def _draw_precisions(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    for row in (row for row in rows if row["miou"] is not None):
        axes.scatter(row["network_ms"], row["miou"], color=COLOURS[engines.index(row["engine"])])
        axes.annotate(row["precision"], (row["network_ms"], row["miou"]), xytext=(4, 4), textcoords="offset points")
    for colour, engine in zip(COLOURS, engines, strict=False):
        axes.scatter([], [], color=colour, label=engine)
    axes.set_xlabel("network, ms")
    axes.set_ylabel("mIoU, %")
    axes.margins(0.15)
    axes.legend(frameon=False)


PRECISIONS_STUDY = Study(
    name="precisions",
    title="What other arithmetics gain and cost",
    reference="Not in the paper, whose latencies are FP32.",
    differences=(f"int8 is calibrated on {NUM_CALIBRATED} training images; mIoU on all of val.",),
    plan=plan_precisions,
    report=report_precisions,
    options=frozenset({"runtimes", "num_threads", "size", "data", "models"}),
)
