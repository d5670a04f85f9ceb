"""The six multi-path interactions of Section 3.3 (Figure 6) and none, in one table.

An interaction takes the feature maps of all paths, N x C x H_i x W_i, largest first, and returns as many of the same
shapes. F is a 1x1 convolution + batch norm without activation, Att a 1x1 convolution with bias to one map + sigmoid, U
and D bilinear resizing to the other path's size (NOTES, 'Where the text is silent').

With more than two paths every pair interacts, the larger path as x_h and the smaller as x_l, each pair with weights of
its own. All pairs read the interaction's inputs, and what they give to a path is summed. One path is left as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor, nn

from lpsnet.model.convolution import ConvNorm
from lpsnet.model.resizing import resize

Contributions = tuple[Tensor | None, Tensor | None]


class Pair(nn.Module):
    """What one pair of paths gives to each other: forward(x_h, x_l) -> (for h, for l); None gives nothing."""

    def __init__(self, channels: int, *, deployed: bool, align_corners: bool) -> None:
        super().__init__()
        self.channels = channels
        self.deployed = deployed
        self.align_corners = align_corners

    def _transformation(self, in_channels: int) -> ConvNorm:
        """F, from `in_channels` to the paths' width."""
        return ConvNorm(in_channels, self.channels, kernel=1, deployed=self.deployed)

    def _resize(self, maps: Tensor, like: Tensor) -> Tensor:
        """U or D: `maps` at the size of `like`."""
        return resize(maps, like.shape[-2:], align_corners=self.align_corners)  # type: ignore[arg-type]
