"""A network while it is filled from a smaller one: where every number comes from, and the batch norms to measure.

A batch norm in evaluation mode is a scale and a shift a channel; in training mode its scale depends on the batch. Two
kinds of channels of the child's batch norms have statistics that no parent can give: those of new features, and those
that must pass on what they get. Both are measured on images, in one pass through the finished child in which every
batch norm takes its statistics from its input just before it is used, so later ones see what earlier ones really give.

Wider: the parent's weights inside a child's wider blocks, so that the old channels compute what they did.

A channel of the parent has a place among the child's channels, the same in every path, because Bilateral-B adds paths
channel by channel (Equation 2). A unit's rows for old channels read old channels with the parent's weights and new ones
with zeros; its rows for new channels keep their random weights and read everything. So nothing old depends on anything
new, and the readers of the new channels learn first. Blocks of any two widths may be given, equal ones included.

Which channels a unit reads and writes is in the block's row (`BlockType.channels`).

Deeper: new blocks that pass on what they are given, at the end of a stage.

What such a block is given has been through a ReLU, so a second ReLU changes nothing: it is enough that the sum before
it is the input. Re-parameterised blocks and those with a shortcut have a branch for that, and their other branches
start with a scale of zero; elsewhere the convolution is the unit matrix. Exact in evaluation mode. In training mode a
batch norm normalises what it passes on, so its scale and shift are those of what it is given (`pass_on`).

What each unit has to do for that is in the block's row (`BlockType.identity`).

A new path, and how it meets the others: Bilateral-B and the other interactions of Section 3.3.

A new path is a copy of one that is there already, so what it computes is of use from the start. After Stage 3 and Stage
4 the paths add their features to each other (Equation 2). The new path's are made small there and so disturb the others
little; they are not made zero, because a ReLU of zero gives no gradient. What it gets from the others is not small: its
Stages 4 and 5 start on the very features that the copied weights were trained for, at its own resolution. Where an
interaction transforms what it adds, the transformation is made small instead, and the path is left as it is.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn

from lpsnet.models.blocks import BLOCKS, ConvNorm, RepConvNorm, Role
from lpsnet.models.interactions import Attention, Interaction
from lpsnet.models.network import INTERACTING_STAGES, Network, Path

Index = Tensor | tuple[Tensor, Tensor] | EllipsisType
_NEW, _COPIED, _ZEROED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Origin:
    """How many numbers of a parameter come from where.

    Attributes:
        copied: from the parent.
        zeroed: zero on purpose, so that something new is not read, or not heard, at the start.
        new: everything else: random, or set so that the function stays.
    """

    copied: int
    zeroed: int
    new: int


@dataclass(frozen=True, slots=True)
class _Unmeasured:
    """Channels of a batch norm whose statistics are to be measured.

    Attributes:
        norm: the batch norm.
        channels: their numbers.
        keeps_function: whether scale and shift follow the statistics, so that the function in evaluation mode stays.
    """

    norm: nn.BatchNorm2d
    channels: Tensor
    keeps_function: bool


class WeightTransfer:
    """The child, and what has been done to it. Its weights are fresh at the beginning; use it under `torch.no_grad`.

    Attributes:
        child: the network that is filled.
        mismatches: why the child does not compute what its parent does, one line each.
    """

    def __init__(self, child: Network) -> None:
        self.child = child
        self.mismatches: list[str] = []
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in child.named_parameters()}
        self._sources = {name: torch.zeros(p.shape, dtype=torch.uint8) for name, p in child.named_parameters()}
        self._unmeasured: list[_Unmeasured] = []

    def copy(self, parameter: Tensor, index: Index, values: Tensor) -> None:
        """Set `parameter[index]` to the parent's `values`."""
        parameter[index] = values.to(parameter)
        self._sources[self._names[parameter]][index] = _COPIED

    def zero(self, parameter: Tensor, index: Index = ...) -> None:
        """Set `parameter[index]` to zero."""
        parameter[index] = 0
        self._sources[self._names[parameter]][index] = _ZEROED

    def copy_module(self, module: nn.Module, source: nn.Module) -> None:
        """Set all of `module` to what is in `source`, whose tensors have the same names and shapes."""
        for parameter, values in zip(module.parameters(), source.parameters(), strict=True):
            self.copy(parameter, ..., values)
        for own, given in zip(module.buffers(), source.buffers(), strict=True):
            if own.is_floating_point():  # not the number of batches: the child has seen none
                own.copy_(given)

    def measure_all(self, module: nn.Module, *, but: Collection[nn.Module] = ()) -> None:
        """Have the statistics of all batch norms in `module` measured but for those in the modules `but`."""
        left_out = {norm for part in but for norm in part.modules()}
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm not in left_out:
                self.measure(norm)

    def copy_norm(self, norm: nn.BatchNorm2d, source: nn.BatchNorm2d, places: Tensor) -> None:
        """Give the channels `places` of `norm` those of `source`; the statistics of the others will be measured."""
        self.copy(norm.weight, places, source.weight)
        self.copy(norm.bias, places, source.bias)
        for statistic, given in zip(statistics(norm), statistics(source), strict=True):
            statistic[places] = given.to(statistic)
        self.measure(norm, others(places, norm.num_features))

    def measure(self, norm: nn.BatchNorm2d, channels: Tensor | None = None, *, keeps_function: bool = False) -> None:
        """Have the statistics of `channels` (unless given, all) measured.

        Scale and shift stay, or with `keeps_function` follow, so that the function in evaluation mode stays.
        """
        channels = torch.arange(norm.num_features) if channels is None else channels
        if len(channels):
            self._unmeasured.append(_Unmeasured(norm, channels, keeps_function))

    def pass_on(self, norm: nn.BatchNorm2d, channels: Tensor | None = None, *, shift: Tensor | None = None) -> None:
        """Make `channels` (unless given, all) of `norm` add `shift` to their input and do nothing else.

        Exact in evaluation mode. Once the statistics are measured it is close in training mode too.
        """
        index: Index = ... if channels is None else channels
        mean, variance = statistics(norm)
        mean[index], variance[index] = 0, 1
        norm.weight[index] = (1 + norm.eps) ** 0.5
        norm.bias[index] = 0 if shift is None else shift.to(norm.bias)
        self.measure(norm, channels, keeps_function=True)

    def measure_statistics(self, images: Tensor) -> None:
        """Measure what is to be measured, on N x 3 x H x W normalised images."""
        if not self._unmeasured:
            return
        hooks = [task.norm.register_forward_pre_hook(_measuring(task)) for task in self._unmeasured]
        try:
            with evaluating(self.child):
                self.child.features(images.to(self.child.head.weight.device))
        finally:
            for hook in hooks:
                hook.remove()

    def origins(self) -> dict[str, Origin]:
        """Where the numbers of each of the child's parameters come from."""
        return {name: _counted(source) for name, source in self._sources.items()}


