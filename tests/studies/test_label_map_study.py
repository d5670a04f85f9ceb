"""The comparison of label maps with torch's: its figures are of the logits given, and it finds what it is to show."""

import numpy as np
import pytest

pytest.importorskip("torch")

from lpsnet.errors import LpsnetError
from lpsnet.studies.end_to_end import LabelMapTimes, compare_label_maps, example_scores


@pytest.mark.parametrize("kind", ["regions", "blobs", "noise"])
def test_both_ways_are_timed_and_agree(kind: str) -> None:
    logits = example_scores(kind, num_classes=5, size=(6, 8))
    comparison = compare_label_maps(logits, (60, 90), repeats=3)
    assert len(comparison.torch_ms) == len(comparison.label_map_ms) == 3
    assert min(comparison.torch_ms + comparison.label_map_ms) > 0
    assert comparison.num_pixels == 60 * 90
    assert comparison.num_different <= 2  # torch's float32 may err at a tie


def test_the_ratio_is_that_of_the_medians() -> None:
    comparison = LabelMapTimes((9.0, 30.0, 10.0), (2.0, 1.0, 7.0), num_different=0, num_pixels=1, torch_threads=1)
    assert (comparison.median_torch_ms, comparison.median_label_map_ms, comparison.ratio) == (10.0, 2.0, 5.0)


def test_scores_are_the_same_for_the_same_seed() -> None:
    np.testing.assert_array_equal(example_scores("blobs", seed=4), example_scores("blobs", seed=4))
    assert (example_scores("blobs", seed=4) != example_scores("blobs", seed=5)).any()


def test_mistakes_are_refused() -> None:
    with pytest.raises(LpsnetError, match="unknown kind of logits 'blob'; did you mean 'blobs'"):
        example_scores("blob")  # type: ignore[arg-type]
    with pytest.raises(LpsnetError, match="at least 1 repeat"):
        compare_label_maps(example_scores("noise", size=(2, 2)), (4, 4), repeats=0)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("regions", 25), ("blobs", 10), ("noise", 1)])
def test_label_maps_are_faster_than_torchs(kind: str, least: float) -> None:
    assert compare_label_maps(example_scores(kind), repeats=5).ratio > least
