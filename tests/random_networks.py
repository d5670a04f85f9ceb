"""Networks whose batch norms do something, as after a training."""

from typing import TypeVar

from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def randomise(net: Net) -> Net:
    """Give batch norms arbitrary statistics, weights and biases, and convolutions arbitrary biases; evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.3)
    return net.eval()