def others(places: Tensor, num_channels: int) -> Tensor:
    """The channels that are not in `places`."""
    is_other = torch.ones(num_channels, dtype=torch.bool)
    is_other[places] = False
    return is_other.nonzero().flatten()


def statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift a channel of `norm` in evaluation mode, float64."""
    mean, variance = statistics(norm)
    scale = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
    return scale, norm.bias.double() - mean.double() * scale


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _measuring(task: _Unmeasured) -> Any:
    """A hook that sets the statistics of a batch norm from what it is about to be given."""

    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        scale, shift = affine(norm)
        # Biased, as batch norm itself normalises in training: there the same images give the same result.
        variance, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3), correction=0)
        running_mean, running_variance = statistics(norm)
        running_mean[task.channels] = mean[task.channels].to(running_mean)
        running_variance[task.channels] = variance[task.channels].to(running_variance)
        if task.keeps_function:
            weight = scale * torch.sqrt(running_variance.double() + norm.eps)
            bias = shift + scale * running_mean.double()
            norm.weight[task.channels] = weight[task.channels].to(norm.weight)
            norm.bias[task.channels] = bias[task.channels].to(norm.bias)

    return hook


def _counted(source: Tensor) -> Origin:
    counts = torch.bincount(source.flatten(), minlength=3).tolist()
    return Origin(copied=counts[_COPIED], zeroed=counts[_ZEROED], new=counts[_NEW])


ChannelMap = Tensor  # 1-D int64: for each of the parent's channels its number among the child's


def channel_map(block: str, old_width: int, new_width: int) -> ChannelMap:
    """The places of the output channels of a `block` of `old_width` in one of `new_width` (`BlockType.parts`).

    The first ones where the row's parts are none of such widths; `inherit` finds that the logits change then.
    """
    old_parts, new_parts = (tuple(BLOCKS[block].parts(width)) for width in (old_width, new_width))
    grow = len(old_parts) == len(new_parts) and all(old <= new for old, new in zip(old_parts, new_parts, strict=True))
    if not grow or (sum(old_parts), sum(new_parts)) != (old_width, new_width):
        return torch.arange(old_width)
    starts = accumulate(new_parts, initial=0)
    return torch.cat([start + torch.arange(old) for start, old in zip(starts, old_parts, strict=False)])


def copy_block(
    weights: WeightTransfer, kind: str, block: nn.Module, source: nn.Module, reads: ChannelMap, writes: ChannelMap
) -> None:
    """Fill `block` of the child from `source` of the parent; it stays fresh where its row does not say how.

    Args:
        weights: the child.
        kind: the blocks' name in `BLOCKS`.
        block, source: blocks of that kind in training form, `block` at least as wide.
        reads, writes: places of the channels of the block's input and output.
    """
    if shapes(block) == shapes(source):
        weights.copy_module(block, source)
        return
    if fault := _fault(kind, block, source, reads, writes):
        weights.mismatches.append(f"block {kind!r} {fault}; its blocks of another width start fresh")
        weights.measure_all(block)
        return
    for name, channels in (BLOCKS[kind].channels or {}).items():
        own, given = submodule(block, name), submodule(source, name)
        places = {"input": reads, "output": writes}
        read, written = (places.get(kind, inner) for kind, inner in zip(channels, _inner_places(given), strict=True))
        _copy_part(weights, own, given, read, written)


def copy_unit(weights: WeightTransfer, unit: ConvNorm, source: ConvNorm, reads: ChannelMap, writes: ChannelMap) -> None:
    """Fill a convolution with batch norm, the old rows with zeros for the new columns."""
    weight = unit.conv.weight
    if unit.conv.groups > 1:  # depthwise: every channel reads its own
        weights.copy(weight, writes, source.conv.weight)
    else:
        weights.zero(weight, writes)
        weights.copy(weight, (writes[:, None], reads[None]), source.conv.weight)
    weights.copy_norm(norm_of(unit), norm_of(source), writes)


def norm_of(unit: ConvNorm) -> nn.BatchNorm2d:
    """The batch norm of a unit in training form."""
    assert isinstance(unit.norm, nn.BatchNorm2d), "networks in training form"
    return unit.norm


def submodule(block: nn.Module, name: str) -> nn.Module | None:
    """A part of a block by its name; None where this block has none."""
    try:
        return block.get_submodule(name)
    except AttributeError:
        return None


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Of all tensors, by name."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _copy_part(
    weights: WeightTransfer, part: nn.Module | None, source: nn.Module | None, reads: ChannelMap, writes: ChannelMap
) -> None:
    """Fill a unit or a shortcut, which may be there in only one of the two networks."""
    if isinstance(part, RepConvNorm) and isinstance(source, RepConvNorm):
        copy_unit(weights, part.conv3x3, source.conv3x3, reads, writes)
        copy_unit(weights, part.conv1x1, source.conv1x1, reads, writes)
        _copy_identity(weights, part, source, reads, writes)
    elif isinstance(part, ConvNorm) and isinstance(source, ConvNorm):
        copy_unit(weights, part, source, reads, writes)
    elif isinstance(part, ConvNorm) and isinstance(source, nn.Identity):
        _copy_shortcut(weights, part, reads, writes)
    elif isinstance(part, nn.Identity) != isinstance(source, nn.Identity):
        change = "gets" if isinstance(part, nn.Identity) else "loses"
        weights.mismatches.append(f"the first block of Stage 5 {change} a shortcut")
    elif part is not None:  # what it computes is new
        weights.measure_all(part)


def _copy_identity(
    weights: WeightTransfer, unit: RepConvNorm, source: RepConvNorm, reads: ChannelMap, writes: ChannelMap
) -> None:
    """The identity branch of the re-parameterised form, which is there only between equal widths."""
    if unit.identity is not None and source.identity is not None:
        weights.copy_norm(unit.identity, source.identity, writes)
    elif unit.identity is not None:
        weights.zero(unit.identity.weight, writes)
        weights.measure(unit.identity)
    elif source.identity is not None:
        _fold_identity(weights, unit.conv1x1, source, reads, writes)


def _fold_identity(
    weights: WeightTransfer, unit: ConvNorm, source: RepConvNorm, reads: ChannelMap, writes: ChannelMap
) -> None:
    """Let the child's 1x1 branch do what the parent's 1x1 and identity branches do together."""
    assert source.identity is not None
    scale, shift = affine(norm_of(source.conv1x1))
    identity_scale, identity_shift = affine(source.identity)
    weight = source.conv1x1.conv.weight.double() * scale[:, None, None, None]
    weight += torch.diag(identity_scale)[:, :, None, None]
    weights.copy(unit.conv.weight, (writes[:, None], reads[None]), weight)
    weights.pass_on(norm_of(unit), writes, shift=shift + identity_shift)


def _copy_shortcut(weights: WeightTransfer, shortcut: ConvNorm, reads: ChannelMap, writes: ChannelMap) -> None:
    """A shortcut that was the input itself, and is a convolution between different widths now: the unit matrix."""
    weights.zero(shortcut.conv.weight, writes)
    centre = shortcut.conv.weight.shape[-1] // 2
    shortcut.conv.weight[writes, reads, centre, centre] = 1
    weights.pass_on(norm_of(shortcut), writes)
    weights.measure(norm_of(shortcut), others(writes, shortcut.conv.out_channels))


def _fault(kind: str, block: nn.Module, source: nn.Module, reads: ChannelMap, writes: ChannelMap) -> str:
    """What keeps the row's `channels` from carrying the weights over, in words; empty if nothing does."""
    channels = BLOCKS[kind].channels
    if channels is None:
        return "does not say how its weights carry over to another width (`channels` in its row)"
    if left := [name for name, _ in block.named_parameters() if not _is_in(name, channels)]:
        return f"does not say which channels {left[0]!r} reads and writes (`channels` in its row)"
    for name, (read, written) in channels.items():
        own, given = submodule(block, name), submodule(source, name)
        widths = {"input": len(reads), "output": len(writes)}
        if not _fits(own, given, widths.get(read), widths.get(written)):
            return f"has in {name!r} what its row's `channels` do not describe"
    return ""


