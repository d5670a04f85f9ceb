"""Weights of what stands after the paths, copied into a larger network: head, hidden layer, context and details.

The child reads old channels of old paths with the parent's weights; weights of new channels and paths are zero. A part
that only the child has was built without effect (`models/head.py`), so that the function stays.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lpsnet.models.blocks import ConvNorm
from lpsnet.models.head import detail_stages
from lpsnet.models.network import Network
from lpsnet.search import transfer
from lpsnet.search.transfer import ChannelMap, WeightTransfer

PathMap = Sequence[int | None]  # for each of the child's paths the number of the parent's, or None for a new path


def copy_head(weights: WeightTransfer, parent: Network, places: Sequence[ChannelMap], paths: PathMap) -> None:
    """Fill all that stands after the child's paths.

    Args:
        weights: the child.
        parent: of the same number of classes, or the head and the details stay fresh.
        places: for each stage the places of the parent's channels.
        paths: the parent's path for each of the child's.
    """
    child = weights.child
    features = _feature_places(child, places[-1], paths)
    _copy_context(weights, parent, features)
    if isinstance(child.mixing, ConvNorm) and isinstance(parent.mixing, ConvNorm):
        hidden = torch.arange(parent.mixing.conv.out_channels)
        transfer.copy_unit(weights, child.mixing, parent.mixing, features, hidden)
        features = hidden
    elif child.mixing is not None or parent.mixing is not None:
        weights.mismatches.append("the head has another number of layers, and is new")
        if child.mixing is not None:
            weights.measure_all(child.mixing)
        return
    if child.num_classes == parent.num_classes:
        _copy_columns(weights, child.head, parent.head, features)
        transfer.copy_bias(weights, child.head, parent.head)
        _copy_details(weights, parent, places)


def detail_change(child: Network, parent: Network) -> str:
    """Why the logits are not exactly the parent's although nothing new has an effect yet; "" if they are."""
    own, given = child.architecture.detail, parent.architecture.detail
    if own == given:
        return ""
    return f"the logits have stride {own} instead of {given}, so they are resized to the image in other steps"


def _feature_places(child: Network, places: ChannelMap, paths: PathMap) -> Tensor:
    """Where the parent's features, path after path, are among the child's concatenated ones."""
    width = child.architecture.widths[-1]
    numbers = {source: number for number, source in enumerate(paths) if source is not None}
    return torch.cat([numbers[source] * width + places for source in sorted(numbers)])


def _copy_columns(weights: WeightTransfer, own: nn.Conv2d, given: nn.Conv2d, reads: Tensor) -> None:
    """A 1x1 convolution with as many outputs; new inputs have no effect."""
    weights.zero(own.weight)
    weights.copy(own.weight, (torch.arange(len(given.weight))[:, None], reads), given.weight)


def _copy_details(weights: WeightTransfer, parent: Network, places: Sequence[ChannelMap]) -> None:
    child = weights.child
    given = dict(zip(detail_stages(parent.architecture.detail), parent.details, strict=True))
    for stage, own in zip(detail_stages(child.architecture.detail), child.details, strict=True):
        assert isinstance(own, nn.Conv2d)
        weights.zero(own.weight)
        if isinstance(source := given.get(stage), nn.Conv2d):
            _copy_columns(weights, own, source, places[stage])
    if set(given) - set(detail_stages(child.architecture.detail)):
        weights.mismatches.append("logits of finer features are left out")


def _copy_context(weights: WeightTransfer, parent: Network, places: Tensor) -> None:
    child = weights.child
    own, given = child.architecture.context, parent.architecture.context
    if given == "none":
        for parameter in child.context.parameters():
            if not parameter.any():
                weights.zero(parameter)
        return
    if own != given:
        weights.mismatches.append(f"the context is {own} instead of {given}")
        return
    pairs = zip(child.context.named_modules(), parent.context.modules(), strict=True)
    for (name, unit), source in pairs:
        if isinstance(unit, nn.Conv2d) and isinstance(source, nn.Conv2d):
            is_last, is_pyramid = name == "gate", source.in_channels != source.out_channels
            inner = _groups(unit.in_channels, source.in_channels) if is_last and is_pyramid else places
            writes = places if is_last else torch.arange(source.out_channels)
            weights.zero(unit.weight)
            weights.copy(unit.weight, (writes[:, None], inner[None]), source.weight)
            assert unit.bias is not None
            assert source.bias is not None
            weights.copy(unit.bias, writes, source.bias)


def _groups(length: int, old_length: int, number: int = 3) -> Tensor:
    """The places of the old channels where `number` groups, one after the other, all grew at their ends."""
    return torch.cat([torch.arange(old_length // number) + group * (length // number) for group in range(number)])
