"""The convolutional blocks: a row of `BLOCKS` holds everything the package knows about a block.

Seven are those of Table 2. The others are the blocks of encoders that have ImageNet weights (`models/encoders.py`).
`architecture.BLOCK_SETS` names sets of five, one block a stage.

A block maps N x in x H x W to N x out x ceil(H / stride) x ceil(W / stride), with stride 1 or 2 and any widths from 1
up. In the macro architecture (Section 3.1) one block replaces one 3x3 convolution: it takes the stride of the first
block of Stages 1 to 4, and the change of width at the start of a stage. Blocks are built of `ConvNorm`.

Table 2 builds every network from B={1,2,4,7,7}, C={c,2c,4c,8c,8c}, R={1,1/4,0} without interaction, with c chosen so
that the latency is about 5 ms. It gives the FLOPs (multiply-accumulates) at 1024x2048, but neither c nor the inner
widths of a block. These were chosen so that a whole c meets the FLOPs; `table_2_c` is that c.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.architecture import BLOCK_SETS, block_names
from lpsnet.errors import LpsnetError, unknown_name
from lpsnet.models import training_kernels
from lpsnet.models.training_kernels import (
    NO_BOUNDS,
    RELU,
    RELU6,
    Bounds,
    activate,
    activated_norm,
    depthwise,
    takes_depthwise,
)
from lpsnet.plugins import load_plugins
from lpsnet.record import Form


class ConvNorm(nn.Module):
    """A k x k convolution (k odd, padding k // 2) and batch norm; no activation unless asked for.

    In training a convolution has no bias and is followed by batch norm; deployed it has a bias and the batch norm is
    folded into it (`reparameterise.fuse`). A 1x1 convolution with stride 2 is computed with stride 1 over every second
    row and column: the same function, and the backward pass of the strided one crashes in torch 2.13 on the CPU for
    channels-last tensors with few channels.

    Maps N x `in_channels` x H x W to N x `out_channels` x ceil(H / stride) x ceil(W / stride). With `deployed` the
    convolution has a bias instead of the batch norm. `eps` is the batch norm's.

    With `tensorflow` a convolution with stride 2 is placed as TensorFlow's padding "SAME" places it on even sizes: its
    first window begins at pixel 1 - kernel // 2, one later than otherwise. Odd sizes are placed alike.
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
        tensorflow: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.subsampling = stride if kernel == 1 else 1
        self.padding = (kernel // 2 - 1, kernel // 2 + 1) * 2 if tensorflow and stride == 2 and kernel > 1 else None
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride // self.subsampling,
            padding=0 if self.padding else kernel // 2,
            groups=groups,
            bias=deployed,
        )
        self.norm = nn.Identity() if deployed else nn.BatchNorm2d(out_channels, eps=eps)
        is_depthwise = groups == in_channels == out_channels and not deployed
        self.has_loops = is_depthwise and takes_depthwise(self.conv.weight, self.conv.stride[0])

    def forward(self, x: Tensor, bounds: Bounds = NO_BOUNDS) -> Tensor:
        """An activation afterwards is given by its `bounds`, such as `RELU`: here it costs less than on its own."""
        if self.has_loops and x.device.type == "cpu" and training_kernels.is_used():
            around = self.padding or (self.conv.weight.shape[-1] // 2,) * 4
            return activated_norm(self.norm, depthwise(x, self.conv.weight, self.conv.stride[0], around), bounds)
        x = F.pad(x, self.padding) if self.padding else subsample(x, self.subsampling)
        return activated_norm(self.norm, self.conv(x), bounds)


class RepConvNorm(nn.Module):
    """The training form of a 3x3 convolution in RepVGG (Ding et al. 2021), which the paper cites for its own.

    The sum of 3x3 convolution + batch norm, 1x1 convolution + batch norm and, where input and output have the same
    shape, the input itself + batch norm. `reparameterise.fuse` turns it into one 3x3 convolution. No activation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv3x3 = ConvNorm(in_channels, out_channels, kernel=3, stride=stride)
        self.conv1x1 = ConvNorm(in_channels, out_channels, kernel=1, stride=stride)
        same_shape = in_channels == out_channels and stride == 1
        self.identity = nn.BatchNorm2d(out_channels) if same_shape else None

    def forward(self, x: Tensor, bounds: Bounds = NO_BOUNDS) -> Tensor:
        total: Tensor = self.conv3x3(x) + self.conv1x1(x)
        return activate(total if self.identity is None else total + activated_norm(self.identity, x, NO_BOUNDS), bounds)


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
    return activate(x, RELU)


Channels = Literal["input", "output", "inner"]  # of the block's input, of its output, or of neither
Role = Literal["pass", "zero", "repeat"]


class Conv3x3(nn.Module):
    """3x3 convolution + batch norm + ReLU (design-notes, 'The block'). Table 2: c=14, 18.42 G of 18.5 G.

    The one block whose form "reparameterised" has parallel branches; they are summed before the ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Form) -> None:
        super().__init__()
        if form == "reparameterised":
            self.unit: nn.Module = RepConvNorm(in_channels, out_channels, stride=stride)
        else:
            self.unit = ConvNorm(in_channels, out_channels, kernel=3, stride=stride, deployed=form == "deployed")

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(x, RELU)  # type: ignore[no-any-return]


class SepConv3x3(nn.Module):
    """Depthwise separable 3x3 convolution (Howard et al. 2017, MobileNets). Table 2: c=9, 1.04 G of 1.1 G.

    Depthwise 3x3 + batch norm + ReLU, which has the stride, then 1x1 + batch norm + ReLU, which has the new width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Form) -> None:
        super().__init__()
        unit = partial(ConvNorm, deployed=form == "deployed")
        self.depthwise = unit(in_channels, in_channels, kernel=3, stride=stride, groups=in_channels)
        self.pointwise = unit(in_channels, out_channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x, RELU), RELU)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Residual bottleneck (He et al. 2016): 1x1, 3x3, 1x1 around a shortcut. Table 2: c=13, 2.33 G of 2.2 G.

    The inner width is a quarter of `out_channels`, rounded down, at least 1; the 3x3 has the stride. Where the shape
    changes the shortcut is a 1x1 convolution + batch norm. ReLU after the first two convolutions and after the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Form) -> None:
        super().__init__()
        unit = partial(ConvNorm, deployed=form == "deployed")
        inner = max(1, out_channels // 4)
        self.reduce = unit(in_channels, inner, kernel=1)
        self.spatial = unit(inner, inner, kernel=3, stride=stride)
        self.expand = unit(inner, out_channels, kernel=1)
        self.shortcut = _shortcut(unit, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.spatial(self.reduce(x, RELU), RELU)
        return relu(self.expand(inner) + self.shortcut(x))


class Residual(nn.Module):
    """Basic residual unit (He et al. 2016): two 3x3 convolutions and a shortcut. Table 2: c=9, 16.28 G of 16.1 G.

    One unit, two convolutions, stands in the place of one 3x3 convolution. The first 3x3 has the stride and the new
    width. Where the shape changes the shortcut is a 1x1 convolution + batch norm. ReLU after the first convolution and
    after the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Form) -> None:
        super().__init__()
        unit = partial(ConvNorm, deployed=form == "deployed")
        self.first = unit(in_channels, out_channels, kernel=3, stride=stride)
        self.second = unit(out_channels, out_channels, kernel=3)
        self.shortcut = _shortcut(unit, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.second(self.first(x, RELU)) + self.shortcut(x))


