"""Table 2's c: for every block the whole width factor at which its network is as fast as one reference on this device.

Latency grows with c, but in steps and under noise. So a bracket is found by doubling and halving, all blocks in turn
and each time compared with the reference of the same pass; then the whole c in and next to each bracket are measured
for longer, and the nearest is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lpsnet.errors import RunError
from lpsnet.search.measurements import compared

Point = tuple[str, int]  # block, c
Pass = Callable[[Sequence[Point]], Sequence[float]]  # the time of every network in ms, each measured once, in turn

SEARCH_PASSES, FINAL_PASSES = 5, 15
MAX_C = 128
MAX_ROUNDS = 32  # of the search; doubling and halving within `MAX_C` takes less than half as many


@dataclass(frozen=True, slots=True)
class Choice:
    """The c of a block.

    Attributes:
        c: the width factor.
        ratio, low, high: its network's time over the reference's, and the 95 % interval.
    """

    c: int
    ratio: float
    low: float
    high: float


@dataclass(slots=True)
class _Bracket:
    """What is known of a block.

    Attributes:
        start: the c to begin with.
        fast: the widest that is not slower than the reference; 0 for none.
        slow: the narrowest that is slower; None for none.
    """

    start: int
    fast: int = 0
    slow: int | None = None

    @property
    def is_closed(self) -> bool:
        return self.fast >= MAX_C or (self.slow is not None and self.slow - self.fast <= 1)

    def next_c(self) -> int:
        if self.slow is None:
            return min(MAX_C, 2 * self.fast or self.start)
        return max(1, (self.fast + self.slow) // 2)

    def tell(self, c: int, ratio: float) -> None:
        if ratio > 1:
            self.slow = c if self.slow is None else min(self.slow, c)
        else:
            self.fast = max(self.fast, c)

    def ends(self) -> list[int]:
        """Those to look at closely."""
        around = range(self.fast - 1, (self.slow or self.fast) + 2)
        return [c for c in around if 1 <= c <= MAX_C]


def widths_of_same_latency(
    starts: Mapping[str, int], reference: Point, *, measure_pass: Pass, progress: Callable[[float], None]
) -> dict[str, Choice]:
    """The c of every block.

    Args:
        starts: a c to begin with, by block.
        reference: the network whose latency the others shall have.
        measure_pass: see `Pass`.
        progress: told a part, 0 to 1.

    Raises:
        RunError: the times contradict each other so much that no bracket closes.
    """
    brackets = {block: _Bracket(start) for block, start in starts.items()}
    for number in range(MAX_ROUNDS):
        open_ = {block: bracket.next_c() for block, bracket in brackets.items() if not bracket.is_closed}
        if not open_:
            break
        progress(number / (number + 8))
        for (block, c), ratio in _ratios(reference, list(open_.items()), measure_pass, SEARCH_PASSES).items():
            brackets[block].tell(c, ratio.ratio)
    else:
        raise RunError("latencies contradict each other too much to choose c; measure on a quieter machine")
    progress(0.7)
    ends = [(block, c) for block, bracket in brackets.items() for c in bracket.ends()]
    found = _ratios(reference, ends, measure_pass, FINAL_PASSES)
    return {block: _nearest([choice for (name, _), choice in found.items() if name == block]) for block in starts}


def _nearest(choices: Sequence[Choice]) -> Choice:
    return min(choices, key=lambda choice: abs(choice.ratio - 1))


def _ratios(reference: Point, points: Sequence[Point], measure_pass: Pass, num_passes: int) -> dict[Point, Choice]:
    others = [point for point in points if point != reference]
    passes = [measure_pass([reference, *others]) for _ in range(num_passes)]
    unit, *times = compared(passes)
    found = {
        point: Choice(point[1], *(value / unit.median_ms for value in (time.median_ms, time.low_ms, time.high_ms)))
        for point, time in zip(others, times, strict=True)
    }
    return found | {point: Choice(point[1], 1.0, 1.0, 1.0) for point in points if point == reference}