def _is_in(name: str, parts: Iterable[str]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)


def _fits(own: nn.Module | None, given: nn.Module | None, num_read: int | None, num_written: int | None) -> bool:
    """Whether a part can be filled: convolutions of the numbers of channels in the row, dense or depthwise.

    A shortcut may be a convolution, an `nn.Identity` or None, another one in each network.
    """
    if isinstance(own, RepConvNorm) and isinstance(given, RepConvNorm):
        own, given = own.conv3x3, given.conv3x3
    if given is None:
        return isinstance(own, ConvNorm | RepConvNorm | nn.Identity | None)
    if isinstance(given, nn.Identity) and isinstance(own, ConvNorm):
        return own.conv.groups == 1 and num_read is not None and num_read == num_written
    if isinstance(given, nn.Identity) or isinstance(own, nn.Identity):
        return isinstance(given, nn.Identity | ConvNorm) and isinstance(own, nn.Identity | None)
    if not isinstance(own, ConvNorm) or not isinstance(given, ConvNorm):
        return False
    alike = (own.conv.groups == given.conv.groups == 1) or (_is_depthwise(own) and _is_depthwise(given))
    (read, written), (reads, writes) = _sizes(given), _sizes(own)
    grows = reads >= read and writes >= written and own.conv.kernel_size == given.conv.kernel_size
    return alike and grows and num_read in (None, read) and num_written in (None, written)


