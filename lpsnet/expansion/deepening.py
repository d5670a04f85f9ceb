"""Deeper: new blocks that pass on what they are given, at the end of a stage.

What such a block is given has been through a ReLU, so a second ReLU changes nothing: it is enough that the sum before
it is the input. Re-parameterised blocks and those with a shortcut have a branch for that, and their other branches
start with a scale of zero; elsewhere the convolution is the unit matrix. Exact in evaluation mode. In training mode a
batch norm normalises what it passes on, so its scale and shift are those of the features it is given (`Growth.pass_on`).
"""

from collections.abc import Callable

import torch
from torch import nn

from lpsnet.expansion.growth import Growth
from lpsnet.model.convolution import ConvNorm, RepConvNorm


def pass_through(growth: Growth, kind: str, block: nn.Module, previous: nn.Module) -> None:
    """Turn `block`, a fresh one of the child of equal input and output, into one that passes on its input.

    Args:
        growth: the child.
        kind: the block's name in `BLOCKS`; not "shufflenet", which moves channels.
        block: in training form.
        previous: the block before it, filled.
    """
    passing, silent = _BRANCHES[kind](block)
    for unit in passing:
        _open(growth, unit)
    for norm in silent:
        growth.zero(norm.weight)
    if kind == "ghost" and block.cheap is not None:
        _repeat_cheap(block, previous)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d) and not any(module in set(unit.modules()) for unit in passing):
            growth.measure(module)


Branches = tuple[list[nn.Module], list[nn.BatchNorm2d]]  # units or norms that pass everything on; norms that are silent


def _conv3x3(block: nn.Module) -> Branches:
    unit = block.unit
    if not isinstance(unit, RepConvNorm):
        return [unit], []
    assert unit.identity is not None
    return [unit.identity], [unit.conv3x3.norm, unit.conv1x1.norm]


_BRANCHES: dict[str, Callable[[nn.Module], Branches]] = {
    "conv3x3": _conv3x3,
    "sepconv3x3": lambda block: ([block.depthwise, block.pointwise], []),
    "bottleneck": lambda block: ([], [block.expand.norm]),
    "residual": lambda block: ([], [block.second.norm]),
    "inverted_residual": lambda block: ([], [block.project.norm]),
    "ghost": lambda block: ([block.primary], []),
}


def _open(growth: Growth, unit: nn.Module) -> None:
    """Make a unit, or a batch norm alone, pass on its input; a unit of fewer rows than columns the first of them."""
    if isinstance(unit, ConvNorm):
        nn.init.dirac_(unit.conv.weight, groups=unit.conv.groups)
        unit = unit.norm
    assert isinstance(unit, nn.BatchNorm2d)
    growth.pass_on(unit)
