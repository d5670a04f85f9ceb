"""Wider: the parent's weights inside a child's wider blocks, so that the old channels compute what they did.

A channel of the parent has a place among the child's channels, the same in every path, because Bilateral-B adds paths
channel by channel (Equation 2). A unit's rows for old channels read old channels with the parent's weights and new ones
with zeros; its rows for new channels keep their random weights and read everything. So nothing old depends on anything
new, and the readers of the new channels learn first. Blocks of any two widths may be given, equal ones included.

Which channels a unit reads and writes is in the block's row (`BlockType.channels`).
"""

from collections.abc import Iterable
from itertools import accumulate

import torch
from torch import Tensor, nn

from lpsnet.expansion.growth import Growth, affine, others
from lpsnet.models.blocks import BLOCKS, ConvNorm, RepConvNorm

Places = Tensor  # 1-D int64: for each of the parent's channels its number among the child's


def channel_places(block: str, old_width: int, new_width: int) -> Places:
    """The places of the output channels of a `block` of `old_width` in one of `new_width` (`BlockType.parts`).

    The first ones where the row's parts are none of such widths; `inherit` finds that the logits change then.
    """
    old_parts, new_parts = (tuple(BLOCKS[block].parts(width)) for width in (old_width, new_width))
    grow = len(old_parts) == len(new_parts) and all(old <= new for old, new in zip(old_parts, new_parts, strict=True))
    if not grow or (sum(old_parts), sum(new_parts)) != (old_width, new_width):
        return torch.arange(old_width)
    starts = accumulate(new_parts, initial=0)
    return torch.cat([start + torch.arange(old) for start, old in zip(starts, old_parts, strict=False)])


def copy_block(growth: Growth, kind: str, block: nn.Module, source: nn.Module, reads: Places, writes: Places) -> None:
    """Fill `block` of the child from `source` of the parent; it stays fresh where its row does not say how.

    Args:
        growth: the child.
        kind: the blocks' name in `BLOCKS`.
        block, source: blocks of that kind in training form, `block` at least as wide.
        reads, writes: places of the channels of the block's input and output.
    """
    if shapes(block) == shapes(source):
        growth.copy_module(block, source)
        return
    if fault := _fault(kind, block, source, reads, writes):
        growth.losses.append(f"block {kind!r} {fault}; its blocks of another width start fresh")
        growth.measure_all(block)
        return
    for name, channels in (BLOCKS[kind].channels or {}).items():
        own, given = submodule(block, name), submodule(source, name)
        places = {"input": reads, "output": writes}
        read, written = (places.get(kind, inner) for kind, inner in zip(channels, _inner_places(given), strict=True))
        _copy_part(growth, own, given, read, written)


def copy_unit(growth: Growth, unit: ConvNorm, source: ConvNorm, reads: Places, writes: Places) -> None:
    """Fill a convolution with batch norm, the old rows with zeros for the new columns."""
    weight = unit.conv.weight
    if unit.conv.groups > 1:  # depthwise: every channel reads its own
        growth.copy(weight, writes, source.conv.weight)
    else:
        growth.zero(weight, writes)
        growth.copy(weight, (writes[:, None], reads[None]), source.conv.weight)
    growth.copy_norm(norm_of(unit), norm_of(source), writes)


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


def _copy_part(growth: Growth, part: nn.Module | None, source: nn.Module | None, reads: Places, writes: Places) -> None:
    """Fill a unit or a shortcut, which may be there in only one of the two networks."""
    if isinstance(part, RepConvNorm) and isinstance(source, RepConvNorm):
        copy_unit(growth, part.conv3x3, source.conv3x3, reads, writes)
        copy_unit(growth, part.conv1x1, source.conv1x1, reads, writes)
        _copy_identity(growth, part, source, reads, writes)
    elif isinstance(part, ConvNorm) and isinstance(source, ConvNorm):
        copy_unit(growth, part, source, reads, writes)
    elif isinstance(part, ConvNorm) and isinstance(source, nn.Identity):
        _copy_shortcut(growth, part, reads, writes)
    elif isinstance(part, nn.Identity) != isinstance(source, nn.Identity):
        change = "gets" if isinstance(part, nn.Identity) else "loses"
        growth.losses.append(f"the first block of Stage 5 {change} a shortcut")
    elif part is not None:  # what it computes is new
        growth.measure_all(part)


def _copy_identity(growth: Growth, unit: RepConvNorm, source: RepConvNorm, reads: Places, writes: Places) -> None:
    """The identity branch of the re-parameterised form, which is there only between equal widths."""
    if unit.identity is not None and source.identity is not None:
        growth.copy_norm(unit.identity, source.identity, writes)
    elif unit.identity is not None:
        growth.zero(unit.identity.weight, writes)
        growth.measure(unit.identity)
    elif source.identity is not None:
        _fold_identity(growth, unit.conv1x1, source, reads, writes)


def _fold_identity(growth: Growth, unit: ConvNorm, source: RepConvNorm, reads: Places, writes: Places) -> None:
    """Let the child's 1x1 branch do what the parent's 1x1 and identity branches do together."""
    assert source.identity is not None
    scale, shift = affine(norm_of(source.conv1x1))
    identity_scale, identity_shift = affine(source.identity)
    weight = source.conv1x1.conv.weight.double() * scale[:, None, None, None]
    weight += torch.diag(identity_scale)[:, :, None, None]
    growth.copy(unit.conv.weight, (writes[:, None], reads[None]), weight)
    growth.pass_on(norm_of(unit), writes, shift=shift + identity_shift)


def _copy_shortcut(growth: Growth, shortcut: ConvNorm, reads: Places, writes: Places) -> None:
    """A shortcut that was the input itself, and is a convolution between different widths now: the unit matrix."""
    growth.zero(shortcut.conv.weight, writes)
    centre = shortcut.conv.weight.shape[-1] // 2
    shortcut.conv.weight[writes, reads, centre, centre] = 1
    growth.pass_on(norm_of(shortcut), writes)
    growth.measure(norm_of(shortcut), others(writes, shortcut.conv.out_channels))


def _fault(kind: str, block: nn.Module, source: nn.Module, reads: Places, writes: Places) -> str:
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


def _inner_places(given: nn.Module | None) -> tuple[Places, Places]:
    """The places of inner channels that a unit of the parent reads, and of those that it writes: the first ones."""
    unit = given.conv3x3 if isinstance(given, RepConvNorm) else given
    num_read, num_written = _sizes(unit) if isinstance(unit, ConvNorm) else (0, 0)
    return torch.arange(num_read), torch.arange(num_written)


def _sizes(unit: ConvNorm) -> tuple[int, int]:
    return unit.conv.in_channels, unit.conv.out_channels
