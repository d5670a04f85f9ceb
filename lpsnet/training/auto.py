"""The recipe that follows from the data (`--recipe auto`): crop, batch, class weights and length.

Found by trying on street scenes and road images; docs/how-to/fit.md gives the reasons. Everything can be set otherwise.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from lpsnet.data.dataset import Dataset
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import select
from lpsnet.errors import DataError
from lpsnet.training.config import Recipe

MAX_CROP_PIXELS = 512 * 1024  # larger images are trained on crops
SMALL_CROP_PIXELS = 200 * 200
NUM_SAMPLED = 100  # images whose size and labels are looked at
IMBALANCE = 5.0  # the most frequent class by the rarest, above which classes are weighted
IMAGES_SEEN = 20_000  # in a training without a given length, as far as 10 to 100 epochs allow


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a recipe follows from.

    Attributes:
        num_images: to train on.
        size: (height, width) in pixels of most of them.
        num_sizes: different sizes among the images looked at.
        class_shares: of the labelled pixels, by class name, 0 to 1.
        labelled: share of the pixels that have a label, 0 to 1.
    """

    num_images: int
    size: tuple[int, int]
    num_sizes: int
    class_shares: dict[str, float]
    labelled: float

    @property
    def imbalance(self) -> float:
        """The share of the most frequent class by that of the rarest that occurs."""
        present = [share for share in self.class_shares.values() if share]
        return max(present) / min(present) if present else 1.0


def data_facts(dataset: Dataset, split: str = "train") -> DataFacts:
    """Look at up to `NUM_SAMPLED` images of a split, spread evenly.

    Raises:
        DataError: there is no such split, no image in it, or not one labelled pixel.
    """
    images = dataset.split(split)
    if not len(images):
        raise DataError(f"split {split!r} of {dataset.spec} holds no images; nothing can be learned from it")
    names, sizes = dataset.label_space.names, Counter[tuple[int, int]]()
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    sampled = select(images, NUM_SAMPLED)
    for index in range(len(sampled)):
        labels = sampled.labels(index)
        sizes[labels.shape[0], labels.shape[1]] += 1
        counts += np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)
    labelled = counts[: len(names)].sum()
    if not labelled:
        raise DataError(f"split {split!r} of {dataset.spec} has no labelled pixel; nothing can be learned from it")
    shares = dict(zip(names, (counts[: len(names)] / labelled).tolist(), strict=True))
    return DataFacts(len(images), sizes.most_common(1)[0][0], len(sizes), shares, float(labelled / counts.sum()))


def auto_recipe(facts: DataFacts, *, minutes: float | None = None, pretrained: bool = False) -> Recipe:
    """The recipe for images like these.

    Args:
        facts: of the images to train on.
        minutes: length of the training; None for a number of epochs that follows from the number of images.
        pretrained: whether the network starts with weights.
    """
    crop = crop_size(facts.size)
    pixels = crop[0] * crop[1]
    batch_size = min(16 if pixels <= SMALL_CROP_PIXELS else 8, max(2, facts.num_images))
    epochs = min(100.0, max(10.0, IMAGES_SEEN / facts.num_images))
    return Recipe(
        name="auto",
        source="follows from the data",
        **({"minutes": minutes} if minutes else {"epochs": round(epochs, 1)}),
        batch_size=batch_size,
        optimiser="adamw",
        learning_rate=1e-3 if pretrained else 2e-3,
        weight_decay=0.01,
        decay_norm=False,
        schedule="cosine",
        warmup_iterations=20,
        form="plain",
        ema_decay=0.998,
        crop_size=crop,
        scale=(0.5, 2.0),
        class_weights="log" if facts.imbalance > IMBALANCE else "none",
        loss_stride=4 if pixels > SMALL_CROP_PIXELS else 1,
        evaluate_every=1 if minutes else max(1, round(epochs / 8)),
        keep_best=True,
    )


def crop_size(size: tuple[int, int]) -> tuple[int, int]:
    """The image's own size, or for large images one of its shape with at most `MAX_CROP_PIXELS`, in steps of 32."""
    pixels = size[0] * size[1]
    if pixels <= MAX_CROP_PIXELS:
        return size
    factor = (MAX_CROP_PIXELS / pixels) ** 0.5
    height, width = (max(32, int(length * factor) // 32 * 32) for length in size)
    return height, width
