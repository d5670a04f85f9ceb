"""Evaluation of any callable on a small split of images held in memory."""

import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from lpsnet.data.labels import BDD100K, CAMVID, CITYSCAPES, LabelSpace, check_same_classes
from lpsnet.errors import DataError
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.evaluation.metrics import scores

SPACE = LabelSpace.from_names("three", ("a", "b", "c"))


class Sample(NamedTuple):
    name: str
    image: np.ndarray
    labels: np.ndarray


class Split:
    """Images whose red channel is the labels, a part of them changed, so that predicting red is nearly right."""

    name = "val"
    label_space = SPACE

    def __init__(self, count: int) -> None:
        self._samples = [self._sample(number) for number in range(count)]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample:
        return self._samples[number]

    @property
    def names(self) -> Sequence[str]:
        return [sample.name for sample in self._samples]

    def image(self, number: int) -> np.ndarray:
        return self._samples[number].image

    def labels(self, number: int) -> np.ndarray:
        return self._samples[number].labels

    @staticmethod
    def _sample(number: int) -> Sample:
        rng = np.random.default_rng(number)
        labels = rng.integers(0, 2, (12, 17), dtype=np.uint8)
        image = np.repeat(labels[..., None], 3, axis=2)
        labels = np.where(rng.random(labels.shape) < 0.1 * number, 1 - labels, labels)
        labels[:2] = 255
        return Sample(f"town/{number:03}", image, labels)


def _red(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., 0])


def test_scores_are_those_of_all_pixels_together() -> None:
    split = Split(4)
    result = evaluate(_red, split, label_space=SPACE)
    expected = np.zeros((3, 3), np.int64)
    for number in range(4):
        known = split.labels(number) != 255
        np.add.at(expected, (split.labels(number)[known], _red(split.image(number))[known]), 1)
    np.testing.assert_array_equal(result.matrix, expected)
    assert result.num_images == 4
    assert result.miou == scores(expected).miou
    assert result.boundary_ious == {}


def test_the_worst_images_can_be_found() -> None:
    result = evaluate(_red, Split(4))
    assert [image.name for image in result.per_image] == ["town/000", "town/001", "town/002", "town/003"]
    assert result.per_image[0].miou == 100
    assert [image.name for image in result.worst(2)] == ["town/003", "town/002"]


def test_to_dict_is_json_with_null_for_what_has_no_value() -> None:
    result = evaluate(_red, Split(2), protocol={"engine": "none", "flip": True}, boundary=True)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["miou"] == result.miou
    assert read["ious"]["c"] is None
    assert read["ious"]["a"] == scores(result.matrix).ious[0]
    assert read["classes_missing"] == ["c"]
    assert read["num_images"] == 2
    assert np.array(read["confusion_matrix"]).sum() == 2 * 10 * 17
    assert read["per_image"][0] == {"name": "town/000", "miou": 100}
    assert set(read["boundary_ious"]) == {"a", "b", "c"}
    assert read["protocol"] == {
        "split": "val",
        "num_images": 2,
        "picture_sizes": [[12, 17]],
        "num_classes": 3,
        "label_space": "three",
        "engine": "none",
        "flip": True,  # what the caller says of its segmenter wins
        "multi_scale": False,
        "sliding_window": False,
    }


def test_what_is_written_is_read_again() -> None:
    split = Split(3)
    split.labels(1)[:] = 255
    written = evaluate(_red, split, boundary=True).model_copy(update={"command": "lpsnet evaluate"}).to_dict()
    assert Evaluation.model_validate(json.loads(json.dumps(written, allow_nan=False))).to_dict() == written
    assert list(written)[-3:] == ["boundary_miou", "boundary_ious", "command"]


def test_the_summary_is_without_what_is_long() -> None:
    result = evaluate(_red, Split(10))
    assert set(result.to_dict()) - set(result.summary()) == {
        "confusion_matrix",
        "per_image",
        "iou_intervals",
        "colours",
    }
    assert result.summary()["miou"] == result.miou


@pytest.mark.parametrize(("count", "is_counted"), [(9, False), (10, True)])
def test_intervals_are_of_ten_images_or_more(count: int, is_counted: bool) -> None:
    result = evaluate(_red, Split(count))
    assert (result.miou_interval is not None, bool(result.iou_intervals)) == (is_counted, is_counted)


def test_an_image_without_labels_does_not_disturb() -> None:
    split = Split(2)
    split.labels(1)[:] = 255
    result = evaluate(_red, split)
    assert result.miou == 100
    assert math.isnan(result.per_image[1].miou)
    assert len(result.worst(5)) == 1
    assert result.to_dict()["per_image"][1]["miou"] is None


def test_progress_and_predictions_are_handed_out_in_order() -> None:
    steps: list[tuple[int, int]] = []
    seen: list[str] = []
    evaluate(
        _red,
        Split(3),
        on_progress=lambda done, total: steps.append((done, total)),
        on_prediction=lambda sample, labels: seen.append(f"{sample.name} {labels.shape}"),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert seen == [f"town/{number:03} (12, 17)" for number in range(3)]


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (lambda image: _red(image)[1:], r"town/000: labels are 12x17 pixels but the prediction is 11x17"),
        (lambda image: _red(image) + 2, r"town/000: prediction holds class id 3"),
        (lambda image: _red(image).astype(int), r"town/000: prediction must be H x W uint8"),
    ],
)
def test_a_wrong_label_map_is_named(segment: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(segment, Split(1))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="split 'val' holds no images"):
        evaluate(_red, Split(0))


def test_classes_must_be_the_same() -> None:
    check_same_classes(CITYSCAPES, BDD100K)  # same names, other name and colours of the space do not matter
    with pytest.raises(DataError, match=r"19 classes against 11; only the model has sidewalk, .*; only the data"):
        check_same_classes(CITYSCAPES, CAMVID)
    turned = LabelSpace.from_names("turned", ("a", "c", "b"))
    with pytest.raises(DataError, match="the order differs, id 1 is 'c' and 'b'"):
        evaluate(_red, Split(1), label_space=turned)
