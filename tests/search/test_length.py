"""Where no candidate gains, trainings may be too short to decide: all of a step again, and for longer."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from expansion_landscapes import DEPTH, PATH, START, WIDTH

from lpsnet.errors import RunError
from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.family import Expansion, Member, lengths_note
from lpsnet.search.measurements import Latency, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design

DEEPER, WIDER, NEW_PATH = (it.apply(START).design for it in (DEPTH, WIDTH, PATH))


class Slow:
    """Every change costs time; scores depend on the spec."""

    def __init__(self, miou: Callable[[Design, TrainingSpec], float]) -> None:
        self.specs: list[tuple[tuple[Design, ...], TrainingSpec]] = []
        self._miou = miou

    @property
    def control_seeds(self) -> list[int]:
        return [spec.seed for designs, spec in self.specs if START.design in designs and spec.parent]

    def latency(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        def size(it: Design) -> int:
            return sum(it.architecture.blocks) + sum(it.architecture.widths) + it.architecture.num_paths

        return {it: Latency.exactly(float(size(it))) for it in designs}

    def performance(self, designs: Sequence[Design], spec: TrainingSpec) -> Mapping[Design, Outcome]:
        self.specs.append((tuple(designs), spec))
        return {it: Score(self._miou(it, spec), at_start=None if spec.parent is None else 50.0) for it in designs}

    def search(
        self,
        *,
        on_progress: Callable[[str], None] | None = None,
        lengths: Mapping[int, int] | None = None,
        **options: Any,
    ) -> Expansion:
        return expand(
            START,
            latency=self.latency,
            performance=self.performance,
            operations=[DEPTH, WIDTH, PATH],
            options=SearchOptions(**{"num_steps": 1, "max_step_size": 1, "control": True, **options}),
            lengths=lengths,
            on_progress=on_progress,
        )


def late(design: Design, spec: TrainingSpec) -> float:
    """More training alone gives 1 point; a change gives one more, once it is three times as long."""
    if spec.parent is None:
        return 50.0
    return 50.0 + spec.length + (1.0 if design != spec.parent and spec.length >= 3 else 0.0)


def only_wider(design: Design, spec: TrainingSpec, *, gain: float, luck: float) -> float:
    """The widest gains that much over the control, others lose; seeds differ by `luck`."""
    return 50.0 + gain * (design == WIDER) - 9.0 * (design in (DEEPER, NEW_PATH)) + luck * spec.seed


def test_all_are_trained_for_longer_and_so_are_those_of_the_steps_after_it() -> None:
    slow = Slow(late)
    first, second = slow.search(num_steps=2, max_length=9).steps
    together = (DEEPER, WIDER, NEW_PATH, START.design)  # the control, too: nothing waits for it alone
    assert slow.specs[:3] == [
        ((START.design,), TrainingSpec()),
        (together, TrainingSpec(START.design)),
        (together, TrainingSpec(START.design, length=3)),
    ]
    assert {spec.length for _, spec in slow.specs[3:]} == {3}
    assert (first.length, first.chosen.length, first.chosen.score.miou) == (3, 3, 54.0)
    assert (first.parent.score.miou, first.parent.length) == (53.0, 1)
    assert first.verdict.endswith("x1, trained 3 times as long")
    assert second.chosen.length == 3


def test_past_the_bound_the_search_ends() -> None:
    slow, said = Slow(lambda design, spec: 50.0 if spec.parent is None else 51.0 - (design != spec.parent)), []
    (step,) = slow.search(max_length=4, on_progress=said.append).steps
    why = "step 1: no candidate gains: the best has 50.00 mIoU, their parent 51.00"
    line_of = why + "; training all candidates {} times as long"
    assert [line for line in said if "training all" in line] == [f"{line_of.format(n)} as at first" for n in (3, 4)]
    assert [spec.length for designs, spec in slow.specs if WIDER in designs] == [1, 3, 4]
    assert (step.chosen, step.length) == (None, 4)
    assert step.stop == "no candidate gains: the best has 50.00 mIoU, their parent 51.00"
    assert step.verdict.endswith("51.00, trained 4 times as long")


def test_unless_asked_for_the_search_ends_at_once() -> None:
    slow = Slow(late)
    (step,) = slow.search().steps
    assert (step.chosen, step.length) == (None, 1)
    assert {spec.length for _, spec in slow.specs} == {1}
    with pytest.raises(RunError, match="max_length of a search is at least 1"):
        SearchOptions(max_length=0)


def test_where_a_candidate_gains_nothing_is_repeated() -> None:
    slow = Slow(lambda design, spec: 60.0 if spec.parent is not None and design != spec.parent else 50.0)
    slow.search(max_length=9)
    assert {spec.length for _, spec in slow.specs} == {1}


def test_without_a_control_the_parent_keeps_its_score() -> None:
    slow = Slow(lambda design, spec: 50.0 if spec.parent is None else 48.0 + spec.length)
    (step,) = slow.search(max_length=9, control=False).steps
    assert (step.length, step.chosen.score.miou, step.parent.score.miou) == (3, 51.0, 50.0)


def test_a_gain_within_the_noise_takes_longer_trainings_too() -> None:
    """Short: seeds differ by 1 point and the widest gains 0.5 over the control. Three times as long it gains 6."""

    def miou(design: Design, spec: TrainingSpec) -> float:
        return spec.length + only_wider(design, spec, gain=6.0 if spec.length == 3 else 0.5, luck=1.0)

    slow, said = Slow(miou), []
    (step,) = slow.search(max_length=3, max_seeds=2, on_progress=said.append).steps
    assert (step.length, step.chosen.operation, step.gain_is_sure, step.decided) == (3, WIDTH, True, True)
    why = f"the gain of {WIDTH} lies within the noise of the scores"
    assert f"step 1: {why}; training all candidates 3 times as long as at first" in said


def test_while_it_is_open_whether_anything_gains_the_control_is_repeated_and_then_the_step_is_undecided() -> None:
    slow = Slow(partial(only_wider, gain=0.5, luck=2.0))
    (step,) = slow.search(max_length=1, max_seeds=3).steps
    assert slow.control_seeds == [0, 1, 2]
    assert (step.chosen.operation, step.doubt, step.rivals, step.gain_is_sure) == (WIDTH, "score", (), False)
    assert step.verdict == f"takes {WIDTH} x1; undecided, within the noise of the score it may gain nothing"


def test_a_sure_gain_repeats_no_control() -> None:
    slow = Slow(partial(only_wider, gain=6.0, luck=0.2))
    (step,) = slow.search(max_length=9, max_seeds=3).steps
    assert (slow.control_seeds, step.length, step.decided) == ([0], 1, True)


def test_how_much_is_luck_is_known_of_each_length_by_itself() -> None:
    """Short trainings of the start differ by 8 points between seeds, long ones of the leaders by 0.02."""

    def miou(design: Design, spec: TrainingSpec) -> float:
        luck = 0.02 if spec.length == 3 else 8.0
        return late(design, spec) - luck * spec.seed

    slow = Slow(miou)
    (step,) = slow.search(max_length=3, max_seeds=2).steps
    assert step.chosen.score.num_seeds == 2
    assert step.chosen.score.spread < 0.02


def test_a_table_says_which_were_trained_for_longer() -> None:
    member = Member(0, START, Latency.exactly(1.0), Score(50.0))
    longer = Member(1, WIDTH.apply(START), Latency.exactly(2.0), Score(55.0), WIDTH, 1, 3)
    assert lengths_note([member]) == ""
    assert lengths_note([member, longer]).endswith(
        f"not comparable with the mIoU of the others: {longer.network} (3 times)."
    )


def test_steps_that_are_decided_keep_their_length_and_those_after_them_may_take_longer() -> None:
    """As on a search resumed with a higher `max_length` than it was begun with."""

    def miou(design: Design, spec: TrainingSpec) -> float:
        """Gains surely in no step; by so much that each is chosen."""
        return 50.0 + spec.length + 0.5 * (design != spec.parent) + 1.0 * spec.seed

    slow = Slow(miou)
    first, second = slow.search(num_steps=2, max_length=9, max_seeds=2, lengths={1: 1}).steps
    assert (first.length, first.chosen.length) == (1, 1)
    assert (second.length, second.chosen.length) == (9, 9)


def test_a_decided_step_is_trained_as_long_as_then_though_less_is_allowed_now() -> None:
    first, second = Slow(late).search(num_steps=2, max_length=1, lengths={1: 3}).steps
    assert (first.length, first.chosen.length) == (3, 3)
    assert second.length == 3  # steps never go back to shorter ones
