"""What the training loop has to be told: what is trained, on what, with which loss, and how it is scored.

A task is a row of `train` and `pretrain`: the loop is the same for both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lpsnet.record import Normalisation
from lpsnet.training.settings import LoopSettings

Weights = Mapping[str, Tensor]  # a model's state dict
Augment = Callable[
    [NDArray[np.uint8], NDArray[Any], np.random.Generator], tuple[NDArray[np.uint8], NDArray[Any]]
]  # a picture and its target, and all randomness, to what the network is shown

Details = TypeVar("Details")


class Labelled(Protocol):
    """A picture, H x W x 3 uint8 RGB, and its target: a label map, or a class id without dimensions."""

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def labels(self) -> NDArray[Any]: ...


class Pictures(Protocol):
    """Labelled pictures, read when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Labelled: ...


@dataclass(frozen=True)
class Score(Generic[Details]):
    """How good a model is.

    Attributes:
        headline: for people, in a few words.
        figures: everything, as JSON values.
        curves: what is worth a curve over the run, by name.
        details: the task's own value.
    """

    headline: str
    figures: Mapping[str, Any]
    curves: Mapping[str, float]
    details: Details


class Task(Protocol[Details]):
    """What is trained.

    Attributes:
        recipe: the loop's settings.
        pictures: to learn from.
        augmentation: what is done to each.
        normalisation: of the pictures' bytes.
        model: in training form. It maps N, 3, H, W normalised pictures to what `loss` takes.
        opening: what is to be told people when the training begins; may be empty.
        waits_for_device: whether model or loss read results back from a GPU in the middle of a step.
        inputs: what it learns from, by what it is, in short texts; a run goes on only while they are the same.
    """

    @property
    def recipe(self) -> LoopSettings: ...
    @property
    def pictures(self) -> Pictures: ...
    @property
    def augmentation(self) -> Augment: ...
    @property
    def normalisation(self) -> Normalisation: ...
    @property
    def model(self) -> nn.Module: ...
    @property
    def opening(self) -> str: ...
    @property
    def waits_for_device(self) -> bool: ...
    @property
    def inputs(self) -> Mapping[str, str]: ...

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the loss over a batch and what it is to be divided by, both scalars on the model's device."""

    def evaluate(self, weights: Weights) -> Score[Details] | None:
        """How good the model is with these weights; None if there is nothing to tell by."""

    def deliver(self, weights: Weights, path: Path, facts: Mapping[str, Any], score: Score[Details] | None) -> None:
        """Write the model with these weights; `facts` of the run, as JSON values, go to its record."""
