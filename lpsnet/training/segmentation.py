"""`lpsnet train`: a network learns to segment (Section 4.2)."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpsnet.data.augment import Augmentation
from lpsnet.data.channels import require_rgb
from lpsnet.data.dataset import Dataset, file_contents, open_dataset
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
from lpsnet.models.network import Network, WithAuxiliaryHead, create_model, empty_network, fill
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.training.config import Recipe, Survey, survey
from lpsnet.training.data import (
    Augment,
    Score,
    Term,
    Unlabelled,
    UnlabelledImages,
    Weights,
    measured_normalisation,
    tensor_of,
)
from lpsnet.training.loop import normalise, run_task
from lpsnet.training.losses import Criterion, Teacher, distillation, log_class_weights
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
        network: in training form.
        model: the network, or with a second head around it.
        initialisation: what it took from a checkpoint; None without one.
        criterion: the loss.
        survey: of the training images.
        teacher: None without one.
        unlabelled: images that are learnt from it alone; None without any.
        normalisation: of the images: that of the weights the network starts from, or of other channels than those had
            what is measured on the training images.
    """

    run: TrainingRun
    device: torch.device
    dataset: Dataset
    images: Split
    augmentation: Augment
    network: Model
    model: Model | WithAuxiliaryHead
    initialisation: Initialisation | None
    criterion: Criterion
    survey: "Survey"
    teacher: Teacher | None
    unlabelled: Unlabelled | None
    normalisation: Normalisation
    measure: ClassVar = "miou"

    @classmethod
    def of(cls, run: TrainingRun, device: torch.device) -> Self:
        """Open the data and build the network and the loss.

        Raises:
            LpsnetError: the data or the checkpoint to start from cannot be used, or there is nothing to learn.
        """
        dataset, recipe = open_dataset(run.data), run.recipe
        images = dataset.split(run.split)
        seen = survey(images)
        _refuse_other_channels(run, images)
        unlabelled = _open_unlabelled(run)
        normalisation, pixels = _normalisation(run, images), _pixels_for(recipe, images)
        augmentation = _augmentation(recipe, images, normalisation, pixels)
        network, initialisation = _build_network(run, images, augmentation, normalisation)
        if isinstance(network, AnyNetwork) and run.init is None and images.channels.is_rgb:
            normalisation = network.normalisation
        _freeze_stages(run, network)
        _refuse_single_values(recipe, network)
        names = dataset.label_space.names
        return cls(
            run,
            device,
            dataset,
            images,
            augmentation=augmentation,
            network=network,
            model=WithAuxiliaryHead(network) if recipe.aux_weight and isinstance(network, Network) else network,
            initialisation=initialisation,
            criterion=_build_criterion(recipe, pixels, network, device),
            survey=seen,
            teacher=None if run.teacher is None else Teacher.of(run.teacher, recipe, names, device),
            unlabelled=unlabelled,
            normalisation=normalisation,
        )

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @property
    def class_mix(self) -> float:
        return self.recipe.class_mix

    @property
    def waits_for_device(self) -> bool:
        return self.criterion.waits_for_device

    @property
    def opening(self) -> str:
        source = self.run.init or self.run.encoder
        start = describe_initialisation(self.initialisation, source) if self.initialisation and source else ""
        notes = [*(f"Labels: {note}" for note in self.dataset.notes), *self._remarks()]
        return "\n".join(filter(None, (start, self._teaching, *notes)))

    @property
    def _teaching(self) -> str:
        if self.teacher is None:
            return ""
        terms = f", terms: {licence}" if (licence := self.teacher.facts["licence"]) else ""
        line = f"Teacher: {self.teacher.facts['model']}{terms}"
        if self.unlabelled is not None:
            share = f"{self.unlabelled.per_batch} of the {self.recipe.batch_size} in a batch"
            line += f"; {len(self.unlabelled.images)} images without labels are learnt from it, {share}"
        return line

    def _remarks(self) -> list[str]:
        """What makes this training teach less than it could, a line each."""
        remarks = [
            f"Data: {line}" for line in self.survey.remarks(self.images, is_size_given=bool(self.run.input_size))
        ]
        if not self.images.channels.is_rgb:
            mean, std = self.normalisation.mean, self.normalisation.std
            largest = self.normalisation.max_value
            listed = [
                f"{name} {largest * own:.1f} ± {largest * spread:.1f}"
                for name, own, spread in zip(self.images.channels.names, mean, std, strict=True)
            ]
            remarks.append(f"Data: {self.images.channels}; mean and deviation: {', '.join(listed)}")
        given = self.run.given_channels
        if self.initialisation is not None and given.names != self.images.channels.names:
            names = ", ".join(self.images.channels.names)
            remarks.append(f"Weights: the filters for {names} are made of those for {', '.join(given.names)}")
        if self.recipe.batch_size == 1:
            remarks.append("Recipe: a batch is one image, which batch norms measure badly; try --set batch_size=8")
        if self._is_val_free and (reason := self._why_not_scored()):
            patience = ", and patience never ends the training" if self.recipe.patience else ""
            remarks.append(f"Data: {reason}: the network is not evaluated{patience}")
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
        inputs = training_inputs(self.dataset, self.run.init, self.run.split)
        if isinstance(self.network, AnyNetwork):
            inputs["network"] = self.network.digest
        if self.teacher is not None:
            inputs["teacher"] = self.teacher.facts["sha256"][:8]
        if self.unlabelled is not None:
            inputs["unlabelled"] = file_contents(self.unlabelled.images.paths, "images")
        return inputs

    def loss(self, outputs: Any, targets: Tensor, images: Tensor) -> list[Term]:
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        terms = [self.criterion(logits, targets)]
        for maps in auxiliary:
            terms.append(_times(self.recipe.aux_weight, self.criterion(maps, targets)))
        if self.teacher is not None:
            target = self.teacher(images, tuple(logits.shape[2:]))
            distance = distillation(logits, target, self.recipe.teacher_temperature)
            terms.append(_times(self.recipe.teacher_weight, distance))
        return terms

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
        training = {**self.run.settings(path.parent), **initial, **self._sources(), **facts}
        scores = {} if score is None else {"val": dict(score.figures)}
        record = self._record().model_copy(update={"training": training, "scores": scores})
        if score is not None:
            full = score.details.model_copy(update={"command": facts.get("command", "")}).to_dict()
            write_text(RunFolder(path.parent).evaluation, json.dumps(full, indent=2, allow_nan=False) + "\n")
        save_checkpoint(self._network(weights), path, record=record)

    def _sources(self) -> dict[str, Any]:
        """What else the network learnt from, for its record."""
        sources: dict[str, Any] = {} if self.teacher is None else {"teacher": dict(self.teacher.facts)}
        if self.unlabelled is not None:
            count = {"num_images": len(self.unlabelled.images), "per_batch": self.unlabelled.per_batch}
            sources["unlabelled"] = {"folder": str(self.run.unlabelled), **count}
        return sources

    def _network(self, weights: Weights) -> Model:
        """A network with these weights, in eval mode."""
        network = self.network
        if isinstance(network, AnyNetwork):
            return with_weights(network, weights)
        empty = empty_network(network.architecture, **network.config, form=network.form)
        return fill(empty, WithAuxiliaryHead.delivered(weights))

    def _record(self) -> ModelRecord:
        record = default_record(self.network, label_space=self.dataset.label_space)
        size = self.run.input_size or self.survey.usual_size
        facts: dict[str, Any] = {"input_size": size, "licence": self._licence(), "normalisation": self.normalisation}
        facts["channels"] = self.images.channels.names
        return record.model_copy(update=facts)

    def _licence(self) -> str:
        """The terms of the data, of the weights the network started from and of its teacher, each once."""
        inherited = read_record(self.run.init).licence if self.run.init else ""
        inherited = encoders.find_encoder(self.run.encoder).terms if self.run.encoder else inherited
        taught = "" if self.teacher is None else self.teacher.facts["licence"]
        terms = (*inherited.split("; "), self.dataset.terms, *taught.split("; "))
        return "; ".join(dict.fromkeys(filter(None, terms)))


