"""Weights of a trained network copied into a larger one (Section 3.4): wider blocks, new blocks, new paths.

Wider: a unit's rows for old channels read old channels with the parent's weights and new ones with zeros; rows for new
channels are random. Old channels have the same places in every path, since Bilateral-B adds paths channel by channel
(Equation 2). Deeper: a new block at the end of a stage starts as the identity. Both keep the function in evaluation
mode. New path: a copy of an existing one, whose contribution to the other paths is made small, not zero: a ReLU of zero
has no gradient. Which unit reads and writes what is data in the block's row (`BlockType`).

Statistics of batch norms that the parent cannot give are measured on images at the end.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import EllipsisType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.models.blocks import BLOCKS, ConvNorm, RepConvNorm, Role
from lpsnet.models.interactions import Attention, Interaction
from lpsnet.models.network import INTERACTING_STAGES, Network, Path

Index = Tensor | tuple[Tensor, Tensor] | EllipsisType
ChannelMap = Tensor  # 1-D int64: for each of the parent's channels its number among the child's
NEW_PATH_SCALE = 0.01  # factor on what a new path adds to the others
_NEW, _COPIED, _ZEROED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Origin:
    """How many numbers of a parameter have which origin.

    Attributes:
        copied: from the parent.
        zeroed: set to zero so that something new has no effect at the start.
        new: all others: random, or set so that the function is kept.
    """

    copied: int
    zeroed: int
    new: int


@dataclass(frozen=True, slots=True)
class _Unmeasured:
    """`channels` of a batch norm whose statistics are to be measured.

    With `keeps_function`, scale and shift follow the statistics, so that evaluation mode computes the same.
    """

    norm: nn.BatchNorm2d
    channels: Tensor
    keeps_function: bool


class WeightTransfer:
    """The child, which has fresh weights at first, and the origin of its weights. Use it under `torch.no_grad`.

    Attributes:
        child: the network to fill.
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
        """Copy all of `source`, whose tensors have the same names and shapes, into `module`."""
        for parameter, values in zip(module.parameters(), source.parameters(), strict=True):
            self.copy(parameter, ..., values)
        for own, given in zip(module.buffers(), source.buffers(), strict=True):
            if own.is_floating_point():  # not the number of batches: the child has seen none
                own.copy_(given)

    def copy_norm(self, norm: nn.BatchNorm2d, source: nn.BatchNorm2d, places: Tensor) -> None:
        """Copy `source` into the channels `places` of `norm`; the statistics of the others will be measured."""
        self.copy(norm.weight, places, source.weight)
        self.copy(norm.bias, places, source.bias)
        for statistic, given in zip(statistics(norm), statistics(source), strict=True):
            statistic[places] = given.to(statistic)
        self.measure(norm, others(places, norm.num_features))

    def measure(self, norm: nn.BatchNorm2d, channels: Tensor | None = None, *, keeps_function: bool = False) -> None:
        """Have the statistics of `channels` (default: all) measured.

        Scale and shift stay, or with `keeps_function` follow, so that the function in evaluation mode stays.
        """
        channels = torch.arange(norm.num_features) if channels is None else channels
        if len(channels):
            self._unmeasured.append(_Unmeasured(norm, channels, keeps_function))

    def measure_all(self, module: nn.Module, *, but: Collection[nn.Module] = ()) -> None:
        """Have the statistics of all batch norms in `module` measured, except those in the modules `but`."""
        left_out = {norm for part in but for norm in part.modules()}
        for norm in batch_norms(module):
            if norm not in left_out:
                self.measure(norm)

    def pass_on(self, norm: nn.BatchNorm2d, channels: Tensor | None = None, *, shift: Tensor | None = None) -> None:
        """Make `channels` (default: all) of `norm` add `shift` to their input and do nothing else.

        Exact in evaluation mode; close in training mode once the statistics are measured.
        """
        index: Index = ... if channels is None else channels
        mean, variance = statistics(norm)
        mean[index], variance[index] = 0, 1
        norm.weight[index] = (1 + norm.eps) ** 0.5
        norm.bias[index] = 0 if shift is None else shift.to(norm.bias)
        self.measure(norm, channels, keeps_function=True)

    def measure_statistics(self, images: Tensor) -> None:
        """Measure on N x 3 x H x W normalised images, in one forward pass of the finished child.

        Every batch norm takes its statistics from its input just before it is used, so later ones see the effect.
        """
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
        """The origins of each of the child's parameters."""
        counts = {name: torch.bincount(it.flatten(), minlength=3).tolist() for name, it in self._sources.items()}
        return {name: Origin(it[_COPIED], it[_ZEROED], it[_NEW]) for name, it in counts.items()}


