"""Which unlabelled images to label next: those that a model is unsure of, in rare classes, and that differ.

**Value** of an image: the mean over its pixels of how unsure the network is (1 less the margin of the two best
probabilities, or the entropy) times how rare the classes are that it takes the pixel for. The weight of a class with
share s of the labelled pixels is 1 / sqrt(s), scaled so that its mean over the labelled pixels is 1; s is at least
0.0001, so that a class never labelled counts as very rare. All of it is computed at the network's own output size.

**Spread**: images are chosen one by one. The next is the one with the largest value times distance to the nearest
image that is labelled or chosen already: k-centre (Sener and Savarese 2018, core-sets), weighted. Images are compared
by the network's class shares (square roots, so that distances are Hellinger's) and the image shrunk to 8 x 8 pixels.
Frames of a film that follow each other are close by both, so that one of them is taken.
"""

import filecmp
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_up
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.channels import check_same_channels
from lpsnet.data.dataset import Dataset
from lpsnet.data.images import Image, Labels, read_image
from lpsnet.data.labels import check_same_classes
from lpsnet.data.split import FileSplit, Split
from lpsnet.errors import DataError, unknown_name
from lpsnet.inference.windows import Network

T = TypeVar("T")
MIN_SHARE = 1e-4  # of a class among the labelled pixels
MAX_LOOKED_AT = 500  # labelled images whose labels are counted and that are compared with, spread evenly
_SIDE = 8  # pixels of the small image

Floats = NDArray[np.float32]


def _margin(probabilities: Floats) -> Floats:
    """1 less the difference of the two largest, h x w."""
    if len(probabilities) == 1:
        return np.zeros(probabilities.shape[1:], np.float32)
    second, best = np.partition(probabilities, -2, axis=0)[-2:]
    unsure: Floats = 1 - (best - second)
    return unsure


def _entropy(probabilities: Floats) -> Floats:
    """Divided by that of equal probabilities, h x w."""
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=0)
    unsure: Floats = entropy / max(np.log(len(probabilities)), 1e-12)
    return unsure


# name -> how unsure a network is, 0 to 1, h x w, of probabilities, K x h x w
MEASURES: dict[str, Callable[[Floats], Floats]] = {"margin": _margin, "entropy": _entropy}


class View(NamedTuple):
    """What is known of an image.

    Attributes:
        value: what labelling it would teach; see the top of this file.
        unsure: mean over the pixels of how unsure the network is, 0 to 1.
        shares: mean probability of every class, K numbers of sum 1.
        feature: what images are compared by; distances between unrelated images are about 0.3 to 1.
    """

    value: float
    unsure: float
    shares: Floats
    feature: Floats


class Choice(NamedTuple):
    """An image that was chosen.

    Attributes:
        place: of the image among all.
        distance: to the nearest image that was labelled or chosen before; infinity for the first of all.
    """

    place: int
    distance: float


@dataclass(frozen=True)
class Selection:
    """Images to label next.

    Attributes:
        paths: chosen, the first first.
        views: of these.
        distances: as in `Choice`.
        num_pool: images that were compared.
        labelled: left out, as the data set has them already.
        problems: of images that could not be read, a line each.
        weights: of the classes.
    """

    paths: tuple[Path, ...]
    views: tuple[View, ...]
    distances: tuple[float, ...]
    num_pool: int
    labelled: tuple[Path, ...]
    problems: tuple[str, ...]
    weights: Floats


def select(
    network: Network,
    pool: Sequence[Path],
    data: Dataset,
    *,
    count: int,
    measure: str = "margin",
    on_progress: Callable[[int, int], None] | None = None,
    read: Callable[[Path], Image] = read_image,
) -> Selection:
    """Choose images to label.

    Args:
        network: trained on the data set's classes.
        pool: image files without labels; those that the data set has already, byte for byte, are left out.
        data: what is labelled.
        count: how many are chosen, or all there are.
        measure: a name in `MEASURES`.
        on_progress: called after every image with the number done and the total.
        read: gives the image in a file of the pool.

    Raises:
        DataError: the classes or the channels differ, nothing is labelled, or no image of the pool can be used.
    """
    if measure not in MEASURES:
        raise DataError(unknown_name("measure", measure, MEASURES))
    check_same_classes(network.record.label_space, data.label_space)
    for part in data.parts.values():
        check_same_channels(network.record.image_channels, part.channels)
    labelled = list(_labelled(data))
    if not labelled:
        raise DataError(f"data set {data.spec!r} has no labels; give what is labelled so far")
    places = spread_evenly(labelled, MAX_LOOKED_AT)
    weights = class_weights((split.labels(index) for split, index in places), data.label_space.num_classes)
    tick = _counting(on_progress, len(places) + len(pool))
    known = [tick(look(network, split.image(index), weights, measure)).feature for split, index in places]
    same = _Same(split.pairs[index].image for split, index in labelled if isinstance(split, FileSplit))
    found = [tick(_look_at(network, path, same, weights, measure, read)) for path in pool]
    views = [(path, view) for path, view in zip(pool, found, strict=True) if isinstance(view, View)]
    if not views:
        raise DataError(f"none of the {len(pool)} images of the pool can be chosen: all are labelled, or unreadable")
    chosen = spread([view.value for _, view in views], [view.feature for _, view in views], known, count)
    return Selection(
        paths=tuple(views[choice.place][0] for choice in chosen),
        views=tuple(views[choice.place][1] for choice in chosen),
        distances=tuple(choice.distance for choice in chosen),
        num_pool=len(views),
        labelled=tuple(path for path, view in zip(pool, found, strict=True) if view is None),
        problems=tuple(view for view in found if isinstance(view, str)),
        weights=weights,
    )


