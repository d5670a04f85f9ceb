"""An axis: where a value lies in a picture, and at which round values it carries ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_STEPS = (1, 2, 2.5, 5, 10)
_MARGIN = 0.05  # of the range, on either side
_LEAST = 1e-12  # a range below is none
_MAX_DECIMALS = 14


@dataclass(frozen=True, slots=True)
class Axis:
    """Values between `low` and `high`, drawn between the pixels `start` and `end`.

    Attributes:
        low, high: the ends, finite and in order; above 0 for a logarithmic axis.
        start, end: their pixels; `start` may be the larger, as it is for axes that go up.
        logarithmic: whether equal ratios, and not equal differences, are equally far apart.
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 1.0
    logarithmic: bool = False

    def __post_init__(self) -> None:
        assert -math.inf < self.low < self.high < math.inf, "an axis has a finite range"
        assert not self.logarithmic or self.low > 0, "a logarithmic axis is above 0"

    @classmethod
    def around(cls, values: Iterable[float], *, with_zero: bool = False, top: float | None = None) -> Self:
        """An axis with room for all values, of pixels 0 to 1; any range if there is none.

        Args:
            values: finite; others are left out.
            with_zero: begin at 0; for values that are not below it.
            top: no further up than this, as 100 for percent.
        """
        known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = (0.0 if with_zero else min(known)), max(known)
        room = (high - low) * _MARGIN or abs(high) * _MARGIN
        room = room if room > _LEAST else 1.0
        low, high = (low if with_zero else max(low - room, 0.0) if low >= 0 else low - room), high + room
        return cls(low, high if top is None or max(known) > top else min(high, top))

    @classmethod
    def ratios(cls, values: Iterable[float]) -> Self:
        """A logarithmic axis with room for all values, which are above 0."""
        known = list(values)
        room = max(max(known) / min(known), 1.1) ** _MARGIN
        return cls(min(known) / room, max(known) * room, logarithmic=True)

    def between(self, start: float, end: float) -> "Axis":
        """The same values between other pixels."""
        return Axis(self.low, self.high, start, end, self.logarithmic)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (map(math.log, (self.low, self.high, value))) if self.logarithmic else (
            self.low, self.high, value,
        )  # fmt: skip
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 6) -> list[tuple[float, str]]:
        """About `count` round values inside the axis, each with its text."""
        values = self._ratio_ticks(count) if self.logarithmic else []
        if len(values) >= 3:
            return [(value, f"{value:g}") for value in values]
        step = _round_step((self.high - self.low) / (1.4 * count))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        decimals = _decimals(step)
        return [(number * step, f"{number * step:,.{decimals}f}") for number in range(first, last + 1)]

    def _ratio_ticks(self, count: int) -> list[float]:
        """1, 2 and 5 of every power of ten inside; the powers alone where that is too many."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1,)):
            inside = [digit * 10.0**power for power in powers for digit in digits]
            inside = [value for value in inside if self.low <= value <= self.high]
            if len(inside) <= 1.5 * count:
                break
        return inside


def _round_step(least: float) -> float:
    """The smallest 1, 2, 2.5 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in _STEPS if factor * power >= least * (1 - 1e-9))


def _decimals(step: float) -> int:
    """How many digits behind the point multiples of `step` need."""
    return next((n for n in range(_MAX_DECIMALS) if abs(round(step, n) - step) < 1e-6 * step), _MAX_DECIMALS)
