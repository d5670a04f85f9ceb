"""The training loop that one would write first, as the measure for the trainer (`training_speed.py`).

Float32, pictures N C H W, every picture decoded when it is needed, scores upsampled to the label's size and compared
there by torch. Recipe, first weights, order and augmentation of the samples are the trainer's.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.errors import LpsnetError
from lpsnet.training.data import Batches, SampleOrder, Weights
from lpsnet.training.run_folder import MovingAverage
from lpsnet.training.segmentation import Segmentation


class PlainLoop:
    """A training of `task` from its first step on; its model is trained in place, on the CPU.

    Raises:
        LpsnetError: the recipe has what the plain loop has not: OHEM, a stride of the loss, or frozen batch norm.
    """

    def __init__(self, task: Segmentation) -> None:
        recipe = task.recipe
        if recipe.loss != "cross_entropy" or recipe.loss_stride != 1 or recipe.freeze_batch_norm:
            raise LpsnetError(
                "the plain loop has cross-entropy at the label's size and batch norm that learns, no more"
            )
        self.task = task
        self.model = task.model.train()
        groups = ([p for p in self.model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
        decays = recipe.weight_decay, recipe.weight_decay if recipe.decay_norm else 0.0
        self.optimiser = torch.optim.SGD(
            [{"params": group, "weight_decay": decay} for group, decay in zip(groups, decays, strict=True)],
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
        )
        self.average = MovingAverage.of(self.model, recipe.ema_decay) if recipe.ema_decay else None
        self.num_iterations = recipe.num_iterations(len(task.pictures))

    def steps(self) -> Iterator[Tensor]:
        """The steps of the run, each done when it is asked for: its loss."""
        for iteration in range(self.num_iterations):
            for group in self.optimiser.param_groups:
                group["lr"] = self.task.recipe.learning_rate_at(iteration, self.num_iterations)
            loss = self._loss(*self._batch(iteration))
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            if self.average is not None:
                self.average.update(self.model, iteration)
            yield loss.detach()

    @property
    def weights(self) -> Weights:
        """What would be delivered now."""
        return self.average.values if self.average is not None else self.model.state_dict()

    def _batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        recipe = self.task.recipe
        batches = Batches(self.task.pictures, recipe.augmentation, recipe.batch_size, recipe.seed, 1, 0)
        order = SampleOrder(len(self.task.pictures), seed=recipe.seed)
        first = iteration * recipe.batch_size
        samples = [
            batches.sample(position, order.index(position)) for position in range(first, first + recipe.batch_size)
        ]
        images, labels = (np.stack(arrays) for arrays in zip(*samples, strict=True))
        normalisation = self.task.normalisation
        mean, std = (np.array(values, np.float32) for values in (normalisation.mean, normalisation.std))
        normalised = (images.astype(np.float32) / 255 - mean) / std
        return torch.from_numpy(normalised).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        scores = F.interpolate(
            self.model(images), size=labels.shape[1:], mode="bilinear", align_corners=self.model.align_corners
        )
        return F.cross_entropy(
            scores,
            labels,
            weight=self.task.criterion.class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.task.recipe.label_smoothing,
        )
