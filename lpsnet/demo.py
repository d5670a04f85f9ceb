"""`lpsnet demo`: everything once on generated street scenes, without data or downloads.

Grows a network in two steps by measured gain and cost, trains it, exports it, verifies the file, scores it on other
scenes and draws its output.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.dataset import Split, open_dataset
from lpsnet.data.images import write_png
from lpsnet.errors import MissingDependencyError
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.export.onnx import export_onnx
from lpsnet.export.verify import ExportReport
from lpsnet.inference.model_file import read_record
from lpsnet.inference.result import colourise, legend, overlay, side_by_side
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.report.report import write_report
from lpsnet.search import algorithm, journal, measure, operations, results
from lpsnet.search import train as candidates
from lpsnet.search.run import PROXIES, ExpansionRun, run_expansion
from lpsnet.training.config import get_recipe
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.segmentation import train

_log = logging.getLogger(__name__)

SIZE = (128, 256)
DATA = "scenes:size=128x256,num_train=400,num_val=40"
SHOWN = "scenes:size=384x768,num_train=1,num_val=1"  # for people to look at
# Wider than the paper's, and with its path larger than the image: at 128x256 a ratio of 1/2 leaves too few logits to
# see by.
START = operations.SearchNetwork((1, 1, 1, 1, 1), (8, 16, 32, 64, 64), ("3/2", 0, 0))
OPERATIONS = tuple(map(operations.Operation.parse, ("depth=0,0,0,1,1", "width=0,0,0,32,32", "resolution=1/4,0,0")))
NUM_STEPS = 2
MAX_STEP_SIZE = 3
NUM_EPOCHS = 12  # of the final training, which starts from the grown network's weights
REPETITIONS = (3, 5, 9)  # fewer than a real search measures (`journal.REPETITIONS`)
NUM_SHOWN = 4  # scenes in the image


@dataclass(frozen=True)
class Demonstration:
    """What a demonstration leaves."""

    expansion: results.SearchResult  # the networks grown, each briefly trained
    model: Path  # the exported ONNX file of the largest, trained for longer
    export: ExportReport  # how it compares with the network
    evaluation: Evaluation  # of the exported file on unseen scenes
    image: Path  # scenes, truth and prediction side by side
    scene: Path  # a scene that the network has not seen, larger than those
    reports: tuple[Path, ...]  # pages about the expansion and the training; none without the package that writes them


Reporter = Callable[[], AbstractContextManager[Callable[[Status], None]]]


def run_demo(out: Path, *, reporter: Reporter) -> Demonstration:
    """Grow, train, export, verify, score and draw; everything is left in `out`. Resumes where it was stopped.

    Args:
        out: folder of the results.
        reporter: opened for every training; what it gives is called after every iteration.
    """
    out = out.resolve()
    _log.info(f"Growing a network in {NUM_STEPS} steps, by measured gain in mIoU and latency on this machine …")
    grown = _grow(out / "expansion", reporter)
    checkpoint = _train(grown, out / "training", reporter)
    _log.info("Exporting to ONNX and comparing the file with the network …")
    scenes = open_dataset(DATA).split("val")
    images = [scenes.image(index) for index in range(NUM_SHOWN)]
    model = out / "demo.onnx"
    report = export_onnx(load_checkpoint(checkpoint), model, record=read_record(checkpoint), images=images)
    _log.info("Scoring the exported file on other scenes …")
    segmenter = Segmenter(model)
    protocol = {"data": DATA, **segmenter.protocol}
    evaluation = evaluate(segmenter, scenes, label_space=segmenter.label_space, protocol=protocol)
    image = out / "demo.png"
    write_png(image, contact_sheet(segmenter, scenes, count=NUM_SHOWN))
    scene = out / "scene.png"
    write_png(scene, open_dataset(SHOWN).split("val").image(0))
    reports = _write_reports([out / "expansion", out / "training"])
    return Demonstration(grown, model, report, evaluation, image, scene, reports)


def _write_reports(folders: Sequence[Path]) -> tuple[Path, ...]:
    try:
        return tuple(write_report(folder) for folder in folders)
    except MissingDependencyError as error:
        _log.info(f"No reports were written: {error}")
        return ()


def _grow(out: Path, reporter: Reporter) -> results.SearchResult:
    def train_and_report(task: candidates.CandidateTask) -> journal.TrainingResult:
        with reporter() as report:
            return candidates.train_candidate(task, on_progress=report)

    run = ExpansionRun(
        data=DATA,
        recipe=PROXIES["demo_proxy"],
        target=measure.Target(SIZE, num_threads=1),  # other programs on the machine then disturb least
        start=START,
        operations=OPERATIONS,
        options=algorithm.SearchOptions(num_steps=NUM_STEPS, max_step_size=MAX_STEP_SIZE, max_effort=2),
    )
    return run_expansion(run, out, train=train_and_report, repetitions=REPETITIONS, on_progress=_log.info)


def _train(grown: results.SearchResult, out: Path, reporter: Reporter) -> Path:
    """The checkpoint of the largest network, trained in full, from its weights in the search."""
    largest = grown.members[-1]
    weights = grown.model(largest).with_suffix(".safetensors")
    architecture = largest.design.architecture
    recipe = get_recipe("demo").with_overrides({"epochs": NUM_EPOCHS})
    run = TrainingRun(data=DATA, architecture=architecture, recipe=recipe, init=weights, input_size=SIZE)
    _log.info(f"Training {architecture} on generated street scenes …")
    with reporter() as report:
        return train(run, out, resume=True, on_progress=report).model


def contact_sheet(segmenter: Segmenter, split: Split, *, count: int) -> NDArray[np.uint8]:
    """A row an image: the image, its labels, the prediction over the image; the legend below. Height x W x 3."""
    space = split.label_space
    rows = []
    for index in range(min(count, len(split))):
        image = split.image(index)
        prediction = overlay(image, segmenter(image), space)
        rows.append(side_by_side(image, colourise(split.labels(index), space), prediction))
    width = rows[0].shape[1]
    return np.vstack([*rows, legend(space, width=width)])
