"""Who can inherit from whom, and which of the parent's paths becomes which of the child's.

Weights from parent to child: an expanded network (Section 3.4) starts from what its parent has learnt.

Any of these, together or alone:

- deeper: a new block passes on what it is given (`deepening.py`). The function stays, exactly.
- wider: new channels are random and nothing old reads them (`widening.py`). The function stays, exactly.
- another ratio: the same weights on an image of another size. The function does not stay.
- a new path: a copy of the path of the nearest ratio. The head does not read it, and what it adds to the other paths
  after Stage 3 and Stage 4 (Equation 2) is small. It is not nothing: a ReLU of nothing would never learn. The function
  nearly stays; without interaction between the paths it stays exactly.
- another number of classes: a fresh head over the same features.

What stays, stays in evaluation mode, where batch norm is a scale and a shift. In training mode it nearly stays if
images are given, because only they tell the statistics of the features that a new block has to pass on. Momentum is
not taken over: an optimiser starts afresh. How a block's weights carry over is in its row of `BLOCKS`; what the row
does not say starts fresh, as new blocks and channels of "shufflenet" do. What the algebra promises is held against the
logits of both networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lpsnet.errors import LpsnetError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import INTERACTING_STAGES, Network, Path, create_model
from lpsnet.search.transfer import (
    ChannelMap,
    Origin,
    WeightTransfer,
    channel_map,
    copy_block,
    copy_interaction,
    downscale_path,
    evaluating,
    meets_directly,
    pass_through,
)

PathMap = Sequence[int | None]  # for each of the child's paths the number of the parent's, or None for a new path


def check_compatibility(child: Network, parent: Network) -> None:
    """Refuse two networks whose weights do not mean the same, and a child that is smaller than its parent.

    Raises:
        LpsnetError: saying what differs.
    """
    if child is parent:
        raise LpsnetError("a network cannot inherit from itself; make the child with create_model")
    if "deployed" in (child.form, parent.form):
        raise LpsnetError(
            "deployed networks have no batch norms to train on; make the child in training form, and let it inherit "
            "from the network that the deployed one was fused from"
        )
    for trait in ("block", "interaction", "form", "align_corners"):
        own, given = getattr(child, trait), getattr(parent, trait)
        alike = trait == "form" and not BLOCKS[child.block].has_branches
        if own != given and not alike:
            raise LpsnetError(
                f"a child has its parent's {trait}: the parent has {given}, the child {own}; "
                f"make it with {trait}={given!r} or train it from scratch"
            )
    _check_growth(child, parent)


def _check_growth(child: Network, parent: Network) -> None:
    own, given = child.architecture, parent.architecture
    compared = {
        "deep": zip(own.blocks, given.blocks, strict=True),
        "wide": zip(own.widths, given.widths, strict=True),
        "rich in paths": ((own.num_paths, given.num_paths),),
    }
    if less := [trait for trait, pairs in compared.items() if any(number < least for number, least in pairs)]:
        raise LpsnetError(f"a child is at least as {less[0]} as its parent; {own} is not, its parent is {given}")


def continued_paths(child: Network, parent: Network, path_map: PathMap | None) -> tuple[int | None, ...]:
    """`path_map` checked, or the usual one: equal ratios belong together, then the rest in order.

    An operation of Table 1 changes one slot, so all other paths keep their ratios even where the order changes.

    Raises:
        LpsnetError: `path_map` does not use each of the parent's paths once.
    """
    own, given = child.architecture.ratios, parent.architecture.ratios
    if path_map is None:
        return _matched(own, given)
    used = sorted(path for path in path_map if path is not None)
    if len(path_map) != len(own) or used != list(range(len(given))):
        raise LpsnetError(
            f"path_map has one entry for each of the child's {len(own)} paths: each of the parent's paths "
            f"(0 to {len(given) - 1}) once, and None for the rest; got {list(path_map)}"
        )
    return tuple(path_map)


def _matched(own: Sequence[Fraction], given: Sequence[Fraction]) -> tuple[int | None, ...]:
    left = dict(enumerate(given))
    paths: dict[int, int] = {}
    for number, ratio in enumerate(own):
        equal = [path for path, its_ratio in left.items() if its_ratio == ratio]
        if equal:
            paths[number] = equal[0]
            del left[equal[0]]
    unmatched = [number for number in range(len(own)) if number not in paths]
    paths.update(zip(unmatched, left, strict=False))  # the last ones, if any are over, are new
    return tuple(paths.get(number) for number in range(len(own)))


def nearest_path(ratio: Fraction, ratios: Sequence[Fraction]) -> int:
    """The number of the ratio that differs from `ratio` by the smallest factor; of two the smaller ratio's."""
    return min(range(len(ratios)), key=lambda path: (max(ratio / ratios[path], ratios[path] / ratio), -path))


