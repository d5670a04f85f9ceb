"""The order of the samples depends on the seed and the position alone."""

from collections import Counter

import numpy as np
import pytest
import torch

from lpsnet.data.augment import Augmentation
from lpsnet.data.dataset import Sample
from lpsnet.data.labels import LabelSpace
from lpsnet.training.data import Batches, ImageCache, SampleOrder

PLAIN = Augmentation(
    crop_size=(4, 4), scale=(1, 1), flip_probability=0, brightness=0, contrast=0, saturation=0
)  # the image itself
RANDOM = Augmentation(crop_size=(4, 4))


class NumberedSplit:
    """Images whose every byte is their number; counts how often each is read."""

    name = "train"
    label_space = LabelSpace.numbered(100)

    def __init__(self, count: int) -> None:
        self.names = [str(number) for number in range(count)]
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        return Sample(self.names[index], self.image(index), self.labels(index))

    def image(self, index: int) -> np.ndarray:
        return np.full((4, 4, 3), index, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return np.full((4, 4), index, np.uint8)


def run(start: int, end: int, *, augmentation: Augmentation = PLAIN, workers: int = 1, rank: int = 0, ranks: int = 1):
    batches = Batches(NumberedSplit(7), augmentation, 4, 5, workers, 10**6, rank, ranks)
    return list(batches.starting_at(start, end))


def test_every_image_once_a_pass() -> None:
    order = SampleOrder(7, seed=5)
    epochs = [[order.index(7 * turn + place) for place in range(7)] for turn in range(3)]
    assert all(sorted(indices) == list(range(7)) for indices in epochs)
    assert epochs[0] != epochs[1]


def test_batches_follow_the_order() -> None:
    order = SampleOrder(7, seed=5)
    numbers = [int(label[0, 0]) for _, labels in run(0, 5) for label in labels]
    assert numbers == [order.index(position) for position in range(20)]


@pytest.mark.parametrize("workers", [1, 3])
def test_starting_late_and_other_workers_change_nothing(workers: int) -> None:
    whole = run(0, 6, augmentation=RANDOM)
    late = run(4, 6, augmentation=RANDOM, workers=workers)
    for (image, labels), (late_image, late_labels) in zip(whole[4:], late, strict=True):
        assert torch.equal(image, late_image)
        assert torch.equal(labels, late_labels)


def test_processes_share_a_batch_without_overlap() -> None:
    whole = run(0, 3, augmentation=RANDOM)
    shares = [run(0, 3, augmentation=RANDOM, rank=rank, ranks=2) for rank in range(2)]
    for step, (image, _) in enumerate(whole):
        assert torch.equal(image, torch.stack([shares[i % 2][step][0][i // 2] for i in range(4)]))


def test_cache_reads_once_up_to_its_size() -> None:
    split = NumberedSplit(3)
    cache = ImageCache(split, max_bytes=2 * 64)
    for _ in range(2):
        for index in range(3):
            assert cache[index][0][0, 0, 0] == index
    assert split.reads == {0: 1, 1: 1, 2: 2}


def test_an_unreadable_image_raises_and_the_threads_end() -> None:
    class Broken(NumberedSplit):
        def __getitem__(self, index: int) -> Sample:
            raise ValueError("image 3 is broken")

    with pytest.raises(ValueError, match="broken"):
        list(Batches(Broken(7), PLAIN, 4, 5, 2, 0).starting_at(0, 3))
