"""A candidate: what it starts from, what it scores, and that nothing of it is done twice."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from expansion_tiny import DATA, RECIPE, SIZE, START

from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Selection
from lpsnet.errors import RunError
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import load_checkpoint, save_checkpoint
from lpsnet.record import Normalisation
from lpsnet.search import train as candidates
from lpsnet.search.measurements import Failure, Score
from lpsnet.search.operations import Design, Operation
from lpsnet.search.train import CandidateTask, train_candidate
from lpsnet.training.run import TrainingRun


def task(design: Design, folder: Path, parent: Path | None = None, **changes: object) -> CandidateTask:
    recipe = RECIPE.with_overrides({"iterations": 8, **changes})
    run = TrainingRun(DATA, design.architecture, recipe, block=design.block, interaction="bilateral_b", input_size=SIZE)
    return CandidateTask(design, run, "val", folder, parent, num_threads=1)


def score(model: Path, split: str = "val") -> float:
    """The mIoU of a checkpoint, by way of the file alone."""
    segment = Segmenter(model)
    return evaluate(segment, open_dataset(DATA).split(split)).miou


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Score]:
    folder = tmp_path_factory.mktemp("candidates") / "parent"
    result = train_candidate(task(START.design, folder, iterations=40))
    assert isinstance(result.outcome, Score)
    return folder / "model.safetensors", result.outcome


def test_the_first_has_no_start_and_the_score_of_its_file(parent: tuple[Path, Score]) -> None:
    path, outcome = parent
    assert outcome.at_start is None
    assert outcome.miou == pytest.approx(score(path))
    assert outcome.miou > 5, "it learns something"
    assert read_record(path).input_size == SIZE


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("depth=0,0,0,1,1", "depth"),
        ("width=0,0,8,8,8", "width"),
        ("context=gate", "additions"),
        ("context=pyramid", "additions"),
        ("head=32", "additions"),
    ],
)
def test_a_child_with_more_of_something_starts_where_its_parent_is(
    tmp_path: Path, parent: tuple[Path, Score], change: str, kind: str
) -> None:
    design = Operation.parse(change).apply(START).design
    result = train_candidate(task(design, tmp_path / "candidates" / "child", parent[0]))
    assert isinstance(result.outcome, Score)
    assert result.outcome.at_start == pytest.approx(parent[1].miou, abs=0.05), "the function is kept"
    assert result.outcome.miou != result.outcome.at_start
    assert result.details["model"] == "candidates/child/model.safetensors"
    assert result.details["inherited"]["changes"] == [kind]
    model = tmp_path / "candidates" / "child" / "model.safetensors"
    assert result.outcome.miou == pytest.approx(score(model))
    assert read_record(model).training["init_tensors_skipped"] == {}


def test_images_held_out_are_scored_by_themselves(tmp_path: Path, parent: tuple[Path, Score]) -> None:
    """A third of three: the last one is seen by neither the score nor that of the start."""
    design = Operation.parse("depth=0,0,0,1,1").apply(START).design
    result = train_candidate(replace(task(design, tmp_path / "x", parent[0]), held_out=0.34))
    split = open_dataset(DATA).split("val")

    def on(model: Path, *indices: int) -> float:
        return evaluate(Segmenter(model), Selection(split, indices)).miou

    assert isinstance(result.outcome, Score)
    assert result.outcome.miou == pytest.approx(on(tmp_path / "x" / "model.safetensors", 0, 1))
    assert result.outcome.at_start == pytest.approx(on(parent[0], 0, 1), abs=0.05)
    assert result.details["held_out_miou"] == pytest.approx(on(tmp_path / "x" / "model.safetensors", 2))


def test_a_child_of_another_block_starts_afresh_and_says_why(tmp_path: Path, parent: tuple[Path, Score]) -> None:
    design = Operation.parse("block=ghost").apply(START).design
    result = train_candidate(task(design, tmp_path, parent[0]))
    assert isinstance(result.outcome, Score)
    assert result.outcome.at_start is None
    assert result.details["inherited"]["taken_over"] is False
    assert "block" in result.details["inherited"]["why"]
    assert read_record(tmp_path / "model.safetensors").block == "ghost"


def test_asked_again_it_neither_starts_nor_trains_again(
    tmp_path: Path, parent: tuple[Path, Score], monkeypatch: pytest.MonkeyPatch
) -> None:
    design = Operation.parse("depth=0,0,0,1,1").apply(START).design
    child = task(design, tmp_path, parent[0])
    first = train_candidate(child)
    start, log = ((tmp_path / name).read_bytes() for name in ("start.safetensors", "log.csv"))
    monkeypatch.setattr(candidates, "inherit", None)
    again = train_candidate(child, on_progress=lambda status: pytest.fail("it trains again"))
    assert again.outcome == first.outcome
    assert (tmp_path / "start.safetensors").read_bytes() == start
    assert (tmp_path / "log.csv").read_bytes() == log


def test_the_same_task_gives_the_same_score(tmp_path: Path, parent: tuple[Path, Score]) -> None:
    design = Operation.parse("resolution=0,1/4,0").apply(START).design
    torch.manual_seed(1)
    first = train_candidate(task(design, tmp_path / "a", parent[0])).outcome
    torch.manual_seed(2)
    assert train_candidate(task(design, tmp_path / "b", parent[0])).outcome == first


def test_a_split_of_another_name(tmp_path: Path) -> None:
    on_train = replace(task(START.design, tmp_path), val="train")
    on_train = replace(on_train, run=replace(on_train.run, split="val"))
    outcome = train_candidate(on_train).outcome
    assert isinstance(outcome, Score)
    assert outcome.miou == pytest.approx(score(tmp_path / "model.safetensors", "train"))


def test_a_training_that_diverges_is_a_failure(tmp_path: Path) -> None:
    outcome = train_candidate(task(START.design, tmp_path, learning_rate=1e9)).outcome
    assert isinstance(outcome, Failure)
    assert "no longer finite" in outcome.reason


def test_too_little_memory_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(candidates, "train", train)
    outcome = train_candidate(task(START.design, tmp_path)).outcome
    assert outcome == Failure("out of memory: CUDA out of memory. Tried to allocate 2 GiB")


def test_what_the_user_can_mend_is_not_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is gone"):
        train_candidate(task(START.design, tmp_path / "a", tmp_path / "no.safetensors"))
    with pytest.raises(RunError, match="pre-trained"):
        train_candidate(task(START.design, tmp_path / "b", init_required=True))


def test_images_without_labels_to_score_on_are_said(tmp_path: Path) -> None:
    for kind, value in (("images", 90), ("masks", 255)):
        for split in ("train", "val"):
            (tmp_path / kind / split).mkdir(parents=True)
            labels = np.full((64, 96), value if split == "val" or kind == "images" else 0, np.uint8)
            cv2.imwrite(str(tmp_path / kind / split / "a.png"), labels)
    (tmp_path / "data.yaml").write_text("names: [road, car]\nignore: [255]\n", encoding="utf-8")
    it = task(START.design, tmp_path / "candidates" / "a", iterations=1)
    with pytest.raises(RunError, match=r"'val' of .*data.yaml' has no labelled pixel to score on"):
        train_candidate(replace(it, run=replace(it.run, data=str(tmp_path / "data.yaml"))))


def test_a_child_keeps_the_terms_of_its_parents_weights(tmp_path: Path, parent: tuple[Path, Score]) -> None:
    path = tmp_path / "parent.safetensors"
    record = read_record(parent[0]).model_copy(update={"licence": "for research"})
    save_checkpoint(load_checkpoint(parent[0]), path, record=record)
    design = Operation.parse("depth=0,0,0,1,1").apply(START).design
    train_candidate(task(design, tmp_path / "child", path))
    assert read_record(tmp_path / "child" / "model.safetensors").licence.startswith("for research; ")


def test_a_child_is_shown_images_as_its_parent_was(tmp_path: Path, parent: tuple[Path, Score]) -> None:
    """As the weights of an encoder may want them."""
    half = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    path = tmp_path / "parent.safetensors"
    record = read_record(parent[0]).model_copy(update={"normalisation": half})
    save_checkpoint(load_checkpoint(parent[0]), path, record=record)
    design = Operation.parse("context=gate").apply(START).design
    result = train_candidate(task(design, tmp_path / "child", path))
    assert read_record(tmp_path / "child" / "model.safetensors").normalisation == half
    assert result.outcome.at_start == pytest.approx(score(path), abs=0.05), "the parent's own, with these images"
    assert abs(score(path) - parent[1].miou) > 0.1, "the images differ"


def test_a_stage_of_another_block_inherits_the_rest_and_says_so(tmp_path: Path, parent: tuple[Path, Score]) -> None:
    design = Operation.parse("unit@5=residual").apply(START).design
    result = train_candidate(task(design, tmp_path, parent[0]))
    inherited = result.details["inherited"]
    assert (inherited["taken_over"], inherited["preserving"]) == (True, "no")
    assert inherited["reasons"] == ["Stage 5 has block 'residual' instead of 'conv3x3', and starts fresh"]
    assert read_record(tmp_path / "model.safetensors").block == "conv3x3,conv3x3,conv3x3,conv3x3,residual"


def test_threads_of_a_training_are_not_those_of_what_follows(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    train_candidate(task(START.design, tmp_path))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_weights_that_the_last_step_broke_are_a_failure(tmp_path: Path) -> None:
    """The loss of the only step is finite; its update is not."""
    outcome = train_candidate(
        task(START.design, tmp_path, iterations=1, learning_rate=1e38, warmup_iterations=0)
    ).outcome
    assert isinstance(outcome, Failure)
    assert "not finite" in outcome.reason


def test_a_folder_that_was_moved_resumes(tmp_path: Path, parent: tuple[Path, Score]) -> None:
    design = Operation.parse("depth=0,0,0,1,1").apply(START).design
    first = train_candidate(task(design, tmp_path / "here", parent[0]))
    assert read_record(tmp_path / "here" / "model.safetensors").training["init"] == "start.safetensors"
    (tmp_path / "here").rename(tmp_path / "there")
    again = train_candidate(
        task(design, tmp_path / "there", parent[0]), on_progress=lambda status: pytest.fail("it trains again")
    )
    assert again.outcome == first.outcome
