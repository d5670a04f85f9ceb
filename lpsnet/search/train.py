"""Perf(·) of Section 3.4: one candidate trained and scored, with its parent's weights or random ones.

A candidate has its own folder, so that an interrupted one is resumed: `start.safetensors` holds its start weights and
their score, the rest is a training's (`training.run_folder`).
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.errors import DivergedError, LpsnetError, RunError
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.inference.model_file import read_record
from lpsnet.models.any_network import Model
from lpsnet.models.checkpoint import default_record, load_checkpoint, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.search.inheritance import inherit
from lpsnet.search.journal import TrainingResult
from lpsnet.search.measurements import Failure, Outcome, Score
from lpsnet.search.operations import Design
from lpsnet.training.data import Batches
from lpsnet.training.loop import forward_type, make_accelerator, normalise
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import network_segmenter, train

START = "start.safetensors"
MAX_IMAGES = 8  # for the statistics of new features; about a batch of a recipe


@dataclass(frozen=True, slots=True)
class CandidateTask:
    """A candidate to train.

    Attributes:
        design: to train.
        run: the training; its architecture and block are the design's.
        val: the split it is scored on.
        folder: the candidate's own.
        parent: checkpoint of the trained parent to inherit weights from; None for none.
        num_threads: of the processor; None for the default of PyTorch.
        part: see `TrainingSpec`.
    """

    design: Design
    run: TrainingRun
    val: str
    folder: Path
    parent: Path | None = None
    num_threads: int | None = None
    part: int = 1

    def __str__(self) -> str:
        return str(self.design)


def train_candidate(
    task: CandidateTask, *, on_progress: Callable[[Status], None] = lambda status: None
) -> TrainingResult:
    """Train and score a candidate, or resume it.

    Returns:
        Its score; a `Failure` if the training diverged or the network does not fit into memory. Details for the
        journal: `model` (the checkpoint, relative to the run's folder), `seconds` of this call, `seed`, `machine` and
        `precision` of the training, and the report of the inheritance (`inherited`).

    Raises:
        LpsnetError: anything else that keeps it from being trained, such as missing data or a full disk.
    """
    begun = time.monotonic()
    with _threads(task.num_threads):
        outcome, inherited = _outcome(task, on_progress)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for the engine that measures the next candidates
    details: dict[str, JsonValue] = {
        "model": "/".join(RunFolder(task.folder).model.parts[-3:]),
        "seconds": round(time.monotonic() - begun, 1),
        "seed": task.run.recipe.seed,
        "inherited": inherited,
        "machine": describe_machine().identity,
        "precision": str(forward_type(task.run.recipe, make_accelerator().device)).removeprefix("torch."),
    }
    return TrainingResult(task.design, outcome, details)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set PyTorch's threads inside the block: latencies may be measured in this process afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _outcome(task: CandidateTask, on_progress: Callable[[Status], None]) -> tuple[Outcome, JsonValue]:
    run, at_start, inherited = task.run, None, None
    try:
        if task.parent is not None:
            start = _start(task, task.parent)
            at_start, inherited = start.scores.get(task.val, {}).get("miou"), start.training
            run = replace(run, init=task.folder / START, encoder="") if inherited["taken_over"] else run
        options: Any = {"on_progress": on_progress, "tensorboard": False, "share": 1 / task.part}
        trained = train(run, task.folder, resume=True, **options)
        miou = _final(task, trained.model, trained.evaluation).miou
        if math.isnan(miou):
            raise RunError(
                f"the split {task.val!r} of {run.data!r} has no labelled pixel to score on; "
                "'lpsnet data check' says why, or give another with --val"
            )
        return Score(miou, at_start=at_start), inherited
    except torch.OutOfMemoryError as error:
        return Failure(f"out of memory: {str(error).splitlines()[0]}"), inherited
    except DivergedError as error:
        return Failure(str(error)), inherited


def _final(task: CandidateTask, model: Path, evaluation: Evaluation | None) -> Evaluation:
    """The trainer scores on the split "val"; another split is scored here."""
    if evaluation is not None and task.val == "val":
        return evaluation
    return _evaluate(load_checkpoint(model), read_record(model), task)


def _start(task: CandidateTask, parent: Path) -> ModelRecord:
    """The record of the candidate's start weights, which are written first if there are none."""
    path = task.folder / START
    if not path.exists():
        _write_start(task, parent, path)
    return read_record(path)


def _write_start(task: CandidateTask, parent: Path, path: Path) -> None:
    """The parent's weights in the candidate's network, with their score in the record: one file, all or nothing."""
    if not parent.is_file():
        raise RunError(f"{parent}, whose weights candidates start from, is gone; put it back, or use another folder")
    dataset = open_dataset(task.run.data)
    source = load_checkpoint(parent)
    assert isinstance(source, Network), "a search grows networks of this package"
    net = _fresh(task, dataset)
    given = read_record(parent)
    images = _images(task.run, dataset, given.normalisation)
    torch.manual_seed(task.run.recipe.seed)
    try:
        report = inherit(net, source, images=images, seed=task.run.recipe.seed)
    except LpsnetError as error:  # nothing can be inherited by a network of another block
        nothing = {"taken_over": False, "why": str(error)}
        save_checkpoint(net, path, record=_record(task, net, dataset).model_copy(update={"training": nothing}))
        return
    training: dict[str, Any] = {"taken_over": True, **report.to_dict()}
    inherited = {"training": training, "licence": given.licence, "normalisation": given.normalisation}
    record = _record(task, net, dataset).model_copy(update=inherited)
    scores = {task.val: {"miou": _evaluate(net, record, task).miou}}
    save_checkpoint(net, path, record=record.model_copy(update={"scores": scores}))


def _fresh(task: CandidateTask, dataset: Dataset) -> Network:
    torch.manual_seed(task.run.recipe.seed)
    assert task.run.architecture is not None, "a search grows networks of this package"
    return create_model(
        task.run.architecture,
        num_classes=dataset.label_space.num_classes,
        block=task.run.block,
        interaction=task.run.interaction,
        form=task.run.recipe.form,
    )


def _record(task: CandidateTask, net: Network, dataset: Dataset) -> ModelRecord:
    record = default_record(net, label_space=dataset.label_space)
    return record.model_copy(update={"input_size": task.run.input_size})


def _images(run: TrainingRun, dataset: Dataset, normalisation: Normalisation) -> Tensor:
    """The first images of the training, N x 3 x H x W, normalised as the parent's."""
    recipe = run.recipe
    count = min(MAX_IMAGES, recipe.batch_size)
    split = dataset.split(run.split)
    batches = Batches(split, recipe.augmentation, count, recipe.seed, num_workers=1, cache_bytes=0)
    images, _ = next(iter(batches.starting_at(0, 1)))
    return normalise(images, normalisation).contiguous()


def _evaluate(net: Model, record: ModelRecord, task: CandidateTask) -> Evaluation:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter = network_segmenter(net, record, device=device)
    return evaluate(segmenter, open_dataset(task.run.data).split(task.val))
