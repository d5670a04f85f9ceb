"""`lpsnet train`: a network learns to segment (Section 4.2)."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import Split, why_not_scorable
from lpsnet.errors import RunError
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.inference.engines import Precision
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.io import write_text
from lpsnet.models import encoders
from lpsnet.models.any_network import AnyNetwork, Model, load_network, with_weights
from lpsnet.models.checkpoint import Initialisation, default_record, initialise_from, save_checkpoint
from lpsnet.models.network import Network, create_model, empty_network, fill
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.training.auto import Survey, survey
from lpsnet.training.config import Recipe
from lpsnet.training.data import Augment, Score, Weights
from lpsnet.training.loop import normalise, run_task
from lpsnet.training.losses import Criterion, log_class_weights
from lpsnet.training.run import Status, TrainingResult, TrainingRun, describe_initialisation, training_inputs
from lpsnet.training.run_folder import RunFolder


def network_segmenter(network: Model, record: ModelRecord, *, device: torch.device) -> Segmenter:
    """A segmenter that runs `network` as it is, in f32 and in eval mode, on `device`."""
    return Segmenter.from_session(_NetworkSession(network, device), record)


class _NetworkSession:
    """See `Session`."""

    runtime: Final = "pytorch"
    precision: Final[Precision] = "f32"

    def __init__(self, network: Model, device: torch.device) -> None:
        self._network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self.engine = f"torch {torch.__version__} on {device.type}"
        self.num_threads = torch.get_num_threads()

    @torch.inference_mode()
    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        (image,) = inputs
        batch = torch.from_numpy(image).to(self._device, memory_format=torch.channels_last)
        logits: NDArray[np.float32] = self._network(batch).float().cpu().numpy()
        return logits


NUM_MEASURED = 16  # samples that batch norms are measured on where a checkpoint has none


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A network learns to segment the images of a data set; see `Task`.

    Attributes:
        run: what is trained on what.
        device: of the training.
        dataset: opened.
        images: the split to learn from.
        augmentation: of its samples.
        model: the network in training form.
        initialisation: what it took from a checkpoint; None without one.
        criterion: the loss.
        survey: of the training images.
    """

    run: TrainingRun
    device: torch.device
    dataset: Dataset
    images: Split
    augmentation: Augment
    model: Model
    initialisation: Initialisation | None
    criterion: Criterion
    survey: "Survey"

    @classmethod
    def of(cls, run: TrainingRun, device: torch.device) -> Self:
        """Open the data and build the network and the loss.

        Raises:
            LpsnetError: the data or the checkpoint to start from cannot be used, or there is nothing to learn.
        """
        dataset = open_dataset(run.data)
        images = dataset.split(run.split)
        seen = survey(images)
        network, initialisation = _build_network(run, images)
        _refuse_single_values(run.recipe, network)
        criterion = _build_criterion(run.recipe, images, network, device)
        return cls(run, device, dataset, images, run.recipe.augmentation, network, initialisation, criterion, seen)

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @property
    def normalisation(self) -> Normalisation:
        return _normalisation(self.run, self.model)

    @property
    def waits_for_device(self) -> bool:
        return self.criterion.waits_for_device

    @property
    def opening(self) -> str:
        source = self.run.init or self.run.encoder
        start = describe_initialisation(self.initialisation, source) if self.initialisation and source else ""
        notes = [*(f"Labels: {note}" for note in self.dataset.notes), *self._remarks()]
        return "\n".join(filter(None, (start, *notes)))

    def _remarks(self) -> list[str]:
        """What makes this training teach less than it could, a line each."""
        remarks = [
            f"Data: {line}" for line in self.survey.remarks(self.images, is_size_given=bool(self.run.input_size))
        ]
        if self.recipe.batch_size == 1:
            remarks.append("Recipe: a batch is one image, which batch norms measure badly; try --set batch_size=8")
        if self._is_val_free and (reason := self._why_not_scored()):
            remarks.append(f"Data: {reason}: the network is not evaluated")
        return remarks

    @property
    def _is_val_free(self) -> bool:
        """Whether the validation split, if there is one, is not trained on."""
        return "val" not in self.run.split.split("+")

    def _why_not_scored(self) -> str:
        """Why there is no validation, in words; empty if there is."""
        splits = self.dataset.splits
        if "val" not in splits:
            return f"no split 'val', only {', '.join(map(repr, splits))}"
        return why_not_scorable(self.dataset.split("val"), self.dataset.label_space)

    @property
    def inputs(self) -> Mapping[str, str]:
        code = {"network": self.model.digest} if isinstance(self.model, AnyNetwork) else {}
        return {**training_inputs(self.dataset, self.run.init, self.run.split), **code}

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.criterion(outputs, targets)

    def evaluate(self, weights: Weights) -> Score[Evaluation] | None:
        """On the validation split; None if it is trained on, or there is none."""
        if not self._is_val_free or self._why_not_scored():
            return None
        segmenter = network_segmenter(self._network(weights), self._record(), device=self.device)
        protocol = {"data": self.run.data, **segmenter.protocol}
        evaluation = evaluate(segmenter, self.dataset.split("val"), protocol=protocol)
        curves = {"miou": evaluation.miou}
        return Score(f"{evaluation.miou:.2f} mIoU on val", evaluation.summary(), curves, evaluation)

    def save(self, weights: Weights, path: Path, facts: Mapping[str, Any], score: Score[Evaluation] | None) -> None:
        initial: dict[str, Any] = {}
        if self.initialisation is not None:
            taken, skipped = self.initialisation.taken, self.initialisation.skipped
            initial = {"init_tensors_taken": len(taken), "init_tensors_skipped": dict(skipped)}
        training = {**self.run.settings(path.parent), **initial, **facts}
        scores = {} if score is None else {"val": dict(score.figures)}
        record = self._record().model_copy(update={"training": training, "scores": scores})
        if score is not None:
            full = score.details.model_copy(update={"command": facts.get("command", "")}).to_dict()
            write_text(RunFolder(path.parent).evaluation, json.dumps(full, indent=2, allow_nan=False) + "\n")
        save_checkpoint(self._network(weights), path, record=record)

    def _network(self, weights: Weights) -> Model:
        """A network with these weights, in eval mode."""
        model = self.model
        if isinstance(model, AnyNetwork):
            return with_weights(model, weights)
        return fill(empty_network(model.architecture, **model.config, form=model.form), weights)

    def _record(self) -> ModelRecord:
        record = default_record(self.model, label_space=self.dataset.label_space)
        size = self.run.input_size or self.survey.usual_size
        facts = {"input_size": size, "licence": self._licence(), "normalisation": self.normalisation}
        return record.model_copy(update=facts)

    def _licence(self) -> str:
        """The terms of the data and of the weights the network started from, each once."""
        inherited = read_record(self.run.init).licence if self.run.init else ""
        inherited = encoders.find_encoder(self.run.encoder).terms if self.run.encoder else inherited
        return "; ".join(dict.fromkeys(filter(None, (*inherited.split("; "), self.dataset.terms))))


