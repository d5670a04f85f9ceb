"""A device far away measures while candidates are trained: the same decisions, sooner."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from expansion_tiny import REPETITIONS, RUN, TableDevice, train_in_no_time

from lpsnet.errors import DeviceError
from lpsnet.report.report import write_report
from lpsnet.report.search import read_expansion
from lpsnet.search.journal import Event, LatencyRepetition, StepDecided, TrainingFinished, TrainingResult, read_journal
from lpsnet.search.measurements import Limits, busy
from lpsnet.search.operations import Design
from lpsnet.search.run import JOURNAL, ExpansionRun, run_expansion
from lpsnet.search.train import CandidateTask

FAR: Any = SimpleNamespace(close=lambda: None)  # what measures in its place is a `TableDevice`


def search(run: ExpansionRun, out: Path, **options: Any) -> list[Event]:
    options = {"device": TableDevice(out), "train": train_in_no_time, "repetitions": REPETITIONS, **options}
    run_expansion(run, out, **options)
    return read_journal(out / JOURNAL)


def decisions(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [it.model_dump(exclude={"at"}) for it in events if isinstance(it, StepDecided)]


def trained(events: Sequence[Event]) -> list[str]:
    return [it.design for it in events if isinstance(it, TrainingFinished)]


@pytest.mark.parametrize(
    "options",
    [{}, {"max_seeds": 3, "control": True}, {"race": True, "control": True}, {"limits": Limits(latency_ms=13.0)}],
    ids=["plain", "seeds", "race", "limit"],
)
def test_decisions_are_those_of_a_device_that_is_waited_for(tmp_path: Path, options: dict[str, Any]) -> None:
    run = replace(RUN, options=replace(RUN.options, **options))
    here, far = search(run, tmp_path / "here"), search(run, tmp_path / "far", place=FAR)
    assert decisions(here) == decisions(far)
    assert decisions(here)
    assert trained(here) == trained(far)
    rows = [sorted((it.designs, it.ms) for it in events if isinstance(it, LatencyRepetition)) for events in (here, far)]
    assert rows[0] == rows[1]


def test_training_and_measuring_go_on_at_the_same_time(tmp_path: Path) -> None:
    """The first training of every batch waits for a repetition, and a repetition beside it for the training."""
    in_training, measured = threading.Event(), threading.Event()
    threads = set()

    class Slow(TableDevice):
        def measure_once(self, designs: Sequence[Design]) -> list[float]:
            times = super().measure_once(designs)
            threads.add(threading.current_thread())
            if threading.current_thread() is not threading.main_thread():
                assert in_training.wait(60)
                measured.set()
            return times

    def train(task: CandidateTask) -> TrainingResult:
        in_training.set()
        assert measured.wait(60)
        return train_in_no_time(task)

    device = Slow(tmp_path)
    search(RUN, tmp_path, device=device, train=train, place=FAR)
    assert len(threads) > 1
    assert "release" not in device.calls[: device.calls.index("measure", 5)], "the device is kept while it measures"


def test_what_the_device_says_is_met_after_the_training(tmp_path: Path) -> None:
    class Lost(TableDevice):
        def measure_once(self, designs: Sequence[Design]) -> list[float]:
            if threading.current_thread() is not threading.main_thread():
                raise DeviceError("ssh://far: it does not answer")
            return super().measure_once(designs)

    with pytest.raises(DeviceError, match="does not answer"):
        search(RUN, tmp_path, device=Lost(tmp_path), place=FAR)
    assert trained(read_journal(tmp_path / JOURNAL)), "what was trained meanwhile is kept"
    assert decisions(search(RUN, tmp_path, place=FAR)) == decisions(search(RUN, tmp_path / "other"))


def test_a_search_that_ends_early_gives_the_measurement_up(tmp_path: Path) -> None:
    """A training that fails for good ends the command; what the device measures after that is not written."""
    in_training, ended = threading.Event(), threading.Event()

    class Slow(TableDevice):
        def measure_once(self, designs: Sequence[Design]) -> list[float]:
            if threading.current_thread() is not threading.main_thread():
                in_training.wait(60)
                time.sleep(0.2)
                ended.set()
            return super().measure_once(designs)

    def train(task: CandidateTask) -> TrainingResult:
        in_training.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(RUN, tmp_path, device=Slow(tmp_path), train=train, place=FAR)
    content = (tmp_path / JOURNAL).read_bytes()
    assert ended.wait(60)
    time.sleep(0.2)
    assert (tmp_path / JOURNAL).read_bytes() == content
    repetitions = [it for it in read_journal(tmp_path / JOURNAL) if isinstance(it, LatencyRepetition)]
    assert repetitions == []


def test_shares_of_the_time_by_brute_force() -> None:
    dice = np.random.default_rng(0)
    for _ in range(20):
        spans = dice.integers(0, 60, (2, 5, 2))  # end and length, in seconds
        found = busy(*([(f"2026-01-01T00:02:{end:02d}+00:00", int(length)) for end, length in kind] for kind in spans))
        seconds = np.arange(-60, 60)
        lit = [np.any([(seconds >= end - length) & (seconds < end) for end, length in kind], axis=0) for kind in spans]
        assert found is not None
        expected = [each.sum() for each in (lit[0] | lit[1], lit[0], lit[1], lit[0] & lit[1])]
        assert found.seconds == pytest.approx(expected[0])
        shares = (found.training, found.measuring, found.both)
        assert shares == pytest.approx([each / expected[0] for each in expected[1:]])
    assert busy([("2026-01-01T00:00:10+00:00", 5)], []) is None
    assert str(found).count("%") == 3


def test_the_report_has_the_shares(tmp_path: Path) -> None:
    search(RUN, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    for line in lines:
        if line["kind"] == "latency":
            line["seconds"] = 1.0
        if line["kind"] == "training":
            line["details"]["seconds"] = 4.0
    (tmp_path / JOURNAL).write_text("".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines))
    assert read_expansion(tmp_path).busy is not None
    assert "both at once" in write_report(tmp_path).read_text(encoding="utf-8")
