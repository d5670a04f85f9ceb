"""Which images to label next: values by hand, the spread by brute force, and a film of near-duplicates."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lpsnet.data import convert
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.images import write_png
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError
from lpsnet.evaluation.selection import MEASURES, class_weights, look, select, spread, spread_evenly
from lpsnet.inference.engines import FakeSession
from lpsnet.inference.segmenter import Segmenter
from lpsnet.record import ModelRecord

SPACE = LabelSpace.from_names("three", ("red", "green", "blue"))


def by_colour(gain: float = 4.0) -> Segmenter:
    """Classes by the strongest channel of a pixel, surer the more it stands out."""
    record = ModelRecord(architecture=None, label_space=SPACE)
    return Segmenter.from_session(FakeSession(lambda batch: np.float32(gain) * batch[:, :, ::4, ::4]), record)


def test_weights_by_hand() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :4] = 1  # shares of the labelled: 0.64, 0.16, 0.2
    labels[1, :5] = 2
    labels[2:, :] = np.where(np.arange(80).reshape(8, 10) < 5, 2, 0)
    counts = np.bincount(labels.ravel(), minlength=3)
    weights = class_weights([labels[:5], labels[5:], np.full((3, 3), 255, np.uint8)], 3)
    shares = counts / 100
    np.testing.assert_allclose(weights, shares**-0.5 / np.sqrt(shares).sum(), rtol=1e-6)
    np.testing.assert_allclose((weights * shares).sum(), 1, rtol=1e-6)
    never = class_weights([np.zeros((4, 4), np.uint8)], 2)
    np.testing.assert_allclose(never[1] / never[0], 100, rtol=1e-5)  # 1 / sqrt(0.0001)
    with pytest.raises(DataError, match="no pixel"):
        class_weights([np.full((3, 3), 255, np.uint8)], 3)


@pytest.mark.parametrize(("measure", "expected"), [
    ("margin", 1 - (0.7 - 0.2)),
    ("entropy", -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)) / np.log(3)),
])  # fmt: skip
def test_the_value_of_an_image_by_hand(measure: str, expected: float) -> None:
    logits = np.log(np.array([0.2, 0.7, 0.1], np.float32))[None, :, None, None] + np.zeros((1, 3, 4, 5), np.float32)
    record = ModelRecord(architecture=None, label_space=SPACE)
    segment = Segmenter.from_session(FakeSession(lambda _: logits + 50), record)
    view = look(segment, np.zeros((40, 50, 3), np.uint8), np.array([1, 2, 5], np.float32), measure)
    assert view.unsure == pytest.approx(expected, rel=1e-5)
    assert view.value == pytest.approx(expected * (0.2 * 1 + 0.7 * 2 + 0.1 * 5), rel=1e-5)
    np.testing.assert_allclose(view.shares, [0.2, 0.7, 0.1], rtol=1e-5)


def test_measures_of_one_class_and_of_equal_ones() -> None:
    for measure in MEASURES.values():
        np.testing.assert_allclose(measure(np.full((4, 2, 2), 0.25, np.float32)), 1, rtol=1e-6)
        np.testing.assert_allclose(measure(np.ones((1, 2, 2), np.float32)), 0, atol=1e-6)


def brute_force(values: np.ndarray, points: np.ndarray, known: np.ndarray, count: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(min(count, len(values))):
        gains = {}
        for place in set(range(len(values))) - set(chosen):
            others = [*known, *points[chosen]]
            nearest = min((np.sqrt(((points[place] - other) ** 2).sum()) for other in others), default=1.0)
            gains[place] = values[place] * nearest
        chosen.append(max(sorted(gains), key=gains.__getitem__))
    return chosen


@pytest.mark.parametrize("num_known", [0, 1, 7])
@pytest.mark.parametrize("seed", range(5))
def test_spread_by_brute_force(seed: int, num_known: int) -> None:
    rng = np.random.default_rng(seed)
    values, points, known = rng.random(30), rng.normal(size=(30, 4)), rng.normal(size=(num_known, 4))
    chosen = spread(values.tolist(), list(points), list(known), 12)
    assert [choice.place for choice in chosen] == brute_force(values, points, known, 12)
    assert len(spread(values.tolist(), list(points), list(known), 99)) == 30


@pytest.fixture
def labelled(tmp_path: Path) -> Dataset:
    """Two images, red but for a little blue; no green."""
    target = convert.Target(tmp_path / "labelled", SPACE, ("train",))
    labels = np.zeros((64, 64), np.uint8)
    labels[:8, :8] = 2
    samples = []
    for number in range(2):
        file = target.images / f"train/{number}.png"
        write_png(file, np.full((64, 64, 3), (200, 10 + number, 10), np.uint8))
        samples.append(convert.Converted("train", str(number), file, (64, 64), labels, 0.0))
    convert.write_masks(target, samples)
    return open_dataset(tmp_path / "labelled")


def pool(folder: Path, colours: dict[str, tuple[int, int, int]]) -> list[Path]:
    for name, colour in colours.items():
        write_png(folder / name, np.full((64, 64, 3), colour, np.uint8))
    return [folder / name for name in colours]


def test_rare_and_unsure_before_common_and_sure(labelled: Dataset, tmp_path: Path) -> None:
    paths = pool(tmp_path / "pool", {
        "sure_red.png": (220, 0, 30), "unsure_red.png": (140, 100, 60), "unsure_green.png": (100, 140, 60),
    })  # fmt: skip
    found = select(by_colour(), paths, labelled, count=3)
    assert [path.name for path in found.paths] == ["unsure_green.png", "unsure_red.png", "sure_red.png"]
    assert found.weights[1] > found.weights[2] > found.weights[0]
    assert found.num_pool == 3


def test_of_a_film_one_frame_is_taken_before_others(labelled: Dataset, tmp_path: Path) -> None:
    film = {f"film_{number}.png": (100 + number % 3, 150, 90) for number in range(10)}
    others = {"a.png": (90, 130, 160), "b.png": (150, 60, 130)}
    found = select(by_colour(), pool(tmp_path / "pool", {**film, **others}), labelled, count=3)
    names = [path.name for path in found.paths]
    assert sum(name.startswith("film") for name in names) == 1
    assert {"a.png", "b.png"} < set(names)
    # by value alone, frames of the film come first
    assert min(found.views[names.index(name)].value for name in names if name.startswith("film")) > max(
        found.views[names.index(name)].value for name in others
    )


def test_what_is_labelled_or_unreadable_is_left_out(labelled: Dataset, tmp_path: Path) -> None:
    paths = pool(tmp_path / "pool", {"new.png": (90, 120, 160)})
    shutil.copy(tmp_path / "labelled/images/train/0.png", tmp_path / "pool/copy.png")
    (tmp_path / "pool/bad.png").write_text("no image")
    paths += [tmp_path / "pool/copy.png", tmp_path / "pool/bad.png"]
    ticks: list[tuple[int, int]] = []
    found = select(by_colour(), paths, labelled, count=9, on_progress=lambda *tick: ticks.append(tick))
    assert found.paths == (tmp_path / "pool/new.png",)
    assert found.labelled == (tmp_path / "pool/copy.png",)
    assert "bad.png" in found.problems[0]
    assert ticks == [(number, 5) for number in range(1, 6)]
    with pytest.raises(DataError, match="none of the 1 images"):
        select(by_colour(), [tmp_path / "pool/copy.png"], labelled, count=1)


def test_other_classes_are_refused(labelled: Dataset, tmp_path: Path) -> None:
    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(3))
    other = Segmenter.from_session(FakeSession(lambda batch: batch[:, :, ::4, ::4]), record)
    with pytest.raises(DataError, match="classes"):
        select(other, [], labelled, count=1)
    with pytest.raises(DataError, match="did you mean 'margin'"):
        select(by_colour(), [], labelled, count=1, measure="margins")


def test_spread_evenly() -> None:
    assert spread_evenly(range(10), 3) == [0, 3, 6]
    assert spread_evenly(range(3), 5) == [0, 1, 2]
