"""Batches of training samples in an order that depends on the seed alone.

The samples of a run form one endless sequence: its position p belongs to pass p // n over the n pictures, whose order
is a permutation seeded by (seed, pass), and is augmented with a generator seeded by (seed, p). A run can therefore
start at any position and see exactly what an undisturbed one sees, whatever the number of workers or processes.

Threads and not processes do the work: OpenCV releases the interpreter's lock, and threads share one cache of decoded
pictures without copies.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpsnet.inference.segmenter import opencv_threads
from lpsnet.training.task import Augment, Pictures

Pair = tuple[NDArray[np.uint8], NDArray[Any]]  # a picture and its target

_ORDER, _AUGMENTATION = 0, 1  # the two uses of the seed, so that they never share random numbers


class SampleOrder:
    """Which picture stands at which position of the endless sequence of samples."""

    def __init__(self, num_pictures: int, *, seed: int) -> None:
        self._num_pictures = num_pictures
        self._seed = seed
        self._turn = -1
        self._permutation: NDArray[np.int64]

    def index(self, position: int) -> int:
        """The picture at `position`."""
        turn, place = divmod(position, self._num_pictures)
        if turn != self._turn:
            self._permutation = np.random.default_rng((self._seed, _ORDER, turn)).permutation(self._num_pictures)
            self._turn = turn
        return int(self._permutation[place])


def batch_positions(iteration: int, batch_size: int, process_index: int = 0, num_processes: int = 1) -> range:
    """The positions of an iteration's batch that fall to a process: every `num_processes`-th."""
    return range(iteration * batch_size + process_index, (iteration + 1) * batch_size, num_processes)


def augmentation_rng(seed: int, position: int) -> np.random.Generator:
    """Where all that is random about the sample at `position` comes from, but its picture."""
    return np.random.default_rng((seed, _AUGMENTATION, position))


class PictureCache:
    """Decoded pictures and their targets, kept up to a number of bytes and decoded again past it."""

    def __init__(self, pictures: Pictures, *, max_bytes: int) -> None:
        self._pictures = pictures
        self._free_bytes = max_bytes
        self._pairs: dict[int, Pair] = {}

    def __getitem__(self, index: int) -> Pair:
        if (pair := self._pairs.get(index)) is not None:
            return pair
        sample = self._pictures[index]
        pair = (sample.image, sample.labels)
        num_bytes = sample.image.nbytes + sample.labels.nbytes
        if num_bytes <= self._free_bytes:
            self._free_bytes -= num_bytes
            self._pairs[index] = pair
        return pair


@dataclass(frozen=True)
class Batches:
    """The batches of one process, from any iteration on.

    Attributes:
        pictures: to learn from.
        augmentation: applied to every sample.
        batch_size: samples in a batch over all processes together.
        seed: of order and augmentation.
        num_workers: threads.
        cache_bytes: memory for decoded pictures.
        process_index, num_processes: this process takes every `num_processes`-th sample of a batch.
    """

    pictures: Pictures
    augmentation: Augment
    batch_size: int
    seed: int
    num_workers: int
    cache_bytes: int
    process_index: int = 0
    num_processes: int = 1

    def starting_at(self, iteration: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the iterations from `iteration` up to `end`: pictures N, H, W, 3 uint8 and their targets.

        The targets are N, H, W uint8 of label maps, N of class ids, as the augmentation leaves them.
        A picture that cannot be read raises where its batch is due.
        """
        order = SampleOrder(len(self.pictures), seed=self.seed)
        cache = PictureCache(self.pictures, max_bytes=self.cache_bytes)
        positions = (
            position
            for step in range(iteration, end)
            for position in batch_positions(step, self.batch_size, self.process_index, self.num_processes)
        )
        per_process = len(batch_positions(0, self.batch_size, self.process_index, self.num_processes))
        # The workers are the parallelism; OpenCV's own threads would fight the network's.
        with opencv_threads(1), ThreadPoolExecutor(self.num_workers) as pool:
            pending: deque[Future[Pair]] = deque()
            try:
                yield from self._collect(pool, pending, positions, order, cache, per_process)
            finally:
                for future in pending:
                    future.cancel()

    def _collect(
        self,
        pool: ThreadPoolExecutor,
        pending: deque[Future[Pair]],
        positions: Iterator[int],
        order: SampleOrder,
        cache: PictureCache,
        per_process: int,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        def submit() -> None:
            if (position := next(positions, None)) is not None:
                pending.append(pool.submit(self.sample, position, order.index(position), cache))

        for _ in range(3 * per_process):  # one batch in hand, two on their way
            submit()
        while pending:
            pairs = []
            for _ in range(per_process):
                pairs.append(pending.popleft().result())
                submit()
            images, labels = zip(*pairs, strict=True)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def sample(self, position: int, index: int, cache: PictureCache | None = None) -> Pair:
        """What stands at a position of the sequence of samples: picture `index`, read and augmented in this thread."""
        if cache is None:
            cache = PictureCache(self.pictures, max_bytes=0)
        image, labels = cache[index]
        return self.augmentation(image, labels, augmentation_rng(self.seed, position))
