"""Pre-training on classified pictures (Section 4.2): the network learns features, then loses what it classified with.

design-notes, 'Pre-training': classify with global average pooling over the concatenated last features; drop the head.
What is left is a checkpoint to start a training from (`train --init`).
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lpsnet
from lpsnet.architecture import Architecture
from lpsnet.data.augment import RandomResizedCrop, centre_window
from lpsnet.data.dataset import file_contents, named_contents
from lpsnet.data.labels import LabelSpace
from lpsnet.inference.segmenter import opencv_threads
from lpsnet.models.checkpoint import save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.training.image_folder import ClassifiedPictures, ImageFolder, open_image_folder
from lpsnet.training.loop import run_task
from lpsnet.training.pretraining_recipe import PretrainingRecipe
from lpsnet.training.run import Status
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.step import normalise
from lpsnet.training.task import Score, Weights

# A checkpoint is a network's, and a network has a head: one class, whose scores are 0 and which no training takes over
NO_CLASSES = LabelSpace.from_names("pretraining", ("nothing yet",))


@dataclass(frozen=True)
class PretrainingRun:
    """What is pre-trained on what.

    Attributes:
        data: a folder, see `image_folder`.
        architecture: the network's triple.
        recipe: how it is trained.
        block, interaction: of the network.
    """

    data: str
    architecture: Architecture
    recipe: PretrainingRecipe
    block: str = "conv3x3"
    interaction: str = "bilateral_b"

    def settings(self) -> dict[str, Any]:
        """The run as JSON values."""
        return {
            "task": "classification",
            "data": self.data,
            "architecture": str(self.architecture),
            "block": self.block,
            "interaction": self.interaction,
            "recipe": self.recipe.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Accuracy:
    """How often the true class is the best scored one, or among the best five, in percent.

    `top5` is 100 where there are no more than five classes.
    """

    top1: float
    top5: float
    num_images: int

    def __str__(self) -> str:
        return f"{self.top1:.2f} % top-1, {self.top5:.2f} % top-5"


@dataclass(frozen=True)
class PretrainingResult:
    """What a finished run leaves: the checkpoint to start from, and its accuracy on val, if there is one."""

    model: Path
    accuracy: Accuracy | None


def pretrain(
    run: PretrainingRun,
    out: Path,
    *,
    resume: bool = False,
    on_status: Callable[[Status], None] = lambda status: None,
    on_message: Callable[[str], None] = lambda message: None,
    tensorboard: bool = True,
) -> PretrainingResult:
    """Pre-train a network and leave it in `out`; arguments and errors as for `trainer.train`."""
    score = run_task(
        lambda device: Classification.of(run, device),
        run.settings(),
        out,
        defaults=run.recipe.defaults(),
        resume=resume,
        on_status=on_status,
        on_message=on_message,
        tensorboard=tensorboard,
    )
    return PretrainingResult(RunFolder(out).model, None if score is None else score.details)


class Classifier(nn.Module):
    """A network that classifies pictures: global average pooling over its last features, then a linear layer.

    The network's own head takes no part. Forward: N x 3 x H x W, as for the network, to N x `num_classes` logits.
    """

    def __init__(self, network: Network, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.classifier = nn.Linear(network.head.in_channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        nn.init.zeros_(network.head.weight)
        network.head.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.network.features(images).mean((2, 3)))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Classification:
    """See `Task`."""

    run: PretrainingRun
    folder: ImageFolder
    model: Classifier
    device: torch.device

    @classmethod
    def of(cls, run: PretrainingRun, device: torch.device) -> "Classification":
        """List the pictures and build the network; DataError if there are none."""
        folder = open_image_folder(run.data, val_share=run.recipe.val_share, seed=run.recipe.seed)
        torch.manual_seed(run.recipe.seed)
        return cls(run, folder, _build(run, len(folder.classes)), device)

    @property
    def recipe(self) -> PretrainingRecipe:
        return self.run.recipe

    @property
    def pictures(self) -> ClassifiedPictures:
        return self.folder.train

    @property
    def augmentation(self) -> RandomResizedCrop:
        return self.run.recipe.augmentation

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation()

    @property
    def opening(self) -> str:
        folder = self.folder
        return f"{len(folder.classes)} classes, {len(folder.train)} pictures to train on, {len(folder.val)} to score"

    @property
    def waits_for_device(self) -> bool:
        return False

    @property
    def inputs(self) -> Mapping[str, str]:
        folder = self.folder
        return {
            "classes": named_contents(folder.classes, "classes"),
            "train": file_contents([path for path, _ in folder.train.files], "pictures"),
        }

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        total = F.cross_entropy(outputs.float(), targets, label_smoothing=self.recipe.label_smoothing, reduction="sum")
        return total, torch.full_like(total, len(targets))

    def evaluate(self, weights: Weights) -> Score[Accuracy] | None:
        """On the pictures set apart; None if there are none."""
        if not len(self.folder.val):
            return None
        accuracy = self._accuracy(self._with(weights))
        figures = {"top1": accuracy.top1, "top5": accuracy.top5}
        return Score(
            f"{accuracy} on val",
            {**figures, "num_images": accuracy.num_images, "crop_size": list(self.recipe.crop_size)},
            figures,
            accuracy,
        )

    def deliver(self, weights: Weights, path: Path, facts: Mapping[str, Any], score: Score[Accuracy] | None) -> None:
        network = self._with(weights).network
        record = ModelRecord(
            architecture=self.run.architecture,
            block=self.run.block,
            interaction=self.run.interaction,
            form=self.recipe.form,
            label_space=NO_CLASSES,
            normalisation=self.normalisation,
            align_corners=network.align_corners,
            training={**self.run.settings(), "num_classes": len(self.folder.classes), **facts},
            scores={} if score is None else {"val": dict(score.figures)},
            lpsnet_version=lpsnet.__version__,
        )
        save_checkpoint(network, path, record=record)

    def _with(self, weights: Weights) -> Classifier:
        """A classifier with these weights, which it shares, in eval mode."""
        with torch.device("meta"):
            classifier = _build(self.run, len(self.folder.classes))
        classifier.load_state_dict(weights, assign=True)
        return classifier.eval()

    @torch.inference_mode()
    def _accuracy(self, classifier: Classifier) -> Accuracy:
        found = []
        for images, targets in self._val_batches():
            logits = classifier(normalise(images.to(self.device), self.normalisation)).cpu()
            best = logits.topk(min(5, logits.shape[1])).indices
            found.append(best == targets[:, None])
        hits = torch.cat(found)
        top1, top5 = (100 * float(hits[:, :count].any(1).double().mean()) for count in (1, 5))
        return Accuracy(top1, top5, len(hits))

    def _val_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        pictures, size = self.folder.val, self.recipe.batch_size

        def sample(index: int) -> tuple[Any, Any]:
            picture = pictures[index]
            return centre_window(picture.image, self.recipe.crop_size), picture.labels

        with opencv_threads(1), ThreadPoolExecutor(self.recipe.num_workers) as pool:
            for start in range(0, len(pictures), size):
                images, targets = zip(*pool.map(sample, range(start, min(start + size, len(pictures)))), strict=True)
                yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))


def _build(run: PretrainingRun, num_classes: int) -> Classifier:
    network = create_model(
        run.architecture,
        num_classes=NO_CLASSES.num_classes,
        block=run.block,
        interaction=run.interaction,
        form=run.recipe.form,
    )
    return Classifier(network, num_classes)
