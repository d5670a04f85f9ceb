"""From passes of measurements in turn to latencies with intervals.

A pass times every design once, A B C …; a shared machine can be twice as slow in the next pass. What a step decides on
is how designs compare, so each pass is first divided by its own time of the first design: what slowed the whole pass
down drops out. Medians and intervals are of these quotients.
"""

from collections.abc import Sequence
from statistics import median

from lpsnet.benchmark.timing import median_interval
from lpsnet.expansion.measurements import Latency

CONFIDENCE = (
    0.95  # of intervals; fewer than six passes cannot give it: then they reach from the smallest to the largest
)


def compared(passes: Sequence[Sequence[float]]) -> list[Latency]:
    """One latency a design, compared with the first.

    Args:
        passes: one or more; each holds the time of every design in ms, the designs always in the same order.

    Returns:
        For the first design its median, as a point. For every other that median times the median of its quotient to
        the first, with the interval of the quotient.
    """
    first, *others = zip(*passes, strict=True)
    unit = median(first)
    quotients = ([time / base for time, base in zip(times, first, strict=True)] for times in others)
    return [Latency.exactly(unit), *(_latency(column, unit=unit) for column in quotients)]


def absolute(passes: Sequence[Sequence[float]]) -> list[Latency]:
    """One latency a design on its own: the median of its times and the interval of that median."""
    return [_latency(times) for times in zip(*passes, strict=True)]


def _latency(samples: Sequence[float], *, unit: float = 1.0) -> Latency:
    low, high, _ = median_interval(samples, CONFIDENCE)
    return Latency(*(unit * value for value in (median(samples), low, high)))