Change = Literal["depth", "width", "resolution", "paths", "classes"]
Preserving = Literal["exact", "nearly", "no"]

_ROUNDING = 0.01  # relative difference of the logits; where it should be none, more shows that a block's row is wrong


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What `inherit` did.

    Attributes:
        changes: in what the child differs from its parent.
        paths: for each of the child's paths, the number of the parent's path it continues; None for a new path.
        preserving: whether child and parent have the same scores, in evaluation mode.
        reasons: why not, if not exactly; one line each.
        origins: for each of the child's parameters, how many of its numbers come from where.
        measured: whether there were images to measure statistics on.
        relative_difference: of the scores of those images, |child - parent| / |parent| (Euclidean norms, evaluation
            mode); None without images, or if the scores differ in shape.
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
        """Names of the parameters with numbers that are zero so that something new is not read, or not heard."""
        return tuple(name for name, origin in self.origins.items() if origin.zeroed)

    @property
    def new(self) -> tuple[str, ...]:
        """Names of the parameters with other numbers. A parameter that grew may be in all three."""
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
    """Fill `child` from `parent`; whatever `child` held before is gone.

    Args:
        child: of the same block, interaction, form ("reparameterised" or "plain") and `align_corners` as the parent,
            in no stage shallower or narrower, and with at least as many paths. Its training mode stays.
        parent: not touched.
        images: N x 3 x H x W training images, normalised, as the training will give them to the network; a handful.
            They pass the child in one batch without gradients. Without them the statistics of new batch norms are 0
            and 1: logits in evaluation mode start the same, but training has to find those statistics first.
        seed: of the random weights; torch's random state is not touched.
        path_map: for each of the child's paths, largest ratio first, the number of the parent's path that it continues,
            or None for a new one; every path of the parent once. Unless given, paths of equal ratio belong together,
            then the rest in order. That is right for every operation of Table 1, whichever slot it is for.

    Raises:
        LpsnetError: the networks are not such, or `images` or `path_map` do not fit.
    """
    check_compatibility(child, parent)
    paths = continued_paths(child, parent, path_map)
    with torch.no_grad():
        expected = None if images is None else _scores(parent, images)  # first: it may refuse the images
        _reset(child, seed)
        weights = WeightTransfer(child)
        _fill(weights, parent, paths)
        difference = None
        if images is not None and expected is not None:
            weights.measure_statistics(images)
            difference = _relative_difference(_scores(child, images), expected)
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
    widths = zip(parent.architecture.widths, child.architecture.widths, strict=True)
    places = [channel_map(child.block, *pair) for pair in widths]
    ratios = child.architecture.ratios
    for path, ratio, number in zip(child.paths, ratios, paths, strict=True):
        source = nearest_path(ratio, parent.architecture.ratios) if number is None else number
        if number is None and _is_loud(child):
            fault = "does not say what gives its output the scale (`outputs` in its row)"
            weights.mismatches.append(f"block {child.block!r} {fault}; a new path starts fresh, and in full strength")
            weights.measure_all(path)
            continue
        _fill_path(weights, path, parent.paths[source], places)
        if number is None and meets_directly(child):
            downscale_path(weights, path, child.block)
    for stage, own, given in zip(INTERACTING_STAGES, child.interactions, parent.interactions, strict=True):
        copy_interaction(weights, own, given, places[stage], paths)
    if child.num_classes == parent.num_classes:
        _fill_head(weights, parent, places[-1], paths)


