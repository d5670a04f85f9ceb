"""Deeper: new blocks that pass on what they are given, at the end of a stage.

What such a block is given has been through a ReLU, so a second ReLU changes nothing: it is enough that the sum before
it is the input. Re-parameterised blocks and those with a shortcut have a branch for that, and their other branches
start with a scale of zero; elsewhere the convolution is the unit matrix. Exact in evaluation mode. In training mode a
batch norm normalises what it passes on, so its scale and shift are those of what it is given (`Growth.pass_on`).

What each unit has to do for that is in the block's row (`BlockType.identity`).
"""

from torch import nn

from lpsnet.expansion.growth import Growth
from lpsnet.expansion.widening import Places, norm_of, shapes, submodule
from lpsnet.models.blocks import BLOCKS, ConvNorm, RepConvNorm, Role


def pass_through(growth: Growth, kind: str, block: nn.Module, previous: nn.Module, places: Places) -> None:
    """Make `block`, fresh and at the end of a stage of the child, pass on the old channels of its input.

    It stays fresh where its row does not say how.

    Args:
        growth: the child.
        kind: the blocks' name in `BLOCKS`.
        block: in training form.
        previous: the block before it, filled.
        places: of the old channels; on the new ones, which nothing reads yet, the block may work from the start.
    """
    row, fixed = BLOCKS[kind], []
    channels = row.channels or {}
    if row.identity is None:
        fault = "does not say how a new one passes its input on (`identity` in its row)"
        growth.losses.append(f"block {kind!r} {fault}; new blocks start fresh")
    for name, role in (row.identity or {}).items():
        unit, before = submodule(block, name), submodule(previous, name)
        if not isinstance(unit, ConvNorm | RepConvNorm):
            continue  # such as the second half of a ghost module of one channel
        if not _can(role, unit, before):
            growth.losses.append(f"block {kind!r} has in {name!r} what its row's `identity` does not describe")
            continue
        fixed.append(unit)
        old = places if name in channels and channels[name][1] == "output" else None
        if role == "zero":
            _silence(growth, unit, old)
        elif role == "pass":
            _open(growth, unit, old)
        elif before is not None:  # "repeat"
            _repeat(growth, unit, before)
    growth.measure_all(block, but=fixed)


def _can(role: Role, unit: ConvNorm | RepConvNorm, before: nn.Module | None) -> bool:
    if role == "pass":
        return isinstance(unit, ConvNorm) or unit.identity is not None
    return role == "zero" or (role == "repeat" and before is not None and shapes(unit) == shapes(before))


def _open(growth: Growth, unit: ConvNorm | RepConvNorm, places: Places | None) -> None:
    """Give out the input; with fewer rows than columns the first channels of it."""
    if isinstance(unit, RepConvNorm):
        assert unit.identity is not None, "see `_can`"
        growth.pass_on(unit.identity)
        _silence(growth, unit.conv3x3, places)
        _silence(growth, unit.conv1x1, places)
        return
    nn.init.dirac_(unit.conv.weight, groups=unit.conv.groups)
    growth.pass_on(norm_of(unit))


def _silence(growth: Growth, unit: nn.Module, places: Places | None) -> None:
    """Give nothing, at first: the scale is zero and is what learns first."""
    for norm in unit.modules():
        if isinstance(norm, nn.BatchNorm2d):
            growth.zero(norm.weight, ... if places is None else places)
            growth.measure(norm)


def _repeat(growth: Growth, unit: ConvNorm | RepConvNorm, previous: nn.Module) -> None:
    """Compute again, from the same channels, what the block before computed."""
    unit.load_state_dict(previous.state_dict())
    for norm in unit.modules():
        if isinstance(norm, nn.BatchNorm2d):
            growth.measure(norm, keeps_function=True)