class ShuffleNetUnit(nn.Module):
    """ShuffleNetV2 unit (Ma et al. 2018). Table 2: c=9, 0.81 G of 0.8 G.

    Same shape: half of the channels pass unchanged, the others go through 1x1, depthwise 3x3, 1x1. Other shapes (stride
    2, or another width): all channels go through both branches, the first of them depthwise 3x3, 1x1. ReLU after every
    1x1. The two parts are then interleaved (shuffled). An odd width gives floor(out / 2) channels to the first part and
    ceil(out / 2) to the second, whose last channel stays last in the shuffle; width 1 has no first part.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Form) -> None:
        super().__init__()
        unit = partial(ConvNorm, deployed=form == "deployed")
        self.kept = out_channels // 2
        self.splits = stride == 1 and in_channels == out_channels
        inner = out_channels - self.kept
        self.is_odd = inner > self.kept
        entering = inner if self.splits else in_channels
        self.first = unit(entering, inner, kernel=1)
        self.spatial = unit(inner, inner, kernel=3, stride=stride, groups=inner)
        self.second = unit(inner, inner, kernel=1)
        self.other_branch = None
        if not self.splits and self.kept:
            depthwise = unit(in_channels, in_channels, kernel=3, stride=stride, groups=in_channels)
            self.other_branch = nn.Sequential(depthwise, unit(in_channels, self.kept, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        entering = x[:, self.kept :] if self.splits else x
        transformed: Tensor = self.second(self.spatial(self.first(entering, RELU)), RELU)
        if not self.kept:
            return transformed
        kept = x[:, : self.kept] if self.other_branch is None else relu(self.other_branch(x))
        return self._shuffled(kept, transformed)

    def _shuffled(self, kept: Tensor, transformed: Tensor) -> Tensor:
        pairs = torch.stack((kept, transformed[:, : self.kept]), dim=2).flatten(1, 2)
        return torch.cat((pairs, transformed[:, self.kept :]), dim=1) if self.is_odd else pairs


class InvertedResidual(nn.Module):
    """MobileNetV2 inverted residual (Sandler et al. 2018). Table 2: expansion 3, c=5, 2.00 G of 2.0 G.

    1x1 to `expansion` x in channels, depthwise with the stride, 1x1 to the new width without activation; ReLU6 after
    the first two; the input is added where the shape stays. MobileNetV2's own expansion, 6, meets Table 2 with no whole
    c (3 gives 1.71 G, 4 gives 2.72 G).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        form: Form,
        *,
        expansion: int = 3,
        kernel: int = 3,
        **options: Any,
    ) -> None:
        super().__init__()
        unit: Callable[..., ConvNorm] = partial(ConvNorm, deployed=form == "deployed", **options)
        inner = in_channels * expansion
        self.expand = unit(in_channels, inner, kernel=1)
        self.depthwise = unit(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = unit(inner, out_channels, kernel=1)
        self.shortcut = nn.Identity() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        inner = self.depthwise(self.expand(x, RELU6), RELU6)
        projected: Tensor = self.project(inner)
        return projected if self.shortcut is None else self.shortcut(x) + projected


class MobileStem(nn.Module):
    """The first stage of MobileNetV2 and EfficientNet-Lite: their first convolution and first block together.

    With stride 2: 3x3 convolution with the stride to twice `out_channels`, then as with stride 1: depthwise 3x3, 1x1 to
    the new width without activation; ReLU6 after all but the last. With stride 1 the input is added where the shape
    stays.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Form, **options: Any) -> None:
        super().__init__()
        unit: Callable[..., ConvNorm] = partial(ConvNorm, deployed=form == "deployed", **options)
        inner = 2 * out_channels if stride == 2 else in_channels
        self.stem = unit(in_channels, inner, kernel=3, stride=2) if stride == 2 else None
        self.depthwise = unit(inner, inner, kernel=3, groups=inner)
        self.project = unit(inner, out_channels, kernel=1)
        self.shortcut = nn.Identity() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.stem is None else self.stem(x, RELU6)
        projected: Tensor = self.project(self.depthwise(inner, RELU6))
        return projected if self.shortcut is None else self.shortcut(x) + projected


class GhostModule(nn.Module):
    """GhostNet module (Han et al. 2020). Table 2: primary kernel 3, c=7, 2.43 G of 2.5 G.

    A 3x3 convolution with the stride makes ceil(out / 2) channels, a depthwise 3x3 of the first of them the remaining
    floor(out / 2); both with batch norm and ReLU, then concatenated. The primary kernel is 3x3, as where the paper puts
    the module in the place of the convolutions of VGG: a 1x1 kernel with stride 2 would never see three quarters of the
    pixels. Width 1 has no second part.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: Form) -> None:
        super().__init__()
        unit = partial(ConvNorm, deployed=form == "deployed")
        self.num_cheap = out_channels // 2
        self.primary = unit(in_channels, out_channels - self.num_cheap, kernel=3, stride=stride)
        self.cheap = None
        if self.num_cheap:
            self.cheap = unit(self.num_cheap, self.num_cheap, kernel=3, groups=self.num_cheap)

    def forward(self, x: Tensor) -> Tensor:
        primary: Tensor = self.primary(x, RELU)
        if self.cheap is None:
            return primary
        return torch.cat((primary, self.cheap(primary[:, : self.num_cheap], RELU)), dim=1)


