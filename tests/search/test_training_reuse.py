"""Trainings taken over from a run on another machine: only the very same ones, with their weights."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from expansion_tiny import REPETITIONS, RUN, TableDevice, train_in_no_time, work

from lpsnet.errors import RunError
from lpsnet.search.algorithm import SearchOptions
from lpsnet.search.journal import LatencyRepetition, TrainingFinished, read_journal
from lpsnet.search.operations import Design
from lpsnet.search.run import JOURNAL, ExpansionRun, run_expansion
from lpsnet.search.train import CandidateTask
from lpsnet.training.config import Recipe

ONE_STEP = replace(RUN, options=SearchOptions(num_steps=1, max_step_size=2))


class _Slower(TableDevice):
    """Another machine: it takes three times as long for everything, and longer still for deep networks."""

    def measure_once(self, designs: Sequence[Design]) -> list[float]:
        return [3 * work(it) * (2 if sum(it.architecture.blocks) > 5 else 1) for it in designs]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpsnet.search.results.export_onnx", lambda net, path, **options: path.touch())


def _run(out: Path, run: ExpansionRun = ONE_STEP, *, others: Sequence[Path] = (), here: bool = False) -> list[str]:
    """The designs trained, by their text."""
    trained: list[str] = []

    def train(task: CandidateTask):
        trained.append(str(task.design))
        return train_in_no_time(task)

    device = TableDevice(out) if here else _Slower(out, machine="another table")
    run_expansion(run, out, device=device, train=train, repetitions=REPETITIONS, trainings_from=others)
    return trained


def _trainings(out: Path) -> dict[str, TrainingFinished]:
    return {it.design: it for it in read_journal(out / JOURNAL) if isinstance(it, TrainingFinished)}


@pytest.fixture
def there(tmp_path: Path) -> Path:
    out = tmp_path / "there"
    _run(out, here=True)
    return out


def test_scores_and_weights_are_taken_over_and_latencies_are_not(there: Path, tmp_path: Path) -> None:
    out = tmp_path / "here"
    trained = _run(out, others=[there])
    old, new = _trainings(there), _trainings(out)
    shared = old.keys() & new.keys()
    assert len(shared) >= 2
    assert not shared & set(trained)
    for design in shared:
        assert new[design].miou == old[design].miou
        assert new[design].details["taken_from"].startswith("a table, begun ")
        model = str(new[design].details["model"])
        assert (out / model).read_bytes() == (there / model).read_bytes()
    assert all("taken_from" not in new[design].details for design in trained)
    repetitions = [it for it in read_journal(out / JOURNAL) if isinstance(it, LatencyRepetition)]
    assert repetitions
    assert {3 * work(Design.parse(it.designs[0])) for it in repetitions} == {it.ms[0] for it in repetitions}
    assert _run(out) == [], "the folder there is not needed any more"


def test_without_the_weights_it_is_trained_here(there: Path, tmp_path: Path) -> None:
    for model in there.glob("candidates/*/model.safetensors"):
        model.unlink()
    assert len(_run(tmp_path / "here", others=[there])) == len(_trainings(tmp_path / "here"))


def test_children_of_other_weights_are_not_taken_over(there: Path, tmp_path: Path) -> None:
    """The start was trained here, so its children there started from other weights."""
    out = tmp_path / "here"
    _run(out, replace(ONE_STEP, options=SearchOptions(num_steps=0)))
    assert len(_run(out, others=[there])) == len(_trainings(out)) - 1
    scratch, other = tmp_path / "scratch", tmp_path / "other"
    _run(scratch, replace(ONE_STEP, inherit=False), here=True)
    _run(other, replace(ONE_STEP, inherit=False, options=SearchOptions(num_steps=0)))
    trained = _run(other, replace(ONE_STEP, inherit=False), others=[scratch])
    assert not set(trained) & _trainings(scratch).keys(), "without inheritance the parent does not matter"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [(RUN.recipe.with_overrides({"seed": 3}), "recipe.seed: 0 in the journal, 3 now")],
)
def test_other_settings_are_refused(there: Path, tmp_path: Path, recipe: Recipe, says: str) -> None:
    with pytest.raises(RunError, match="cannot be reused") as refused:
        _run(tmp_path / "here", replace(ONE_STEP, recipe=recipe), others=[there])
    assert says in str(refused.value)
    with pytest.raises(RunError, match="No such file"):
        _run(tmp_path / "here", others=[tmp_path / "nowhere"])


def test_a_journal_cannot_name_weights_outside_of_its_folder(there: Path, tmp_path: Path) -> None:
    """The journal comes from another machine, and perhaps from somebody else."""
    journal = there / JOURNAL
    journal.write_text(re.sub(r'"model":"[^"]*"', '"model":"../../secret"', journal.read_text()))
    (tmp_path / "secret").write_text("not yours")
    with pytest.raises(RunError, match="leads out of the folder"):
        _run(tmp_path / "deep" / "here", others=[there])
    assert [path for path in tmp_path.rglob("secret*") if path.is_file()] == [tmp_path / "secret"]
