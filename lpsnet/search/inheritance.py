"""A child network filled with its trained parent's weights: an expanded network (Section 3.4) starts from them.

Deeper and wider children compute the same function (`transfer.py`), another ratio changes it, a new path changes it
slightly (without interaction: not at all), another number of classes gets a new head. This holds in evaluation mode; in
training mode nearly, if images are given to measure the statistics of new batch norms. The optimiser starts anew. The
logits of both networks are compared, to find rows of `BLOCKS` that do not describe their block.

What stands after the paths (head, hidden layer, context, details) reads old channels of old paths with the parent's
weights; weights of new channels and paths are zero. A part that only the child has was built without effect
(`models/network.py`), so that the function stays. A layer before the logits that only the child has splits them into
their positive and negative parts at first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lpsnet.errors import LpsnetError
from lpsnet.models.blocks import BLOCKS, ConvNorm, stage_blocks
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import INTERACTING_STAGES, Network, Path, create_model, detail_stages
from lpsnet.search import transfer
from lpsnet.search.transfer import ChannelMap, Origin, WeightTransfer

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
    if fault := _mixing_fault(child, parent):
        weights.mismatches.append(fault)
        if child.mixing is not None:
            weights.measure_all(child.mixing)
        return
    if isinstance(child.mixing, ConvNorm) and isinstance(parent.mixing, ConvNorm):
        hidden = torch.arange(parent.mixing.conv.out_channels)
        transfer.copy_unit(weights, child.mixing, parent.mixing, features, hidden)
        features = hidden
    if child.num_classes != parent.num_classes:
        return
    if isinstance(child.mixing, ConvNorm) and parent.mixing is None:
        _split_head(weights, child.mixing, parent.head, features)
    else:
        _copy_columns(weights, child.head, parent.head, features)
    transfer.copy_bias(weights, child.head, parent.head)
    _copy_details(weights, parent, places)


def _mixing_fault(child: Network, parent: Network) -> str:
    """Why the layer before the logits cannot take over what the parent computes; empty if it can."""
    own, given, classes = child.architecture.head, parent.architecture.head, child.num_classes
    if own < given:
        return f"the layer before the logits has {own or 'no'} channels instead of {given}, and the head is new"
    if given or not own:
        return ""
    fresh = "the head has another number of layers, and is new"
    if own < 2 * classes:
        return f"{fresh}: {own} channels cannot hold {classes} logits, {2 * classes} can"
    return fresh if classes != parent.num_classes else ""


def _split_head(weights: WeightTransfer, mixing: ConvNorm, head: nn.Conv2d, features: Tensor) -> None:
    """Make the new layer and the head compute `head`: z = ReLU(z) - ReLU(-z) for the logits z without their bias."""
    child, classes = weights.child, torch.arange(len(head.weight))
    for rows, sign in ((classes, 1), (len(classes) + classes, -1)):
        weights.zero(mixing.conv.weight, rows)
        weights.copy(mixing.conv.weight, (rows[:, None], features[None]), sign * head.weight)
    used = torch.arange(2 * len(classes))
    norm = transfer.norm_of(mixing)
    weights.pass_on(norm, used)
    weights.measure(norm, transfer.others(used, norm.num_features))
    weights.zero(child.head.weight)
    child.head.weight[classes, classes] = 1
    child.head.weight[classes, len(classes) + classes] = -1


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


def check_compatibility(child: Network, parent: Network) -> None:
    """Refuse networks with other blocks in all stages, interactions or forms, and a child smaller than its parent.

    Raises:
        LpsnetError: the networks are not compatible; names the difference.
    """
    if child is parent:
        raise LpsnetError("a network cannot inherit from itself; make the child with create_model")
    if "deployed" in (child.form, parent.form):
        raise LpsnetError(
            "deployed networks have no batch norms to train on; make the child in training form, and let it inherit "
            "from the network that the deployed one was fused from"
        )
    for key in ("block", "interaction", "form", "align_corners"):
        own_value, given_value = getattr(child, key), getattr(parent, key)
        same_tensors = key == "form" and not any(BLOCKS[it].has_branches for it in stage_blocks(child.block))
        same_tensors |= key == "block" and any(_kept_stages(child, parent))
        if own_value != given_value and not same_tensors:
            raise LpsnetError(
                f"a child has its parent's {key}: the parent has {given_value}, the child {own_value}; "
                f"make it with {key}={given_value!r} or train it from scratch"
            )
    own, given = child.architecture, parent.architecture
    compared = {
        "deep": zip(own.blocks, given.blocks, strict=True),
        "wide": zip(own.widths, given.widths, strict=True),
        "rich in paths": ((own.num_paths, given.num_paths),),
    }
    if less := [size for size, pairs in compared.items() if any(number < least for number, least in pairs)]:
        raise LpsnetError(f"a child is at least as {less[0]} as its parent; {own} is not, its parent is {given}")


def _kept_stages(child: Network, parent: Network) -> list[bool]:
    """Of each stage, whether its block is the parent's, or one that grows from it."""
    both = zip(stage_blocks(child.block), stage_blocks(parent.block), strict=True)
    return [own == given or given in BLOCKS[own].grows_from for own, given in both]


