"""Wider: the parent's weights inside a child's wider blocks, so that the old channels compute what they did.

A channel of the parent has a place among the child's channels, the same in every path, because Bilateral-B adds paths
channel by channel (Equation 2). A unit's rows for old channels read old channels with the parent's weights and new ones
with zeros; its rows for new channels keep their random weights and read everything. So nothing old depends on anything
new, and the readers of the new channels learn first. Blocks of any two widths may be given, equal ones included.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from lpsnet.expansion.growth import Growth, affine, others
from lpsnet.model.blocks import Bottleneck, Conv3x3, GhostModule, InvertedResidual, Residual, SepConv3x3
from lpsnet.model.convolution import ConvNorm, RepConvNorm

Places = Tensor  # 1-D int64: for each of the parent's channels its number among the child's
Wires = Mapping[str, tuple[Places, Places]]  # unit of a block -> places of what it reads, and of what it writes


def channel_places(block: str, old_width: int, new_width: int) -> Places:
    """The places of the output channels of a `block` of `old_width` in one of `new_width`."""
    if block != "ghost":
        return torch.arange(old_width)
    # Its output is two parts one after the other (`GhostModule`), and both grow.
    old_primary, new_primary = old_width - old_width // 2, new_width - new_width // 2
    return torch.cat((torch.arange(old_primary), new_primary + torch.arange(old_width // 2)))


def copy_block(growth: Growth, block: nn.Module, source: nn.Module, reads: Places, writes: Places) -> None:
    """Fill `block` of the child from `source` of the parent.

    Args:
        growth: the child.
        block, source: blocks of one type, in training form, `block` at least as wide.
        reads, writes: places of the channels of the block's input and output.
    """
    for name, (unit_reads, unit_writes) in _wires(source, reads, writes).items():
        copy_unit(growth, _unit(block, name), _unit(source, name), unit_reads, unit_writes)
    if isinstance(block, Conv3x3) and isinstance(source, Conv3x3):
        _copy_identity(growth, block.unit, source.unit, reads, writes)
    if isinstance(block, Bottleneck | Residual) and isinstance(source, Bottleneck | Residual):
        _copy_shortcut(growth, block.shortcut, source.shortcut, reads, writes)
    if isinstance(block, InvertedResidual) and isinstance(source, InvertedResidual):
        _check_shortcut(growth, block.adds_input, source.adds_input)


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


def _copy_identity(growth: Growth, unit: nn.Module, source: nn.Module, reads: Places, writes: Places) -> None:
    """The identity branch of the re-parameterised form, which is there only between equal widths."""
    if not isinstance(unit, RepConvNorm):
        return
    assert isinstance(source, RepConvNorm)
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


def _copy_shortcut(growth: Growth, shortcut: nn.Module, source: nn.Module, reads: Places, writes: Places) -> None:
    """The shortcut of a residual block, which has a convolution only between different shapes."""
    if isinstance(shortcut, ConvNorm) and isinstance(source, ConvNorm):
        copy_unit(growth, shortcut, source, reads, writes)
    elif isinstance(shortcut, ConvNorm):
        growth.zero(shortcut.conv.weight, writes)
        shortcut.conv.weight[writes, reads] = 1
        growth.pass_on(norm_of(shortcut), writes)
        growth.measure(norm_of(shortcut), others(writes, shortcut.conv.out_channels))
    else:
        _check_shortcut(growth, isinstance(shortcut, nn.Identity), isinstance(source, nn.Identity))


def _check_shortcut(growth: Growth, adds_input: bool, parent_adds_input: bool) -> None:
    if adds_input != parent_adds_input:
        change = "gets" if adds_input else "loses"
        growth.losses.append(f"the first block of Stage 5 {change} a shortcut")


def _wires(source: nn.Module, reads: Places, writes: Places) -> Wires:
    """The units of a block that is like `source`, shortcuts left out."""
    for kind, wires in _WIRES.items():
        if isinstance(source, kind):
            return wires(source, reads, writes)
    return {name: (_columns(unit), _rows(unit)) for name, unit in _all_units(source)}


def _conv3x3_wires(source: nn.Module, reads: Places, writes: Places) -> Wires:
    names = ("unit.conv3x3", "unit.conv1x1") if isinstance(source.unit, RepConvNorm) else ("unit",)
    return dict.fromkeys(names, (reads, writes))


def _sepconv3x3_wires(source: nn.Module, reads: Places, writes: Places) -> Wires:
    return {"depthwise": (reads, reads), "pointwise": (reads, writes)}


def _bottleneck_wires(source: nn.Module, reads: Places, writes: Places) -> Wires:
    inner = _rows(_unit(source, "reduce"))
    return {"reduce": (reads, inner), "spatial": (inner, inner), "expand": (inner, writes)}


def _residual_wires(source: nn.Module, reads: Places, writes: Places) -> Wires:
    return {"first": (reads, writes), "second": (writes, writes)}


def _inverted_residual_wires(source: nn.Module, reads: Places, writes: Places) -> Wires:
    inner = _rows(_unit(source, "expand"))
    return {"expand": (reads, inner), "depthwise": (inner, inner), "project": (inner, writes)}


def _ghost_wires(source: nn.Module, reads: Places, writes: Places) -> Wires:
    wires = {"primary": (reads, _rows(_unit(source, "primary")))}
    if source.cheap is not None:
        cheap = _rows(_unit(source, "cheap"))
        wires["cheap"] = (cheap, cheap)
    return wires


_WIRES: dict[type[nn.Module], Callable[[nn.Module, Places, Places], Wires]] = {
    Conv3x3: _conv3x3_wires,
    SepConv3x3: _sepconv3x3_wires,
    Bottleneck: _bottleneck_wires,
    Residual: _residual_wires,
    InvertedResidual: _inverted_residual_wires,
    GhostModule: _ghost_wires,
}  # a ShuffleNet unit never grows wider (`inheritance.py`), so each of its units stays as it is


def _unit(block: nn.Module, name: str) -> ConvNorm:
    unit = block.get_submodule(name)
    assert isinstance(unit, ConvNorm)
    return unit


def _all_units(block: nn.Module) -> Iterator[tuple[str, ConvNorm]]:
    return ((name, module) for name, module in block.named_modules() if isinstance(module, ConvNorm))


def _rows(unit: ConvNorm) -> Places:
    return torch.arange(unit.conv.out_channels)


def _columns(unit: ConvNorm) -> Places:
    return torch.arange(unit.conv.in_channels)