def _is_loud(child: Network) -> bool:
    """Whether a new path disturbs the others, because its block's row does not say how to make it quiet."""
    return meets_directly(child) and BLOCKS[child.block].outputs is None


def _fill_path(weights: WeightTransfer, path: nn.Module, source: nn.Module, places: Sequence[ChannelMap]) -> None:
    assert isinstance(path, Path)
    assert isinstance(source, Path)
    reads = torch.arange(3)  # the image's channels
    for stage, given, writes in zip(path.stages, source.stages, places, strict=True):
        blocks, old_blocks = list(stage.children()), list(given.children())
        for block, old_block in zip(blocks, old_blocks, strict=False):
            copy_block(weights, weights.child.block, block, old_block, reads, writes)
            reads = writes
        for previous, block in zip(blocks[len(old_blocks) - 1 :], blocks[len(old_blocks) :], strict=False):
            pass_through(weights, weights.child.block, block, previous, writes)


def _fill_head(weights: WeightTransfer, parent: Network, places: ChannelMap, paths: PathMap) -> None:
    """The head reads what it read before, and nothing of new channels and new paths."""
    head, width, old_width = weights.child.head, weights.child.architecture.widths[-1], len(places)
    rows = torch.arange(weights.child.num_classes)[:, None]
    weights.zero(head.weight)
    for number, source in enumerate(paths):
        if source is not None:
            columns = parent.head.weight[:, source * old_width : (source + 1) * old_width]
            weights.copy(head.weight, (rows, number * width + places), columns)
    assert head.bias is not None
    assert parent.head.bias is not None
    weights.copy(head.bias, ..., parent.head.bias)


def _scores(net: Network, images: Tensor) -> Tensor:
    with evaluating(net):
        scores: Tensor = net(images.to(net.head.weight.device))
    return scores


def _probed(child: Network, parent: Network) -> float | None:
    """The relative difference of the logits of noise, for want of images."""
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = noise.to(parent.head.weight)
    return _relative_difference(_scores(child, noise), _scores(parent, noise))


def _relative_difference(scores: Tensor, expected: Tensor) -> float | None:
    if scores.shape != expected.shape:
        return None
    tiny = torch.finfo(expected.dtype).tiny
    return float((scores.to(expected) - expected).norm() / expected.norm().clamp(min=tiny))


def _changes(child: Network, parent: Network, paths: PathMap) -> tuple[Change, ...]:
    own, given = child.architecture, parent.architecture
    changed: dict[Change, bool] = {
        "depth": own.blocks != given.blocks,
        "width": own.widths != given.widths,
        "resolution": bool(_moved(child, parent, paths)),
        "paths": own.num_paths != given.num_paths,
        "classes": child.num_classes != parent.num_classes,
    }
    return tuple(change for change, is_so in changed.items() if is_so)


def _moved(child: Network, parent: Network, paths: PathMap) -> list[tuple[Fraction, Fraction]]:
    """The old and the new ratio of every path that has another one now."""
    pairs = zip(paths, child.architecture.ratios, strict=True)
    both = [(parent.architecture.ratios[path], ratio) for path, ratio in pairs if path is not None]
    return [(old, new) for old, new in both if old != new]


def _grade(weights: WeightTransfer, parent: Network, paths: PathMap) -> tuple[Preserving, tuple[str, ...]]:
    child = weights.child
    broken = [f"a path sees the image at {new} instead of {old}" for old, new in _moved(child, parent, paths)]
    if None in paths and child.architecture.ratios[0] > parent.architecture.ratios[0]:
        broken.append(f"the scores have the size of the largest path's features, now {child.architecture.ratios[0]}")
    if child.num_classes != parent.num_classes:
        broken.append(f"the head is new: {child.num_classes} classes instead of {parent.num_classes}")
    broken += dict.fromkeys(weights.mismatches)
    interaction = INTERACTIONS[child.interaction]
    meets = None in paths and interaction.pair is not None
    if meets and not interaction.adds:
        broken.append(f"what a new path gives the others in {child.interaction} takes the place of their own features")
    is_quiet = meets and interaction.adds and not _is_loud(child)
    small = ["a new path adds a little to the features of the others"] if is_quiet else []
    return ("no" if broken else "nearly" if small else "exact"), (*broken, *small)