def continued_paths(child: Network, parent: Network, path_map: PathMap | None) -> tuple[int | None, ...]:
    """`path_map` once checked, or the default: paths of equal ratio, then the rest in order.

    An operation of Table 1 changes one slot, so all other paths keep their ratios, even where their order changes.

    Raises:
        LpsnetError: `path_map` does not use each of the parent's paths once.
    """
    own, given = child.architecture.ratios, parent.architecture.ratios
    if path_map is None:
        left = dict(enumerate(given))
        paths: dict[int, int] = {}
        for number, ratio in enumerate(own):
            if (equal := next((path for path, its_ratio in left.items() if its_ratio == ratio), None)) is not None:
                paths[number] = equal
                del left[equal]
        unmatched = [number for number in range(len(own)) if number not in paths]
        paths.update(zip(unmatched, left, strict=False))  # more children than parents: the last ones are new
        return tuple(map(paths.get, range(len(own))))
    used = sorted(path for path in path_map if path is not None)
    if len(path_map) != len(own) or used != list(range(len(given))):
        raise LpsnetError(
            f"path_map has one entry for each of the child's {len(own)} paths: each of the parent's paths "
            f"(0 to {len(given) - 1}) once, and None for the rest; got {list(path_map)}"
        )
    return tuple(path_map)


def nearest_path(ratio: Fraction, ratios: Sequence[Fraction]) -> int:
    """The index of the ratio that differs from `ratio` by the smallest factor; of two such, of the smaller ratio."""
    return min(range(len(ratios)), key=lambda path: (max(ratio / ratios[path], ratios[path] / ratio), -path))


Change = Literal["depth", "width", "resolution", "paths", "classes", "additions", "block"]
Preserving = Literal["exact", "nearly", "no"]

_ROUNDING = 0.01  # of the logits, relative; a larger difference in an exact transfer shows that a block's row is wrong


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The report of `inherit`.

    Attributes:
        changes: the dimensions in which the child differs from its parent.
        paths: for each of the child's paths, the number of the parent's path it continues; None for a new path.
        preserving: whether child and parent have the same logits in evaluation mode.
        reasons: why not, if not exactly; one line each.
        origins: of each of the child's parameters.
        measured: whether statistics were measured on images.
        relative_difference: of the logits for the images, |child - parent| / |parent| (Euclidean norms, evaluation
            mode); None without images, or if the logits differ in shape.
    """

    changes: tuple[Change, ...]
    paths: tuple[int | None, ...]
    preserving: Preserving
    reasons: tuple[str, ...]
    origins: Mapping[str, Origin]
    measured: bool
    relative_difference: float | None

    @property
    def copied(self) -> tuple[str, ...]:
        """Names of the parameters with numbers from the parent."""
        return tuple(name for name, origin in self.origins.items() if origin.copied)

    @property
    def zeroed(self) -> tuple[str, ...]:
        """Names of the parameters with numbers set to zero so that something new has no effect."""
        return tuple(name for name, origin in self.origins.items() if origin.zeroed)

    @property
    def new(self) -> tuple[str, ...]:
        """Names of the parameters with other numbers. A parameter may be in all three lists."""
        return tuple(name for name, origin in self.origins.items() if origin.new)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values, with counts instead of names."""
        kinds = ("copied", "zeroed", "new")
        return {
            "changes": list(self.changes),
            "paths": list(self.paths),
            "preserving": self.preserving,
            "reasons": list(self.reasons),
            "parameters": {kind: sum(getattr(it, kind) for it in self.origins.values()) for kind in kinds},
            "measured": self.measured,
            "relative_difference": self.relative_difference,
        }


