"""What the tests of models share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lpsnet.models.network import Network


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def randomised() -> Callable[[Network], Network]:
    """Gives a network arbitrary batch-norm statistics, weights and biases, and puts it in evaluation mode."""

    def randomise(net: Network) -> Network:
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.5)
                nn.init.uniform_(module.running_var, 0.3, 3.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.normal_(module.bias, std=0.3)
        return net.eval()

    return randomise
