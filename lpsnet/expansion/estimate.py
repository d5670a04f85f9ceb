"""From passes of measurements in turn to latencies with intervals.

A pass times every design once, A B C …; a shared machine can be twice as slow in the next pass. What a step decides on
is how designs compare, so each pass is first divided by its own time of the first design: what slowed the whole pass
down drops out. Medians and intervals are of these quotients.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import comb
from statistics import median

from lpsnet.expansion.measurements import Latency

TAIL = Fraction(25, 1000)  # on either side: 95 % confidence


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
    return [Latency.exactly(unit), *(_times(unit, median_interval(column)) for column in quotients)]


def absolute(passes: Sequence[Sequence[float]]) -> list[Latency]:
    """One latency a design on its own: the median of its times and the interval of that median."""
    return [_times(1.0, median_interval(times)) for times in zip(*passes, strict=True)]


def median_interval(samples: Sequence[float]) -> tuple[float, float, float]:
    """The median of the samples, and the ends of an interval that holds the true median with 95 % confidence.

    The ends are order statistics, so nothing is assumed about the noise: with r chosen so that at most 2.5 % of fair
    coin series of this length show fewer than r heads, they are the r-th smallest and the r-th largest sample. Fewer
    than six samples cannot give 95 %; they give their smallest and largest.
    """
    ordered = sorted(samples)
    outside = _num_outside(len(ordered))
    return median(ordered), ordered[outside], ordered[-1 - outside]


def _num_outside(num_samples: int) -> int:
    """How many samples to leave out at either end."""
    allowed = TAIL * 2**num_samples
    outside, tail = 0, 1
    while tail + (more := comb(num_samples, outside + 1)) <= allowed:
        outside, tail = outside + 1, tail + more
    return outside


def _times(unit: float, interval: tuple[float, float, float]) -> Latency:
    return Latency(*(unit * value for value in interval))