def inherit(
    child: Network,
    parent: Network,
    *,
    images: Tensor | None = None,
    seed: int = 0,
    path_map: PathMap | None = None,
) -> Inheritance:
    """Fill `child` with the weights of `parent`; its own weights are overwritten.

    Args:
        child: of the same interaction, form ("reparameterised" or "plain") and `align_corners` as the parent, in no
            stage shallower or narrower, with at least as many paths, and with the parent's block in at least one stage.
            Stages of another block start fresh unless it grows from the parent's (`BlockType.grows_from`). Its
            training mode is kept.
        parent: not modified.
        images: N x 3 x H x W training images, normalised, as the training will give them to the network; a handful.
            One batch, without gradients. Without images the statistics of new batch norms are 0 and 1: logits in
            evaluation mode start the same, but training has to find those statistics first.
        seed: of the random weights; torch's random state is not modified.
        path_map: for each of the child's paths, largest ratio first, the number of the parent's path that it continues,
            or None for a new one; every path of the parent once. Unless given, paths of equal ratio belong together,
            then the rest in order. That is right for every operation of Table 1, whichever slot it is for.

    Raises:
        LpsnetError: the networks are not compatible, or `images` or `path_map` do not fit.
    """
    check_compatibility(child, parent)
    paths = continued_paths(child, parent, path_map)
    with torch.no_grad():
        expected = None if images is None else _logits(parent, images)  # first: it may refuse the images
        _reset(child, seed)
        weights = WeightTransfer(child)
        _fill(weights, parent, paths)
        difference = None
        if images is not None and expected is not None:
            weights.measure_statistics(images)
            difference = _relative_difference(_logits(child, images), expected)
        grade, reasons = _grade(weights, parent, paths)
        found = _probed(child, parent) if images is None and grade == "exact" else difference
    if grade == "exact" and found is not None and found > _ROUNDING:
        wrong = f"the logits differ by {found:.1%}: the row of block {child.block!r} does not describe what it computes"
        grade, reasons = "no", (wrong, *reasons)
    changes = _changes(child, parent, paths)
    return Inheritance(changes, paths, grade, reasons, weights.origins(), images is not None, difference)


def _reset(child: Network, seed: int) -> None:
    """Fresh weights, as `create_model` makes them."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = create_model(
            child.architecture,
            num_classes=child.num_classes,
            block=child.block,
            interaction=child.interaction,
            form=child.form,
        )
    child.load_state_dict(fresh.state_dict())


def _fill(weights: WeightTransfer, parent: Network, paths: PathMap) -> None:
    child = weights.child
    widths = zip(stage_blocks(child.block), parent.architecture.widths, child.architecture.widths, strict=True)
    places = [transfer.channel_map(*stage) for stage in widths]
    ratios = child.architecture.ratios
    weights.mismatches += _exchanged(child, parent)
    for path, ratio, number in zip(child.paths, ratios, paths, strict=True):
        source = nearest_path(ratio, parent.architecture.ratios) if number is None else number
        if number is None and _keeps_full_scale(child):
            fault = "does not define what gives its output the scale (`outputs` in its row)"
            weights.mismatches.append(f"block {child.block!r} {fault}; a new path starts fresh, and in full strength")
            weights.measure_all(path)
            continue
        _fill_path(weights, path, parent.paths[source], places, _kept_stages(child, parent))
        if number is None and transfer.adds_without_weights(child):
            transfer.downscale_path(weights, path, stage_blocks(child.block))
    for stage, own, given in zip(INTERACTING_STAGES, child.interactions, parent.interactions, strict=True):
        transfer.copy_interaction(weights, own, given, places[stage], paths)
    copy_head(weights, parent, places, paths)


def _keeps_full_scale(child: Network) -> bool:
    """Whether a new path cannot be scaled down because its block's row names no `outputs`."""
    blocks = [stage_blocks(child.block)[stage] for stage in INTERACTING_STAGES]
    return transfer.adds_without_weights(child) and any(BLOCKS[block].outputs is None for block in blocks)