def class_weights(labels: Iterable[Labels], num_classes: int) -> Floats:
    """How much a pixel of every class counts, K numbers; see the top of this file.

    Raises:
        DataError: no pixel has a label.
    """
    counts = sum((np.bincount(each.ravel(), minlength=256)[:num_classes] for each in labels), np.zeros(num_classes))
    if not counts.sum():
        raise DataError("no pixel of the labelled images has a label")
    shares = counts / counts.sum()
    weights = 1 / np.sqrt(np.maximum(shares, MIN_SHARE))
    scaled: Floats = (weights / (shares * weights).sum()).astype(np.float32)
    return scaled


def look(network: Network, image: Image, weights: Floats, measure: str = "margin") -> View:
    """What a network makes of an image, as a call of a segmenter takes it; `weights` are those of the classes."""
    logits = network.logits(image)
    odds = np.exp(logits - logits.max(axis=0))
    probabilities = odds / odds.sum(axis=0)
    unsure = MEASURES[measure](probabilities)
    rare = np.einsum("k,khw->hw", weights, probabilities)
    shares = probabilities.mean(axis=(1, 2))
    shown = network.record.image_channels.rendering(image)
    small = cv2.resize(shown, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel() / 255
    feature = np.concatenate([np.sqrt(shares), small / np.sqrt(small.size)])
    return View(float((unsure * rare).mean()), float(unsure.mean()), shares, feature)


def spread(values: Sequence[float], features: Sequence[Floats], known: Sequence[Floats], count: int) -> list[Choice]:
    """Choose one by one the image with the largest value times distance to the nearest known or chosen one.

    Args:
        values: of the images, from 0 up.
        features: of the images.
        known: of images that are labelled already.
        count: how many are chosen, or all.
    """
    worth, points = np.array(values, np.float64), np.stack(features).astype(np.float64)
    nearest = np.full(len(points), np.inf)
    for feature in known:
        np.minimum(nearest, np.linalg.norm(points - feature, axis=1), out=nearest)
    left = np.ones(len(points), bool)
    chosen: list[Choice] = []
    while len(chosen) < min(count, len(points)):
        # without any known image all are equally far: the value alone decides
        gains = worth * np.where(np.isinf(nearest), 1.0, nearest)
        index = int(np.where(left, gains, -1.0).argmax())
        left[index] = False
        chosen.append(Choice(index, float(nearest[index])))
        np.minimum(nearest, np.linalg.norm(points - points[index], axis=1), out=nearest)
    return chosen


def _labelled(data: Dataset) -> Iterator[tuple[Split, int]]:
    """Every image that has labels."""
    for split in data.parts.values():
        for index in range(len(split)):
            if not isinstance(split, FileSplit) or split.pairs[index].mask is not None:
                yield split, index


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]


def _counting(on_progress: Callable[[int, int], None] | None, total: int) -> Callable[[T], T]:
    """Gives back what it is given, and counts."""
    numbers = count_up(1)

    def tick(item: T) -> T:
        if on_progress is not None:
            on_progress(next(numbers), total)
        return item

    return tick


def _look_at(
    network: Network, path: Path, same: "_Same", weights: Floats, measure: str, read: Callable[[Path], Image]
) -> View | str | None:
    """None for an image that is labelled already, a line for one that cannot be used."""
    try:
        return None if same.has(path) else look(network, read(path), weights, measure)
    except DataError as error:
        return str(error)


class _Same:
    """Whether a file is the same as one of others, byte for byte; contents are compared where sizes are equal."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._by_size: dict[int, list[Path]] = defaultdict(list)
        for path in paths:
            self._by_size[_size(path)].append(path)

    def has(self, path: Path) -> bool:
        """Whether it is."""
        return any(filecmp.cmp(path, other, shallow=False) for other in self._by_size.get(_size(path), ()))


def _size(path: Path) -> int:
    """-1 if it cannot be read; reading it gives the error."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
