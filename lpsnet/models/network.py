"""The network of Section 3.1: one class for any number of paths, blocks and interactions.

The image is resized to every path's ratio; a path is five stages of blocks, the first block of Stages 1 to 4 with
stride 2; paths interact after Stage 3 and Stage 4. After Stage 5 all are resized to the largest path's size,
concatenated along channels and mapped to logits by a 1x1 convolution with bias (design-notes, 'The network').

An architecture may have more: the context of the whole image, from the features of all paths together, as the global
gate of LR-ASPP (Howard et al. 2019, MobileNetV3) or a pyramid of averages (Zhao et al. 2017, PSPNet; Hong et al. 2021,
DDRNet); and detail, the sum of logits at a finer stride (Long et al. 2015, FCN). Both are built so that they change
nothing at first (`zero_init`): a network that gets one computes the function it had, and learns from there. So `expand`
can add them to a trained network.

Names in the state dict: `paths.{path}.stages.{stage}.{block}.…`, `interactions.{0 after Stage 3, 1 after Stage 4}.…`,
`head.weight`, `head.bias`; `context.…`, `mixing.…` and `details.{0 of Stage 3, 1 of Stage 2}.weight` where the
architecture has them; all counted from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.architecture import NUM_STAGES, Architecture, default_block, get_architecture
from lpsnet.data.labels import MAX_CLASSES
from lpsnet.errors import LpsnetError, ModelFileError, unknown_name
from lpsnet.models.blocks import BLOCKS, ConvNorm, stage_blocks
from lpsnet.models.interactions import INTERACTIONS, Interaction, resize_like, resize_to_ratio
from lpsnet.models.training_kernels import RELU
from lpsnet.record import Form


def detail_stages(detail: int) -> tuple[int, ...]:
    """The stages (counted from 0) with logits of their own for logits at stride `detail`: none, 3, or 3 and 2."""
    return {16: (), 8: (2,), 4: (2, 1)}[detail]


class GlobalGate(nn.Module):
    """x times 2 sigmoid(1x1 convolution of x's mean over the image): N x C x h x w to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))


_POOLS = ((5, 2), (9, 4))  # kernel and stride of the averages, besides the whole image (DDRNet's first two)


class Pyramid(nn.Module):
    """x plus a 1x1 convolution of averages of x over 5x5, 9x9 and the whole image, each reduced to C / 4 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.reduce = nn.ModuleList(nn.Conv2d(channels, inner, 1) for _ in range(len(_POOLS) + 1))
        self.gate = nn.Conv2d(inner * (len(_POOLS) + 1), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        averages = [F.avg_pool2d(x, kernel, stride, kernel // 2, ceil_mode=False) for kernel, stride in _POOLS]
        averages.append(x.mean((2, 3), keepdim=True))
        maps = [F.relu(reduce(average)) for reduce, average in zip(self.reduce, averages, strict=True)]
        resized = [resize_like(each, x, align_corners=False) for each in maps]
        return x + self.gate(torch.cat(resized, dim=1))  # type: ignore[no-any-return]


# name -> channels -> the module on the concatenated last features of all paths
CONTEXTS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "gate": GlobalGate,
    "pyramid": Pyramid,
}


def zero_init(part: nn.Module) -> None:
    """Make a part that was just built without effect: weights (and biases) of what adds or gates are zero."""
    last = getattr(part, "gate", part)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


MIN_INPUT = 32  # pixels; the smallest height and width of an input
FORMS: tuple[Form, ...] = get_args(Form)
INTERACTING_STAGES = (2, 3)  # Stages 3 and 4, counted from 0
_STRIDES = (2, 2, 2, 2, 1)


class Path(nn.Module):
    """The five stages of one path: from N x C x H x W to N x C5 x H/16 x W/16, every halving rounded up."""

    def __init__(self, architecture: Architecture, block: str, form: Form, in_channels: int) -> None:
        super().__init__()
        widths = (in_channels, *architecture.widths)
        self.stages = nn.ModuleList(
            _stage(name, form, architecture.blocks[stage], widths[stage], widths[stage + 1], _STRIDES[stage])
            for stage, name in enumerate(stage_blocks(block))
        )

    def forward(self, maps: Tensor, stage: int) -> Tensor:
        """The output of `stage` (counted from 0) for the output of the stage before it, or the path's input."""
        return self.stages[stage](maps)  # type: ignore[no-any-return]


def _stage(block: str, form: Form, num_blocks: int, in_channels: int, width: int, stride: int) -> nn.Sequential:
    build = BLOCKS[block].build
    first = build(in_channels, width, stride, form)
    return nn.Sequential(first, *(build(width, width, 1, form) for _ in range(num_blocks - 1)))


class Network(nn.Module):
    """An LPS-Net. `create_model` makes one; its attributes describe it, its state dict alone does not.

    Attributes:
        architecture: the triple {B, C, R}.
        num_classes: K, the number of logit maps, 1 to 255.
        block: a name in `BLOCKS` or `BLOCK_SETS`, or five names in `BLOCKS` with commas, one a stage.
        interaction: a name in `INTERACTIONS`.
        form: "reparameterised" (conv3x3 with parallel branches in training; other blocks as "plain"), "plain" (each
            convolution with its batch norm) or "deployed" (convolutions with bias; made by `reparameterise.fuse`).
        align_corners: the convention of every bilinear resize.
        in_channels: C of the images it takes, 3 for RGB.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int,
        block: str,
        interaction: str,
        form: Form,
        align_corners: bool,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _check_choices(num_classes, interaction, form, architecture.context)
        self.architecture = architecture
        self.num_classes = num_classes
        self.block = block
        self.interaction = interaction
        self.form: Form = form
        self.align_corners = align_corners
        self.in_channels = in_channels
        self.paths = nn.ModuleList(Path(architecture, block, form, in_channels) for _ in architecture.ratios)
        self.interactions = nn.ModuleList(self._interaction(stage) for stage in INTERACTING_STAGES)
        self.head = nn.Conv2d(self._head_channels, num_classes, 1)
        self._add_parts()
        if not self.head.weight.is_meta:  # there is nothing to fill, and torch would load its compiler for it: 1.5 s
            self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        for part in (self.context, *self.details):
            zero_init(part)

    @property
    def _head_channels(self) -> int:
        return self.architecture.head or self.architecture.num_paths * self.architecture.widths[-1]

    def _add_parts(self) -> None:
        """The parts that the paper's networks do not have; none of them for those."""
        architecture, deployed = self.architecture, self.form == "deployed"
        features = architecture.num_paths * architecture.widths[-1]
        self.context = CONTEXTS[architecture.context](features)
        self.mixing = ConvNorm(features, architecture.head, kernel=1, deployed=deployed) if architecture.head else None
        self.details = nn.ModuleList(
            nn.Conv2d(architecture.widths[stage], self.num_classes, 1, bias=False)
            for stage in detail_stages(architecture.detail)
        )

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments besides architecture and form."""
        names = ("num_classes", "block", "interaction", "align_corners", "in_channels")
        return {name: getattr(self, name) for name in names}

    def _interaction(self, stage: int) -> Interaction:
        return Interaction(
            INTERACTIONS[self.interaction],
            self.architecture.num_paths,
            self.architecture.widths[stage],
            deployed=self.form == "deployed",
            align_corners=self.align_corners,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits, before any softmax.

        Args:
            image: N x C x H x W floating point, RGB or other channels, normalised as in the model's record, H and W at
                least 32.

        Returns:
            N x K x h x w with (h, w) = `architecture.logits_size((H, W), architecture)`.

        Raises:
            LpsnetError: the input has another shape. Not checked while tracing or compiling.
        """
        return self.logits_and_maps(image)[0]

    def logits_and_maps(self, image: Tensor, *stages: int) -> tuple[Tensor, list[Tensor]]:
        """What `forward` gives, and the largest path's maps after `stages`, counted from 0, with their interactions."""
        detailed = detail_stages(self.architecture.detail)
        features, maps = self._features(image, *detailed, *stages)
        logits = self.head(features)
        for detail, stage in zip(self.details, detailed, strict=True):
            own = detail(maps[stage])
            logits = resize_like(logits, own, align_corners=self.align_corners) + own
        return logits, [maps[stage] for stage in stages]

    def features(self, image: Tensor) -> Tensor:
        """The head's input: the paths' last features at the largest path's size, N x (paths x C5) x h x w.

        With a hidden head its N x H x h x w. `image` and errors as in `forward`.
        """
        return self._features(image)[0]

    def _features(self, image: Tensor, *kept: int) -> tuple[Tensor, dict[int, Tensor]]:
        """The head's input, and the largest path's maps after the stages to be kept."""
        check_input(image, self.in_channels)
        largest_maps = {}
        maps = [resize_to_ratio(image, ratio, align_corners=self.align_corners) for ratio in self.architecture.ratios]
        for stage in range(NUM_STAGES):
            maps = [path(x, stage) for path, x in zip(self.paths, maps, strict=True)]
            if stage in INTERACTING_STAGES:
                maps = self.interactions[stage - INTERACTING_STAGES[0]](maps)
            if stage in kept:
                largest_maps[stage] = maps[0]
        largest, *others = maps
        resized = [resize_like(x, largest, align_corners=self.align_corners) for x in others]
        features = self.context(torch.cat((largest, *resized), dim=1))
        return (features if self.mixing is None else self.mixing(features, RELU)), largest_maps


AUXILIARY_STAGE = 3  # Stage 4, counted from 0


class WithAuxiliaryHead(nn.Module):
    """A network in training that a second head helps (Zhao et al. 2017, PSPNet, Section 3.3).

    The head is a 1x1 convolution on Stage 4 of the largest path. Forward: as the network, to its logits and those of
    the second head, N x K x h x w each, of sizes of their own.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.auxiliary = nn.Conv2d(network.architecture.widths[AUXILIARY_STAGE], network.num_classes, 1)
        nn.init.normal_(self.auxiliary.weight, std=0.01)
        nn.init.zeros_(self.auxiliary.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, (maps,) = self.network.logits_and_maps(image, AUXILIARY_STAGE)
        return logits, self.auxiliary(maps)

    @staticmethod
    def delivered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a state dict, the network's own; one of a network without a second head stays as it is."""
        return {n.removeprefix("network."): t for n, t in tensors.items() if not n.startswith("auxiliary.")}


def create_model(
    arch: str | Architecture,
    *,
    num_classes: int = 19,
    block: str | None = None,
    interaction: str = "bilateral_b",
    form: Form = "reparameterised",
    align_corners: bool = True,
    in_channels: int = 3,
) -> Network:
    """A network with fresh weights, in training mode.

    Weights: He's normal initialisation by fan-out for convolutions, ones and zeros for batch norm, and for the head a
    normal distribution with deviation 0.01, so that training starts from almost equal logits.

    Args:
        arch: a name (`list_architectures`), the triple written out (`B=…;C=…;R=…`) or an `Architecture`.
        num_classes: 1 to 255.
        block: convolutional block of Table 2 (`BLOCKS`), a set of five (`BLOCK_SETS`) or five names with commas; None
            for `default_block(arch)`: conv3x3 for the paper's architectures.
        interaction: path interaction of Table 3, see `INTERACTIONS`.
        form: see `Network`.
        align_corners: convention of every bilinear resize in the network.
        in_channels: of the images it takes, 1 to 16; 3 for RGB.

    Raises:
        ArchitectureError: `arch` names or describes no network.
        LpsnetError: no block, interaction or form has that name, or the number of classes is out of range.
    """
    return Network(
        get_architecture(arch),
        num_classes=num_classes,
        block=block or default_block(arch),
        interaction=interaction,
        form=form,
        align_corners=align_corners,
        in_channels=in_channels,
    )


def _check_choices(num_classes: object, interaction: object, form: object, context: object) -> None:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or not 1 <= num_classes <= MAX_CLASSES:
        raise LpsnetError(f"num_classes is a whole number from 1 to {MAX_CLASSES}; got {num_classes!r}")
    chosen = (("interaction", interaction, INTERACTIONS), ("form", form, FORMS), ("context", context, CONTEXTS))
    for kind, name, allowed in chosen:
        if name not in allowed:
            raise LpsnetError(unknown_name(kind, name, allowed))


def check_input(image: Tensor, channels: int = 3) -> None:
    """Raise LpsnetError unless `image` is N x C x H x W floating point, H and W at least 32."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
        return
    if image.dim() != 4 or image.shape[1] != channels:
        raise LpsnetError(f"a network takes N x {channels} x H x W; got a tensor of shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise LpsnetError(f"a network takes normalised floating-point images; got {image.dtype}")
    if min(image.shape[-2:]) < MIN_INPUT:
        height, width = image.shape[-2:]
        raise LpsnetError(f"a network takes images from {MIN_INPUT}x{MIN_INPUT} pixels up; got {height}x{width}")


_NUM_NAMED = 4  # at most as many tensors are named in a message


def empty_network(
    architecture: Architecture,
    *,
    num_classes: int,
    block: str = "conv3x3",
    interaction: str = "bilateral_b",
    form: Form = "deployed",
    align_corners: bool = True,
    in_channels: int = 3,
) -> Network:
    """The network on the meta device, in evaluation mode: shapes and names only."""
    with torch.device("meta"):
        net = Network(
            architecture,
            num_classes=num_classes,
            block=block,
            interaction=interaction,
            form=form,
            align_corners=align_corners,
            in_channels=in_channels,
        )
    return net.eval()


def fill(net: Network, tensors: Mapping[str, Tensor]) -> Network:
    """`net`, an empty network, with `tensors` as its weights (not copied). They fit: see `fitting`."""
    net.load_state_dict(tensors, assign=True)
    return net.requires_grad_(True)


def fitting(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: object) -> dict[str, Tensor]:
    """Copies of `tensors`, which come from the file `source`, floating-point ones as float32, if they are as expected.

    Raises:
        ModelFileError: naming a few of the tensors that are missing, unexpected, of another shape or kind of number
            than in `expected`, or that hold an infinity or a NaN.
    """
    faults = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "misshapen": [
            f"{name} {_described(tensors[name])} instead of {_described(own)}"
            for name, own in expected.items()
            if (it := tensors.get(name)) is not None
            and (it.shape, it.is_floating_point()) != (own.shape, own.is_floating_point())
        ],
    }
    if any(faults.values()):
        parts = "; ".join(f"{fault}: {some(names)}" for fault, names in faults.items() if names)
        raise ModelFileError(f"the weights in {source} do not fit the network: {parts}")
    # copied: what a reader gives may still lie in the file, and at any address
    converted = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }
    if broken := not_finite(converted):
        raise ModelFileError(f"the weights in {source} are of no use, infinities or NaNs are in: {some(broken)}")
    return converted


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those tensors that hold an infinity or a NaN."""
    return [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]


def some(names: Sequence[str]) -> str:
    """The first few of `names` for a message, and how many more there are."""
    rest = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _described(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "a number"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"
