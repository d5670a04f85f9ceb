"""Splits: sequences of samples, an image and its label map each, as training and evaluation read them.

`FileSplit` reads pairs of files, `JoinedSplit` concatenates splits ("train+val") and `Selection` takes some samples of
one. Generated scenes (`synthetic`) are splits, too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, overload

import numpy as np

from lpsnet.data.channels import RGB, Channels
from lpsnet.data.decode import LabelDecoder
from lpsnet.data.images import Image, Labels
from lpsnet.data.labels import LabelSpace, check_same_classes
from lpsnet.data.shapes import Drawing
from lpsnet.errors import DataError


class Sample(NamedTuple):
    """A labelled image.

    Attributes:
        name: unique within the split; relative, with "/" between folders, so that outputs can be named after it.
        image: H x W x 3 uint8 RGB; of a split of other channels H x W x C uint8 or uint16.
        labels: H x W uint8 class ids, 255 for no label.
    """

    name: str
    image: Image
    labels: Labels


class Split(Protocol):
    """A sequence of samples with one label space. Images are read when they are used, not before."""

    @property
    def name(self) -> str:
        """What the split is called, e.g. "train" or "train+val"."""

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the labels."""

    @property
    def channels(self) -> Channels:
        """What the channels of the images are; `RGB` for ordinary ones."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the samples, all different."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def image(self, index: int) -> Image:
        """The image alone: H x W x 3 uint8 RGB."""

    def labels(self, index: int) -> Labels:
        """The labels alone: H x W uint8 class ids, 255 for no label. `DataError` if the split has none."""


class Opened(NamedTuple):
    """The classes and the splits by name of a data set whose samples are not pairs of image and mask files."""

    label_space: LabelSpace
    parts: Mapping[str, Split]


class Pair(NamedTuple):
    """An image file and its label file, which may be missing.

    Attributes:
        name: of the sample.
        image: the image file.
        mask: the label file; None if the data set has no labels.
        drawing: the shapes that the label file has for this image; None if it is a mask.
        rivals: other label files of the same name; nothing says which one is right, so none is read.
        extra: further files of the same image, whose channels follow those of `image`.
    """

    name: str
    image: Path
    mask: Path | None
    drawing: Drawing | None = None
    rivals: tuple[Path, ...] = ()
    extra: tuple[Path, ...] = ()

    def refuse_rivals(self) -> None:
        """`DataError` if there are several label files."""
        if self.rivals:
            listed = ", ".join(map(str, (self.mask, *self.rivals)))
            raise DataError(f"image {self.image} has {1 + len(self.rivals)} label files: {listed}; keep one of them")


@dataclass(frozen=True)
class FileSplit:
    """A split whose samples are pairs of files.

    Attributes:
        name: what the split is called.
        label_space: the classes.
        decoder: from what the label files hold to class ids.
        pairs: the files, in the order of the samples.
        spare_masks: label files that belong to no image; they are not read, and reported by the data check.
        channels: of the images.
    """

    name: str
    label_space: LabelSpace
    decoder: LabelDecoder
    pairs: tuple[Pair, ...]
    spare_masks: tuple[Path, ...] = field(default=(), repr=False)
    channels: Channels = RGB

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
        pair, image = self.pairs[index], self.image(index)
        labels = self._labels(pair, (image.shape[0], image.shape[1]))
        if image.shape[:2] != labels.shape:
            (height, width), (rows, columns) = image.shape[:2], labels.shape
            sizes = f"{height}x{width} but its label file {pair.mask} {rows}x{columns}"
            raise DataError(f"image {pair.image} is {sizes} (height x width); both must have the same size")
        return Sample(pair.name, image, labels)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image(self, index: int) -> Image:
        """The image: H x W x 3 uint8 RGB, or H x W x C of other channels."""
        pair = self.pairs[index]
        return self.channels.read(pair.image, *pair.extra)

    def labels(self, index: int) -> Labels:
        """The labels: H x W uint8 class ids, 255 for no label.

        Raises:
            DataError: the split has no labels, or the file is missing or unusable.
        """
        return self._labels(self.pairs[index])

    def _labels(self, pair: Pair, size: tuple[int, int] | None = None) -> Labels:
        """The labels of a pair whose image has this (height, width), if that is known already."""
        if pair.drawing is not None:
            return pair.drawing.draw(*(pair.drawing.size or size or self.channels.size(pair.image)))
        if pair.mask is None:
            raise DataError(f"split {self.name!r} has no labels (image {pair.image}); it can be segmented, not scored")
        if not pair.mask.exists():
            raise DataError(f"image {pair.image} has no label file: {pair.mask} does not exist")
        pair.refuse_rivals()
        return self.decoder.read(pair.mask)


class _View:
    """Samples of other splits."""

    def _locate(self, index: int) -> tuple[Split, int]:
        """The split and the index in it of a sample."""
        raise NotImplementedError

    def image(self, index: int) -> Image:
        """The image alone: H x W x 3 uint8 RGB."""
        part, inner = self._locate(index)
        return part.image(inner)

    def labels(self, index: int) -> Labels:
        """The labels alone: H x W uint8 class ids, 255 for no label."""
        part, inner = self._locate(index)
        return part.labels(inner)


@dataclass(frozen=True)
class JoinedSplit(_View):
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

    @property
    def channels(self) -> Channels:
        """Of the images, the same in all parts."""
        return self.parts[0].channels

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
        part, inner = self._locate(index)
        return part[inner]._replace(name=self.names[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _locate(self, index: int) -> tuple[Split, int]:
        inner = index + len(self) if index < 0 else index
        for part in self.parts:
            if 0 <= inner < len(part):
                return part, inner
            inner -= len(part)
        raise IndexError(f"sample {index} of {len(self)}")


@dataclass(frozen=True)
class Selection(_View):
    """Some samples of a split, as a split.

    Attributes:
        whole: the split.
        indices: of the samples chosen, in `whole`.
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
    def channels(self) -> Channels:
        """Of the images."""
        return self.whole.channels

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

    def _locate(self, index: int) -> tuple[Split, int]:
        return self.whole, self.indices[index]