def _is_depthwise(unit: ConvNorm) -> bool:
    return unit.conv.groups == unit.conv.in_channels == unit.conv.out_channels


def _inner_places(given: nn.Module | None) -> tuple[ChannelMap, ChannelMap]:
    """The places of inner channels that a unit of the parent reads, and of those that it writes: the first ones."""
    unit = given.conv3x3 if isinstance(given, RepConvNorm) else given
    num_read, num_written = _sizes(unit) if isinstance(unit, ConvNorm) else (0, 0)
    return torch.arange(num_read), torch.arange(num_written)


def _sizes(unit: ConvNorm) -> tuple[int, int]:
    return unit.conv.in_channels, unit.conv.out_channels


def pass_through(weights: WeightTransfer, kind: str, block: nn.Module, previous: nn.Module, places: ChannelMap) -> None:
    """Make `block`, fresh and at the end of a stage of the child, pass on the old channels of its input.

    It stays fresh where its row does not say how.

    Args:
        weights: the child.
        kind: the blocks' name in `BLOCKS`.
        block: in training form.
        previous: the block before it, filled.
        places: of the old channels; on the new ones, which nothing reads yet, the block may work from the start.
    """
    row, fixed = BLOCKS[kind], []
    channels = row.channels or {}
    if row.identity is None:
        fault = "does not say how a new one passes its input on (`identity` in its row)"
        weights.mismatches.append(f"block {kind!r} {fault}; new blocks start fresh")
    for name, role in (row.identity or {}).items():
        unit, before = submodule(block, name), submodule(previous, name)
        if not isinstance(unit, ConvNorm | RepConvNorm):
            continue  # such as the second half of a ghost module of one channel
        if not _can(role, unit, before):
            weights.mismatches.append(f"block {kind!r} has in {name!r} what its row's `identity` does not describe")
            continue
        fixed.append(unit)
        old = places if name in channels and channels[name][1] == "output" else None
        if role == "zero":
            _zero_init(weights, unit, old)
        elif role == "pass":
            _identity_init(weights, unit, old)
        elif before is not None:  # "repeat"
            _repeat_init(weights, unit, before)
    weights.measure_all(block, but=fixed)