def _exchanged(child: Network, parent: Network) -> list[str]:
    """The stages whose weights are not inherited, one line each."""
    stages = zip(stage_blocks(child.block), stage_blocks(parent.block), _kept_stages(child, parent), strict=True)
    return [
        f"Stage {number} has block {own!r} instead of {given!r}, and starts fresh"
        for number, (own, given, kept) in enumerate(stages, start=1)
        if not kept
    ]


def _fill_path(
    weights: WeightTransfer,
    path: nn.Module,
    source: nn.Module,
    places: Sequence[ChannelMap],
    kept_stages: Sequence[bool],
) -> None:
    assert isinstance(path, Path)
    assert isinstance(source, Path)
    reads = torch.arange(3)  # the image's channels
    kinds = stage_blocks(weights.child.block)
    for kind, stage, given, writes, kept in zip(kinds, path.stages, source.stages, places, kept_stages, strict=True):
        if not kept:
            weights.measure_all(stage)
            reads = writes
            continue
        blocks, old_blocks = list(stage.children()), list(given.children())
        for block, old_block in zip(blocks, old_blocks, strict=False):
            transfer.copy_block(weights, kind, block, old_block, reads, writes)
            reads = writes
        for previous, block in zip(blocks[len(old_blocks) - 1 :], blocks[len(old_blocks) :], strict=False):
            transfer.pass_through(weights, kind, block, previous, writes)


def _logits(net: Network, images: Tensor) -> Tensor:
    with transfer.evaluating(net):
        logits: Tensor = net(images.to(net.head.weight.device))
    return logits


def _probed(child: Network, parent: Network) -> float | None:
    """The relative difference of the logits for noise, where there are no images."""
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = noise.to(parent.head.weight)
    return _relative_difference(_logits(child, noise), _logits(parent, noise))


def _relative_difference(logits: Tensor, expected: Tensor) -> float | None:
    if logits.shape != expected.shape:
        return None
    tiny = torch.finfo(expected.dtype).tiny
    return float((logits.to(expected) - expected).norm() / expected.norm().clamp(min=tiny))


def _changes(child: Network, parent: Network, paths: PathMap) -> tuple[Change, ...]:
    own, given = child.architecture, parent.architecture
    changed: dict[Change, bool] = {
        "depth": own.blocks != given.blocks,
        "width": own.widths != given.widths,
        "resolution": bool(_moved(child, parent, paths)),
        "paths": own.num_paths != given.num_paths,
        "classes": child.num_classes != parent.num_classes,
        "additions": own.additions != given.additions,
        "block": stage_blocks(child.block) != stage_blocks(parent.block),
    }
    return tuple(change for change, is_so in changed.items() if is_so)


def _moved(child: Network, parent: Network, paths: PathMap) -> list[tuple[Fraction, Fraction]]:
    """The old and the new ratio of every path whose ratio changed."""
    pairs = zip(paths, child.architecture.ratios, strict=True)
    both = [(parent.architecture.ratios[path], ratio) for path, ratio in pairs if path is not None]
    return [(old, new) for old, new in both if old != new]


def _grade(weights: WeightTransfer, parent: Network, paths: PathMap) -> tuple[Preserving, tuple[str, ...]]:
    child = weights.child
    broken = [f"a path sees the image at {new} instead of {old}" for old, new in _moved(child, parent, paths)]
    if None in paths and child.architecture.ratios[0] > parent.architecture.ratios[0]:
        broken.append(f"the logits have the size of the largest path's features, now {child.architecture.ratios[0]}")
    if child.num_classes != parent.num_classes:
        broken.append(f"the head is new: {child.num_classes} classes instead of {parent.num_classes}")
    broken += dict.fromkeys(weights.mismatches)
    interaction = INTERACTIONS[child.interaction]
    meets = None in paths and interaction.pair is not None
    if meets and not interaction.adds:
        broken.append(f"in {child.interaction} the output of a new path replaces the features of the others")
    is_small = meets and interaction.adds and not _keeps_full_scale(child)
    small = ["a new path adds a little to the features of the others"] if is_small else []
    small += filter(None, [detail_change(child, parent)])
    return ("no" if broken else "nearly" if small else "exact"), (*broken, *small)