def _measuring(task: _Unmeasured) -> Any:
    """A hook that sets the statistics of a batch norm from its input."""

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


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every module has its previous mode."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """All batch norms in `module`."""
    return [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]


def norm_of(unit: ConvNorm) -> nn.BatchNorm2d:
    """The batch norm of a unit in training form."""
    assert isinstance(unit.norm, nn.BatchNorm2d), "networks in training form"
    return unit.norm


def statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel of `norm` in evaluation mode, float64."""
    mean, variance = statistics(norm)
    scale = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
    return scale, norm.bias.double() - mean.double() * scale


def others(places: Tensor, num_channels: int) -> Tensor:
    """The channels that are not in `places`."""
    is_other = torch.ones(num_channels, dtype=torch.bool)
    is_other[places] = False
    return is_other.nonzero().flatten()


def submodule(block: nn.Module, name: str) -> nn.Module | None:
    """A part of a block by its name; None where this block has none."""
    try:
        return block.get_submodule(name)
    except AttributeError:
        return None


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shapes of all tensors by name."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def channel_map(block: str, old_width: int, new_width: int) -> ChannelMap:
    """The places of the output channels of a `block` of `old_width` in one of `new_width` (`BlockType.parts`).

    The first ones where the row's parts do not fit these widths; `inherit` finds that the logits change then.
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
    """Copy the parent's `source` into the child's `block`; it stays fresh where its row does not describe how.

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
    places = {"input": reads, "output": writes}
    for name, channels in (BLOCKS[kind].channels or {}).items():
        own, given = submodule(block, name), submodule(source, name)
        unit = given.conv3x3 if isinstance(given, RepConvNorm) else given
        sizes = _sizes(unit) if isinstance(unit, ConvNorm) else (0, 0)
        # old inner channels are the first ones
        read, written = (places.get(it, torch.arange(size)) for it, size in zip(channels, sizes, strict=True))
        _copy_part(weights, own, given, read, written)


def copy_unit(weights: WeightTransfer, unit: ConvNorm, source: ConvNorm, reads: ChannelMap, writes: ChannelMap) -> None:
    """Copy a convolution with batch norm; old rows get zeros for new columns."""
    weight = unit.conv.weight
    margin = (weight.shape[-1] - source.conv.weight.shape[-1]) // 2  # a larger kernel is zero around the smaller one
    values = F.pad(source.conv.weight, (margin,) * 4)
    if unit.conv.groups > 1:  # depthwise: every channel reads its own
        weights.copy(weight, writes, values)
    else:
        weights.zero(weight, writes)
        weights.copy(weight, (writes[:, None], reads[None]), values)
    weights.copy_norm(norm_of(unit), norm_of(source), writes)


def _copy_part(
    weights: WeightTransfer, part: nn.Module | None, source: nn.Module | None, reads: ChannelMap, writes: ChannelMap
) -> None:
    """Copy a unit or a shortcut, which only one of the two networks may have."""
    if isinstance(part, RepConvNorm) and isinstance(source, RepConvNorm):
        copy_unit(weights, part.conv3x3, source.conv3x3, reads, writes)
        copy_unit(weights, part.conv1x1, source.conv1x1, reads, writes)
        _copy_identity(weights, part, source, reads, writes)
    elif isinstance(part, ConvNorm) and isinstance(source, ConvNorm):
        copy_unit(weights, part, source, reads, writes)
    elif isinstance(part, ConvNorm) and isinstance(source, nn.Identity):
        # a shortcut that was the input itself and is a convolution now: the unit matrix
        weights.zero(part.conv.weight, writes)
        centre = part.conv.weight.shape[-1] // 2
        part.conv.weight[writes, reads, centre, centre] = 1
        weights.pass_on(norm_of(part), writes)
        weights.measure(norm_of(part), others(writes, part.conv.out_channels))
    elif isinstance(part, nn.Identity) != isinstance(source, nn.Identity):
        change = "gets" if isinstance(part, nn.Identity) else "loses"
        weights.mismatches.append(f"the first block of Stage 5 {change} a shortcut")
    elif part is not None:  # the parent has no such part
        weights.measure_all(part)