def _shortcut(unit: Callable[..., nn.Module], in_channels: int, out_channels: int, stride: int) -> nn.Module:
    same_shape = in_channels == out_channels and stride == 1
    return nn.Identity() if same_shape else unit(in_channels, out_channels, kernel=1, stride=stride)


@dataclass(frozen=True, slots=True)
class BlockType:
    """A row of Table 2: how a block is built, and how a larger network takes its weights over.

    The last six are for `search.inheritance`. A unit is a `ConvNorm` or `RepConvNorm` of the block, or a shortcut,
    by its name in the module. Where a row leaves something open (None), the parts that need it start with fresh
    weights, and the result states it.

    Attributes:
        build: (in_channels, out_channels, stride, form) -> the block. Forms "reparameterised" and "plain" differ for
            conv3x3 only; "deployed" has its batch norms folded into the convolutions.
        title: the block's name in Table 2, or in figures.
        table_2_c: the width factor c at which the network of Table 2 has about `table_2_gmacs`; 0 if it is not there.
        table_2_gmacs: Table 2's FLOPs, in 10^9 multiply-accumulates at 1024x2048; 0 if it is not there.
        channels: unit -> the channels that it reads, and those that it writes. In a wider block the old channels of the
            input and the output are at the places that `parts` gives, old inner channels are the unit's first ones. A
            unit may be an `nn.Identity` or None where the shape stays or changes: a shortcut. All parameters of the
            block belong to units that are named here.
        parts: width -> the sizes of the groups that the input's or output's channels consist of, their sum the width.
            In a wider block each group is longer at its end. One group unless given.
        identity: unit -> what it does in a new block at the end of a stage, so that the block's output is its input.
            "pass": gives out what it reads (a ReLU after it changes nothing, as the input comes out of a ReLU); "zero":
            gives nothing, where its output is added to a shortcut; "repeat": computes from the same channels what this
            unit of the block before computed. Units without a role keep fresh weights.
        outputs: the units whose batch norms together give the output its scale: it is `s` times as large if their
            scales and shifts are.
        carries_input: whether a shortcut adds the input to the output, or is part of it.
        grows_from: blocks with the same units, of at most this kernel and this inner width, that this one computes
            the same as once it has their weights: what is more of it starts at zero.
    """

    build: Callable[[int, int, int, Form], nn.Module]
    title: str
    table_2_c: int = 0
    table_2_gmacs: float = 0.0
    channels: Mapping[str, tuple[Channels, Channels]] | None = None
    parts: Callable[[int], Sequence[int]] = lambda width: (width,)
    identity: Mapping[str, Role] | None = None
    outputs: tuple[str, ...] | None = None
    carries_input: bool = False
    grows_from: tuple[str, ...] = ()

    @property
    def has_branches(self) -> bool:
        """Whether the form "reparameterised" has other tensors than "plain"."""
        with torch.device("meta"):  # no memory, no random numbers
            first, second = (self.build(4, 4, 1, form).state_dict() for form in ("reparameterised", "plain"))
        return first.keys() != second.keys()


