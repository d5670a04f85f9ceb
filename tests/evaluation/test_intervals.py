"""Intervals of scores by drawing images again, against all possible draws of a few images and against arithmetic."""

from itertools import product

import numpy as np
import pytest

from lpsnet.evaluation.metrics import ImageCounts, scores


def counts_of(matrices: list[np.ndarray]) -> ImageCounts:
    counts = ImageCounts()
    for matrix in matrices:
        counts.add(matrix)
    return counts


def test_they_are_the_quantiles_over_all_draws() -> None:
    """Three images: the 27 draws in full, each as likely, against 20,000 random ones."""
    rng = np.random.default_rng(1)
    matrices = [rng.integers(1, 100, (3, 3)) for _ in range(3)]
    draws = [scores(sum(matrices[index] for index in draw)) for draw in product(range(3), repeat=3)]
    found = counts_of(matrices).resampled(repeats=20_000, level=0.6)
    for interval, values in [
        (found.miou, [draw.miou for draw in draws]),
        *((found.ious[k], [draw.ious[k] for draw in draws]) for k in range(3)),
    ]:
        low, high = np.quantile(values, (0.2, 0.8), method="inverted_cdf")
        assert interval == pytest.approx((low, high), abs=0.6)


def test_equal_images_leave_no_doubt() -> None:
    matrix = np.array([[30, 10], [5, 55]])
    found = counts_of([matrix] * 7).resampled()
    assert found.miou == pytest.approx([scores(matrix).miou] * 2)
    assert found.ious[0] == pytest.approx([100 * 30 / 45] * 2)


def test_a_class_that_never_occurs_has_none() -> None:
    matrix = np.array([[30, 0, 10], [0, 0, 0], [5, 0, 55]])
    found = counts_of([matrix, 2 * matrix]).resampled()
    assert np.isnan(found.ious[1]).all()
    assert found.miou == pytest.approx([scores(matrix).miou] * 2)


def test_more_images_make_it_narrower_by_the_root_of_their_number() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for count in (50, 800):
        low, high = (
            counts_of([rng.multinomial(1000, [0.4, 0.1, 0.1, 0.4]).reshape(2, 2) for _ in range(count)])
            .resampled()
            .miou
        )
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_memory_is_bounded_and_the_parts_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = [np.array([[n, 3], [2, 9]]) for n in range(1, 9)]
    monkeypatch.setattr("lpsnet.evaluation.metrics._CHUNK", 20)  # two draws of eight images at a time
    low, high = counts_of(matrices).resampled(repeats=301).miou
    whole = scores(sum(matrices)).miou
    assert low < whole < high
