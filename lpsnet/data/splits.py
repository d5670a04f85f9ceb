"""Splits: what training and evaluation read, whatever the files on the disk look like.

A `Split` is a sequence of samples, a picture and its label map each. `FileSplit` reads them from pairs of files;
generated scenes (`scenes.py`) are another kind; `JoinedSplit` puts splits behind one another ("train+val").
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.decoding import LabelDecoder
from lpsnet.data.images import read_image
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError


class Sample(NamedTuple):
    """A labelled picture.

    Attributes:
        name: unique within the split; relative, with "/" between folders, so that outputs can be named after it.
        image: H x W x 3 uint8 RGB.
        labels: H x W uint8 class ids, 255 for no label.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class Split(Protocol):
    """A sequence of samples with one label space. Pictures are read when they are asked for, not before."""

    @property
    def name(self) -> str:
        """What the split is called, e.g. "train" or "train+val"."""

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the labels."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the samples, all different."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture alone: H x W x 3 uint8 RGB."""

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The labels alone: H x W uint8 class ids, 255 for no label. `DataError` if the split has none."""


class Pair(NamedTuple):
    """A picture file and its label file, which may not exist; `mask` is None where the data set gives no labels."""

    name: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class FileSplit:
    """A split whose samples are pairs of files.

    Attributes:
        name: what the split is called.
        label_space: the classes.
        decoder: from what the label files hold to class ids.
        pairs: the files, in the order of the samples.
        spare_masks: label files that belong to no picture; nothing reads them, the doctor reports them.
    """

    name: str
    label_space: LabelSpace
    decoder: LabelDecoder
    pairs: tuple[Pair, ...]
    spare_masks: tuple[Path, ...] = field(default=(), repr=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the samples."""
        return tuple(pair.name for pair in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read a sample.

        Raises:
            DataError: a file is missing or unusable, or the two differ in size.
        """
        pair, image, labels = self.pairs[index], self.image(index), self.labels(index)
        if image.shape[:2] != labels.shape:
            sizes = (
                f"{image.shape[0]}x{image.shape[1]} but its label file {pair.mask} {labels.shape[0]}x{labels.shape[1]}"
            )
            raise DataError(f"picture {pair.image} is {sizes} (height x width); both must have the same size")
        return Sample(pair.name, image, labels)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture: H x W x 3 uint8 RGB."""
        return read_image(self.pairs[index].image)

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The labels: H x W uint8 class ids, 255 for no label.

        Raises:
            DataError: the split has no labels, or the file is missing or unusable.
        """
        pair = self.pairs[index]
        if pair.mask is None:
            raise DataError(
                f"split {self.name!r} has no labels (picture {pair.image}); it can be segmented, not scored"
            )
        if not pair.mask.exists():
            raise DataError(f"picture {pair.image} has no label file: {pair.mask} does not exist")
        return self.decoder.read(pair.mask)


@dataclass(frozen=True)
class JoinedSplit:
    """Several splits of one label space as one, in their order."""

    parts: tuple[Split, ...]

    @property
    def name(self) -> str:
        """The names of the parts with "+" between them."""
        return "+".join(part.name for part in self.parts)

    @property
    def label_space(self) -> LabelSpace:
        """The classes, the same in all parts."""
        return self.parts[0].label_space

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the samples; if parts share one, every name gets its split in front: "train/a", "val/a"."""
        plain = tuple(name for part in self.parts for name in part.names)
        if len(set(plain)) == len(plain):
            return plain
        return tuple(f"{part.name}/{name}" for part in self.parts for name in part.names)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Sample:
        """Read a sample; see `FileSplit`."""
        part, inner = self._locate(index)
        return part[inner]._replace(name=self.names[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture: H x W x 3 uint8 RGB."""
        part, inner = self._locate(index)
        return part.image(inner)

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The labels: H x W uint8 class ids, 255 for no label."""
        part, inner = self._locate(index)
        return part.labels(inner)

    def _locate(self, index: int) -> tuple[Split, int]:
        inner = index + len(self) if index < 0 else index
        for part in self.parts:
            if 0 <= inner < len(part):
                return part, inner
            inner -= len(part)
        raise IndexError(f"sample {index} of {len(self)}")
