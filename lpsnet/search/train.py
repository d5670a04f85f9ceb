"""Perf(·) of Section 3.4: one candidate trained and scored, with its parent's weights or random ones.

A candidate has its own folder, so that an interrupted one is resumed: `start.safetensors` holds its start weights and
their score, the rest is a training's (`training.run_folder`). A training that a run on another machine has made can be
reused instead (`ReusableRun`).
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.split import Split, divided
from lpsnet.errors import DivergedError, LpsnetError, RunError
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.inference.model_file import read_record
from lpsnet.io import atomic_path, inside
from lpsnet.models.any_network import Model
from lpsnet.models.checkpoint import default_record, load_checkpoint, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.search.inheritance import inherit
from lpsnet.search.journal import (
    HELD_OUT,
    Header,
    Journal,
    TrainingResult,
    chosen_length,
    differences,
    first_training,
    read_journal,
)
from lpsnet.search.measurements import Failure, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design
from lpsnet.training.data import Batches
from lpsnet.training.loop import forward_type, make_accelerator, normalise
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import network_segmenter, train

START = "start.safetensors"
JOURNAL = "journal.jsonl"
TAKEN_FROM = "taken_from"  # in a training's details: the run that it was reused from
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
        held_out: share of the split that is left out of the score, the last of its images by name, and scored by
            itself.
    """

    design: Design
    run: TrainingRun
    val: str
    folder: Path
    parent: Path | None = None
    num_threads: int | None = None
    part: int = 1
    held_out: float = 0.0

    def __str__(self) -> str:
        return str(self.design)

    def parts(self) -> tuple[Split, Split | None]:
        """The images that it is scored on, and those held out, if any."""
        split = open_dataset(self.run.data).split(self.val)
        return divided(split, self.held_out) if self.held_out else (split, None)


def train_candidate(
    task: CandidateTask, *, on_progress: Callable[[Status], None] = lambda status: None
) -> TrainingResult:
    """Train and score a candidate, or resume it.

    Returns:
        Its score; a `Failure` if the training diverged or the network does not fit into memory. Details for the
        journal: `model` (the checkpoint, relative to the run's folder), `seconds` of this call, `seed`, `machine` and
        `precision` of the training, the report of the inheritance (`inherited`), and mIoU on the images held out
        (`held_out_miou`, percent; None without labels there).

    Raises:
        LpsnetError: anything else that keeps it from being trained, such as missing data or a full disk.
    """
    begun = time.monotonic()
    with _threads(task.num_threads):
        outcome, inherited, unseen = _outcome(task, on_progress)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for the engine that measures the next candidates
    details: dict[str, JsonValue] = {
        "model": "/".join(RunFolder(task.folder).model.parts[-3:]),
        "seconds": round(time.monotonic() - begun, 1),
        "seed": task.run.recipe.seed,
        "inherited": inherited,
        "machine": describe_machine().identity,
        "precision": str(forward_type(task.run.recipe, make_accelerator().device)).removeprefix("torch."),
        **unseen,
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


def _outcome(
    task: CandidateTask, on_progress: Callable[[Status], None]
) -> tuple[Outcome, JsonValue, dict[str, JsonValue]]:
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
        return Score(miou, at_start=at_start), inherited, _unseen(task, trained.model)
    except torch.OutOfMemoryError as error:
        return Failure(f"out of memory: {str(error).splitlines()[0]}"), inherited, {}
    except DivergedError as error:
        return Failure(str(error)), inherited, {}


def _final(task: CandidateTask, model: Path, evaluation: Evaluation | None) -> Evaluation:
    """The trainer scores on the split "val"; another split, or a part of it, is scored here."""
    if evaluation is not None and task.val == "val" and not task.held_out:
        return evaluation
    return _evaluate(load_checkpoint(model), read_record(model), task.parts()[0])


def _unseen(task: CandidateTask, model: Path) -> dict[str, JsonValue]:
    """The score on the images held out, for the journal's details; nothing if none are."""
    unseen = task.parts()[1]
    if unseen is None:
        return {}
    miou = _evaluate(load_checkpoint(model), read_record(model), unseen).miou
    return {HELD_OUT: None if math.isnan(miou) else miou}


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
    scores = {task.val: {"miou": _evaluate(net, record, task.parts()[0]).miou}}
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


def _evaluate(net: Model, record: ModelRecord, split: Split) -> Evaluation:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return evaluate(network_segmenter(net, record, device=device), split)


class ReusableRun:
    """A run on another machine whose trainings are reused.

    Args:
        folder: of the run.
        settings: of the run that reuses them; all but the device must be equal.
        defaults: see `open_journal`.

    Raises:
        RunError: there is no journal, or it was made with other settings.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue] | None = None
    ) -> None:
        path = folder / JOURNAL
        self._journal = Journal(path, read_journal(path))
        header = self._journal.events[0]
        assert isinstance(header, Header), "a journal begins with its header"
        if changes := differences(_portable(header.settings), _portable(settings), defaults or {}):
            raise RunError(f"trainings of {path} cannot be reused: {changes}")
        device = header.settings.get("device")
        machine = str(device.get("machine", "unknown")) if isinstance(device, dict) else "unknown"
        self.folder, self.name = folder, f"{machine}, begun {header.at}"
        self._inherits = bool(settings.get("inherit"))

    def find(self, design: Design, spec: TrainingSpec, *, own: Journal) -> TrainingResult | None:
        """The training of `design`, if it has weights and started from weights that the journal `own` has too."""
        line = self._journal.training(design, spec)
        if line is None or line.miou is None or not inside(self.folder, line.details.get("model", "")).is_file():
            return None
        if self._inherits and spec.parent is not None and not self._gave(spec.parent, own):
            return None
        return TrainingResult(design, line.outcome, {**line.details, TAKEN_FROM: self.name})

    def _gave(self, parent: Design, own: Journal) -> bool:
        """Whether `own` reuses the weights of `parent` from this run, and both chose them."""
        length = chosen_length(own.events, parent)
        line = first_training(own.events, parent, length)
        reused = line is not None and line.details.get(TAKEN_FROM) == self.name
        return reused and chosen_length(self._journal.events, parent) == length


def reuse_training(
    runs: Sequence[ReusableRun], design: Design, spec: TrainingSpec, *, own: Journal, out: Path
) -> TrainingResult | None:
    """The training of a design from the first run that has it, with its weights copied into `out`; None otherwise."""
    for run in runs:
        if (found := run.find(design, spec, own=own)) is not None:
            source, target = (inside(folder, found.details["model"]) for folder in (run.folder, out))
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
            return found
    return None


def _portable(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in settings.items() if key != "device"}
