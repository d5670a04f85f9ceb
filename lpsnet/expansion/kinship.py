"""Who can inherit from whom, and which of the parent's paths becomes which of the child's."""

from collections.abc import Sequence
from fractions import Fraction

from lpsnet.errors import LpsnetError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.network import Network

PathMap = Sequence[int | None]  # for each of the child's paths the number of the parent's, or None for a new path


def check_kinship(child: Network, parent: Network) -> None:
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
