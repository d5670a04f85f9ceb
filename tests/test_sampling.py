"""Bilinear coordinates against PyTorch's own resizing, in both corner conventions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lpsnet.sampling import cells, interpolation_matrix, spacing

LENGTHS = [(1, 1), (1, 9), (9, 1), (2, 40), (7, 53), (53, 7), (64, 960), (12, 100), (30, 30)]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), LENGTHS)
def test_all_forms_are_torchs_interpolation(source: int, target: int, align_corners: bool) -> None:
    values = np.random.default_rng(0).normal(size=source)
    column = torch.from_numpy(values)[None, None, :, None]
    expected = F.interpolate(column, (target, 1), mode="bilinear", align_corners=align_corners)[0, 0, :, 0].numpy()

    matrix, lower = interpolation_matrix(source, target, align_corners=align_corners)
    assert np.allclose(matrix @ values, expected, rtol=0, atol=1e-12)
    assert np.allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)

    cell, weight = cells(source, target, align_corners=align_corners)
    upper = np.minimum(cell + 1, source - 1)
    assert np.allclose(values[cell] * (1 - weight) + values[upper] * weight, expected, atol=1e-5)
    assert cell.min() >= 0
    assert cell.max() <= max(0, source - 2)
    rows = np.arange(target)
    beside = matrix[rows, lower] + matrix[rows, np.minimum(lower + 1, source - 1)] * (source > 1)
    assert np.allclose(beside, 1, rtol=0, atol=1e-12)

    step, first = spacing(source, target, align_corners=align_corners)
    places = np.clip(first + step * np.arange(target), 0, source - 1)
    assert np.allclose(np.interp(places, np.arange(source), values), expected, rtol=0, atol=1e-12)


def test_chosen_pixels_are_those_rows_of_the_matrix() -> None:
    whole, lower = interpolation_matrix(5, 40, align_corners=False)
    some, some_lower = interpolation_matrix(5, 40, align_corners=False, pixels=np.array([0.0, 13, 39]))
    assert np.array_equal(some, whole[[0, 13, 39]])
    assert np.array_equal(some_lower, lower[[0, 13, 39]])
