"""Resuming: a search killed again and again ends as one that was not, and does nothing twice."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import expansion_program
import pytest

from lpsnet.errors import RunError
from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.family import Step
from lpsnet.search.journal import (
    Event,
    Journal,
    JournalledLatency,
    JournalledPerformance,
    LatencyRepetition,
    StartKnown,
    StepDecided,
    Stopped,
    TrainingFinished,
    TrainingResult,
    TrainingStarted,
    family_of,
    open_journal,
    read_journal,
    record_start,
    record_step,
)
from lpsnet.search.measurements import Score, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork

START = SearchNetwork.start("tiny")
DEEPER = Operation("depth", (0, 0, 0, 1, 1))
TINY, DEEP = START.design, DEEPER.apply(START).design


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    folder = tmp_path_factory.mktemp("undisturbed")
    expansion_program.main(folder)
    return read_journal(folder / "journal.jsonl")


def _what_counts(events: Sequence[Event]) -> list[dict[str, object]]:
    """All lines in order but for their times, and but for trainings begun, which killed runs begin again."""
    return [event.model_dump(exclude={"at"}) for event in events if not isinstance(event, TrainingStarted)]


def test_the_small_search_is_worth_killing(undisturbed: Sequence[Event]) -> None:
    steps = [event for event in undisturbed if isinstance(event, StepDecided)]
    assert len(steps) == 4
    assert any("training failed: diverged" in step.excluded.values() for step in steps)
    assert len({step.row.dimension for step in steps}) > 1
    groups = Counter(event.designs for event in undisturbed if isinstance(event, LatencyRepetition))
    assert set(groups.values()) >= {expansion_program.REPETITIONS[0], expansion_program.REPETITIONS[1]}


def test_kill_minus_9_ten_times(tmp_path: Path, undisturbed: Sequence[Event]) -> None:
    dice = random.Random(20240229)
    folders = (tmp_path / str(attempt) for attempt in range(5))  # on a busy machine a search may outrun its killer
    folder = next(folder for folder in folders if _killed_ten_times(folder, dice, len(undisturbed)))
    path = folder / "journal.jsonl"
    assert _start(folder).wait() == 0
    assert _what_counts(read_journal(path)) == _what_counts(undisturbed)
    content = path.read_bytes()
    assert _start(folder).wait() == 0
    assert path.read_bytes() == content, "a finished search that is started again does nothing"


def _killed_ten_times(folder: Path, dice: random.Random, num_lines: int) -> bool:
    """Start the search and kill it at a random moment, ten times; False if it ended before."""
    path = folder / "journal.jsonl"
    for kill in range(10):
        done = _num_lines(path)
        until = done + dice.randint(1, max(1, (num_lines - done) // (12 - kill)))
        process = _start(folder)
        while _num_lines(path) < until and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(dice.uniform(0, 0.008))
        process.kill()
        if process.wait() == 0:
            return False
    return True


def test_killed_after_any_line(tmp_path: Path, undisturbed: Sequence[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same within this process, right after lines that count were written; some 30 times."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    append, dice, left = Journal.append, random.Random(0), [0]

    def append_or_die(journal: Journal, event: Event) -> None:
        append(journal, event)
        left[0] -= not isinstance(event, TrainingStarted)
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", append_or_die)
    for _ in range(len(undisturbed)):
        left[0] = dice.randint(1, 6)
        try:
            expansion_program.main(tmp_path)
            break
        except KeyboardInterrupt:
            pass
    assert _what_counts(read_journal(tmp_path / "journal.jsonl")) == _what_counts(undisturbed)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, expansion_program.__file__, str(folder)])


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _journal(path: Path):
    return open_journal(path, settings={}, lpsnet_version="0")


def test_repetitions_are_added_not_made_again(tmp_path: Path) -> None:
    asked: list[list[Design]] = []

    def measure(designs: Sequence[Design]) -> list[float]:
        asked.append(list(designs))
        return [float(len(asked) + i) for i in range(len(designs))]

    for _ in range(2):
        with _journal(tmp_path / "journal.jsonl") as journal:
            latency = JournalledLatency(journal, measure, repetitions=(1, 3))
            first = latency([TINY, DEEP], effort=0)
            assert first[TINY].median_ms == 1.0
            assert latency([TINY, DEEP], effort=1)[TINY].median_ms == 2.0
            assert latency([TINY, DEEP], effort=9) == latency([TINY, DEEP], effort=1)
            assert latency([TINY, DEEP], effort=0) == first, "an answer stays as it was"
            assert latency.absolute([TINY, DEEP], effort=1)[DEEP].median_ms == 3.0
    assert asked == [[TINY, DEEP]] * 3


@pytest.mark.parametrize("times", [[1.0], [1.0, float("nan")], [1.0, 0.0], [1.0, -1.0], [1.0, float("inf")], [1, 2, 3]])
def test_a_failed_repetition_is_not_written(tmp_path: Path, times: list[float]) -> None:
    with _journal(tmp_path / "journal.jsonl") as journal:
        with pytest.raises(RunError, match="2 networks have as many finite times"):
            JournalledLatency(journal, lambda designs: times)([TINY, DEEP], effort=0)
        assert len(journal.events) == 1


def test_results_are_written_as_they_come(tmp_path: Path) -> None:
    """The second of two trainings fails in its machine: the first is kept, only the second is trained again."""
    wider = Operation("width", (0, 0, 0, 32, 32)).apply(START).design
    asked: list[list[Design]] = []

    def train(designs: Sequence[Design], spec: TrainingSpec):
        asked.append(list(designs))
        assert spec == TrainingSpec(TINY, seed=2)
        if len(asked) == 1:
            yield TrainingResult(wider, Score(50.0, 0.5, 10.0), {"weights": "somewhere"})
            raise OSError("out of memory")
        yield TrainingResult(DEEP, Score(40.0))

    lines: list[str] = []
    with _journal(tmp_path / "journal.jsonl") as journal, pytest.raises(OSError, match="out of memory"):
        JournalledPerformance(journal, train)([DEEP, wider], TrainingSpec(TINY, seed=2))
    with _journal(tmp_path / "journal.jsonl") as journal:
        found = JournalledPerformance(journal, train, on_progress=lines.append)(
            [DEEP, wider], TrainingSpec(TINY, seed=2)
        )
        assert found == {DEEP: Score(40.0), wider: Score(50.0, 0.5, 10.0)}
        assert journal.training(wider, TrainingSpec(TINY, seed=2)).details == {"weights": "somewhere"}
    assert asked == [[DEEP, wider], [DEEP]]
    assert lines == [f"  trained 2 of 2: {DEEP}: 40.00 mIoU"]


def test_a_trainer_that_forgets_a_design_is_refused(tmp_path: Path) -> None:
    with _journal(tmp_path / "journal.jsonl") as journal, pytest.raises(RunError, match="without a result for"):
        JournalledPerformance(journal, lambda designs, spec: [])([DEEP], TrainingSpec())


def _small_search(path: Path, mious: dict[Design, float], **options: object) -> None:
    with _journal(path) as journal:
        expand(
            START,
            operations=[DEEPER, Operation("width", (0, 0, 0, 32, 32))],
            latency=JournalledLatency(journal, lambda designs: [1.0 + sum(it.architecture.blocks) for it in designs]),
            performance=JournalledPerformance(
                journal, lambda designs, spec: [TrainingResult(it, Score(mious.get(it, 1.0))) for it in designs]
            ),
            options=SearchOptions(max_step_size=2, **options),
            on_start=lambda member: record_start(journal, member),
            on_step=lambda step: record_step(journal, step),
        )


def test_more_steps_may_be_asked_for_and_a_stop_is_noted_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    mious = {TINY: 10.0, DEEP: 20.0, DEEPER.apply(START, 2).design: 20.0}
    for num_steps in (1, 3, 5):
        _small_search(path, mious, num_steps=num_steps)
    events = read_journal(path)
    assert [event.number for event in events if isinstance(event, StepDecided)] == [1]
    assert [(it.number, it.reason.split(":")[0]) for it in events if isinstance(it, Stopped)] == [
        (2, "no candidate gains")
    ]
    trained = [event.design for event in events if isinstance(event, TrainingFinished)]
    assert len(trained) == len(set(trained))


@pytest.mark.parametrize(("wider", "says"), [(1.0, "now stops, because no candidate"), (30.0, "now takes width=")])
def test_a_decision_that_comes_out_otherwise_is_refused(tmp_path: Path, wider: float, says: str) -> None:
    path = tmp_path / "journal.jsonl"
    mious = {TINY: 10.0, DEEP: 20.0, Operation("width", (0, 0, 0, 32, 32)).apply(START).design: 1.5}
    _small_search(path, mious, num_steps=1)
    changed = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(changed):
        if '"training"' in line:
            changed[number] = line.replace('"miou":20.0', '"miou":5.0').replace('"miou":1.5', f'"miou":{wider}')
    path.write_text("".join(changed))
    with pytest.raises(RunError, match=f"took depth=0,0,0,1,1 x1 before, and {says}"):
        _small_search(path, mious, num_steps=1)


def test_the_family_can_be_read_without_the_search(tmp_path: Path, undisturbed: Sequence[Event]) -> None:
    family = family_of(undisturbed)
    assert [member.step for member in family] == [0, 1, 2, 3, 4]
    assert family[0].network == START
    network = START
    for member in family[1:]:
        network = member.operation.apply(network, member.step_size)
        assert member.network == network
    steps = [event for event in undisturbed if isinstance(event, StepDecided)]
    for step, parent in zip(steps, family, strict=False):
        assert step.parent.member.network == parent.network
        assert step.parent.miou == parent.score.miou
        assert all(row.at_start is not None for row in step.candidates)
        assert step.row in step.candidates


def test_lines_that_were_put_back_by_hand_stand_once_and_in_their_place(undisturbed: Sequence[Event]) -> None:
    decided = [event for event in undisturbed if isinstance(event, StartKnown | StepDecided)]
    assert family_of([*decided[1:], *decided]) == family_of(undisturbed)


def test_the_journal_and_the_caller_get_the_same_events(tmp_path: Path) -> None:
    steps: list[Step] = []
    with _journal(tmp_path / "journal.jsonl") as journal:
        found = expand(
            START,
            operations=expansion_program.OPERATIONS,
            latency=JournalledLatency(journal, lambda designs: expansion_program.measured(designs, journal)),
            performance=JournalledPerformance(journal, lambda it, by: expansion_program.trained(it, by, tmp_path)),
            options=SearchOptions(num_steps=2, max_step_size=2),
            on_start=lambda member: record_start(journal, member),
            on_step=lambda step: (steps.append(step), record_step(journal, step)),
        )
        assert tuple(steps) == found.steps
        assert family_of(journal.events) == list(found.members)
