"""What the data is, looked at before a training, and the recipe that follows (`--recipe auto`).

Found by trying on street scenes and road images; docs/how-to/fit.md gives the reasons. Everything can be set otherwise.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import Split, select
from lpsnet.errors import DataError
from lpsnet.training.config import Recipe

MAX_CROP_PIXELS = 512 * 1024  # larger images are trained on crops
SMALL_CROP_PIXELS = 200 * 200
IMBALANCE = 5.0  # the most frequent class by the rarest, above which classes are weighted
IMAGES_SEEN = 20_000  # in a training without a given length, as far as 10 to 100 epochs allow


NUM_SURVEYED = 64  # label files looked at before a training, spread evenly …
NUM_SAMPLED = 100  # … and for a recipe


@dataclass(frozen=True)
class Survey:
    """What some label files of a split hold, looked at before a training.

    Attributes:
        sizes: number of label files by (height, width).
        pixels: labelled pixels by class, K.
        num_read: label files.
    """

    sizes: Mapping[tuple[int, int], int]
    pixels: tuple[int, ...]
    num_read: int

    @property
    def usual_size(self) -> tuple[int, int]:
        """The most common (height, width); among equally common ones the largest."""
        return max(self.sizes, key=lambda size: (self.sizes[size], size))

    @property
    def imbalance(self) -> float:
        """The pixels of the most frequent class by those of the rarest that occurs."""
        present = [count for count in self.pixels if count]
        return max(present) / min(present)

    def remarks(self, split: Split, *, is_size_given: bool) -> list[str]:
        """What to know before the training, a line each."""
        some = f"{self.num_read} of {len(split)} label files looked at"
        remarks = []
        if len(self.sizes) > 1 and not is_size_given:
            height, width = self.usual_size
            most = f"{height}x{width} ({self.sizes[self.usual_size]} of {self.num_read})"
            several = f"images of {len(self.sizes)} sizes or more"
            remarks.append(f"{several}; the model is for the most common, {most}; --size sets another")
        absent = [name for name, count in zip(split.label_space.names, self.pixels, strict=True) if not count]
        if absent:
            remarks.append(
                f"{', '.join(map(repr, absent))} not in the {some}; a class that never occurs is never learnt"
            )
        return remarks


def survey(split: Split, *, count: int = NUM_SURVEYED) -> Survey:
    """Look at `count` label files, spread evenly; at more of them, until one holds a label, if these hold none.

    Raises:
        DataError: a label file cannot be read, or no pixel of the split has a label.
    """
    pixels, sizes = np.zeros(IGNORE_INDEX + 1, np.int64), Counter[tuple[int, int]]()
    some = select(split, count)
    samples = [(some, index) for index in range(len(some))]
    rest = [(split, index) for index in range(len(split))] if some is not split else []
    for number, (part, index) in enumerate([*samples, *rest]):
        if number >= len(samples) and pixels[:IGNORE_INDEX].any():
            break
        labels = part.labels(index)
        pixels += np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)
        sizes[labels.shape[0], labels.shape[1]] += 1
    if not pixels[:IGNORE_INDEX].any():
        raise DataError(f"no pixel of split {split.name!r} has a label: nothing to learn; see 'lpsnet data check'")
    return Survey(sizes, tuple(pixels[: split.label_space.num_classes].tolist()), sizes.total())


def auto_recipe(seen: Survey, num_images: int, *, minutes: float | None = None, pretrained: bool = False) -> Recipe:
    """The recipe for images like these.

    Args:
        seen: of the images to train on.
        num_images: how many there are.
        minutes: length of the training; None for a number of epochs that follows from the number of images.
        pretrained: whether the network starts with weights.
    """
    crop = crop_size(seen.usual_size)
    pixels = crop[0] * crop[1]
    batch_size = min(16 if pixels <= SMALL_CROP_PIXELS else 8, max(2, num_images))
    epochs = min(100.0, max(10.0, IMAGES_SEEN / num_images))
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
        class_weights="log" if seen.imbalance > IMBALANCE else "none",
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
