"""Batches of training samples, and the interface between a task and the training loop.

The samples of a run form one sequence: position p belongs to epoch p // n over the n images, whose order is a
permutation seeded by (seed, epoch); a sample is augmented with a generator seeded by (seed, p). A run can therefore
resume at any position and see what an uninterrupted run sees, with any number of workers or processes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lpsnet.data.augment import MEAN_COLOUR, Augmentation
from lpsnet.data.images import read_image
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.pairing import find_images
from lpsnet.data.split import Sample, Split, channel_statistics
from lpsnet.errors import DataError
from lpsnet.inference.segmenter import opencv_threads
from lpsnet.record import Normalisation
from lpsnet.training.config import LoopSettings

Weights = Mapping[str, Tensor]  # a model's state dict
Augment = Callable[
    [NDArray[Any], NDArray[Any], np.random.Generator], tuple[NDArray[Any], NDArray[Any]]
]  # an image and its target, and all randomness, to what the network is shown

Details = TypeVar("Details")
Term = tuple[Tensor, Tensor]  # of a loss: a sum and the number to divide it by, two scalars


class Labelled(Protocol):
    """An image, H x W x C, and its target: a label map, or a class id without dimensions."""

    @property
    def image(self) -> NDArray[Any]: ...
    @property
    def labels(self) -> NDArray[Any]: ...


class Images(Protocol):
    """Labelled images, read when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Labelled: ...


@dataclass(frozen=True)
class UnlabelledImages:
    """Image files; their label maps say `IGNORE_INDEX` everywhere. Read when they are asked for."""

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """All images in `folder` and its subfolders.

        Raises:
            DataError: there is no such folder, or no image in it.
        """
        if not folder.is_dir():
            raise DataError(f"--unlabelled {folder} is no folder; give one with images")
        if not (paths := find_images(folder)):
            raise DataError(f"--unlabelled {folder} holds no images, such as PNG or JPEG files")
        return cls(tuple(paths))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        image = read_image(self.paths[index])
        return Sample(self.paths[index].name, image, np.full(image.shape[:2], IGNORE_INDEX, np.uint8))


@dataclass(frozen=True)
class Unlabelled:
    """Images without labels that take part in a training.

    Attributes:
        images: whose targets hold no label.
        per_batch: how many of each batch, over all processes together, are of these.
    """

    images: UnlabelledImages
    per_batch: int


@dataclass(frozen=True)
class Score(Generic[Details]):
    """How good a model is.

    Attributes:
        headline: one line for the log.
        figures: everything, as JSON values.
        curves: figures to plot over the run, by name.
        details: the task's own value.
    """

    headline: str
    figures: Mapping[str, Any]
    curves: Mapping[str, float]
    details: Details


class Task(Protocol[Details]):
    """A model, its training images, its loss and its score: all that the training loop does not know itself.

    Attributes:
        recipe: the loop's settings.
        images: the training images with their targets.
        unlabelled: images without, for a share of every batch; None for none.
        class_mix: how often a sample gets half of the classes of another one, see `mix_classes`.
        augmentation: makes a training sample of an image and its target.
        normalisation: from the images' numbers to the model's input.
        model: in training form; maps normalised images, N x C x H x W, to the `outputs` of `loss`.
        opening: a line to log when the training begins; may be empty.
        waits_for_device: whether model or loss read results back from a GPU in the middle of a step; such a step cannot
            become a CUDA graph.
        inputs: digests of the data and of the initial weights; resume is refused if they changed.
        measure: which of a score's figures says what weights are the best; larger is better.
    """

    @property
    def recipe(self) -> LoopSettings: ...
    @property
    def images(self) -> Images: ...
    @property
    def unlabelled(self) -> Unlabelled | None: ...
    @property
    def class_mix(self) -> float: ...
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
    @property
    def measure(self) -> str: ...

    def loss(self, outputs: Any, targets: Tensor, images: Tensor) -> Sequence[Term]:
        """The terms of a batch's loss, on the model's device; the loss is the sum of their means.

        Args:
            outputs: of the model.
            targets: N x H x W class ids to segment, or N class ids to classify.
            images: that the outputs belong to, N x H x W x C whole numbers.
        """

    def evaluate(self, weights: Weights) -> Score[Details] | None:
        """The model's score on validation data with these weights; None without such data."""

    def save(self, weights: Weights, path: Path, facts: Mapping[str, Any], score: Score[Details] | None) -> None:
        """Write the model with these weights to `path`; `facts` about the run, JSON values, go to its record."""


Pair = tuple[NDArray[Any], NDArray[Any]]  # an image and its target

_ORDER, _AUGMENTATION, _UNLABELLED, _MIX = range(4)  # the uses of the seed, so that they never share random numbers


class Order(Protocol):
    """Which image stands at which position of the endless sequence of samples."""

    def index(self, position: int) -> int:
        """The image at `position`."""