_INVERTED: dict[str, Any] = {
    "channels": {
        "expand": ("input", "inner"),
        "depthwise": ("inner", "inner"),
        "project": ("inner", "output"),
        "shortcut": ("input", "output"),
    },
    "identity": {"project": "zero"},
    "outputs": ("project",),
    "carries_input": True,
}
_STEM: dict[str, Any] = {
    **_INVERTED,
    "channels": {
        "stem": ("input", "inner"),
        "depthwise": ("inner", "inner"),
        "project": ("inner", "output"),
        "shortcut": ("input", "output"),
    },
}
_LITE: dict[str, Any] = {"tensorflow": True, "eps": 1e-3}  # EfficientNet's (Tan and Le 2019), as timm has it

BLOCKS: dict[str, BlockType] = {
    "conv3x3": BlockType(
        Conv3x3,
        "3x3 Conv",
        14,
        18.5,
        channels={"unit": ("input", "output")},
        identity={"unit": "pass"},
        outputs=("unit",),
    ),
    "sepconv3x3": BlockType(
        SepConv3x3,
        "3x3 SepConv",
        9,
        1.1,
        channels={"depthwise": ("input", "input"), "pointwise": ("input", "output")},
        identity={"depthwise": "pass", "pointwise": "pass"},
        outputs=("pointwise",),
    ),
    "bottleneck": BlockType(
        Bottleneck,
        "Bottleneck",
        13,
        2.2,
        channels={
            "reduce": ("input", "inner"),
            "spatial": ("inner", "inner"),
            "expand": ("inner", "output"),
            "shortcut": ("input", "output"),
        },
        identity={"expand": "zero"},
        outputs=("expand", "shortcut"),
        carries_input=True,
    ),
    "residual": BlockType(
        Residual,
        "Residual",
        9,
        16.1,
        channels={"first": ("input", "output"), "second": ("output", "output"), "shortcut": ("input", "output")},
        identity={"second": "zero"},
        outputs=("second", "shortcut"),
        carries_input=True,
    ),
    # Its units shuffle the channels: neither a wider unit nor a new one could leave them in their places.
    "shufflenet": BlockType(
        ShuffleNetUnit, "ShuffleNet Unit", 9, 0.8, outputs=("second", "other_branch"), carries_input=True
    ),
    "inverted_residual": BlockType(InvertedResidual, "Inverted Residual", 5, 2.0, **_INVERTED),
    "ghost": BlockType(
        GhostModule,
        "Ghost Module",
        7,
        2.5,
        channels={"primary": ("input", "inner"), "cheap": ("inner", "inner")},
        parts=lambda width: (width - width // 2, width // 2),
        identity={"primary": "pass", "cheap": "repeat"},
        outputs=("primary", "cheap"),
    ),
    "mobilenetv2_stem": BlockType(MobileStem, "MobileNetV2 stem", **_STEM),
    "mobilenetv2_e6": BlockType(
        partial(InvertedResidual, expansion=6), "MobileNetV2 e6", **_INVERTED, grows_from=("inverted_residual",)
    ),
    "lite_stem": BlockType(partial(MobileStem, **_LITE), "EfficientNet-Lite stem", **_STEM),
    "lite_e6k3": BlockType(partial(InvertedResidual, expansion=6, **_LITE), "EfficientNet-Lite e6 k3", **_INVERTED),
    "lite_e6k5": BlockType(
        partial(InvertedResidual, expansion=6, kernel=5, **_LITE),
        "EfficientNet-Lite e6 k5",
        **_INVERTED,
        grows_from=("lite_e6k3",),
    ),
}


def stage_blocks(block: str) -> tuple[str, ...]:
    """The block of each stage, five names in `BLOCKS`: of a block's name, a name in `BLOCK_SETS` or `a,b,c,d,e`.

    Raises:
        LpsnetError: a block has no such name, or it is not one name or five.
    """
    names = block_names(block)
    if unknown := [name for name in names if name not in BLOCKS]:
        raise LpsnetError(unknown_block(unknown[0]))
    return names


def unknown_block(name: object) -> str:
    """The message for a name that is not in `BLOCKS`."""
    return f"{unknown_name('block', name, [*BLOCKS, *BLOCK_SETS])}. A block of your own comes with --plugin FILE.py"


# Here, and not where a command begins: so the rows are there in every process that looks a block up, workers included.
load_plugins()
