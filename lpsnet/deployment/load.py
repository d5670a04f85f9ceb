"""How busy a machine is with other work while something is measured on it.

The load average counts the measurement itself and lags by a minute; what the processors really did is counted by the
system.
"""

import os
import time
from dataclasses import dataclass
from typing import Any, Self

import psutil

from lpsnet.deployment.machine import load_average


@dataclass(frozen=True, slots=True)
class Load:
    """What else went on while something was measured.

    Attributes:
        duration_s: how long that took.
        average_before, average_after: load averages of the last minute, this process included; None if not counted.
        other_cores: processors that were busy with other processes, on average; None where the system does not say.
    """

    duration_s: float
    average_before: float | None
    average_after: float | None
    other_cores: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "duration_s": self.duration_s,
            "load_average_before": self.average_before,
            "load_average_after": self.average_after,
            "other_cores_busy": self.other_cores,
        }


class LoadWatch:
    """Watches the load from `start` on."""

    def __init__(self) -> None:
        self._average = load_average()
        self._busy_s, self._own_s, self._since = _busy_s(), _own_s(), time.monotonic()

    @classmethod
    def start(cls) -> Self:
        """A watch of this machine from now on."""
        return cls()

    def load(self) -> Load:
        """The load since the start."""
        duration_s = time.monotonic() - self._since
        busy_s = _busy_s()
        other_cores = None
        if busy_s is not None and self._busy_s is not None and duration_s > 0:
            own_s = _own_s() - self._own_s
            other_cores = max(0.0, busy_s - self._busy_s - own_s) / duration_s
        return Load(duration_s, self._average, load_average(), other_cores)


_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # systems differ in which they count


def _busy_s() -> float | None:
    """Seconds that all processors together have worked since the start of the machine, for whomever."""
    try:
        times = psutil.cpu_times()
    except (OSError, ValueError, IndexError, TypeError, psutil.Error):  # a sandbox whose /proc is not Linux's
        return None
    return sum(getattr(times, name, 0.0) for name in _BUSY)


def _own_s() -> float:
    """Seconds of processor time of this process and of those it started that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
