"""Expansions written by hand, at several points of their life."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lpsnet.search.family import Expansion, Member, Step
from lpsnet.search.journal import (
    Event,
    LatencyRepetition,
    TrainingFinished,
    TrainingStarted,
    open_journal,
    record_start,
    record_step,
)
from lpsnet.search.measurements import Latency, Score
from lpsnet.search.operations import Operation, SearchNetwork
from lpsnet.search.results import SearchResult
from lpsnet.search.step_size import Excluded

SETTINGS: dict[str, Any] = {
    "data": "scenes",
    "start": "tiny",
    "recipe": {"name": "demo_proxy", "epochs": 1.5},
    "device": {"engine": "onnxruntime 1.0", "precision": "f32", "size": [128, 256], "machine": "a machine"},
}
DEPTH, WIDTH, RESOLUTION = map(Operation.parse, ("depth=0,0,0,1,1", "width=0,0,0,8,8", "resolution=0,1/4,0"))
BLOCK = Operation.parse("block=ghost")


def network(depth: int = 1, width: int = 8, second: str = "0") -> SearchNetwork:
    return SearchNetwork((1, 1, 1, depth, depth), (4, 4, 8, width, width), ("1", second, 0))


def member(
    step: int,
    net: SearchNetwork,
    ms: float,
    miou: float,
    operation: Operation | None = None,
    k: int = 0,
    *,
    seeds: tuple[int, float] = (1, 0.0),
) -> Member:
    """A member; `seeds` are their number and spread."""
    score = Score(miou, seeds[1], None if operation is None else miou - 2, seeds[0])
    return Member(step, net, Latency(ms, 0.9 * ms, 1.2 * ms), score, operation, k)


START = member(0, network(), 1.0, 30.0)
DEEPER = member(1, network(depth=2), 1.6, 33.25, DEPTH, 1)
WIDER = member(1, network(width=16), 1.5, 34.5, WIDTH, 1, seeds=(2, 0.75))
FINER = member(1, network(second="1/4"), 1.7, 32.0, RESOLUTION, 1)
FIRST = Step(
    number=1,
    parent=START,
    target_ms=1.55,
    candidates=(DEEPER, WIDER, FINER),
    excluded=(Excluded(BLOCK, "all blocks are ghosts"),),
    chosen=WIDER,
    rivals=(DEEPER,),
    doubt="latency",
)
DEEPER_2 = member(2, network(depth=2, width=16), 2.5, 40.125, DEPTH, 1)
WIDER_2 = member(2, network(width=24), 2.25, 36.0, WIDTH, 1)
SECOND = Step(number=2, parent=WIDER, target_ms=2.4, candidates=(DEEPER_2, WIDER_2), excluded=(), chosen=DEEPER_2)
LAST = Step(number=3, parent=DEEPER_2, target_ms=None, candidates=(), excluded=(), chosen=None, stop="nothing gains")


def write_search(
    folder: Path, steps: Sequence[Step] = (), more: Sequence[Event] = (), *, plan: dict[str, Any] | None = None
) -> Path:
    """A folder with a journal of these steps and then these lines."""
    with ExitStack() as stack:
        journal = stack.enter_context(open_journal(folder / "journal.jsonl", settings=SETTINGS, lpsnet_version="0"))
        record_start(journal, START)
        for step in steps:
            record_step(journal, step)
        for event in more:
            journal.append(event)
    if plan is not None:
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return folder


def write_result(folder: Path, steps: Sequence[Step], *, budgets_ms: Sequence[float] = ()) -> SearchResult:
    """`family.json`, with all latencies measured anew: 10 % more than in the steps."""
    found = Expansion(START, tuple(steps))
    now = [
        Member(it.step, it.network, Latency(*(1.1 * ms for ms in _ends(it))), it.score, it.operation, it.step_size)
        for it in found.trained
    ]
    result = SearchResult.of(found, now, budgets_ms=budgets_ms, folder=folder / "family")
    (folder / "family").mkdir()
    (folder / "family" / "family.json").write_text(json.dumps(result.to_dict()), encoding="utf-8")
    return result


def _ends(it: Member) -> tuple[float, float, float]:
    return it.latency.median_ms, it.latency.low_ms, it.latency.high_ms


def in_training() -> list[Event]:
    """One of a step's two networks is trained, twice."""
    designs = [str(it.design) for it in (DEEPER_2, WIDER_2)]
    return [
        LatencyRepetition(designs=tuple(designs), ms=(1.0, 2.0)),
        TrainingStarted(designs=tuple(designs), parent=str(WIDER.design)),
        TrainingFinished(design=designs[0], parent=str(WIDER.design), miou=40.125, at_start=38.0),
        TrainingStarted(designs=(designs[0],), parent=str(WIDER.design), seed=1),
        TrainingFinished(design=designs[0], parent=str(WIDER.design), miou=41.5, at_start=38.0, seed=1),
    ]