class SampleOrder:
    """An `Order` with every image once an epoch."""

    def __init__(self, num_pictures: int, *, seed: int, use: int = _ORDER) -> None:
        self._num_images = num_pictures
        self._seed, self._use = seed, use
        self._turn = -1
        self._permutation: NDArray[np.int64]

    def index(self, position: int) -> int:
        """The image at `position`."""
        turn, place = divmod(position, self._num_images)
        if turn != self._turn:
            self._permutation = np.random.default_rng((self._seed, self._use, turn)).permutation(self._num_images)
            self._turn = turn
        return int(self._permutation[place])


class JoinedImages:
    """Labelled images, and after them those without labels."""

    def __init__(self, labelled: Images, unlabelled: Images) -> None:
        self._parts = labelled, unlabelled

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, index: int) -> Labelled:
        labelled, unlabelled = self._parts
        return labelled[index] if index < len(labelled) else unlabelled[index - len(labelled)]


class JoinedOrder:
    """An `Order` of `JoinedImages`: the last places of each batch are for those without labels.

    Both kinds follow each other in an order of their own, in which each comes once before one comes again.
    """

    def __init__(self, num_labelled: int, unlabelled: Unlabelled, *, batch_size: int, seed: int) -> None:
        self._num_labelled, self._batch_size, self._others = num_labelled, batch_size, unlabelled.per_batch
        self._labelled = SampleOrder(num_labelled, seed=seed)
        self._unlabelled = SampleOrder(len(unlabelled.images), seed=seed, use=_UNLABELLED)

    def index(self, position: int) -> int:
        """The image at `position`."""
        step, place = divmod(position, self._batch_size)
        per_batch = self._batch_size - self._others
        if place < per_batch:
            return self._labelled.index(step * per_batch + place)
        return self._num_labelled + self._unlabelled.index(step * self._others + place - per_batch)


def batch_positions(iteration: int, batch_size: int, process_index: int = 0, num_processes: int = 1) -> range:
    """The positions of an iteration's batch that fall to a process: every `num_processes`-th."""
    return range(iteration * batch_size + process_index, (iteration + 1) * batch_size, num_processes)


def augmentation_rng(seed: int, position: int) -> np.random.Generator:
    """Where all that is random about the sample at `position` comes from, but its image."""
    return np.random.default_rng((seed, _AUGMENTATION, position))


Batch = tuple[Tensor, Tensor]  # images N, H, W, 3 uint8 and their targets


