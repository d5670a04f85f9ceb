"""Batches made on the device show what the workers' batches show."""

from itertools import islice

import numpy as np
import pytest
import torch

from lpsnet.data.augment import Augmentation
from lpsnet.data.dataset import open_dataset
from lpsnet.data.synthetic import SceneSplit
from lpsnet.training.data import Batches, DeviceBatches, JoinedImages, JoinedOrder, Unlabelled, load_images

CPU = torch.device("cpu")
SEED = 11


@pytest.fixture(scope="module")
def split() -> SceneSplit:
    return open_dataset("scenes").split("val")


AUGMENTATIONS = {
    "everything": Augmentation(crop_size=(96, 130), scale=(0.5, 2.0), hue_degrees=10),
    "smaller than the crop": Augmentation(crop_size=(300, 400), scale=(0.5, 0.9)),
    "turned": Augmentation(crop_size=(96, 130), rotation_degrees=20),
    "as it is": Augmentation(
        crop_size=(128, 256), scale=(1, 1), flip_probability=0, brightness=0, contrast=0, saturation=0
    ),
}


class FirstImages:
    """The first few of a split."""

    def __init__(self, split: SceneSplit, count: int) -> None:
        self.split, self.count = split, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.split[index]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_same_samples_as_the_workers(split: SceneSplit, name: str) -> None:
    images, augmentation = FirstImages(split, 5), AUGMENTATIONS[name]
    on_device = load_images(images, CPU, max_bytes=10**9, num_workers=2)
    assert on_device is not None
    ours = DeviceBatches(on_device, augmentation, 3, SEED).starting_at(2, 5)
    theirs = Batches(images, augmentation, 3, SEED, 1, 10**9).starting_at(2, 5)
    for (image, labels), (image_by_workers, labels_by_workers) in zip(ours, theirs, strict=True):
        assert image.dtype == labels.dtype == torch.uint8
        difference = (image.int() - image_by_workers.int()).abs().numpy()
        # OpenCV's warp knows 32 places between two pixels, so edges of strong contrast may differ by a few bytes.
        assert np.mean(difference) < 1.0
        assert np.quantile(difference, 0.99) <= 16
        assert (labels == labels_by_workers).float().mean() > 0.985


def test_starting_later_and_sharing_change_nothing(split: SceneSplit) -> None:
    on_device = load_images(FirstImages(split, 5), CPU, max_bytes=10**9, num_workers=1)
    assert on_device is not None
    augmentation = AUGMENTATIONS["everything"]
    whole = list(DeviceBatches(on_device, augmentation, 4, SEED).starting_at(0, 6))
    later = list(DeviceBatches(on_device, augmentation, 4, SEED).starting_at(4, 6))
    for (image, labels), (same, same_labels) in zip(whole[4:], later, strict=True):
        assert torch.equal(image, same)
        assert torch.equal(labels, same_labels)
    shares = [DeviceBatches(on_device, augmentation, 4, SEED, rank, 2).starting_at(0, 1) for rank in (0, 1)]
    (even, _), (odd, _) = (next(islice(share, 1)) for share in shares)
    assert torch.equal(torch.stack((even, odd), 1).flatten(0, 1), whole[0][0])


def test_what_does_not_fit_is_left_to_the_workers(split: SceneSplit) -> None:
    assert load_images(FirstImages(split, 5), CPU, max_bytes=10**5, num_workers=1) is None

    class TwoSizes(FirstImages):
        def __getitem__(self, index: int):
            sample = self.split[index]
            return sample if index else type(sample)(sample.name, sample.image[:-1], sample.labels[:-1])

    assert load_images(TwoSizes(split, 3), CPU, max_bytes=10**9, num_workers=1) is None


def test_augmentations_that_look_at_the_image_cannot_be_drawn_ahead() -> None:
    assert Augmentation(crop_size=(8, 8)).is_affine
    assert not Augmentation(crop_size=(8, 8), max_class_share=0.75).is_affine
    assert not Augmentation(crop_size=(8, 8), corruption=0.1).is_affine
    assert not Augmentation(crop_size=(8, 8), rare_class_crops=0.5).is_affine
    assert not Augmentation(crop_size=(8, 8), scale=(0.2, 1)).is_affine


def test_classes_are_mixed_as_by_the_workers(split: SceneSplit) -> None:
    images, augmentation = FirstImages(split, 5), AUGMENTATIONS["as it is"]
    on_device = load_images(images, CPU, max_bytes=10**9, num_workers=2)
    assert on_device is not None
    ours = DeviceBatches(on_device, augmentation, 3, SEED, class_mix=0.8).starting_at(2, 4)
    theirs = Batches(images, augmentation, 3, SEED, 1, 10**9, class_mix=0.8).starting_at(2, 4)
    plain = Batches(images, augmentation, 3, SEED, 1, 10**9).starting_at(2, 4)
    for (image, labels), (image_by_workers, labels_by_workers), (unmixed, _) in zip(ours, theirs, plain, strict=True):
        assert torch.equal(labels, labels_by_workers)
        assert torch.equal(image, image_by_workers)
        assert not torch.equal(image, unmixed)


def test_images_without_labels_take_their_places(split: SceneSplit) -> None:
    class WithoutLabels(FirstImages):
        def __getitem__(self, index: int):
            return self.split[index]._replace(labels=np.full((128, 256), 255, np.uint8))

    labelled, others = FirstImages(split, 5), Unlabelled(WithoutLabels(split, 3), per_batch=1)
    images, order = JoinedImages(labelled, others.images), JoinedOrder(5, others, batch_size=3, seed=SEED)
    on_device = load_images(images, CPU, max_bytes=10**9, num_workers=2)
    assert on_device is not None
    ours = DeviceBatches(on_device, AUGMENTATIONS["as it is"], 3, SEED, order=order).starting_at(2, 5)
    theirs = Batches(images, AUGMENTATIONS["as it is"], 3, SEED, 1, 10**9, order=order).starting_at(2, 5)
    for (image, labels), (image_by_workers, labels_by_workers) in zip(ours, theirs, strict=True):
        assert torch.equal(image, image_by_workers)
        assert torch.equal(labels, labels_by_workers)
        assert [bool((it == 255).all()) for it in labels] == [False, False, True]