def _times(factor: float, term: Term) -> Term:
    return factor * term[0], term[1]


def _open_unlabelled(run: TrainingRun) -> Unlabelled | None:
    """Raises DataError without images, RunError where a batch, or a process's share of it, is too small."""
    recipe = run.recipe
    if recipe.class_mix and recipe.batch_size // _num_processes() < 2:
        raise RunError("class_mix needs two images a batch in every process; give a larger --set batch_size=…")
    if run.unlabelled is None:
        return None
    if recipe.batch_size == 1:
        raise RunError("a batch of one image has no place for one without labels; give --set batch_size=2 or more")
    return Unlabelled(UnlabelledImages.of(run.unlabelled), recipe.num_unlabelled)


def _num_processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _refuse_single_values(recipe: Recipe, network: Model) -> None:
    """A batch norm cannot learn from one number a channel: one image at a time, and one pixel in the last stages.

    Raises:
        RunError: this recipe comes to that.
    """
    if recipe.batch_size // _num_processes() > 1:
        return
    try:
        with torch.no_grad():
            copy.deepcopy(network).train()(torch.zeros(1, network.in_channels, *recipe.crop_size))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        size = "x".join(map(str, recipe.crop_size))
        raise RunError(
            f"one image a batch and a crop of {size} leave a batch norm a single number: give --set batch_size=2 or "
            "more, or a larger --set crop_size=HEIGHTxWIDTH"
        ) from None


