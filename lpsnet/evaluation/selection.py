"""A part of a split, spread evenly over it: neighbours in a data set are often frames of one film."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import LabelSpace, check_same_classes
from lpsnet.data.splits import Sample, Split
from lpsnet.errors import DataError

Picture = NDArray[np.uint8]  # H x W x 3 RGB


@dataclass(frozen=True)
class Selection:
    """Some samples of a split, as a split.

    Attributes:
        whole: the split.
        indices: the samples chosen, counted in `whole`.
    """

    whole: Split
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the whole."""
        return self.whole.name

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the labels."""
        return self.whole.label_space

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the samples chosen."""
        return tuple(self.whole.names[index] for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[self.indices[index]]

    def __iter__(self) -> Iterator[Sample]:
        return (self.whole[index] for index in self.indices)

    def image(self, index: int) -> Picture:
        """The picture alone: H x W x 3 uint8 RGB."""
        return self.whole.image(self.indices[index])

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The labels alone: H x W uint8 class ids, 255 for no label."""
        return self.whole.labels(self.indices[index])


class Pictures(Sequence[Picture]):
    """The pictures of a split, without labels; each is read when it is asked for and not kept."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self._split.image(i) for i in range(len(self))[index]]
        return self._split.image(range(len(self))[index])


def select(split: Split, count: int | None) -> Split:
    """`count` samples of a split, spread evenly; the split itself where it has no more, or for None.

    Raises:
        DataError: the count is below 1.
    """
    if count is None or count >= len(split):
        return split
    if count < 1:
        raise DataError(f"at least 1 picture is needed of split {split.name!r}; got {count}")
    return Selection(split, tuple(index * len(split) // count for index in range(count)))


def why_not_scorable(split: Split, label_space: LabelSpace) -> str:
    """Why label maps of these classes cannot be scored on a split, in words; empty where they can.

    Looks at the first sample: a split whose labels are partly missing is a mistake, and is told when it is read.
    """
    if len(split) == 0:
        return f"split {split.name!r} holds no pictures"
    try:
        check_same_classes(label_space, split.label_space)
        split.labels(0)
    except DataError as error:
        return str(error)
    return ""
