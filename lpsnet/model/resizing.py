"""Bilinear resizing, and the size of a path's input (Section 3.1; U and D of Section 3.3).

Sizes are read from the tensor and computed with integer arithmetic that a tracer can follow, so that an exported
network takes any picture size.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_like(maps: Tensor, like: Tensor, *, align_corners: bool) -> Tensor:
    """`maps` N x C x H x W at the height and width of `like`, bilinear, without anti-aliasing."""
    return _resize(maps, list(like.shape[-2:]), align_corners)


def resize_to_ratio(image: Tensor, ratio: Fraction, *, align_corners: bool) -> Tensor:
    """The input of a path: `image` N x 3 x H x W at `architecture.path_size((H, W), ratio)`, for ratio 1 as it is."""
    if ratio == 1:
        return image
    return _resize(image, [_scaled(length, ratio) for length in image.shape[-2:]], align_corners)


def _resize(maps: Tensor, size: list[int], align_corners: bool) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def _scaled(length: int | Tensor, ratio: Fraction) -> int:
    """max(1, floor(ratio x length)) of a number; of a 0-dimensional tensor, which a length is while tracing, too."""
    scaled = length * ratio.numerator // ratio.denominator
    if isinstance(scaled, Tensor):
        return scaled.clamp(min=1)  # type: ignore[return-value]
    return torch.sym_max(1, scaled)  # type: ignore[no-untyped-call, no-any-return]