def _build_network(
    run: TrainingRun, train_images: Split, augmentation: Augmentation, normalisation: Normalisation
) -> tuple[Model, Initialisation | None]:
    names, channels = train_images.label_space.names, train_images.channels.names
    network = _fresh_network(run, len(names), len(channels))
    if run.encoder:
        return network, initialise_from(network, encoders.encoder_network(run.encoder), channels=channels)
    if run.init is None:
        return network, None
    is_measured = isinstance(network, Network) and (
        run.recipe.form == "plain" or read_record(run.init).form == "deployed"
    )
    images = _sample_images(run, train_images, augmentation, normalisation) if is_measured else None
    initialisation = initialise_from(network, run.init, images=images, classes=names, channels=channels)
    if not initialisation.taken:
        raise RunError(f"{run.init} has no tensor that fits this network, {run.architecture or run.network}")
    return network, initialisation


def _freeze_stages(run: TrainingRun, network: Model) -> None:
    """Take the first stages of every path out of what learns."""
    if not (num_stages := run.recipe.frozen_stages):
        return
    if not isinstance(network, Network):
        raise RunError(f"frozen_stages={num_stages} is for networks of paths and stages; {run.network} has none")
    if run.init is None and not run.encoder:
        raise RunError(
            f"frozen_stages={num_stages} would keep random weights: give weights to start from, --init or --encoder"
        )
    for path in network.paths:
        for stage in path.stages[:num_stages]:  # type: ignore[index]
            stage.requires_grad_(False)


def _fresh_network(run: TrainingRun, num_classes: int, in_channels: int) -> Model:
    torch.manual_seed(run.recipe.seed)
    if run.architecture is not None:
        return create_model(
            run.architecture,
            num_classes=num_classes,
            block=run.block,
            interaction=run.interaction,
            form=run.recipe.form,
            in_channels=in_channels,
        )
    network = load_network(run.network, num_classes=num_classes, in_channels=in_channels).train()
    with torch.no_grad():  # what it returns, and the memory layout it takes, are known before the first step
        image = torch.zeros(1, in_channels, *run.recipe.crop_size).contiguous(memory_format=torch.channels_last)
        network.eval()(image)
    return network.train()


