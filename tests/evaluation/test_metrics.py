"""The confusion matrix and its scores, against torchmetrics, sets of pixels and answers worked out by hand."""

import math
import warnings

import numpy as np
import pytest

from lpsnet.errors import DataError
from lpsnet.evaluation.metrics import ConfusionMatrix, confusion_matrix, percent, scores


def _pair(seed: int, *, num_classes: int, size: tuple[int, int] = (20, 30)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, size, dtype=np.uint8)
    prediction = np.where(rng.random(size) < 0.6, truth, rng.integers(0, num_classes, size, dtype=np.uint8))
    truth[rng.random(size) < 0.1] = 255
    return truth, prediction


@pytest.mark.parametrize("num_classes", [1, 2, 19, 254, 255])
def test_counts_are_those_of_a_loop_over_pixels(num_classes: int) -> None:
    truth, prediction = _pair(num_classes, num_classes=num_classes)
    expected = np.zeros((num_classes, num_classes), np.int64)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != 255:
            expected[t, p] += 1
    counts = confusion_matrix(truth, prediction, num_classes=num_classes)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("num_classes", [2, 11, 19])
def test_agrees_with_torchmetrics(num_classes: int) -> None:
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.classification")
    settings = {"num_classes": num_classes, "ignore_index": 255}
    pairs = [_pair(seed, num_classes=num_classes) for seed in range(3)]
    truth, prediction = (torch.tensor(np.stack(maps).astype(np.int64)) for maps in zip(*pairs, strict=True))

    counts = ConfusionMatrix(num_classes)
    for pair in pairs:
        counts.update(*pair)
    own = scores(counts.matrix)

    oracle = classification.MulticlassConfusionMatrix(**settings)(prediction, truth)
    np.testing.assert_array_equal(counts.matrix, oracle.numpy())
    for name, value, average in [
        ("MulticlassJaccardIndex", own.miou, "macro"),
        ("MulticlassJaccardIndex", own.ious, "none"),
        ("MulticlassJaccardIndex", own.frequency_weighted_iou, "weighted"),
        ("MulticlassAccuracy", own.pixel_accuracy, "micro"),
        ("MulticlassAccuracy", own.mean_accuracy, "macro"),
        ("MulticlassAccuracy", own.accuracies, "none"),
    ]:
        oracle = getattr(classification, name)(**settings, average=average)(prediction, truth)
        np.testing.assert_allclose(value, 100 * oracle.numpy(), rtol=1e-5, err_msg=f"{name} {average}")


def test_ious_are_those_of_sets_of_pixels() -> None:
    truth, prediction = _pair(7, num_classes=5)
    counted = {(y, x) for y, x in np.ndindex(truth.shape) if truth[y, x] != 255}
    for number, iou in enumerate(scores(confusion_matrix(truth, prediction, num_classes=5)).ious):
        true = {place for place in counted if truth[place] == number}
        predicted = {place for place in counted if prediction[place] == number}
        assert iou == pytest.approx(100 * len(true & predicted) / len(true | predicted), rel=1e-12)


