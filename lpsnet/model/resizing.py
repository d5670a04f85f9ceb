"""Bilinear resizing, and the size of a path's input (Section 3.1; U and D of Section 3.3).

Sizes are read from the tensor and computed with integer arithmetic that a tracer can follow, so that an exported
network takes any picture size.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """`maps` N x C x H x W brought to `size` (height, width) by bilinear interpolation without anti-aliasing."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def resize_to_ratio(image: Tensor, ratio: Fraction, *, align_corners: bool) -> Tensor:
    """The input of a path: `image` N x 3 x H x W at `architecture.path_size((H, W), ratio)`; itself where ratio is 1."""
    if ratio == 1:
        return image
    height, width = image.shape[-2:]
    return resize(image, (_scaled(height, ratio), _scaled(width, ratio)), align_corners=align_corners)


def _scaled(length: int, ratio: Fraction) -> int:
    """max(1, floor(ratio x length)), for a number as for the 0-dimensional tensor that it is while tracing."""
    scaled = length * ratio.numerator // ratio.denominator
    if isinstance(scaled, Tensor):
        return scaled.clamp(min=1)  # type: ignore[unreachable]
    return torch.sym_max(1, scaled)  # type: ignore[no-any-return]
