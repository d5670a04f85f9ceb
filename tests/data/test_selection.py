"""Parts of a split: which samples, in which order, and that nothing is read before it is asked for."""

from typing import Any

import numpy as np
import pytest

from lpsnet.data.labels import LabelSpace
from lpsnet.data.split import FileSplit, Images, Pair, Selection, divided, select, why_not_scorable
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import DataError

SCENES = SceneSplit(size=(32, 48), count=10, seed=0, name="val")


def test_samples_are_spread_evenly() -> None:
    part = select(SCENES, 4)
    assert isinstance(part, Selection)
    assert part.names == ("scene_00000", "scene_00002", "scene_00005", "scene_00007")
    assert (len(part), part.name, part.label_space) == (4, "val", SCENES.label_space)
    np.testing.assert_array_equal(part[1].image, SCENES[2].image)
    np.testing.assert_array_equal(part.labels(3), SCENES[7].labels)
    assert [sample.name for sample in part] == list(part.names)


@pytest.mark.parametrize("count", [None, 10, 11])
def test_a_split_that_is_small_enough_stays_itself(count: int | None) -> None:
    assert select(SCENES, count) is SCENES


def test_none_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1 image is needed of split 'val'; got 0"):
        select(SCENES, 0)


def test_images_are_read_when_asked_for() -> None:
    read: list[int] = []

    class Spy:
        def __len__(self) -> int:
            return 3

        def image(self, index: int) -> Any:
            read.append(index)
            return np.full((1, 1, 3), index, np.uint8)

    images = Images(Spy())  # type: ignore[arg-type]
    assert (len(images), read) == (3, [])
    assert images[-1][0, 0, 0] == 2
    assert [image[0, 0, 0] for image in images[:2]] == [0, 1]
    assert [image[0, 0, 0] for image in images] == [0, 1, 2]
    assert read == [2, 0, 1, 0, 1, 2]
    with pytest.raises(IndexError):
        images[3]


def test_what_cannot_be_scored_says_why(tmp_path: Any) -> None:
    assert why_not_scorable(SCENES, SCENES.label_space) == ""
    assert "classes" in why_not_scorable(SCENES, LabelSpace.numbered(3))
    unlabelled = FileSplit("test", SCENES.label_space, None, (Pair("a", tmp_path / "a.png", None),))  # type: ignore[arg-type]
    assert "has no labels" in why_not_scorable(unlabelled, SCENES.label_space)
    empty = FileSplit("test", SCENES.label_space, None, ())  # type: ignore[arg-type]
    assert "holds no images" in why_not_scorable(empty, SCENES.label_space)


@pytest.mark.parametrize(("share", "count"), [(0.3, 3), (0.5, 5), (0.06, 1), (0.94, 9)])
def test_a_split_in_two(share: float, count: int) -> None:
    """The last of ten by name, rounded to whole images."""
    whole = select(SCENES, 10)
    first, last = divided(whole, share)
    assert [*first.names, *last.names] == list(whole.names)
    assert len(last) == count
    assert np.array_equal(last[0].image, whole[len(first)].image)


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.01, 0.99, 1.0, float("nan")])
def test_both_parts_have_images(share: float) -> None:
    with pytest.raises(DataError, match="leaves one part empty"):
        divided(select(SCENES, 10), share)