def _can(role: Role, unit: ConvNorm | RepConvNorm, before: nn.Module | None) -> bool:
    if role == "pass":
        return isinstance(unit, ConvNorm) or unit.identity is not None
    return role == "zero" or (role == "repeat" and before is not None and shapes(unit) == shapes(before))


def _identity_init(weights: WeightTransfer, unit: ConvNorm | RepConvNorm, places: ChannelMap | None) -> None:
    """Give out the input; with fewer rows than columns the first channels of it."""
    if isinstance(unit, RepConvNorm):
        assert unit.identity is not None, "see `_can`"
        weights.pass_on(unit.identity)
        _zero_init(weights, unit.conv3x3, places)
        _zero_init(weights, unit.conv1x1, places)
        return
    nn.init.dirac_(unit.conv.weight, groups=unit.conv.groups)
    weights.pass_on(norm_of(unit))


def _zero_init(weights: WeightTransfer, unit: nn.Module, places: ChannelMap | None) -> None:
    """Give nothing, at first: the scale is zero and is what learns first."""
    for norm in unit.modules():
        if isinstance(norm, nn.BatchNorm2d):
            weights.zero(norm.weight, ... if places is None else places)
            weights.measure(norm)


def _repeat_init(weights: WeightTransfer, unit: ConvNorm | RepConvNorm, previous: nn.Module) -> None:
    """Compute again, from the same channels, what the block before computed."""
    unit.load_state_dict(previous.state_dict())
    for norm in unit.modules():
        if isinstance(norm, nn.BatchNorm2d):
            weights.measure(norm, keeps_function=True)


NEW_PATH_SCALE = 0.01  # what a new path adds to others, relative to its features in full strength


