"""Landscapes for searches: tables and functions that stand in for an engine and a trainer."""

from collections.abc import Callable, Mapping, Sequence

from lpsnet.expansion.measurements import Latency, Outcome, Score
from lpsnet.expansion.operations import Design


class Landscape:
    """Lat(·) and Perf(·) from two functions of a design, with a note of everything that was asked."""

    def __init__(self, milliseconds: Callable[[Design], float], miou: Callable[[Design], float]) -> None:
        self._milliseconds, self._miou = milliseconds, miou
        self.measured: list[tuple[int, list[Design]]] = []
        self.trained: list[tuple[Design, Design | None]] = []

    def latency(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        self.measured.append((effort, list(designs)))
        return {design: Latency.exactly(self._milliseconds(design)) for design in designs}

    def performance(self, designs: Sequence[Design], *, parent: Design | None) -> Mapping[Design, Outcome]:
        self.trained.extend((design, parent) for design in designs)
        return {design: Score(self._miou(design)) for design in designs}
