"""The widths at which a device does the most for its time: the paper's "sweet spots" (Section 3.2, Figure 5).

The paper reads them off its curves. Here a width is a sweet spot if its FLOPs-efficiency is a local maximum: greater
than that of the next narrower and of the next wider width measured, by `MARGIN` at least and beyond noise. Beyond noise
means that the whole interval of the ratio, taken round by round of a measurement in turn, lies above the margin. The
narrowest and the widest have one neighbour and are not judged. And "setups of channel width with high FLOPs-efficiency"
(Section 3.2) they are only with `MIN_SHARE` of the greatest efficiency measured: a peak among the very worst is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lpsnet.benchmark.timing import compare
from lpsnet.studies.block_timing import BlockTime

MARGIN = 1.05
MIN_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class SweetSpots:
    """Widths in rising order.

    Attributes:
        certain: the sweet spots.
        unclear: those that would be by the middle of the ratios alone: the measurement was too noisy to say.
    """

    certain: tuple[int, ...]
    unclear: tuple[int, ...] = ()


def sweet_spots(times: Sequence[BlockTime]) -> SweetSpots:
    """The sweet spots among widths measured in turn and given in rising order."""
    certain, unclear = [], []
    best = max((time.mmacs_per_ms for time in times), default=0.0)
    for left, middle, right in zip(times, times[1:], times[2:], strict=False):
        if middle.mmacs_per_ms < MIN_SHARE * best:
            continue
        advantages = [_advantage(middle, left), _advantage(middle, right)]
        if all(least > MARGIN for least, _ in advantages):
            certain.append(middle.case.width)
        elif all(likely > MARGIN for _, likely in advantages):
            unclear.append(middle.case.width)
    return SweetSpots(tuple(certain), tuple(unclear))


def _advantage(a: BlockTime, b: BlockTime) -> tuple[float, float]:
    """How many times as efficient A is as B: at least (0 where there were too few rounds), and in the middle."""
    comparison = compare(a.latency, b.latency)  # of A's time divided by B's
    work = a.macs / b.macs
    least = work / comparison.interval[1] if comparison.confidence >= a.latency.confidence else 0.0
    return least, work / comparison.ratio


def in_words(widths: Sequence[int]) -> str:
    """`8 and 16`, `8`, or `none`."""
    *first, last = [str(width) for width in widths] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last
