"""The order of the samples depends on the seed and the position alone."""

from collections import Counter

import numpy as np
import pytest
import torch

from lpsnet.data.augment import Augmentation
from lpsnet.data.dataset import Sample
from lpsnet.data.labels import LabelSpace
from lpsnet.training.data import Batches, ImageCache, SampleOrder, mix_classes

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


def random_batch(seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4, 6, 7, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 6, (4, 6, 7), generator=generator).to(torch.uint8)
    labels[labels == 5] = 255
    labels[3] = 255  # an image without labels
    return images, labels


def test_classes_are_mixed_as_if_pasted_pixel_by_pixel() -> None:
    images, labels = random_batch()
    for seed in range(20):
        mixed, mixed_labels = mix_classes((images, labels), 1.0, [np.random.default_rng((seed, n)) for n in range(4)])
        for place in range(4):
            rng = np.random.default_rng((seed, place))
            rng.random()
            other = (place + int(rng.integers(1, 4))) % 4
            assert other != place
            present = sorted({int(label) for label in labels[other].flatten()} - {255})
            chosen = set(rng.choice(np.array(present, np.uint8), len(present) // 2, replace=False).tolist())
            assert len(chosen) == (0 if other == 3 else 2)
            for y, x in np.ndindex(6, 7):
                source = other if int(labels[other, y, x]) in chosen else place
                assert torch.equal(mixed[place, y, x], images[source, y, x])
                assert mixed_labels[place, y, x] == labels[source, y, x]


def test_as_many_samples_are_mixed_as_the_probability_says() -> None:
    batch = random_batch()
    same = mix_classes(batch, 0.0, [np.random.default_rng(n) for n in range(4)])
    assert torch.equal(same[0], batch[0])
    counted = 0
    for seed in range(200):
        mixed, _ = mix_classes(batch, 0.25, [np.random.default_rng((seed, n)) for n in range(4)])
        counted += sum(not torch.equal(a, b) for a, b in zip(mixed, batch[0], strict=True))
    assert 0.25 * 800 * 0.5 < counted < 0.25 * 800  # a quarter, less those whose other has no labels


def test_mixed_batches_start_late_and_are_mixed_from_the_plain_ones() -> None:
    options = {"images": NumberedSplit(7), "augmentation": RANDOM, "batch_size": 4, "seed": 5}
    whole = list(Batches(**options, num_workers=1, cache_bytes=0, class_mix=0.5).starting_at(0, 6))
    late = list(Batches(**options, num_workers=2, cache_bytes=0, class_mix=0.5).starting_at(4, 6))
    for (image, labels), (late_image, late_labels) in zip(whole[4:], late, strict=True):
        assert torch.equal(image, late_image)
        assert torch.equal(labels, late_labels)