def _refuse_single_values(recipe: Recipe, network: Model) -> None:
    """A batch norm cannot learn from one number a channel: one image at a time, and one pixel in the last stages.

    Raises:
        RunError: this recipe comes to that.
    """
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if recipe.batch_size // processes > 1:
        return
    try:
        with torch.no_grad():
            copy.deepcopy(network).train()(torch.zeros(1, 3, *recipe.crop_size))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        size = "x".join(map(str, recipe.crop_size))
        raise RunError(
            f"one image a batch and a crop of {size} leave a batch norm a single number: give --set batch_size=2 or "
            "more, or a larger --set crop_size=HEIGHTxWIDTH"
        ) from None


def _build_network(run: TrainingRun, train_images: Split) -> tuple[Model, Initialisation | None]:
    names = train_images.label_space.names
    network = _fresh_network(run, len(names))
    if run.encoder:
        return network, initialise_from(network, encoders.encoder_network(run.encoder))
    if run.init is None:
        return network, None
    is_measured = isinstance(network, Network) and (
        run.recipe.form == "plain" or read_record(run.init).form == "deployed"
    )
    images = _sample_images(run, network, train_images) if is_measured else None
    initialisation = initialise_from(network, run.init, images=images, classes=names)
    if not initialisation.taken:
        raise RunError(f"{run.init} has no tensor that fits this network, {run.architecture or run.network}")
    return network, initialisation