def meets_directly(net: Network) -> bool:
    """Whether the paths of `net` meet without weights between them (Bilateral-B), so that they have to be quiet."""
    return bool(net.interactions[0].pairs) and not any(True for _ in net.interactions.parameters())


def downscale_path(weights: WeightTransfer, path: nn.Module, kind: str) -> None:
    """Scale what `path` gives after Stage 3 and Stage 4 by `NEW_PATH_SCALE`; `kind` is the blocks' name in `BLOCKS`.

    What stands before the outputs is left as it is. Inside a block or stage of shortcuts it may then be normalised with
    statistics that no longer fit, until training has found others; all that comes of it is quiet.
    """
    assert isinstance(path, Path)
    row, inputs, loud = BLOCKS[kind], {}, {}
    with evaluating(path):
        maps = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(weights.child.head.weight)
        for stage in range(max(INTERACTING_STAGES) + 1):
            inputs[stage], maps = maps, path(maps, stage)
            loud[stage] = maps.norm()
        for stage in INTERACTING_STAGES:
            blocks = list(path.stages[stage].children())
            for block in blocks if row.carries_input else blocks[-1:]:
                for unit in filter(None, (submodule(block, name) for name in row.outputs or ())):
                    _scale(unit)
            if path(inputs[stage], stage).norm() > 10 * NEW_PATH_SCALE * loud[stage]:
                weights.mismatches.append(
                    f"block {kind!r} is not made quiet by what its row says (`outputs`, `carries_input`)"
                )


def copy_interaction(
    weights: WeightTransfer, own: nn.Module, given: nn.Module, places: ChannelMap, paths: Sequence[int | None]
) -> None:
    """Fill the interaction `own` of the child from `given` of the parent: every pair of two continued paths.

    Pairs with a new path keep fresh weights; where an interaction adds what they give, that is made small.

    Args:
        weights: the child.
        own, given: the interactions after the same stage.
        places: of that stage's channels.
        paths: the parent's path for each of the child's, None for a new one.
    """
    assert isinstance(own, Interaction)
    assert isinstance(given, Interaction)
    for name, pair in own.pairs.items():
        high, low = (paths[int(number)] for number in name.split("_"))
        if high is not None and low is not None:
            if high > low and list(pair.children()):
                weights.mismatches.append(
                    "two paths change places in an interaction that tells the larger from the smaller"
                )
            _fill_pair(weights, pair, given.pairs[f"{min(high, low)}_{max(high, low)}"], places)
        else:
            _settle_pair(weights, pair, quiet=own.adds)


def _settle_pair(weights: WeightTransfer, pair: nn.Module, *, quiet: bool) -> None:
    if quiet:
        _scale(pair)
    weights.measure_all(pair)


def _fill_pair(weights: WeightTransfer, pair: nn.Module, source: nn.Module, places: ChannelMap) -> None:
    for name, unit in pair.named_children():
        given = source.get_submodule(name)
        if isinstance(unit, ConvNorm) and isinstance(given, ConvNorm):
            copy_unit(weights, unit, given, _read_places(unit, given, places), places)
        if isinstance(unit, Attention) and isinstance(given, Attention):
            _copy_attention(weights, unit.conv, given.conv, places)


def _read_places(unit: ConvNorm, given: ConvNorm, places: ChannelMap) -> ChannelMap:
    """`places`, and again for the second half of the input where both paths are concatenated (Direct-B)."""
    if given.conv.in_channels == len(places):
        return places
    return torch.cat((places, unit.conv.in_channels // 2 + places))


def _copy_attention(weights: WeightTransfer, conv: nn.Conv2d, given: nn.Conv2d, places: ChannelMap) -> None:
    weights.zero(conv.weight)
    weights.copy(conv.weight, (torch.zeros(1, 1, dtype=torch.int64), places), given.weight)
    assert conv.bias is not None
    assert given.bias is not None
    weights.copy(conv.bias, ..., given.bias)


def _scale(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.mul_(NEW_PATH_SCALE)
            norm.bias.mul_(NEW_PATH_SCALE)