class Images(Sequence[Image]):
    """The images of a split, without labels; each is read when it is used, and not kept."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        chosen = range(len(self))[index]
        return self._split.image(chosen) if isinstance(chosen, int) else list(map(self._split.image, chosen))


def select(split: Split, count: int | None) -> Split:
    """`count` samples of a split, spread evenly, as neighbours are often frames of one film; None gives all.

    Raises:
        DataError: the count is below 1.
    """
    if count is None or count >= len(split):
        return split
    if count < 1:
        raise DataError(f"at least 1 image is needed of split {split.name!r}; got {count}")
    return Selection(split, tuple(index * len(split) // count for index in range(count)))


def divided(split: Split, share: float) -> tuple[Split, Split]:
    """A split in two: the first of its samples, and the last ones, this share of them.

    Neighbours by name, often frames of one film, stay together, but for those where it is cut.

    Args:
        split: two samples or more.
        share: of the second part, between 0 and 1; both parts have one sample or more.

    Raises:
        DataError: the share is no such number, or a part would be empty.
    """
    count = round(share * len(split)) if 0 < share < 1 else 0
    if not 0 < count < len(split):
        raise DataError(
            f"a share of {share:g} of split {split.name!r} with {len(split)} images leaves one part empty; "
            "give a number between 0 and 1 that leaves an image or more in both"
        )
    places = tuple(range(len(split)))
    return Selection(split, places[:-count]), Selection(split, places[-count:])


NUM_SIZED = 64  # images whose sizes are looked at, spread evenly


def usual_size(split: Split) -> tuple[int, int]:
    """The most common (height, width) of the images of a split, by some of them; the largest of equally common ones.

    Raises:
        DataError: an image cannot be read.
    """
    step = max(1, len(split) // NUM_SIZED)
    places = range(0, len(split), step)[:NUM_SIZED]
    if isinstance(split, FileSplit):
        sizes = Counter(split.channels.size(split.pairs[place].image) for place in places)
    else:
        sizes = Counter(split.image(place).shape[:2] for place in places)
    return max(sizes, key=lambda size: (sizes[size], size))


class ChannelStatistics(NamedTuple):
    """Of the numbers of each channel, unscaled: C each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    lowest: tuple[int, ...]
    highest: tuple[int, ...]


NUM_MEASURED = 64  # images whose channels are measured


def channel_statistics(split: Split, *, count: int = NUM_MEASURED) -> ChannelStatistics:
    """Mean, standard deviation and range of each channel over all pixels of `count` images, spread evenly.

    Raises:
        DataError: an image cannot be read, or there is none.
    """
    if len(split) == 0:
        raise DataError(f"split {split.name!r} holds no images, so its channels cannot be measured")
    num_pixels, totals, ranges = 0, [], []
    for image in Images(select(split, count)):
        pixels = image.reshape(-1, image.shape[2])
        exact = pixels.astype(np.float64)
        num_pixels += len(pixels)
        totals.append((exact.sum(0), (exact * exact).sum(0)))
        ranges.append((pixels.min(0), pixels.max(0)))
    first, second = (np.sum(each, axis=0) / num_pixels for each in zip(*totals, strict=True))
    lowest, highest = (np.stack(each) for each in zip(*ranges, strict=True))
    deviation = np.sqrt(np.maximum(second - first * first, 0))
    return ChannelStatistics(
        tuple(first.tolist()), tuple(deviation.tolist()), tuple(lowest.min(0).tolist()), tuple(highest.max(0).tolist())
    )


def why_not_scorable(split: Split, label_space: LabelSpace) -> str:
    """Why label maps of these classes cannot be scored on a split, in words; empty if they can.

    Checks the first sample only; labels that are missing for others are an error when they are read.
    """
    if len(split) == 0:
        return f"split {split.name!r} holds no images"
    try:
        check_same_classes(label_space, split.label_space)
        split.labels(0)
    except DataError as error:
        return str(error)
    return ""