def test_an_answer_by_hand() -> None:
    """Six counted pixels: three of class 0 (two found), two of class 1 (found), one of class 2 taken for 1."""
    truth = np.array([[0, 0, 0, 1], [1, 2, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [1, 1, 0, 3]], np.uint8)
    result = scores(confusion_matrix(truth, prediction, num_classes=4))
    assert result.ious[:3] == pytest.approx((200 / 3, 50, 0))
    assert math.isnan(result.ious[3])  # predicted only where nothing is counted
    assert result.miou == pytest.approx((200 / 3 + 50 + 0) / 3)
    assert result.accuracies[:3] == pytest.approx((200 / 3, 100, 0))
    assert math.isnan(result.accuracies[3])
    assert result.mean_accuracy == pytest.approx((200 / 3 + 100 + 0) / 3)
    assert result.pixel_accuracy == pytest.approx(400 / 6)
    assert result.frequency_weighted_iou == pytest.approx((3 * 200 / 3 + 2 * 50 + 1 * 0) / 6)


def test_a_class_only_predicted_counts_as_zero() -> None:
    counts = confusion_matrix(np.zeros((2, 2), np.uint8), np.array([[0, 0], [1, 0]], np.uint8), num_classes=3)
    result = scores(counts)
    assert result.ious[:2] == (75, 0)
    assert math.isnan(result.ious[2])
    assert result.miou == 37.5
    assert result.mean_accuracy == 75


@pytest.mark.parametrize("size", [(4, 4), (0, 5)])
def test_a_image_without_labels_has_no_scores(size: tuple[int, int]) -> None:
    counts = confusion_matrix(np.full(size, 255, np.uint8), np.zeros(size, np.uint8), num_classes=3)
    result = scores(counts)
    assert counts.sum() == 0
    assert math.isnan(result.miou)
    assert math.isnan(result.pixel_accuracy)
    assert math.isnan(result.frequency_weighted_iou)


def test_the_set_is_scored_as_one_not_as_a_mean_of_images() -> None:
    pairs = [_pair(seed, num_classes=4) for seed in range(3)]
    counts, parts = ConfusionMatrix(4), [ConfusionMatrix(4), ConfusionMatrix(4)]
    for number, pair in enumerate(pairs):
        np.testing.assert_array_equal(counts.update(*pair), confusion_matrix(*pair, num_classes=4))
        parts[number % 2].update(*pair)
    joined = confusion_matrix(*(np.concatenate(maps) for maps in zip(*pairs, strict=True)), num_classes=4)
    np.testing.assert_array_equal(counts.matrix, joined)
    np.testing.assert_array_equal((parts[0] + parts[1]).matrix, joined)
    parts[0] += parts[1]
    np.testing.assert_array_equal(parts[0].matrix, joined)


def test_the_matrix_handed_out_is_a_copy() -> None:
    counts = ConfusionMatrix(2)
    counts.matrix[0, 0] = 7
    assert counts.matrix.sum() == 0


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "labels are 2x3 pixels but the prediction is 3x2"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8), "prediction holds class id 3; ids are 0 to 2"),
        (np.full((2, 2), 255, np.uint8), np.full((2, 2), 255, np.uint8), "prediction holds class id 255"),
        (np.array([[3, 254]], np.uint8), np.zeros((1, 2), np.uint8), "labels hold id 3, 254"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.uint8), "labels must be H x W uint8; got float64"),
        (np.zeros((2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), "prediction must be H x W uint8"),
    ],
)
def test_what_cannot_be_counted(truth: np.ndarray, prediction: np.ndarray, message: str) -> None:
    counts = ConfusionMatrix(3)
    with pytest.raises(DataError, match=message):
        counts.update(truth, prediction)
    assert counts.matrix.sum() == 0


def test_numbers_of_classes_must_fit() -> None:
    with pytest.raises(DataError, match="1 to 255"):
        ConfusionMatrix(256)
    with pytest.raises(DataError, match="counts of 3 classes to counts of 2"):
        ConfusionMatrix(2) + ConfusionMatrix(3)


def test_one_class_is_enough_and_none_is_not() -> None:
    counts = ConfusionMatrix(1)
    counts.update(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert counts.matrix.tolist() == [[4]]
    with pytest.raises(DataError, match="1 to 255 classes; got 0"):
        ConfusionMatrix(0)


def test_nothing_to_divide_by_is_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = percent(np.array([0, 1]), np.array([0, 4]))
    np.testing.assert_array_equal(given, [np.nan, 25])


def test_a_few_of_many_strange_ids_are_named() -> None:
    truth = np.arange(20, 40, dtype=np.uint8).reshape(4, 5)
    with pytest.raises(DataError, match=r"id 20, 21, 22, 23, 24, 25, 26, 27; ids are 0 to 2"):
        ConfusionMatrix(3).update(truth, np.zeros((4, 5), np.uint8))
