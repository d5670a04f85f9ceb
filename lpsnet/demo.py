"""The demonstration: everything in one go on generated street scenes, without data or downloads.

Train a small network, export it, verify the export against the network, score it on scenes it has not seen, and draw
what it sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpsnet.architecture import Architecture
from lpsnet.data.datasets import Split, open_dataset
from lpsnet.data.images import write_png
from lpsnet.deployment.model_file import read_record
from lpsnet.deployment.overlay import colourise, legend, overlay, side_by_side
from lpsnet.deployment.segmenter import Segmenter
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.export.onnx import export_onnx
from lpsnet.export.report import ExportReport
from lpsnet.model.checkpoint import load_checkpoint
from lpsnet.training.recipe import get_recipe
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.trainer import train

DATA = "scenes:size=128x256,num_train=400,num_val=40"
# Small, and with its path larger than the picture: at 128x256 the paper's ratios would leave too few scores to see by.
ARCHITECTURE = Architecture((1, 1, 1, 4, 4), (8, 16, 32, 64, 64), ("3/2",))
NUM_SHOWN = 4  # scenes in the picture


@dataclass(frozen=True)
class Demonstration:
    """What a demonstration leaves.

    Attributes:
        model: the exported ONNX file.
        export: how it compares with the network.
        evaluation: of the exported file on unseen scenes.
        picture: scenes, truth and prediction side by side.
    """

    model: Path
    export: ExportReport
    evaluation: Evaluation
    picture: Path


def run_demo(out: Path, *, on_status: Callable[[Status], None], say: Callable[[str], None]) -> Demonstration:
    """Train, export, verify, score and draw; everything is left in `out`. Goes on where it was stopped.

    Args:
        out: folder of the results.
        on_status: called after every iteration of the training.
        say: called with a line at every stage.
    """
    run = TrainingRun(data=DATA, architecture=ARCHITECTURE, recipe=get_recipe("demo"))
    say(f"Training {run.architecture} on generated street scenes …")
    checkpoint = train(run, out / "training", resume=True, on_status=on_status).model
    say("Exporting to ONNX and comparing the file with the network …")
    scenes = open_dataset(DATA).split("val")
    pictures = [scenes.image(index) for index in range(NUM_SHOWN)]
    model = out / "demo.onnx"
    report = export_onnx(load_checkpoint(checkpoint), model, record=read_record(checkpoint), pictures=pictures)
    say("Scoring the exported file on scenes it has not seen …")
    segmenter = Segmenter(model)
    protocol = {"data": DATA, **segmenter.protocol}
    evaluation = evaluate(segmenter, scenes, label_space=segmenter.label_space, protocol=protocol)
    picture = out / "demo.png"
    write_png(picture, contact_sheet(segmenter, scenes, count=NUM_SHOWN))
    return Demonstration(model, report, evaluation, picture)


def contact_sheet(segmenter: Segmenter, split: Split, *, count: int) -> NDArray[np.uint8]:
    """A row a picture: the picture, its labels, the prediction over the picture; the legend below. Height x W x 3."""
    space = split.label_space
    rows = []
    for index in range(min(count, len(split))):
        image = split.image(index)
        prediction = overlay(image, segmenter(image), space)
        rows.append(side_by_side(image, colourise(split.labels(index), space), prediction))
    width = rows[0].shape[1]
    return np.vstack([*rows, legend(space, width=width)])
