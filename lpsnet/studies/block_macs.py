"""The check of the seven blocks: the whole c at which the network of Table 2 has Table 2's multiply-accumulates."""

from bisect import bisect_left
from functools import partial

from lpsnet.models.blocks import BLOCKS
from lpsnet.models.profile import complexity
from lpsnet.studies.network import table_2_architecture
from lpsnet.studies.published import TABLE_2
from lpsnet.studies.study import Json, Place, Run

MAX_C = 64
TOLERANCE = 0.10  # of Table 2's figures, which have two or three digits


def paper_blocks() -> list[str]:
    """Those of Table 2, in the order of `BLOCKS`, which a plugin may have added others to."""
    return [block for block in BLOCKS if block in TABLE_2]


def gmacs(block: str, c: int, size: tuple[int, int] = (1024, 2048), num_classes: int = 19) -> float:
    """10^9 multiply-accumulates of Table 2's network of a block, without interaction."""
    network = complexity(
        table_2_architecture(c), size=size, num_classes=num_classes, block=block, interaction="none"
    )  # fmt: skip
    return network.macs / 1e9


def nearest_c(block: str) -> tuple[int, float]:
    """The whole c whose MACs at 1024x2048 come nearest to Table 2's, and those MACs in 10^9.

    They grow with c, so that two neighbours are looked at.
    """
    target, count = BLOCKS[block].table_2_gmacs, partial(gmacs, block)
    above = bisect_left(range(1, MAX_C + 1), target, key=count) + 1
    nearest = min((c for c in (above - 1, above) if c >= 1), key=lambda c: abs(count(c) - target))
    return nearest, count(nearest)


def macs_run() -> Run:
    """A run that finds them for all blocks: `c` and `gmacs` by block."""

    blocks = paper_blocks()

    def work(place: Place) -> dict[str, Json]:
        found = {}
        for number, block in enumerate(blocks):
            place.progress(f"counting {block}", number / len(blocks))
            c, count = nearest_c(block)
            found[block] = {"c": c, "gmacs": count}
        return found

    return Run({"counted": "table 2", "blocks": blocks}, work, portable=True, seconds=5.0)
