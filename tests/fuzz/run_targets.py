"""What runs leave in their folders, edited or damaged: journals, settings, logs, training states."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from damage import JSON, altered, damaged
from fuzzing import Target
from hypothesis import strategies as st
from torch import nn

from lpsnet.search.journal import (
    LatencyRepetition,
    Stopped,
    TrainingFinished,
    TrainingStarted,
    family_of,
    open_journal,
    read_journal,
)
from lpsnet.search.measurements import Failure, Score, TrainingSpec
from lpsnet.search.operations import SearchNetwork
from lpsnet.training.run import TrainingState
from lpsnet.training.run_folder import RunFolder

_SETTINGS: dict[str, Any] = {"machine": {"cpu": "Example 3000", "cores": 2}, "size": [360, 480]}
_ROW = {
    "step": 0, "blocks": [1, 1, 1, 1, 1], "widths": [4, 4, 8, 8, 8], "ratio_slots": ["1/2", "0", "0"],
    "block": "conv3x3",
    "dimension": None, "operation": None, "step_size": 0, "median_ms": 3.0, "low_ms": 2.5, "high_ms": 3.5, "miou": 40.0,
    "spread": 0.0, "at_start": None,
}  # fmt: skip


@functools.cache
def journal_bytes() -> bytes:
    tiny = SearchNetwork.start("tiny").design
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        with open_journal(path, settings=_SETTINGS, lpsnet_version="0.1.0") as journal:
            journal.append(LatencyRepetition(designs=("a", "b"), ms=(1.0, 2.5)))
            journal.append(TrainingStarted(designs=("b",), parent="a"))
            journal.append(
                TrainingFinished.of(tiny, TrainingSpec(), Score(41.25, 0.5, 3.0), {"model": "candidates/x/model"})
            )
            journal.append(TrainingFinished.of(tiny, TrainingSpec(tiny), Failure("out of memory"), {}))
            journal.append(Stopped(number=2, reason="nothing left"))
        start = {"kind": "start", "at": "2026-01-01T00:00:00+00:00", "row": _ROW}
        return path.read_bytes() + json.dumps(start).encode() + b"\n"


def _check_journal(data: bytes, folder: Path) -> None:
    """A journal that opens is one that is read alike by all, and lines can be added to."""
    path = folder / "journal.jsonl"
    path.write_bytes(data)
    with open_journal(path, settings=_SETTINGS, lpsnet_version="0.1.0") as journal:
        journal.append(LatencyRepetition(designs=("a",), ms=(1.0,)))
        events = list(journal.events)
    assert read_journal(path) == events
    family_of(events)


def _rebuilt(lines: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in (lines if isinstance(lines, list) else [lines]))


def _lines() -> list[Any]:
    return [json.loads(line) for line in journal_bytes().splitlines()]


_RUN = {
    "data": "scenes",
    "split": "train",
    "recipe": {"name": "demo", "epochs": 2, "crop_size": [64, 96]},
    "init": None,
}
_LOG = "iteration,loss,learning_rate,pictures_per_second\n1,0.5,0.1,10\n2,0.25,0.1,10\n3,0.2,0.1,1"
_EVALUATIONS = '{"iteration": 1, "miou": 3.5}\n{"iteration": 2, "miou": 4.5}\n{"iterat'


def _check_run(value: Any, folder: Path) -> None:
    run = RunFolder(folder)
    run.run.write_text(json.dumps(value), encoding="utf-8")
    run.check(_RUN, defaults={}, resume=True)


def _check_logs(case: tuple[bytes, bytes], folder: Path) -> None:
    run = RunFolder(folder)
    run.log.write_bytes(case[0])
    run.evaluations.write_bytes(case[1])
    run.rewind_logs(2, num_iterations=9)
    assert all(int(row["iteration"]) <= 2 for row in run.read_log())
    assert all(line["iteration"] <= 2 for line in run.read_evaluations())


def _state() -> TrainingState:
    layer = nn.Conv2d(3, 4, 3)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 3, 4, 4)).sum().backward()
    optimiser.step()
    return TrainingState(layer, optimiser, None, torch.amp.GradScaler("cpu", enabled=False), iteration=3)


@functools.cache
def _saved_state() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        _state().save(Path(folder) / "state.safetensors")
        return (Path(folder) / "state.safetensors").read_bytes()


def _check_state(data: bytes, folder: Path) -> None:
    path = folder / "state.safetensors"
    path.write_bytes(data)
    state = _state()
    state.restore(path)
    assert state.iteration >= 0


TARGETS = (
    Target("journal", st.deferred(lambda: damaged([journal_bytes()])), _check_journal, many=1_500, few=40),
    Target(
        "journal's lines", st.deferred(lambda: altered([_lines()])).map(_rebuilt), _check_journal, many=1_000, few=60
    ),
    Target("settings of a run", altered([_RUN]) | JSON, _check_run, many=1_000, few=40),
    Target(
        "logs of a run", st.tuples(damaged([_LOG.encode()]), damaged([_EVALUATIONS.encode()])), _check_logs, many=1_000
    ),
    Target("training state", st.deferred(lambda: damaged([_saved_state()])), _check_state, many=1_000),
)
