"""Candidates that are behind are trained no further: which, how much that saves, and that nothing else changes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from expansion_landscapes import START
from expansion_oracle import preferred
from expansion_tiny import DATA, NUM_CLASSES, RECIPE, REPETITIONS, RUN, SIZE, TableDevice, train_in_no_time
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet.errors import RunError
from lpsnet.inference.model_file import read_record
from lpsnet.models.checkpoint import load_checkpoint, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.family import Expansion
from lpsnet.search.journal import TrainingFinished, TrainingResult, read_journal
from lpsnet.search.measurements import Failure, Latency, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design, Operation, table_1
from lpsnet.search.run import JOURNAL, run_expansion
from lpsnet.search.step_size import better_half
from lpsnet.search.train import CandidateTask, train_candidate
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import RunFolder


@dataclass(frozen=True)
class Point:
    score: Score
    latency: Latency


def at(miou: float, ms: float, spread: float = 0.0) -> Point:
    return Point(Score(miou, spread), Latency.exactly(ms))


points = st.tuples(st.integers(40, 60), st.integers(5, 15))


@settings(deadline=None)
@given(points, st.lists(points, min_size=1, max_size=9))
def test_the_better_half_by_comparing_each_with_each(parent: tuple[int, int], found: list[tuple[int, int]]) -> None:
    """Kept is who is beaten by fewer than half of all; of two that do not gain, the higher mIoU, then the faster."""

    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        if one[0] <= parent[0] and other[0] <= parent[0]:
            return (one[0], -one[1]) > (other[0], -other[1])
        return preferred(one, other, parent)

    expected = [
        index for index, it in enumerate(found) if sum(beats(other, it) for other in found) < -(-len(found) // 2)
    ]
    assert better_half(at(*parent), [at(*it) for it in found]) == expected


def test_what_may_be_as_good_as_the_last_of_the_half_is_kept() -> None:
    """Gains of 4, 3, 2 and 1 points for 1 ms each: two are kept; the third if 0.5 points either way may be luck."""
    mious = (54.0, 53.0, 52.0, 51.0)
    for spread, kept in ((0.0, [0, 1]), (0.49, [0, 1]), (0.51, [0, 1, 2]), (1.01, [0, 1, 2, 3])):
        assert better_half(at(50.0, 1.0), [at(miou, 2.0, spread) for miou in mious]) == kept
    slow = Point(Score(52.0), Latency(2.0, 1.6, 2.4))  # 2 points for 0.6 ms at best: 3.3 a ms
    assert better_half(at(50.0, 1.0), [at(54.0, 2.0), at(53.0, 2.0), slow, at(51.0, 2.0)]) == [0, 1, 2]
    assert better_half(at(50.0, 1.0), []) == []


class Curves:
    """Latencies grow by 1 ms with every candidate; scores after a part of a training from a table of curves."""

    def __init__(self, curves: Sequence[Mapping[int, float | None]], control: Mapping[int, float]) -> None:
        self.operations = table_1()[: len(curves)]
        designs = [it.apply(START).design for it in self.operations]
        assert len(set(designs)) == len(curves)
        self.curves = dict(zip(designs, curves, strict=True)) | {START.design: control}
        self.trained: list[tuple[Design, int]] = []

    def latency(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        return {it: Latency.exactly(1.0 if it == START.design else 2.0) for it in designs}

    def performance(self, designs: Sequence[Design], spec: TrainingSpec) -> Mapping[Design, Outcome]:
        self.trained += [(it, spec.part) for it in designs if spec.parent is not None]
        found = {it: 50.0 if spec.parent is None else self.curves[it][spec.part] for it in designs}
        return {it: Failure("it diverged") if miou is None else Score(miou) for it, miou in found.items()}

    def search(self, **options: bool) -> Expansion:
        return expand(
            START,
            latency=self.latency,
            performance=self.performance,
            operations=self.operations,
            options=SearchOptions(num_steps=1, max_step_size=1, control=True, **options),
        )

    def lengths(self) -> float:
        """Of all trainings after the start, a training that goes on counted by what it adds, in whole trainings."""
        last: dict[Design, Fraction] = {}
        for design, part in self.trained:
            last[design] = max(last.get(design, Fraction(0)), Fraction(1, part))
        return float(sum(last.values()))


CONTROL = {4: 51.0, 2: 51.5, 1: 52.0}


def rising(gain: float) -> dict[int, float | None]:
    """A candidate whose gain over the control is seen from the first quarter on."""
    return {part: miou + gain for part, miou in CONTROL.items()}


def test_a_race_of_eight_takes_the_same_for_half_of_the_training() -> None:
    gains = (1.0, 7.0, 3.0, 5.0, 8.0, 2.0, 6.0, 4.0)
    whole, race = (Curves([rising(gain) for gain in gains], CONTROL) for _ in range(2))
    expected, found = whole.search().steps[0], race.search(race=True).steps[0]
    assert found.chosen == expected.chosen
    assert found.chosen.operation == race.operations[4]
    assert {it.operation for it in found.candidates} == {race.operations[4], race.operations[1]}
    assert [part for _, part in race.trained].count(4) == 8 + 1, "the control races along"
    assert [part for _, part in race.trained].count(2) == 4 + 1
    assert [part for _, part in race.trained].count(1) == 2 + 1
    # 4 end at a quarter, 2 at half, 2 and the control at the end
    assert (whole.lengths(), race.lengths()) == (9.0, 4 / 4 + 2 / 2 + 3)
    assert [(str(it.operation), it.reason) for it in found.excluded][:2] == [
        ("depth=0,1,1,1,1", "out after 1/4 of the training: 52.00 mIoU, parent 51.00"),
        ("depth=0,0,0,1,1", "out after 1/4 of the training: 54.00 mIoU, parent 51.00"),
    ]
    assert len(found.excluded) == 6


def test_one_that_comes_late_is_lost_and_one_that_fails_is_said() -> None:
    late, broken = {4: 50.0, 2: 60.0, 1: 70.0}, {4: None, 2: 80.0, 1: 90.0}
    curves = Curves([late, rising(3.0), rising(2.0), broken], CONTROL)
    step = curves.search(race=True).steps[0]
    assert step.chosen.operation == curves.operations[1]
    reasons = {it.operation: it.reason for it in step.excluded}
    assert "50.00 mIoU, parent 51.00" in reasons[curves.operations[0]]
    assert "training failed: it diverged" in reasons[curves.operations[3]]
    assert (
        Curves([late, rising(3.0), rising(2.0), broken], CONTROL).search().steps[0].chosen.operation
        == (curves.operations[3])
    ), "without a race the late one and the one that would recover are trained"


def test_a_race_compares_latencies_of_one_measurement() -> None:
    """The start alone took 1.9 ms, and 1 ms beside the others: 2 points for 1 ms are then less than 8 for 3."""
    curves = Curves([rising(2.0), rising(8.0)], CONTROL)
    slower = curves.operations[1].apply(START).design

    def latency(designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        own = 1.0 if len(designs) > 1 else 1.9
        times = {it: own if it == START.design else 4.0 if it == slower else 2.0 for it in designs}
        return {it: Latency.exactly(ms) for it, ms in times.items()}

    curves.latency = latency  # type: ignore[method-assign]
    assert curves.search(race=True).steps[0].chosen.operation == curves.operations[1]


def test_without_a_control_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(RunError, match="needs the control"):
        SearchOptions(race=True)
    assert not SearchOptions().race


@pytest.mark.training
def test_a_training_in_parts_is_the_training(tmp_path: Path) -> None:
    """Real ones: after a quarter, half and all of it, and at once. Parts may be left out."""
    parent = tmp_path / "parent.safetensors"
    design = Operation.parse("context=gate").apply(RUN.start).design
    torch.manual_seed(0)
    save_checkpoint(create_model(RUN.start.design.architecture, num_classes=NUM_CLASSES, form=RECIPE.form), parent)
    training = TrainingRun(DATA, design.architecture, RECIPE, block=design.block, input_size=SIZE)

    def trained(folder: str, part: int) -> tuple[Outcome, dict[str, torch.Tensor]]:
        result = train_candidate(CandidateTask(design, training, "val", tmp_path / folder, parent, 1, part))
        path = tmp_path / folder / "model.safetensors"
        assert read_record(path).training["iterations"] == RECIPE.iterations // part
        return result.outcome, load_checkpoint(path).state_dict()

    quarter, again, half, whole = (trained("parts", part) for part in (4, 4, 2, 1))
    for one, other in ((quarter, again), (half, trained("half", 2)), (whole, trained("at_once", 1))):
        assert one[0] == other[0]
        assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())
    weights = [it[1]["head.weight"] for it in (quarter, half, whole)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.training
def test_a_pause_at_the_end_of_an_epoch_is_one_evaluation(tmp_path: Path) -> None:
    """An epoch is 3 iterations and a quarter of the training 6: where it pauses an evaluation is due as well."""
    design, folder = RUN.start.design, tmp_path / "parts"
    recipe = RECIPE.with_overrides({"evaluate_every": 1, "keep_best": True})
    training = TrainingRun(DATA, design.architecture, recipe, block=design.block, input_size=SIZE)
    for part in (4, 2, 1):
        train_candidate(CandidateTask(design, training, "val", folder, None, 1, part))
        found = [line["iteration"] for line in RunFolder(folder).read_evaluations()]
        assert found == list(range(3, RECIPE.iterations // part + 1, 3))
        assert ("finished" in read_record(folder / "model.safetensors").training) is (part == 1)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported."""
    monkeypatch.setattr("lpsnet.search.results.export_onnx", lambda net, path, **options: path.touch())


