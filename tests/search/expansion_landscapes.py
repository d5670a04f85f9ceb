"""Landscapes for searches: tables and functions that stand in for an engine and a trainer."""

from collections.abc import Callable, Mapping, Sequence

from lpsnet.search.measurements import Latency, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork

START = SearchNetwork.start("tiny")
DEPTH, WIDTH, PATH = (Operation.parse(it) for it in ("depth=0,0,0,1,1", "width=0,0,0,32,32", "resolution=0,1/8,0"))
OPERATIONS = {"depth": DEPTH, "width": WIDTH, "path": PATH}


class Landscape:
    """Lat(·) and Perf(·) from two functions of a design, with a note of everything that was asked."""

    def __init__(self, milliseconds: Callable[[Design], float], miou: Callable[[Design], float]) -> None:
        self._milliseconds, self._miou = milliseconds, miou
        self.measured: list[tuple[int, list[Design]]] = []
        self.trained: list[tuple[Design, Design | None]] = []

    def latency(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        self.measured.append((effort, list(designs)))
        return {design: Latency.exactly(self._milliseconds(design)) for design in designs}

    def performance(self, designs: Sequence[Design], spec: TrainingSpec) -> Mapping[Design, Outcome]:
        self.trained.extend((design, spec.parent) for design in designs)
        return {design: Score(self._miou(design)) for design in designs}


def hand_made(
    start: tuple[float, float], **rows: Mapping[int, tuple[float, float]]
) -> tuple[Landscape, list[Operation], int]:
    """A landscape around START: for each operation, {k: (latency in ms, mIoU)}."""
    points = {START.design: start}
    for name, row in rows.items():
        points |= {OPERATIONS[name].apply(START, k).design: point for k, point in row.items()}
    landscape = Landscape(lambda design: points[design][0], lambda design: points[design][1])
    return landscape, [OPERATIONS[name] for name in rows], max(max(row) for row in rows.values())
