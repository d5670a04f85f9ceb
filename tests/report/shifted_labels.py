"""Predictions whose scores are known: the truth, moved."""

import numpy as np
from numpy.typing import NDArray

DATA = "scenes:size=48x64,num_train=2,num_val=7"


def shifted(labels: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    """A prediction that is right but for its place; class 0 where nothing is known."""
    moved = np.roll(labels, by, axis=1)
    return np.where(moved == 255, 0, moved).astype(np.uint8)
