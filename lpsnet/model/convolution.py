"""Convolution with batch norm: the unit that every block and interaction is made of, and its re-parameterised twin.

In training a convolution has no bias and is followed by batch norm; deployed it has a bias and the batch norm is folded
into it (`fusion.py`). A unit has the same name in the network of either form.

A 1x1 convolution with stride 2 is computed as one with stride 1 over every second row and column. It is the same
function, and the backward pass of the strided one crashes in torch 2.13 on the CPU for channels-last tensors with few
channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """A k x k convolution (k odd, padding k // 2) and batch norm; no activation.

    Maps N x `in_channels` x H x W to N x `out_channels` x ceil(H / stride) x ceil(W / stride). With `deployed` the
    convolution has a bias instead of the batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        deployed: bool = False,
    ) -> None:
        super().__init__()
        self.subsampling = stride if kernel == 1 else 1
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride // self.subsampling,
            padding=kernel // 2,
            groups=groups,
            bias=deployed,
        )
        self.norm = nn.Identity() if deployed else nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(subsample(x, self.subsampling)))  # type: ignore[no-any-return]


class RepConvNorm(nn.Module):
    """The training form of a 3x3 convolution in RepVGG (Ding et al. 2021), which the paper cites for its own.

    The sum of 3x3 convolution + batch norm, 1x1 convolution + batch norm and, where input and output have the same
    shape, the input itself + batch norm. `fusion.fuse` turns it into one 3x3 convolution. No activation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv3x3 = ConvNorm(in_channels, out_channels, kernel=3, stride=stride)
        self.conv1x1 = ConvNorm(in_channels, out_channels, kernel=1, stride=stride)
        same_shape = in_channels == out_channels and stride == 1
        self.identity = nn.BatchNorm2d(out_channels) if same_shape else None

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.conv3x3(x) + self.conv1x1(x)
        return total if self.identity is None else total + self.identity(x)


def subsample(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th row and column of `x` N x C x H x W, the first included; `x` itself for 1."""
    if stride == 1:
        return x
    if torch.is_grad_enabled() and x.requires_grad:
        # The average of one pixel is that pixel. A slice's gradient is never channels-last, and one gradient that is
        # not slows down all that follow: 7 % of a training step of S on a CPU.
        return F.avg_pool2d(x, 1, stride)
    return x[..., ::stride, ::stride]


def relu(x: Tensor) -> Tensor:
    """max(0, x), in place: every caller's `x` is its own."""
    return F.relu(x, inplace=True)
