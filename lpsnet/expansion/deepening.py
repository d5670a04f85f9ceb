"""Deeper: new blocks that pass on what they are given, at the end of a stage.

What such a block is given has been through a ReLU, so a second ReLU changes nothing: it is enough that the sum before
it is the input. Re-parameterised blocks and those with a shortcut have a branch for that, and their other branches
start with a scale of zero; elsewhere the convolution is the unit matrix. Exact in evaluation mode. In training mode a
batch norm normalises what it passes on, so its scale and shift are those of what it is given (`Growth.pass_on`).
"""

from collections.abc import Callable, Mapping

from torch import nn

from lpsnet.expansion.growth import Growth
from lpsnet.expansion.widening import Places, norm_of
from lpsnet.model.convolution import ConvNorm, RepConvNorm


def pass_through(growth: Growth, kind: str, block: nn.Module, previous: nn.Module, places: Places) -> None:
    """Make `block`, fresh and at the end of a stage of the child, pass on the old channels of its input.

    Args:
        growth: the child.
        kind: the blocks' name in `BLOCKS`; not "shufflenet", which gives no block that leaves channels in their places.
        block: in training form.
        previous: the block before it, filled.
        places: of the old channels; on the new ones, which nothing reads yet, the block may work from the start.
    """
    for name, unit in block.named_children():
        if isinstance(unit, ConvNorm | RepConvNorm):
            _ROLES[kind].get(name, _measure)(growth, unit, previous.get_submodule(name), places)


def _open(growth: Growth, unit: nn.Module, previous: nn.Module, places: Places) -> None:
    """Pass on the input; with fewer rows than columns the first channels of it."""
    if isinstance(unit, RepConvNorm):
        assert unit.identity is not None, "a block at the end of a stage keeps the shape"
        growth.pass_on(unit.identity)
        _silence(growth, unit.conv3x3, previous, places)
        _silence(growth, unit.conv1x1, previous, places)
        return
    assert isinstance(unit, ConvNorm)
    nn.init.dirac_(unit.conv.weight, groups=unit.conv.groups)
    growth.pass_on(norm_of(unit))


def _silence(growth: Growth, unit: nn.Module, previous: nn.Module, places: Places) -> None:
    """Give nothing, at first: the scale is zero and is what learns first."""
    assert isinstance(unit, ConvNorm)
    growth.zero(norm_of(unit).weight, places)
    growth.measure(norm_of(unit))


def _repeat(growth: Growth, unit: nn.Module, previous: nn.Module, places: Places) -> None:
    """Compute again, from the same channels, what the block before computed."""
    assert isinstance(unit, ConvNorm)
    unit.load_state_dict(previous.state_dict())
    growth.measure(norm_of(unit), keeps_function=True)


def _measure(growth: Growth, unit: nn.Module, previous: nn.Module, places: Places) -> None:
    """Stay fresh: another unit after it is silent."""
    assert isinstance(unit, ConvNorm)
    growth.measure(norm_of(unit))


# What each unit of a block has to do so that the block passes on its input; those not named stay fresh.
_ROLES: Mapping[str, Mapping[str, Callable[[Growth, nn.Module, nn.Module, Places], None]]] = {
    "conv3x3": {"unit": _open},
    "sepconv3x3": {"depthwise": _open, "pointwise": _open},
    "bottleneck": {"expand": _silence},
    "residual": {"second": _silence},
    "inverted_residual": {"project": _silence},
    # GhostNet's second part of the channels is computed from the first, which it passes on.
    "ghost": {"primary": _open, "cheap": _repeat},
}