def _fresh_network(run: TrainingRun, num_classes: int) -> Model:
    torch.manual_seed(run.recipe.seed)
    if run.architecture is not None:
        return create_model(
            run.architecture,
            num_classes=num_classes,
            block=run.block,
            interaction=run.interaction,
            form=run.recipe.form,
        )
    network = load_network(run.network, num_classes=num_classes).train()
    with torch.no_grad():  # what it returns, and the memory layout it takes, are known before the first step
        image = torch.zeros(1, 3, *run.recipe.crop_size).contiguous(memory_format=torch.channels_last)
        network.eval()(image)
    return network.train()


def _normalisation(run: TrainingRun, network: Model) -> Normalisation:
    """That of the weights the network starts from."""
    if run.encoder:
        return encoders.find_encoder(run.encoder).normalisation
    if run.init is not None:
        return read_record(run.init).normalisation
    return network.normalisation if isinstance(network, AnyNetwork) else Normalisation()


def _sample_images(run: TrainingRun, network: Model, images: Split) -> Tensor:
    """Some samples as the network will be shown them, normalised: `NUM_MEASURED` x 3 x crop size."""
    places = range(0, len(images), max(1, len(images) // NUM_MEASURED))[:NUM_MEASURED]
    rng = np.random.default_rng(run.recipe.seed)
    crops = [run.recipe.augmentation(images.image(i), images.labels(i), rng)[0] for i in places]
    return normalise(torch.from_numpy(np.stack(crops)), _normalisation(run, network))


def _build_criterion(recipe: Recipe, images: Split, network: Model, device: torch.device) -> Criterion:
    weights = None
    if recipe.class_weights == "log":
        counts = count_pixels(images, network.num_classes)
        weights = torch.from_numpy(log_class_weights(counts)).to(device)
    return Criterion(
        kind=recipe.loss,
        class_weights=weights,
        stride=recipe.loss_stride,
        align_corners=network.align_corners,
        label_smoothing=recipe.label_smoothing,
        ohem_threshold=recipe.ohem_threshold,
        ohem_min_kept=recipe.ohem_min_kept,
    )


def count_pixels(split: Split, num_classes: int) -> NDArray[np.int64]:
    """Labelled pixels of each class in a split, K int64."""
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    for index in range(len(split)):
        counts += np.bincount(split.labels(index).ravel(), minlength=IGNORE_INDEX + 1)
    assert counts[num_classes:IGNORE_INDEX].sum() == 0, "label maps hold class ids or IGNORE_INDEX alone"
    return counts[:num_classes]


def train(
    run: TrainingRun,
    out: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[Status], None] = lambda status: None,
    tensorboard: bool = True,
) -> TrainingResult:
    """Train a network and write it to `out`.

    Args:
        run: what is trained on what.
        out: the run's folder; see `RunFolder` for its files.
        resume: resume the run in `out`; start one if there is none.
        on_progress: called after every iteration, in order, in the main process; may be one iteration late.
        tensorboard: write curves for TensorBoard besides the logs.

    Raises:
        LpsnetError: the data, the recipe or the folder cannot be used; see the message.
    """
    if run.recipe.init_required and run.init is None:
        raise RunError(
            f"recipe {run.recipe.name!r} starts from pre-trained weights: give them with --init, "
            "or train from scratch with --set init_required=false"
        )
    score = run_task(
        lambda device: Segmentation.of(run, device),
        run.settings(out),
        out,
        defaults=run.recipe.defaults(),
        resume=resume,
        on_progress=on_progress,
        tensorboard=tensorboard,
    )
    return TrainingResult(RunFolder(out).model, None if score is None else score.details)
