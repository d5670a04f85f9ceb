"""What the tests of models share."""

from collections.abc import Callable

import pytest
import torch
from random_networks import randomise
from torch import nn


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """See `randomise`."""
    return randomise