def _normalisation(run: TrainingRun, images: Split) -> Normalisation:
    """That of the weights the network starts from, if they take these channels; of others than RGB the images' own."""
    record = read_record(run.init) if run.init is not None else None
    if record is not None and record.image_channels == images.channels:
        return record.normalisation
    if not images.channels.is_rgb:
        return measured_normalisation(images)
    return encoders.find_encoder(run.encoder).normalisation if run.encoder else Normalisation()


def _augmentation(
    recipe: Recipe, images: Split, normalisation: Normalisation, pixels: NDArray[np.int64] | None
) -> Augmentation:
    """The recipe's, with what follows from the data: odds of rare classes, and the mean of other channels than RGB."""
    own: dict[str, Any] = {}
    if pixels is not None and recipe.rare_class_crops:
        own["class_odds"] = tuple((pixels.sum() / np.maximum(1, pixels)).tolist())
    if not images.channels.is_rgb:
        fill = tuple(round(mean * normalisation.max_value) for mean in normalisation.mean)
        own |= {"channels": images.channels, "fill": fill}
    return replace(recipe.augmentation, **own) if own else recipe.augmentation


def _refuse_other_channels(run: TrainingRun, images: Split) -> None:
    """DataError where a training has what is for RGB alone and its images have other channels."""
    for is_used, what in (
        (run.recipe.corruption, "corruptions (--set corruption=…) are those of RGB cameras"),
        (run.teacher or run.unlabelled, "a teacher (--teacher) and images without labels are for RGB"),
    ):
        if is_used:
            require_rgb(images.channels, what)


def _sample_images(run: TrainingRun, images: Split, augmentation: Augmentation, normalisation: Normalisation) -> Tensor:
    """Some samples as the network will be shown them, normalised: `NUM_MEASURED` x C x crop size."""
    places = range(0, len(images), max(1, len(images) // NUM_MEASURED))[:NUM_MEASURED]
    rng = np.random.default_rng(run.recipe.seed)
    crops = [augmentation(images.image(i), images.labels(i), rng)[0] for i in places]
    return normalise(tensor_of(crops), normalisation)


def _pixels_for(recipe: Recipe, images: Split) -> NDArray[np.int64] | None:
    """Labelled pixels of each class, K, where a recipe asks for them: that takes reading every label file."""
    if recipe.class_weights == "none" and not recipe.rare_class_crops:
        return None
    return count_pixels(images, images.label_space.num_classes)


def _build_criterion(
    recipe: Recipe, pixels: NDArray[np.int64] | None, network: Model, device: torch.device
) -> Criterion:
    weights = None
    if recipe.class_weights == "log" and pixels is not None:
        weights = torch.from_numpy(log_class_weights(pixels)).to(device)
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
    share: float = 1.0,
) -> TrainingResult:
    """Train a network and write it to `out`.

    Args:
        run: what is trained on what.
        out: the run's folder; see `RunFolder` for its files.
        resume: resume the run in `out`; start one if there is none.
        on_progress: called after every iteration, in order, in the main process; may be one iteration late.
        tensorboard: write curves for TensorBoard besides the logs.
        share: of the training's length after which it stops, 0 to 1, and delivers what it has: evaluated, and to be
            resumed.

    Raises:
        LpsnetError: the data, the recipe or the folder cannot be used; see the message.
    """
    run.recipe.check_weights(given=bool(run.init or run.encoder))
    score = run_task(
        lambda device: Segmentation.of(run, device),
        run.settings(out),
        out,
        defaults=run.recipe.defaults(),
        resume=resume,
        on_progress=on_progress,
        tensorboard=tensorboard,
        share=share,
    )
    return TrainingResult(RunFolder(out).model, None if score is None else score.details)