@pytest.mark.usefixtures("bare")
def test_every_part_is_a_line_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    options = SearchOptions(num_steps=2, max_step_size=2, control=True, race=True)
    run = replace(RUN, options=options)
    states: list[set[str]] = []

    def train(task: CandidateTask) -> TrainingResult:
        states.append({it.parent.name for it in (tmp_path / "candidates").glob("*/state.safetensors")})
        return train_in_no_time(task)

    def search(train) -> dict[str, object]:
        return run_expansion(
            run, tmp_path, device=TableDevice(tmp_path), train=train, repetitions=REPETITIONS
        ).to_dict()

    result = search(train)
    content = (tmp_path / JOURNAL).read_bytes()
    lines = [it for it in read_journal(tmp_path / JOURNAL) if isinstance(it, TrainingFinished)]
    keys = [(it.design, it.parent, it.seed, it.length, it.part) for it in lines]
    assert len(keys) == len(set(keys))
    assert [it.part for it in lines if it.parent][:4] == [4] * 4, "three candidates and the control"
    assert {it.part for it in lines} == {1, 2, 4}
    assert all(
        ('"part"' in line) == ('"part":2' in line or '"part":4' in line) for line in content.decode().split("\n")
    )
    assert max(map(len, states)) >= 4, "what may be trained further is kept"
    assert not list((tmp_path / "candidates").glob("*/state.safetensors"))
    assert json.loads((tmp_path / "plan.json").read_text())["race"] is True

    def never(task: CandidateTask) -> TrainingResult:
        pytest.fail("it trains again")

    assert search(never) == result
    assert (tmp_path / JOURNAL).read_bytes() == content
    (tmp_path / JOURNAL).write_bytes(b"".join(line + b"\n" for line in content.split(b"\n")[: len(lines)]))
    assert search(train_in_no_time) == result, "stopped at any line it comes to the same"
