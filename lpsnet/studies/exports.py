"""Whether exported files are the network: labels and scores beside torch's, in every format, as a study.

Two things are compared on real images, at several sizes: a file's scores with the network's (both brought to labels
in the same way), and a Segmenter's labels with the reference way: normalised and resized in float32, scored by torch,
upsampled by torch, argmax.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.data.dataset import open_dataset
from lpsnet.data.images import Image, read_image
from lpsnet.data.split import select
from lpsnet.errors import RunError
from lpsnet.export.export import export
from lpsnet.export.verify import ODD_SIZES, Bounds, verify
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record, load_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord
from lpsnet.report.figures import COLOURS, tidy
from lpsnet.studies.end_to_end import reference_segmenter
from lpsnet.studies.network_latency import fingerprint, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study

Size = tuple[int, int]

SIZES: tuple[Size, ...] = ((360, 480), (720, 960), (1024, 2048), ODD_SIZES[-1])
FORMATS = {"onnx": ("onnxruntime", ".onnx"), "openvino": ("openvino", ".openvino"), "ncnn": ("ncnn", ".ncnn")}
NUM_IMAGES = 4
_ANY = Bounds(score_difference=np.inf, label_agreement=0.0)  # what there is to see is shown and not judged here


def plan(settings: Settings, known: Known) -> list[Run]:
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
    return [Run({"exported": name, **shared}, partial(_compare, settings, name), seconds=30.0) for name in FORMATS]


def _compare(settings: Settings, name: str, place: Place) -> dict[str, Json]:
    runtime, suffix = FORMATS[name]
    net, record = _network(settings)
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        path = Path(folder) / f"model{suffix}"
        place.progress(f"{name}: writing", 0.0)
        export(net, path, to=name, record=record)
        session = open_session(runtime, SessionOptions(path, num_threads=settings.num_threads))
        rows, images = [], _images(settings)
        for number, size in enumerate(SIZES):
            place.progress(f"{name}: {size[0]}x{size[1]}", number / len(SIZES))
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


def _network(settings: Settings) -> tuple[Network, ModelRecord]:
    """The checkpoint's, or LPS-Net-S with random weights; deployed."""
    for file in model_files(settings.models):
        return fuse(load_checkpoint(file)), read_record(file).model_copy(update={"input_size": None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = create_model("lpsnet_s")
    return fuse(net), default_record(net)


def _images(settings: Settings) -> list[Image]:
    """Files named by `--image`, and images of a data set, or of generated scenes where there is neither."""
    found = [read_image(Path(name)) for name in settings.pictures]
    if found and not settings.data:
        return found
    split = select(open_dataset(settings.data[0] if settings.data else "scenes").split("val"), NUM_IMAGES)
    return [*found, *(split.image(index) for index in range(len(split)))]


def _agreement(
    segment: Segmenter, net: Network, record: ModelRecord, size: Size, images: Sequence[Image]
) -> list[float]:
    reference = reference_segmenter(net, record, input_size=size)

    def same(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> float:
        return 100 * float((np.asarray(ours) == theirs).mean())

    return [same(segment(image), reference(image)) for image in images]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for each format and size."""
    rows = tuple(row for outcome in outcomes for row in outcome.result["rows"])
    findings = tuple(_finding(outcome.result["rows"]) for outcome in outcomes)
    return Report(rows, findings, partial(_draw, rows), (7.0, 4.0))


def _finding(rows: Sequence[Row]) -> str:
    least = min(row["least_same_label_percent"] for row in rows)
    fast = min(row["segmenter_least_same_label_percent"] for row in rows)
    return (
        f"{rows[0]['format']}: at least {least:.4f} % of an image's labels are the network's own, at any of "
        f"{len(rows)} sizes; by the Segmenter, beside the reference way, {fast:.4f} %."
    )


def _draw(rows: Sequence[Row], figure: Any) -> None:
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


STUDY = Study(
    name="exports",
    title="Exported files beside the network",
    reference="Not in the paper.",
    differences=("One file for any size a format, f32, on images brought to each size.",),
    plan=plan,
    report=report,
    options=frozenset({"num_threads", "data", "models", "pictures"}),
)