def mix_classes(batch: Batch, probability: float, rngs: Sequence[np.random.Generator]) -> Batch:
    """Samples that have pixels of each other: ClassMix (Olsson et al. 2021), with the labels.

    With `probability`, a sample gets from one other of the batch, as that was, all pixels of half of the classes that
    occur there, rounded down, in their places. Pixels without a label are not passed on.

    Args:
        batch: at least two images N, H, W, 3 uint8 and their label maps N, H, W uint8.
        probability: 0 to 1.
        rngs: one a sample.
    """
    images, labels = batch
    mixed, mixed_labels = images.clone(), labels.clone()
    for place, rng in enumerate(rngs):
        if rng.random() >= probability:
            continue
        other = (place + int(rng.integers(1, len(images)))) % len(images)
        present = np.unique(labels[other].cpu().numpy())
        present = present[present != IGNORE_INDEX]
        chosen = rng.choice(present, len(present) // 2, replace=False)
        pasted = torch.isin(labels[other], torch.from_numpy(chosen).to(labels.device))
        mixed[place][pasted] = images[other][pasted]
        mixed_labels[place][pasted] = labels[other][pasted]
    return mixed, mixed_labels


class ImageCache:
    """Decoded images and their targets, kept up to a number of bytes and decoded again past it."""

    def __init__(self, images: Images, *, max_bytes: int) -> None:
        self._images = images
        self._free_bytes = max_bytes
        self._pairs: dict[int, Pair] = {}

    def __getitem__(self, index: int) -> Pair:
        if (pair := self._pairs.get(index)) is not None:
            return pair
        sample = self._images[index]
        pair = (sample.image, sample.labels)
        num_bytes = sample.image.nbytes + sample.labels.nbytes
        if num_bytes <= self._free_bytes:
            self._free_bytes -= num_bytes
            self._pairs[index] = pair
        return pair


@dataclass(frozen=True)
class Batches:
    """The batches of one process, from any iteration on.

    Threads do the work, not processes: OpenCV releases the interpreter's lock, and threads share one cache of decoded
    images without copies.

    Attributes:
        images: to learn from.
        augmentation: applied to every sample.
        batch_size: samples in a batch over all processes together.
        seed: of order and augmentation.
        num_workers: threads.
        cache_bytes: memory for decoded images.
        process_index, num_processes: this process takes every `num_processes`-th sample of a batch.
        order: of the images; None for `SampleOrder`.
        class_mix: see `mix_classes`.
    """

    images: Images
    augmentation: Augment
    batch_size: int
    seed: int
    num_workers: int
    cache_bytes: int
    process_index: int = 0
    num_processes: int = 1
    order: Order | None = None
    class_mix: float = 0.0

    def starting_at(self, iteration: int, end: int) -> Iterator[Batch]:
        """Batches of the iterations from `iteration` up to `end`: images N, H, W, C and their targets.

        The targets are N, H, W uint8 of label maps, N of class ids, as the augmentation leaves them.
        An image that cannot be read raises where its batch is due.
        """
        return _mixed(self, self._starting_at(iteration, end), iteration)

    def _starting_at(self, iteration: int, end: int) -> Iterator[Batch]:
        order = self.order or SampleOrder(len(self.images), seed=self.seed)
        cache = ImageCache(self.images, max_bytes=self.cache_bytes)
        positions = (
            position
            for step in range(iteration, end)
            for position in batch_positions(step, self.batch_size, self.process_index, self.num_processes)
        )
        per_process = len(batch_positions(0, self.batch_size, self.process_index, self.num_processes))
        # The workers are the parallelism; OpenCV's own threads would fight the network's.
        with opencv_threads(1), ThreadPoolExecutor(self.num_workers) as pool:
            submitted = (pool.submit(self.sample, position, order.index(position), cache) for position in positions)
            pending = deque(islice(submitted, 3 * per_process))  # one batch in hand, two on their way
            try:
                while pending:
                    pairs = []
                    for _ in range(per_process):
                        pairs.append(pending.popleft().result())
                        pending.extend(islice(submitted, 1))
                    images, labels = zip(*pairs, strict=True)
                    yield tensor_of(images), torch.from_numpy(np.stack(labels))
            finally:
                for future in pending:
                    future.cancel()

    def sample(self, position: int, index: int, cache: ImageCache | None = None) -> Pair:
        """What stands at a position of the sequence of samples: image `index`, read and augmented in this thread."""
        image, labels = (cache or ImageCache(self.images, max_bytes=0))[index]
        return self.augmentation(image, labels, augmentation_rng(self.seed, position))


def _mixed(of: "Batches | DeviceBatches", batches: Iterator[Batch], iteration: int) -> Iterator[Batch]:
    """The batches from `iteration` on, with the classes mixed as they are to be."""
    if not of.class_mix:
        return batches

    def mixed() -> Iterator[Batch]:
        for step, batch in enumerate(batches, start=iteration):
            positions = batch_positions(step, of.batch_size, of.process_index, of.num_processes)
            yield mix_classes(batch, of.class_mix, [np.random.default_rng((of.seed, _MIX, p)) for p in positions])

    return mixed()


def tensor_of(images: Sequence[NDArray[Any]]) -> Tensor:
    """Images of one size as N, H, W, C uint8, or int32 where they are uint16, of which torch can do little."""
    stack = np.stack(images)
    return torch.from_numpy(stack if stack.dtype == np.uint8 else stack.astype(np.int32))


def measured_normalisation(images: Split) -> Normalisation:
    """Mean and deviation of each channel of some images; a channel that is the same everywhere has the deviation 1.

    Raises:
        DataError: an image cannot be read.
    """
    found, largest = channel_statistics(images), images.channels.max_value
    std = tuple(own / largest if own > 0 else 1.0 for own in found.std)
    return Normalisation(mean=tuple(own / largest for own in found.mean), std=std, max_value=largest)


PREFETCHED = 4  # batches whose random numbers are drawn ahead
_NO_CHANGE = np.eye(3, 4)


class DeviceImages(NamedTuple):
    """A data set on a device: N x H x W x C whole numbers, and N x H x W uint8 class ids."""

    images: Tensor
    labels: Tensor


def load_images(source: Images, device: torch.device, *, max_bytes: int, num_workers: int) -> DeviceImages | None:
    """All `images` on `device`; None if they are of several sizes or take more than `max_bytes`."""
    first = source[0]
    if len(source) * (first.image.nbytes + first.labels.nbytes) > max_bytes:
        return None
    images = torch.empty((len(source), *first.image.shape), dtype=torch.uint8)
    labels = torch.empty((len(source), *first.labels.shape), dtype=torch.uint8)

    def load(index: int) -> bool:
        sample = source[index]
        if sample.image.shape != first.image.shape or sample.labels.shape != first.labels.shape:
            return False
        images[index] = torch.from_numpy(sample.image)
        labels[index] = torch.from_numpy(sample.labels)
        return True

    with ThreadPoolExecutor(num_workers) as pool:
        alike = all(pool.map(load, range(len(source))))
    return DeviceImages(images.to(device), labels.to(device)) if alike else None


class _Draw(NamedTuple):
    """What a batch of B shows: image numbers (B), crop-to-image maps (B x 2 x 3), colours (B x 3 x 4), and the
    first and last + 1 row and column of each crop that shows its image (B x 4)."""

    indices: NDArray[np.int64]
    maps: NDArray[np.float32]
    colours: NDArray[np.float32]
    inside: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DeviceBatches:
    """The batches of one process, from any iteration on; attributes as those of `Batches`.

    For a GPU and a data set that fits into its memory, where a few processor cores cannot warp as fast as the network
    learns: images lie in the GPU's memory, and a batch is one warp and one colour change. Random numbers are drawn as
    by `Batches`, from the same seeds; a byte may differ by the rounding of OpenCV's fixed-point weights.

    Attributes:
        augmentation: one that `is_affine`.
    """

    images: DeviceImages
    augmentation: Augmentation
    batch_size: int
    seed: int
    process_index: int = 0
    num_processes: int = 1
    order: Order | None = None
    class_mix: float = 0.0

    def starting_at(self, iteration: int, end: int) -> Iterator[Batch]:
        """As `Batches.starting_at`, on the images' device."""
        return _mixed(self, self._starting_at(iteration, end), iteration)

    def _starting_at(self, iteration: int, end: int) -> Iterator[Batch]:
        order = self.order or SampleOrder(len(self.images.images), seed=self.seed)
        with ThreadPoolExecutor(1) as pool:
            pending: list[Future[_Draw]] = []
            for step in range(iteration, end + PREFETCHED):
                if step < end:
                    positions = batch_positions(step, self.batch_size, self.process_index, self.num_processes)
                    pending.append(pool.submit(self._draw, [(p, order.index(p)) for p in positions]))
                if step >= iteration + PREFETCHED:
                    yield self._sample(pending.pop(0).result())

    def _draw(self, places: list[tuple[int, int]]) -> _Draw:
        height, width = self.images.images.shape[1:3]
        samples = [self.augmentation.draw((height, width), augmentation_rng(self.seed, p)) for p, _ in places]
        size = self.augmentation.crop_size
        inside = [(*rows.indices(size[0])[:2], *cols.indices(size[1])[:2]) for _, (rows, cols), _ in samples]
        return _Draw(
            np.array([index for _, index in places], np.int64),
            np.linalg.inv(np.stack([sample.matrix for sample in samples]))[:, :2].astype(np.float32),
            np.stack([_NO_CHANGE if s.colours is None else s.colours for s in samples]).astype(np.float32),
            np.array(inside, np.int64),
        )

    def _sample(self, draw: _Draw) -> tuple[Tensor, Tensor]:
        indices, maps, colours, inside = (torch.from_numpy(x).to(self.images.images.device) for x in draw)
        size = self.augmentation.crop_size
        grid = _grid(maps, size, (self.images.images.shape[1], self.images.images.shape[2]))
        mean = grid.new_tensor(MEAN_COLOUR)
        # Outside the image the sampler gives 0, so that is made to stand for what surrounds it.
        images = (self.images.images[indices].float() - mean).permute(0, 3, 1, 2)
        crops = F.grid_sample(images, grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1) + mean
        labels = self.images.labels[indices].float()[:, None] - IGNORE_INDEX
        crop_labels = F.grid_sample(labels, grid, mode="nearest", align_corners=False)[:, 0] + IGNORE_INDEX
        coloured = crops.round() @ colours[:, None, :, :3].transpose(2, 3) + colours[:, None, None, :, 3]
        crops = torch.where(_rectangles(inside, size)[..., None], coloured, crops)
        return crops.round().clamp(0, 255).to(torch.uint8), crop_labels.round().to(torch.uint8)


def _grid(maps: Tensor, size: tuple[int, int], image: tuple[int, int]) -> Tensor:
    """Where each pixel of a crop lies in its image, B x h x w x 2, in `grid_sample`'s units (align_corners=False)."""
    y, x = torch.meshgrid(*(torch.arange(n, device=maps.device, dtype=maps.dtype) for n in size), indexing="ij")
    places = torch.stack((x, y, torch.ones_like(x)), -1) @ maps[:, None].transpose(2, 3)
    extent = maps.new_tensor((image[1], image[0]))
    return (2 * places + 1) / extent - 1


def _rectangles(inside: Tensor, size: tuple[int, int]) -> Tensor:
    """B x h x w bool: the rows and columns of `inside`, B x 4."""
    rows, columns = (torch.arange(n, device=inside.device)[None] for n in size)
    in_rows = (rows >= inside[:, :1]) & (rows < inside[:, 1:2])
    in_columns = (columns >= inside[:, 2:3]) & (columns < inside[:, 3:])
    return in_rows[:, :, None] & in_columns[:, None, :]