def _copy_identity(
    weights: WeightTransfer, unit: RepConvNorm, source: RepConvNorm, reads: ChannelMap, writes: ChannelMap
) -> None:
    """The identity branch of the re-parameterised form, which exists only between equal widths."""
    if unit.identity is not None and source.identity is not None:
        weights.copy_norm(unit.identity, source.identity, writes)
    elif unit.identity is not None:
        weights.zero(unit.identity.weight, writes)
        weights.measure(unit.identity)
    elif (
        source.identity is not None
    ):  # the child's 1x1 branch computes the sum of the parent's 1x1 and identity branches
        scale, shift = affine(norm_of(source.conv1x1))
        identity_scale, identity_shift = affine(source.identity)
        weight = source.conv1x1.conv.weight.double() * scale[:, None, None, None]
        weight += torch.diag(identity_scale)[:, :, None, None]
        weights.copy(unit.conv1x1.conv.weight, (writes[:, None], reads[None]), weight)
        weights.pass_on(norm_of(unit.conv1x1), writes, shift=shift + identity_shift)


def _fault(kind: str, block: nn.Module, source: nn.Module, reads: ChannelMap, writes: ChannelMap) -> str:
    """Why the row's `channels` do not suffice to copy the weights; empty if they do."""
    channels = BLOCKS[kind].channels
    if channels is None:
        return "does not define how its weights carry over to another width (`channels` in its row)"
    units = tuple(f"{name}." for name in channels)
    if left := [name for name, _ in block.named_parameters() if not name.startswith(units)]:
        return f"does not define which channels {left[0]!r} reads and writes (`channels` in its row)"
    widths = {"input": len(reads), "output": len(writes)}
    for name, (read, written) in channels.items():
        if not _fits(submodule(block, name), submodule(source, name), widths.get(read), widths.get(written)):
            return f"has in {name!r} what its row's `channels` do not describe"
    return ""


