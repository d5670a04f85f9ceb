"""Robustness: mIoU under corruptions, of a segmenter that is a threshold, against counts made here."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from lpsnet.data.corruptions import CORRUPTIONS, choose, corrupt
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import LpsnetError
from lpsnet.evaluation.evaluate import Evaluation, RobustnessTest, evaluate
from lpsnet.evaluation.selection import spread_evenly

SPACE = LabelSpace.from_names("two", ("dark", "bright"))


class Sample:
    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(number)
        self.name = str(number)
        self.labels = rng.integers(0, 2, (20, 30)).astype(np.uint8)
        self.image = np.repeat((90 + 80 * self.labels)[..., None], 3, axis=2).astype(np.uint8)
        self.labels[0] = 255


class Split:
    """Images of 90 and 170, two classes; the samples are counted as they are read."""

    name, label_space = "val", SPACE

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        self.read += 1
        return Sample(number)


def threshold(image: np.ndarray) -> np.ndarray:
    return (image[..., 1] > 127).astype(np.uint8)


def test_by_arithmetic() -> None:
    """Gamma 2.2 takes 170 to 104, below the threshold: all is dark, and IoU is the share of the dark, and 0."""
    samples = [Sample(number) for number in range(3)]
    labels = np.concatenate([it.labels.ravel() for it in samples])
    found = evaluate(threshold, Split(3), robustness=RobustnessTest(choose(["dark"], ["middle"]))).robustness
    assert found is not None
    assert (found.num_images, found.clean_miou) == (3, 100)
    (score,) = found.scores
    assert (score.corruption, score.strength, score.value) == ("dark", "middle", 2.2)
    assert found.mean_miou == score.miou == pytest.approx(100 * (labels == 0).sum() / (labels != 255).sum() / 2)


def test_every_cell_against_counts_of_its_own() -> None:
    split, test = Split(7), RobustnessTest(choose(strengths=["mild", "strong"]), num_images=3, seed=5)
    evaluation = evaluate(threshold, split, robustness=test)
    assert split.read == 7, "an image is read once"
    found = evaluation.robustness
    assert found is not None
    assert [(it.corruption, it.strength) for it in found.scores] == [
        (name, strength) for name in CORRUPTIONS for strength in ("mild", "strong")
    ]
    places = spread_evenly(range(7), 3)
    assert found.num_images == len(places) == 3
    for score in found.scores:
        counts = np.zeros((2, 2))
        for place in places:
            sample = Sample(place)
            drawn = threshold(corrupt(score.corruption, sample.image, score.strength, index=place, seed=5))
            known = sample.labels != 255
            np.add.at(counts, (sample.labels[known], drawn[known]), 1)
        ious = np.diag(counts) / (counts.sum(0) + counts.sum(1) - np.diag(counts))
        assert score.miou == pytest.approx(100 * ious.mean())
    assert found.mean_miou == pytest.approx(np.mean([it.miou for it in found.scores]))
    assert 0 < found.mean_miou < 100


def test_all_else_is_as_without() -> None:
    plain, robust = evaluate(threshold, Split(4)), evaluate(threshold, Split(4), robustness=RobustnessTest())
    assert "robustness" not in plain.to_dict(), "files of before do not change"
    assert robust.model_copy(update={"robustness": None}) == plain
    assert plain.robustness is None


def test_what_is_written_is_read_again() -> None:
    evaluation = evaluate(threshold, Split(2), robustness=RobustnessTest())
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    again = Evaluation.model_validate_json(text)
    assert again == evaluation
    assert json.dumps(again.to_dict()) == text
    assert evaluation.summary()["robustness"] == json.loads(text)["robustness"], "records hold it"
    with pytest.raises(ValidationError):
        Evaluation.model_validate(json.loads(text) | {"robustness": {"num_images": 3}})


def test_images_without_labels_have_no_score() -> None:
    class Blank(Split):
        def __getitem__(self, number: int) -> Sample:
            sample = Sample(number)
            sample.labels[:] = 255
            return sample

    evaluation = evaluate(threshold, Blank(1), robustness=RobustnessTest())
    assert evaluation.to_dict()["robustness"]["mean_miou"] is None
    assert Evaluation.model_validate(evaluation.to_dict()).robustness is not None


def test_the_number_of_images() -> None:
    assert sorted(RobustnessTest(num_images=100).places(7)) == list(range(7))
    assert sorted(RobustnessTest(num_images=2).places(7)) == [0, 3]
    with pytest.raises(LpsnetError, match="1 image or more; got 0"):
        RobustnessTest(num_images=0)


def test_the_images_that_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("lpsnet.evaluation.evaluate.time.perf_counter", lambda: now[0])

    def slow(image: np.ndarray) -> np.ndarray:
        now[0] += 0.1
        return threshold(image)

    image = Sample(0).image
    per_image = 0.1 * len(CORRUPTIONS)
    assert RobustnessTest().within(20.5 * per_image, slow, image).num_images == 20
    assert RobustnessTest().within(0.5, slow, image).num_images == 8, "fewer say nothing"
    assert RobustnessTest().within(1e6, slow, image).num_images == 100
