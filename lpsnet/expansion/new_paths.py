"""A new path, and how it meets the others: Bilateral-B and the other interactions of Section 3.3.

A new path is a copy of one that is there already, so what it computes is of use from the start. After Stage 3 and Stage
4 the paths add their features to each other (Equation 2). The new path's are made small there and so disturb the others
little; they are not made zero, because a ReLU of zero gives no gradient. What it gets from the others is not small: its
Stages 4 and 5 start on the very features that the copied weights were trained for, at its own resolution. Where an
interaction transforms what it adds, the transformation is made small instead, and the path is left as it is.
"""

from collections.abc import Sequence

import torch
from torch import nn

from lpsnet.expansion.growth import Growth, evaluating
from lpsnet.expansion.widening import Places, copy_unit, submodule
from lpsnet.models.blocks import BLOCKS, ConvNorm
from lpsnet.models.interactions import Attention, Interaction
from lpsnet.models.network import INTERACTING_STAGES, Network, Path

QUIET = 0.01  # what a new path adds to others, relative to its features in full strength


def meets_directly(net: Network) -> bool:
    """Whether the paths of `net` meet without weights between them (Bilateral-B), so that they have to be quiet."""
    return bool(net.interactions[0].pairs) and not any(True for _ in net.interactions.parameters())


def quieten(growth: Growth, path: nn.Module, kind: str) -> None:
    """Scale what `path` gives after Stage 3 and Stage 4 by `QUIET`; `kind` is the blocks' name in `BLOCKS`.

    What stands before the outputs is left as it is. Inside a block or stage of shortcuts it may then be normalised with
    statistics that no longer fit, until training has found others; all that comes of it is quiet.
    """
    assert isinstance(path, Path)
    row, inputs, loud = BLOCKS[kind], {}, {}
    with evaluating(path):
        maps = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(growth.child.head.weight)
        for stage in range(max(INTERACTING_STAGES) + 1):
            inputs[stage], maps = maps, path(maps, stage)
            loud[stage] = maps.norm()
        for stage in INTERACTING_STAGES:
            blocks = list(path.stages[stage].children())
            for block in blocks if row.carries_input else blocks[-1:]:
                for unit in filter(None, (submodule(block, name) for name in row.outputs or ())):
                    _scale(unit)
            if path(inputs[stage], stage).norm() > 10 * QUIET * loud[stage]:
                growth.losses.append(
                    f"block {kind!r} is not made quiet by what its row says (`outputs`, `carries_input`)"
                )


def fill_interaction(
    growth: Growth, own: nn.Module, given: nn.Module, places: Places, paths: Sequence[int | None]
) -> None:
    """Fill the interaction `own` of the child from `given` of the parent: every pair of two continued paths.

    Pairs with a new path keep fresh weights; where an interaction adds what they give, that is made small.

    Args:
        growth: the child.
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
                growth.losses.append("two paths change places in an interaction that tells the larger from the smaller")
            _fill_pair(growth, pair, given.pairs[f"{min(high, low)}_{max(high, low)}"], places)
        else:
            _settle_pair(growth, pair, quiet=own.adds)


def _settle_pair(growth: Growth, pair: nn.Module, *, quiet: bool) -> None:
    if quiet:
        _scale(pair)
    growth.measure_all(pair)


def _fill_pair(growth: Growth, pair: nn.Module, source: nn.Module, places: Places) -> None:
    for name, unit in pair.named_children():
        given = source.get_submodule(name)
        if isinstance(unit, ConvNorm) and isinstance(given, ConvNorm):
            copy_unit(growth, unit, given, _read_places(unit, given, places), places)
        if isinstance(unit, Attention) and isinstance(given, Attention):
            _copy_attention(growth, unit.conv, given.conv, places)


def _read_places(unit: ConvNorm, given: ConvNorm, places: Places) -> Places:
    """`places`, and again for the second half of the input where both paths are concatenated (Direct-B)."""
    if given.conv.in_channels == len(places):
        return places
    return torch.cat((places, unit.conv.in_channels // 2 + places))


def _copy_attention(growth: Growth, conv: nn.Conv2d, given: nn.Conv2d, places: Places) -> None:
    growth.zero(conv.weight)
    growth.copy(conv.weight, (torch.zeros(1, 1, dtype=torch.int64), places), given.weight)
    assert conv.bias is not None
    assert given.bias is not None
    growth.copy(conv.bias, ..., given.bias)


def _scale(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.mul_(QUIET)
            norm.bias.mul_(QUIET)
