"""A whole expansion: what it leaves, that it resumes, and what it refuses."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import expansion_tiny
import pytest
from expansion_tiny import (
    DATA,
    NUM_CLASSES,
    OPERATIONS,
    QUICK_TURN,
    REPETITIONS,
    RUN,
    SIZE,
    START,
    TableDevice,
    run_with_real_trainings,
    train_in_no_time,
    work,
)

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import ModelFileError, RunError
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.models.profile import complexity
from lpsnet.report.report import write_report
from lpsnet.report.search import read_expansion
from lpsnet.search.algorithm import SearchOptions
from lpsnet.search.executors import FakeExecutor, LocalPool
from lpsnet.search.journal import (
    Event,
    Header,
    LatencyRepetition,
    StepDecided,
    TrainingFinished,
    TrainingResult,
    TrainingStarted,
    open_journal,
    read_journal,
)
from lpsnet.search.measure import Target
from lpsnet.search.measurements import Limits, Score
from lpsnet.search.operations import Design, Operation
from lpsnet.search.results import SearchResult
from lpsnet.search.run import JOURNAL, ExpansionRun, run_expansion
from lpsnet.search.train import CandidateTask, train_candidate
from lpsnet.training.config import get_recipe


def quickly(run: ExpansionRun, out: Path, **options) -> SearchResult:
    """Everything but the training and the measuring is real."""
    options = {"device": TableDevice(out), "train": train_in_no_time, "repetitions": REPETITIONS, **options}
    return run_expansion(run, out, **options)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    out = tmp_path_factory.mktemp("quick")
    return out, quickly(replace(RUN, budgets_ms=(30.0, 12.0, 0.5)), out)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step with real trainings."""
    out = tmp_path_factory.mktemp("undisturbed")
    run_with_real_trainings(out, num_steps=1)
    return out


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported, which takes longer than all the rest."""
    monkeypatch.setattr("lpsnet.search.results.export_onnx", lambda net, path, **options: path.touch())


def what_counts(out: Path) -> list[dict[str, object]]:
    """All lines in order, but for times, and for trainings begun, which killed runs begin again."""
    lines = [it.model_dump(exclude={"at"}) for it in _events(out) if not isinstance(it, TrainingStarted)]
    for line in lines:
        line.get("details", {}).pop("seconds", None)
    return lines


def _events(out: Path) -> list[Event]:
    return read_journal(out / JOURNAL)


def test_every_step_leaves_its_network(quick: tuple[Path, SearchResult]) -> None:
    out, result = quick
    members = result.members
    assert [member.step for member in members] == [0, 1, 2]
    assert members[0].network == START
    for number, member in enumerate(members):
        for suffix in (".safetensors", ".onnx"):
            record = read_record(out / "family" / f"step_{number}{suffix}")
            assert record.architecture == member.design.architecture
        assert record.input_size == SIZE
        labels = Segmenter(result.model(member))(open_dataset(DATA).split("val").image(0))
        assert labels.shape == SIZE
    assert not list(out.glob("candidates/*/state.safetensors")), "what a finished training needed to resume is deleted"


def test_networks_under_budgets(quick: tuple[Path, SearchResult]) -> None:
    result = quick[1]
    steps = {step.number: step for step in result.found.steps}
    trained = {result.members[0].design} | {it.design for step in steps.values() for it in step.candidates}
    assert [choice.budget_ms for choice in result.choices] == [0.5, 12.0, 30.0]
    none, *others = result.choices
    assert (none.member, none.model) == (None, None)
    assert str(none) == "0.5 ms: no trained network is this fast"
    for choice in others:
        assert choice.member.latency.median_ms <= choice.budget_ms
        assert choice.member.design in trained
        assert read_record(choice.model).architecture == choice.member.design.architecture
        assert str(choice).startswith(
            f"{choice.budget_ms:g} ms: {choice.model.name}, {choice.member.score.miou:.1f} mI"
        )
    assert result.best == others[-1].member


@pytest.mark.usefixtures("bare")
def test_a_faster_network_that_is_as_good_is_named_too(tmp_path: Path) -> None:
    """Scores whose spread is larger than all that is gained: the start, the fastest, may be as good as any."""
    result = quickly(replace(RUN, budgets_ms=(30.0,)), tmp_path)
    noisy = [replace(it, score=replace(it.score, spread=40.0)) for it in result.members]
    (choice,) = SearchResult.of(result.found, noisy, budgets_ms=[30.0], folder=tmp_path).choices
    faster = [it for it in noisy if it.latency.median_ms < choice.member.latency.median_ms]
    assert choice.faster == max(faster, key=lambda it: it.score.miou)
    end = f"; as good within the noise, and faster: {choice.faster_model.name}, {choice.faster.score.miou:.1f} at "
    assert end in str(choice)


@pytest.mark.usefixtures("bare")
def test_nothing_above_the_largest_budget_is_grown(tmp_path: Path) -> None:
    result = quickly(replace(RUN, budgets_ms=(2.0, 7.0)), tmp_path)
    assert result.members[-1].latency.median_ms <= 7.0
    assert any("limit 7 ms" in it.reason for step in result.found.steps for it in step.excluded)


def test_the_tables(quick: tuple[Path, SearchResult]) -> None:
    out, result = quick
    page = (out / "family" / "table.md").read_text()
    for member in result.members:
        assert f"| {member.step} | {{{', '.join(map(str, member.network.blocks))}}}" in page
    for text in (
        "## Under a budget",
        "- 0.5 ms: no",
        "## Pareto front",
        "## Step 1 takes ",
        "## Step 2 ",
        "| chosen |",
    ):
        assert text in page
    kept = json.loads((out / "family" / "family.json").read_text())
    assert kept == json.loads(json.dumps(result.to_dict()))
    assert [row["step"] for row in kept["family"]] == [0, 1, 2]
    assert [row["at_start"] for row in kept["family"]] == [None, 10.0, 10.0]
    nothing = {"network": None, "model": None, "interval_reaches_above": False, "faster_as_good": None}
    assert kept["choices"][0] == {"budget_ms": 0.5, **nothing}
    assert {row["operation"] for row in kept["steps"][0]["candidates"]} == set(map(str, OPERATIONS))


def test_the_front_is_of_all_trained_networks(quick: tuple[Path, SearchResult]) -> None:
    _, result = quick
    front = [(it.latency.median_ms, it.score.miou) for it in result.front]
    assert front == sorted(front)
    assert [miou for _, miou in front] == sorted({miou for _, miou in front})
    for member in result.members:
        latency, miou = member.latency.median_ms, member.score.miou
        assert (latency, miou) in front or any(x <= latency and y >= miou for x, y in front)


def test_the_files_of_a_family(tmp_path: Path) -> None:
    quickly(replace(RUN, options=SearchOptions(num_steps=0), budgets_ms=(30.0,)), tmp_path)
    assert {path.name for path in (tmp_path / "family").iterdir()} == {
        *("step_0.safetensors", "step_0.onnx", "family.json", "plan.json", "table.md")
    }
    asked = json.loads((tmp_path / "plan.json").read_text())
    assert (asked["num_steps"], asked["budgets_ms"]) == (0, [30.0])


@pytest.mark.usefixtures("bare")
def test_what_a_person_reads_meanwhile(tmp_path: Path) -> None:
    lines: list[str] = []
    quickly(replace(RUN, options=replace(RUN.options, num_steps=1)), tmp_path, on_progress=lines.append)
    text = "\n".join(lines)
    for expected in (
        "step 0: measuring and training the start, B={1, 1, 1, 1, 1}",
        "step 1 of 1: step sizes for 3 operations",
        "  measuring 4 networks interleaved",
        "  training 2 of 3: conv3x3;B=",
        "  trained 2 of 3: conv3x3;B=",
        "  1 left in this step, about 0 min",
        "step 1 takes ",
    ):
        assert expected in text
    again: list[str] = []
    quickly(replace(RUN, options=replace(RUN.options, num_steps=2)), tmp_path, on_progress=again.append)
    assert again[0].startswith("resuming with ")
    assert "4 trainings, 1 steps done before" in again[0]
    assert any("step 1 takes" in line and "1 more to go" in line for line in again)


def test_a_finished_run_that_is_started_again_does_nothing(quick: tuple[Path, SearchResult]) -> None:
    out, result = quick
    before = (out / JOURNAL).read_bytes()
    files = {path: path.stat().st_mtime_ns for path in (out / "family").glob("step_*")}
    device = TableDevice(out)
    again = quickly(replace(RUN, budgets_ms=(30.0, 12.0, 0.5)), out, device=device, train=_never)
    assert (out / JOURNAL).read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (out / "family").glob("step_*")} == files
    assert device.calls == []
    assert again == result


def _never(task: CandidateTask):
    pytest.fail("it trains again")


@pytest.mark.usefixtures("bare")
def test_todays_networks_grow_and_resume_as_the_papers_do(tmp_path: Path) -> None:
    """Latencies and scores of these tables know nothing of additions: what a network has is kept in every step."""
    start = START.replace(detail=8, context="gate", head=16, block="conv3x3,conv3x3,conv3x3,conv3x3,ghost")
    more = tuple(map(Operation.parse, ("detail=4", "context=pyramid", "head=32", "unit@4=ghost")))
    run = replace(RUN, start=start, operations=(*OPERATIONS, *more))
    result = quickly(run, tmp_path)
    assert len(result.members) == 3
    for member in result.members:
        design = member.design
        assert str(design).startswith("conv3x3,conv3x3,conv3x3,conv3x3,ghost;")
        assert str(design).endswith(";D=8;X=gate;H=16")
        assert read_record(result.model(member).with_suffix(".safetensors")).architecture == design.architecture
    tried = {str(it.operation) for it in result.found.steps[0].candidates}
    assert tried >= {str(it) for it in more}
    content = (tmp_path / JOURNAL).read_bytes()
    again = quickly(run, tmp_path, train=_never)
    assert again.to_dict() == result.to_dict()
    assert (tmp_path / JOURNAL).read_bytes() == content
    assert read_expansion(tmp_path).found.steps == result.found.steps
    assert "D=8 X=gate H=16" in (tmp_path / "family" / "table.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("bare")
def test_more_steps_and_other_budgets_may_be_asked_for(tmp_path: Path) -> None:
    one = quickly(replace(RUN, options=replace(RUN.options, num_steps=1)), tmp_path)
    more = quickly(replace(RUN, budgets_ms=(1000.0,)), tmp_path)
    assert [it.design for it in more.members[:2]] == [it.design for it in one.members]
    assert len(more.members) == 3
    trained = [it.design for it in _events(tmp_path) if isinstance(it, TrainingFinished)]
    assert len(trained) == len(set(trained))


@pytest.mark.usefixtures("bare")
def test_the_executor_is_given_a_step_at_a_time_and_the_device_rests(tmp_path: Path) -> None:
    fake, device = FakeExecutor(), TableDevice(tmp_path)
    result = quickly(RUN, tmp_path, executor=fake, device=device)
    assert [len(batch) for batch in fake.batches] == [1, 3, 3]
    start, first, second = fake.batches
    assert start[0].parent is None
    for batch, parent in ((first, result.members[0]), (second, result.members[1])):
        for task in batch:
            assert read_record(task.parent).architecture == parent.design.architecture
            assert task.run.architecture == task.design.architecture
            assert task.run.input_size == SIZE
    assert device.calls.count("release") == 3
    assert all(device.calls[i - 1] == "measure" for i, call in enumerate(device.calls) if call == "release")


@pytest.mark.usefixtures("bare")
def test_without_inheritance_nothing_is_taken_over(tmp_path: Path) -> None:
    fake, init = FakeExecutor(), tmp_path / "weights.safetensors"
    save_checkpoint(create_model(START.design.architecture, num_classes=NUM_CLASSES), init)
    other = (*OPERATIONS, Operation.parse("block=ghost"))
    run = replace(RUN, inherit=False, init=init, operations=other, options=SearchOptions(num_steps=1))
    quickly(run, tmp_path / "run", executor=fake)
    tasks = [task for batch in fake.batches for task in batch]
    assert {task.design.block for task in tasks} == {"conv3x3", "ghost"}
    for task in tasks:  # blocks of another kind share no weights with the checkpoint
        assert (task.parent, task.run.init) == (None, init if task.design.block == "conv3x3" else None)


def by_seed(task: CandidateTask) -> TrainingResult:
    """`train_in_no_time`, with a score that a seed changes, more for those that no step sees, and one held out."""
    result = train_in_no_time(task)
    assert isinstance(result.outcome, Score)
    seed = task.run.recipe.seed
    score = replace(result.outcome, miou=result.outcome.miou - (2.0 if seed >= 1000 else 0.2 * (seed % 2)))
    held_out = {"held_out_miou": result.outcome.miou - 5} if task.held_out else {}
    return TrainingResult(task.design, score, {**result.details, **held_out})


@pytest.mark.usefixtures("bare")
def test_what_was_chosen_is_scored_by_what_no_step_has_seen(tmp_path: Path) -> None:
    """Fresh seeds after the search, two for each choice; a third of val held out of all trainings."""
    options = replace(RUN.options, max_seeds=2, control=True, simultaneous=True)
    run = replace(RUN, options=options, fresh_seeds=2, holdout_share=0.34)
    result = quickly(run, tmp_path, train=by_seed)
    lines = [it for it in _events(tmp_path) if isinstance(it, TrainingFinished)]
    fresh = [(it.design, it.seed) for it in lines if it.seed >= 1000]
    assert fresh == [(str(it.design), seed) for it in result.members[1:] for seed in (1000, 1001)]
    search = read_expansion(tmp_path)
    decided = [it.trust for it in _events(tmp_path) if isinstance(it, StepDecided)]
    assert [step.trust for step in search.found.steps] == decided
    assert None not in decided
    for step, unseen in zip(search.found.steps, search.unseen, strict=True):
        assert step.chosen.score.miou - unseen.fresh == pytest.approx(1.9), "the mean of 0 and 0.2 less than 2"
        assert unseen.num_fresh == 2
        gain = 90 / work(step.parent.design) ** 0.5 - 90 / work(step.chosen.design) ** 0.5
        assert unseen.held_out - unseen.parent_held_out == pytest.approx(gain)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    whole = 90 / work(START.design) ** 0.5 - 90 / work(result.members[-1].design) ** 0.5
    assert f"{whole:.2f} on those that no step has seen" in page
    for text in ("How far the choices can be trusted", "Fresh seeds (%)", "Gain, held out (points)", "Corrected (%)"):
        assert text in page
    before = (tmp_path / JOURNAL).read_bytes()
    quickly(run, tmp_path, train=by_seed)
    assert (tmp_path / JOURNAL).read_bytes() == before
    with pytest.raises(RunError, match=r"holdout_share: 0\.34 in the journal, not set now"):
        quickly(replace(run, holdout_share=0.0), tmp_path, train=by_seed)


def test_missing_weights_are_refused_before_anything_is_begun(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model file at .*nowhere"):
        quickly(replace(RUN, init=tmp_path / "nowhere.safetensors"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("bare")
def test_a_limit_on_parameters(tmp_path: Path) -> None:
    deeper = complexity(OPERATIONS[0].apply(START).design.architecture, num_classes=NUM_CLASSES).parameters
    limited = replace(RUN.options, num_steps=1, limits=Limits(parameters=deeper))
    step = quickly(replace(RUN, options=limited), tmp_path).found.steps[0]
    assert {(it.operation, it.step_size) for it in step.candidates} >= {(OPERATIONS[0], 1)}
    for it in step.candidates:
        assert complexity(it.design.architecture, num_classes=NUM_CLASSES).parameters <= deeper
    assert any(f"parameters, limit {deeper:,}" in it.reason for it in step.excluded)


@pytest.mark.usefixtures("bare")
def test_a_control_is_trained_and_its_weights_are_not_handed_over(tmp_path: Path) -> None:
    fake = FakeExecutor()
    controlled = replace(RUN, options=replace(RUN.options, control=True))
    result = quickly(controlled, tmp_path, executor=fake)
    first, second = ((task.design, task.parent) for task in (fake.batches[1][-1], fake.batches[2][-1]))
    weights = [it.details["model"] for it in _events(tmp_path) if isinstance(it, TrainingFinished) and it.is_first]
    for member, (design, parent) in zip(result.members, (first, second), strict=False):
        assert design == member.design
        assert f"candidates/{parent.parent.name}/model.safetensors" in weights
        family = result.model(member).with_suffix(".safetensors")
        assert family.read_bytes() == parent.read_bytes(), "the parent's own weights, not those trained on"
    trained = [(it.design, it.parent) for it in _events(tmp_path) if isinstance(it, TrainingFinished)]
    assert sum(design == parent for design, parent in trained) == 2


@pytest.mark.usefixtures("bare")
def test_children_of_what_was_trained_for_longer_start_from_those_weights(tmp_path: Path) -> None:
    def late(task: CandidateTask) -> TrainingResult:
        result = train_in_no_time(task)
        is_short = task.run.recipe.iterations == RUN.recipe.iterations
        return replace(result, outcome=Score(1.0, at_start=10.0)) if task.parent and is_short else result

    patient = replace(RUN, options=replace(RUN.options, max_length=9))
    result = quickly(patient, tmp_path, train=late)
    start, first, second = result.members
    assert (start.length, first.length, second.length) == (1, 3, 3)
    trained = {(it.design, it.length): it for it in _events(tmp_path) if isinstance(it, TrainingFinished)}
    longer = tmp_path / str(trained[str(first.design), 3].details["model"])
    assert longer.parent.name.endswith("-x3")
    assert trained[str(first.design), 1].details["model"] != trained[str(first.design), 3].details["model"]
    assert result.model(first).with_suffix(".safetensors").read_bytes() == longer.read_bytes()
    fake = FakeExecutor()
    again = quickly(patient, tmp_path, train=late, executor=fake)
    assert (fake.batches, again.members) == ([], result.members)
    fake = FakeExecutor()
    quickly(replace(patient, options=replace(patient.options, num_steps=3)), tmp_path, train=late, executor=fake)
    weights = tmp_path / str(trained[str(second.design), 3].details["model"])
    assert {task.parent for batch in fake.batches for task in batch} == {weights}
    assert {task.run.recipe.iterations for batch in fake.batches for task in batch} == {3 * RUN.recipe.iterations}


@pytest.mark.usefixtures("bare")
def test_a_limit_on_memory(tmp_path: Path) -> None:
    """Depth adds blocks and few feature maps, a new path adds maps: under its memory it is out."""
    costs = [RUN.cost(it.apply(START).design, num_classes=NUM_CLASSES).memory_mib for it in OPERATIONS]
    assert costs[2] > costs[0]
    limited = replace(RUN.options, num_steps=1, limits=Limits(memory_mib=costs[0]))
    step = quickly(replace(RUN, options=limited), tmp_path).found.steps[0]
    assert OPERATIONS[0] in [it.operation for it in step.candidates]
    assert "MiB, limit" in next(it.reason for it in step.excluded if it.operation == OPERATIONS[2])


def test_the_journal_says_all_that_figures_depend_on(quick: tuple[Path, SearchResult]) -> None:
    header = _events(quick[0])[0]
    assert isinstance(header, Header)
    assert header.settings["device"] == {"engine": "a table", "machine": "a table", "size": list(SIZE)}
    assert header.settings["data"] == DATA
    assert header.settings["recipe"]["iterations"] == 24
    for key in ("num_workers", "cache_mib", "evaluate_every"):
        assert key not in header.settings["recipe"]
    for key in ("split", "val", "start", "operations", "interaction", "inherit", "init"):
        assert key in header.settings
    assert not {"steps", "num_steps", "budgets_ms", "num_threads"} & set(header.settings)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": DATA + ",seed=1"}, "data: "),
        (
            {"recipe": RUN.recipe.with_overrides({"learning_rate": 0.5})},
            "recipe.learning_rate: 0.05 in the journal, 0.5",
        ),
        ({"inherit": False}, "inherit: true in the journal, false now"),
        ({"start": OPERATIONS[0].apply(START)}, "start: "),
        ({"operations": OPERATIONS[:1]}, "operations: "),
    ],
)
def test_a_journal_made_with_other_settings_is_refused(
    quick: tuple[Path, SearchResult], change: dict[str, object], says: str
) -> None:
    with pytest.raises(RunError, match="made with other settings") as refused:
        quickly(replace(RUN, **change), quick[0])
    assert says in str(refused.value)


def test_a_journal_of_other_data_or_weights_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """Which of the classes, images and weights there are is compared in tests of `data_contents`."""
    weights = tmp_path / "w.safetensors"
    save_checkpoint(create_model(START.design.architecture, num_classes=NUM_CLASSES), weights)
    run, out = replace(RUN, init=weights, options=SearchOptions(num_steps=0)), tmp_path / "out"
    quickly(run, out)
    quickly(run, out, train=_never)
    header, *lines = (out / JOURNAL).read_text().splitlines(keepends=True)
    inputs = json.loads(header)["settings"]["inputs"]
    assert list(inputs) == ["classes", "train", "train samples", "val", "val samples", "init"]
    for key, text in inputs.items():
        (out / JOURNAL).write_text("".join([header.replace(text, "7 others"), *lines]))
        with pytest.raises(RunError, match=f'inputs.{key}: "7 others" in the journal, "{re.escape(text)[:60]}'):
            quickly(run, out)
    older = json.loads(header)  # which looked at the names of generated scenes only
    for key in ("train samples", "val samples"):
        del older["settings"]["inputs"][key]
    (out / JOURNAL).write_text("".join([json.dumps(older, separators=(",", ":")) + "\n", *lines]))
    quickly(run, out, train=_never)
    (out / JOURNAL).write_text("".join([header, *lines]))
    save_checkpoint(create_model(START.design.architecture, num_classes=NUM_CLASSES), weights)
    with pytest.raises(RunError, match=r"inputs.init: .* in the journal, .* now"):
        quickly(run, out)


def test_a_journal_without_its_inputs_resumes(tmp_path: Path) -> None:
    """One of an older version."""
    run = replace(RUN, options=SearchOptions(num_steps=0))
    quickly(run, tmp_path)
    header, *lines = (tmp_path / JOURNAL).read_text().splitlines(keepends=True)
    older = json.loads(header)
    del older["settings"]["inputs"]
    (tmp_path / JOURNAL).write_text("".join([json.dumps(older, separators=(",", ":")) + "\n", *lines]))
    quickly(run, tmp_path, train=_never)


def test_a_journal_from_another_machine_is_not_mixed_in(quick: tuple[Path, SearchResult]) -> None:
    with pytest.raises(RunError, match=r'device.machine: "a table" in the journal, "another" now'):
        quickly(RUN, quick[0], device=TableDevice(quick[0], machine="another"))


def test_what_only_changes_the_pace_may_change(quick: tuple[Path, SearchResult]) -> None:
    out, result = quick
    faster = RUN.recipe.with_overrides({"num_workers": 3, "cache_mib": 1})
    run = replace(RUN, recipe=faster, num_threads=1, budgets_ms=(30.0, 12.0, 0.5))
    assert quickly(run, out, train=_never) == result


def test_one_process_at_a_time(tmp_path: Path) -> None:
    locked = open_journal(tmp_path / JOURNAL, settings={}, lpsnet_version="0")
    with locked, pytest.raises(RunError, match="in use by process"):
        quickly(RUN, tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "train+val"}, "are not trained on 'val' too"),
        ({"val": "test"}, "unknown split 'test'"),
        ({"budgets_ms": (5.0, 0.0)}, "above 0; got 0"),
        ({"recipe": get_recipe("paper_camvid")}, "starts from pre-trained weights"),
    ],
)
def test_runs_that_cannot_be(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quickly(replace(RUN, **change), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is begun"


def test_scores_are_those_of_the_files(undisturbed: Path) -> None:
    val = open_dataset(DATA).split("val")
    for event in _events(undisturbed):
        if isinstance(event, StepDecided):
            model = undisturbed / "family" / f"step_{event.number}.onnx"
            assert evaluate(Segmenter(model), val).miou == pytest.approx(event.row.miou, abs=0.2)
            assert event.row.at_start is not None


def _start(out: Path, *, num_steps: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, expansion_tiny.__file__, out, str(num_steps)])


def _in_the_middle(out: Path, number: int) -> bool:
    """Whether at least that many candidates were begun, and the last of them has a checkpoint."""
    states = list(out.glob("candidates/*/state.safetensors"))
    return bool(states) and len(list(out.glob("candidates/*/run.json"))) >= number


@pytest.mark.usefixtures("bare")
def test_a_search_killed_during_a_training_resumes(tmp_path: Path, undisturbed: Path) -> None:
    process = _start(tmp_path, num_steps=1)
    while process.poll() is None and not _in_the_middle(tmp_path, 3):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    run_with_real_trainings(tmp_path, num_steps=1)
    assert what_counts(tmp_path) == what_counts(undisturbed)


@pytest.mark.slow
def test_killed_ten_times_at_random_moments(tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "killed"
    run_with_real_trainings(undisturbed, num_steps=2)
    dice = random.Random(20240301)
    num_lines = len(_events(undisturbed))
    for kill in range(10):
        done = _num_lines(out)
        until = done + dice.randint(0, max(1, (num_lines - done) // (12 - kill)))
        process = _start(out, num_steps=2)
        while _num_lines(out) < until and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(dice.uniform(0, 0.6))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert _start(out, num_steps=2).wait() == 0
    assert what_counts(out) == what_counts(undisturbed)


def _num_lines(out: Path) -> int:
    path = out / JOURNAL
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_in_processes_the_scores_are_the_same(tmp_path: Path, undisturbed: Path) -> None:
    run = replace(RUN, options=replace(RUN.options, num_steps=1), num_threads=1)
    run_expansion(run, tmp_path, device=TableDevice(tmp_path), executor=LocalPool(2), repetitions=REPETITIONS)
    first = {(it["design"], it["miou"]) for it in what_counts(tmp_path) if it["kind"] == "training"}
    assert first <= {(it["design"], it["miou"]) for it in what_counts(undisturbed) if it["kind"] == "training"}
    assert len(first) == 4


@pytest.mark.usefixtures("bare")
def test_on_this_machine_nothing_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with an engine, stopped before some of its trainings."""
    monkeypatch.setattr("lpsnet.search.measure.TURN", QUICK_TURN)
    run = replace(
        RUN,
        recipe=RUN.recipe.with_overrides({"iterations": 3}),
        operations=OPERATIONS[:2],
        options=SearchOptions(num_steps=1, max_step_size=1, max_effort=1),
        target=Target(SIZE, num_threads=1),
    )
    for kill in (2, None):
        try:
            run_expansion(run, tmp_path, train=_Dying(kill), repetitions=(1, 2))
        except KeyboardInterrupt:
            continue
    events = _events(tmp_path)
    repetitions = [it.designs for it in events if isinstance(it, LatencyRepetition)]
    assert max(map(repetitions.count, repetitions)) == 2
    trained = [it.design for it in events if isinstance(it, TrainingFinished)]
    assert len(trained) == len(set(trained)) == 3
    assert not (tmp_path / "latency").exists()


class _Dying:
    """Trains, and dies before the training of this number in a run."""

    def __init__(self, number: int | None) -> None:
        self._left = number

    def __call__(self, task: CandidateTask):
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
        return train_candidate(task)


def test_the_table_of_latencies_is_worth_deciding_on() -> None:
    designs: Sequence[Design] = [START.design, *(it.apply(START).design for it in OPERATIONS)]
    times = [work(design) for design in designs]
    assert len(set(times)) == len(times)