def _fits(own: nn.Module | None, given: nn.Module | None, num_read: int | None, num_written: int | None) -> bool:
    """Whether a part can be filled: convolutions of the row's numbers of channels, dense or depthwise.

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
    grows = reads >= read and writes >= written and own.conv.kernel_size >= given.conv.kernel_size
    return alike and grows and num_read in (None, read) and num_written in (None, written)


def _is_depthwise(unit: ConvNorm) -> bool:
    return unit.conv.groups == unit.conv.in_channels == unit.conv.out_channels


def _sizes(unit: ConvNorm) -> tuple[int, int]:
    return unit.conv.in_channels, unit.conv.out_channels


def pass_through(weights: WeightTransfer, kind: str, block: nn.Module, previous: nn.Module, places: ChannelMap) -> None:
    """Make `block`, fresh and at the end of a stage of the child, the identity on the old channels of its input.

    The input has been through a ReLU, so a second one changes nothing. Units stay fresh where the row has no role.

    Args:
        weights: the child.
        kind: the blocks' name in `BLOCKS`.
        block: in training form.
        previous: the block before it, filled.
        places: of the old channels; nothing reads the new ones yet, so they may differ from the input.
    """
    row, fixed = BLOCKS[kind], []
    channels = row.channels or {}
    if row.identity is None:
        fault = "does not define how a new one passes its input on (`identity` in its row)"
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
        elif before is not None:  # "repeat": compute what the block before computed, from the same channels
            unit.load_state_dict(before.state_dict())
            for norm in batch_norms(unit):
                weights.measure(norm, keeps_function=True)
    weights.measure_all(block, but=fixed)


def _can(role: Role, unit: ConvNorm | RepConvNorm, before: nn.Module | None) -> bool:
    if role == "pass":
        return isinstance(unit, ConvNorm) or unit.identity is not None
    return role == "zero" or (before is not None and shapes(unit) == shapes(before))


def _identity_init(weights: WeightTransfer, unit: ConvNorm | RepConvNorm, places: ChannelMap | None) -> None:
    """Output the input, or with fewer rows than columns its first channels."""
    if isinstance(unit, RepConvNorm):
        assert unit.identity is not None, "see `_can`"
        weights.pass_on(unit.identity)
        _zero_init(weights, unit.conv3x3, places)
        _zero_init(weights, unit.conv1x1, places)
    else:
        nn.init.dirac_(unit.conv.weight, groups=unit.conv.groups)
        weights.pass_on(norm_of(unit))


def _zero_init(weights: WeightTransfer, unit: nn.Module, places: ChannelMap | None) -> None:
    """Output zero at first, by a scale of zero, which learns first."""
    for norm in batch_norms(unit):
        weights.zero(norm.weight, ... if places is None else places)
        weights.measure(norm)


def adds_without_weights(net: Network) -> bool:
    """Whether paths are added to each other without weights in between (Bilateral-B)."""
    return bool(net.interactions[0].pairs) and not any(True for _ in net.interactions.parameters())


def downscale_path(weights: WeightTransfer, path: nn.Module, kinds: Sequence[str]) -> None:
    """Multiply the output of a new path after Stages 3 and 4 by `NEW_PATH_SCALE`; `kinds` are its stages' blocks.

    Inner units are not changed. Behind a shortcut their statistics may no longer fit until training has adapted them,
    but their effect is small.
    """
    assert isinstance(path, Path)
    inputs, before = {}, {}
    with evaluating(path):
        maps = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(weights.child.head.weight)
        for stage in range(max(INTERACTING_STAGES) + 1):
            inputs[stage], maps = maps, path(maps, stage)
            before[stage] = maps.norm()
        for stage in INTERACTING_STAGES:
            row, blocks = BLOCKS[kinds[stage]], list(path.stages[stage].children())
            for block in blocks if row.carries_input else blocks[-1:]:
                for unit in filter(None, (submodule(block, name) for name in row.outputs or ())):
                    _downscale(unit)
            if path(inputs[stage], stage).norm() > 10 * NEW_PATH_SCALE * before[stage]:
                fault = "is not made small by the units in its row (`outputs`, `carries_input`)"
                weights.mismatches.append(f"the output of block {kinds[stage]!r} {fault}")


def _downscale(module: nn.Module) -> None:
    for norm in batch_norms(module):
        norm.weight.mul_(NEW_PATH_SCALE)
        norm.bias.mul_(NEW_PATH_SCALE)


def copy_interaction(
    weights: WeightTransfer, own: nn.Module, given: nn.Module, places: ChannelMap, paths: Sequence[int | None]
) -> None:
    """Copy the parent's interaction `given` into the child's `own` for every pair of two continued paths.

    Pairs with a new path keep fresh weights; where an interaction adds their outputs, these are scaled down.

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
        if high is None or low is None:
            if own.adds:
                _downscale(pair)
            weights.measure_all(pair)
            continue
        if high > low and list(pair.children()):
            fault = "two paths swap places in an interaction that treats the larger and the smaller differently"
            weights.mismatches.append(fault)
        _copy_pair(weights, pair, given.pairs[f"{min(high, low)}_{max(high, low)}"], places)


def _copy_pair(weights: WeightTransfer, pair: nn.Module, source: nn.Module, places: ChannelMap) -> None:
    for name, unit in pair.named_children():
        given = source.get_submodule(name)
        if isinstance(unit, ConvNorm) and isinstance(given, ConvNorm):
            reads = places
            if given.conv.in_channels != len(places):  # Direct-B concatenates both paths
                reads = torch.cat((places, unit.conv.in_channels // 2 + places))
            copy_unit(weights, unit, given, reads, places)
        if isinstance(unit, Attention) and isinstance(given, Attention):
            weights.zero(unit.conv.weight)
            weights.copy(unit.conv.weight, (torch.zeros(1, 1, dtype=torch.int64), places), given.conv.weight)
            copy_bias(weights, unit.conv, given.conv)


def copy_bias(weights: WeightTransfer, conv: nn.Conv2d, source: nn.Conv2d) -> None:
    """Copy the bias of a convolution that has one."""
    assert conv.bias is not None
    assert source.bias is not None
    weights.copy(conv.bias, ..., source.bias)
