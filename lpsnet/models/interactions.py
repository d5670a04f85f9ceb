"""The six multi-path interactions of Section 3.3 (Figure 6) and none, in one table; bilinear resizing of features.

An interaction takes the feature maps of all paths, N x C x H_i x W_i, largest first, and returns as many of the same
shapes. F is a 1x1 convolution + batch norm without activation, Att a 1x1 convolution with bias to one map + sigmoid, U
and D bilinear resizing to the other path's size (design-notes, 'Interactions between paths').

With more than two paths every pair interacts, the larger path as x_h and the smaller as x_l, each pair with its own
weights. All pairs read the interaction's inputs; their outputs to a path are summed. One path is returned unchanged.

Costs: Direct-A is cheapest of those with weights, C^2 multiply-accumulates a pixel of x_l; Bilateral-A and Attention-A
have C^2 a pixel of both, Attention-B a little more, Direct-B 2 C^2 a pixel of x_h; Bilateral-B has none (Table 3).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.models.blocks import ConvNorm


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


Given = tuple[Tensor | None, Tensor | None]  # by a pair of paths: to the larger and to the smaller; None is nothing


class Attention(nn.Module):
    """Att of Equation 1: N x C x H x W to N x 1 x H x W in 0 .. 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x))


class Pair(nn.Module):
    """The interaction of one pair of paths; the attributes in capitals name the F and Att that it has.

    Forward: the features of the larger and the smaller path, to what each of them is given.
    """

    TRANSFORMS: tuple[str, ...] = ()
    ATTENTIONS: tuple[str, ...] = ()
    INPUTS = 1  # of each F, in widths of the paths
    transform: nn.Module
    transform_high: nn.Module
    transform_low: nn.Module
    attention_high: nn.Module
    attention_low: nn.Module

    def __init__(self, channels: int, *, deployed: bool, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        for name in self.TRANSFORMS:
            self.add_module(name, ConvNorm(self.INPUTS * channels, channels, kernel=1, deployed=deployed))
        for name in self.ATTENTIONS:
            self.add_module(name, Attention(channels))

    def resized(self, maps: Tensor, like: Tensor) -> Tensor:
        """U or D of `maps`: at the size of `like`."""
        return resize_like(maps, like, align_corners=self.align_corners)


class DirectA(Pair):
    """Direct-A: x_h + U(F(x_l)); the smaller path is left as it is."""

    TRANSFORMS = ("transform_low",)

    def forward(self, high: Tensor, low: Tensor) -> Given:
        return self.resized(self.transform_low(low), high), None


class DirectB(Pair):
    """Direct-B: F(concatenation of x_h and U(x_l)), with F from 2C back to C; the smaller path is left as it is.

    F stands after the concatenation, so that the width stays C. A 1x1 convolution and bilinear resizing commute:
    transforming x_l before it as well would add cost and no function.
    """

    TRANSFORMS = ("transform",)
    INPUTS = 2

    def forward(self, high: Tensor, low: Tensor) -> Given:
        return self.transform(torch.cat((high, self.resized(low, high)), dim=1)), None


class AttentionA(Pair):
    """Attention-A, Equation 1: U(F(x_l) Att(x_l)) + F(x_h) U(1 - Att(x_l)), and F(x_l) Att(x_l).

    x_h and x_l have an F each; F(x_l) is the same in both outputs.
    """

    TRANSFORMS = ("transform_high", "transform_low")
    ATTENTIONS = ("attention_low",)

    def forward(self, high: Tensor, low: Tensor) -> Given:
        attention = self.attention_low(low)
        attended = self.transform_low(low) * attention
        rest = self.resized(1 - attention, high)
        return self.resized(attended, high) + self.transform_high(high) * rest, attended


class AttentionB(Pair):
    """Attention-B: the first line of Equation 1 in both directions, each path with the attention of the other.

    U(F(x_l) Att(x_l)) + F(x_h) U(1 - Att(x_l)), and D(F(x_h) Att(x_h)) + F(x_l) D(1 - Att(x_h)).
    """

    TRANSFORMS = ("transform_high", "transform_low")
    ATTENTIONS = ("attention_high", "attention_low")

    def forward(self, high: Tensor, low: Tensor) -> Given:
        of_high = self.transform_high(high), self.attention_high(high)
        of_low = self.transform_low(low), self.attention_low(low)
        return self._received(of_high, of_low), self._received(of_low, of_high)

    def _received(self, own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
        attended = self.resized(other[0] * other[1], own[0])
        return attended + own[0] * self.resized(1 - other[1], own[0])


class BilateralA(Pair):
    """Bilateral-A: x_h + U(F(x_l)), and x_l + D(F(x_h)); F before the resizing, an F for each direction."""

    TRANSFORMS = ("transform_high", "transform_low")

    def forward(self, high: Tensor, low: Tensor) -> Given:
        return self.resized(self.transform_low(low), high), self.resized(self.transform_high(high), low)


class BilateralB(Pair):
    """Bilateral-B, Equation 2: x_h + U(x_l), and x_l + D(x_h). No weights."""

    def forward(self, high: Tensor, low: Tensor) -> Given:
        return self.resized(low, high), self.resized(high, low)


@dataclass(frozen=True, slots=True)
class InteractionType:
    """A row of Table 3.

    Attributes:
        title: the interaction's name in Table 3.
        pair: the module of one pair of paths; None for a network whose paths meet at the head only.
        adds: whether what a path is given is added to its input. Otherwise it takes the input's place, except in a path
            that no pair gives anything.
    """

    title: str
    pair: Callable[..., nn.Module] | None
    adds: bool


INTERACTIONS: dict[str, InteractionType] = {
    "none": InteractionType("Baseline", None, adds=True),
    "direct_a": InteractionType("Direct-A", DirectA, adds=True),
    "direct_b": InteractionType("Direct-B", DirectB, adds=False),
    "attention_a": InteractionType("Attention-A", AttentionA, adds=False),
    "attention_b": InteractionType("Attention-B", AttentionB, adds=False),
    "bilateral_a": InteractionType("Bilateral-A", BilateralA, adds=True),
    "bilateral_b": InteractionType("Bilateral-B", BilateralB, adds=True),
}


class Interaction(nn.Module):
    """An interaction between any number of paths; its pairs are named by the numbers of their paths, `pairs.0_1`."""

    def __init__(
        self, kind: InteractionType, num_paths: int, channels: int, *, deployed: bool, align_corners: bool
    ) -> None:
        super().__init__()
        self.adds = kind.adds
        self.pairs = nn.ModuleDict()
        if kind.pair is not None:
            for high, low in combinations(range(num_paths), 2):
                self.pairs[f"{high}_{low}"] = kind.pair(channels, deployed=deployed, align_corners=align_corners)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        given: list[list[Tensor]] = [[] for _ in maps]
        for name, pair in self.pairs.items():
            paths = [int(number) for number in name.split("_")]
            for path, contribution in zip(paths, pair(*(maps[path] for path in paths)), strict=True):
                if contribution is not None:
                    given[path].append(contribution)
        for own, received in zip(maps, given, strict=True):
            if self.adds or not received:
                received.insert(0, own)
        return [functools.reduce(torch.add, received) for received in given]
