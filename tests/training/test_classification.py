"""Pre-training: it learns, resumes, and leaves weights that a segmentation training can start from."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lpsnet.architecture import Architecture
from lpsnet.data.augment import centre_window
from lpsnet.errors import DataError, RunError
from lpsnet.inference.model_file import read_record
from lpsnet.models.checkpoint import initialise_from, load_checkpoint
from lpsnet.models.network import create_model
from lpsnet.training.classification import (
    Accuracy,
    Classification,
    Classifier,
    PretrainingRun,
    get_pretraining_recipe,
    pretrain,
)
from lpsnet.training.run import Status

ARCHITECTURE = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))
RECIPE = get_pretraining_recipe("pictures_small").with_overrides(
    {
        "epochs": 4,
        "batch_size": 6,
        "crop_size": (32, 48),
        "precision": "f32",
        "num_workers": 1,
        "warmup_iterations": 2,
        "ema_decay": 0.9,
        "evaluate_every": 2,
        "saturation": 0.1,
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of a colour each, with noise."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, colour in (("red", (200, 60, 60)), ("green", (60, 200, 60)), ("blue", (60, 60, 200))):
        for split, count in (("train", 10), ("val", 3)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                image = np.clip(rng.normal(colour, 40, (40, 50, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(root / split / name / f"{number}.png"), image[..., ::-1])
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> PretrainingRun:
    return PretrainingRun(data=str(folder), architecture=ARCHITECTURE, recipe=RECIPE)


@pytest.fixture(scope="module")
def undisturbed(run: PretrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    result = pretrain(run, out, tensorboard=False)
    assert result.accuracy is not None
    assert result.accuracy.top1 > 60
    assert (result.accuracy.top5, result.accuracy.num_images) == (100, 9)
    return out


class Stopped(Exception):
    pass


def test_a_stopped_run_resumes_to_the_same_result(run: PretrainingRun, undisturbed: Path, tmp_path: Path) -> None:
    for stop_at in (3, 11):

        def stop(status: Status, at: int = stop_at) -> None:
            if status.iteration >= at:
                raise Stopped

        with pytest.raises(Stopped):
            pretrain(run, tmp_path, resume=True, on_progress=stop, tensorboard=False)
    pretrain(run, tmp_path, resume=True, tensorboard=False)
    ours, theirs = (load_file(out / "model.safetensors") for out in (tmp_path, undisturbed))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (tmp_path / "evaluations.jsonl").read_text() == (undisturbed / "evaluations.jsonl").read_text()


def test_all_but_the_head_is_taken_over(undisturbed: Path) -> None:
    network = create_model(ARCHITECTURE, num_classes=5)
    before = network.head.weight.clone()
    report = initialise_from(network, undisturbed / "model.safetensors")
    assert set(report.skipped) == {"head.weight", "head.bias"}
    assert torch.equal(network.head.weight, before)
    saved = load_file(undisturbed / "model.safetensors")
    assert all(torch.equal(network.state_dict()[name], saved[name]) for name in report.taken)
    assert not load_checkpoint(undisturbed / "model.safetensors").head.weight.any()


def test_the_record_holds_the_run(undisturbed: Path, run: PretrainingRun) -> None:
    record = read_record(undisturbed / "model.safetensors")
    assert record.architecture == ARCHITECTURE
    assert record.training["task"] == "classification"
    assert record.training["recipe"] == RECIPE.model_dump(mode="json")
    assert (record.training["num_classes"], record.training["num_pictures"], record.training["iterations"]) == (
        3,
        30,
        20,
    )
    assert record.scores["val"]["top1"] > 60


def test_a_classifier_is_pooling_and_one_matrix() -> None:
    classifier = Classifier(create_model(ARCHITECTURE, num_classes=1), 4).eval()
    images = torch.randn(2, 3, 40, 50)
    with torch.no_grad():
        pooled = classifier.network.features(images).flatten(2).mean(2)
        expected = pooled @ classifier.classifier.weight.T + classifier.classifier.bias
        assert torch.allclose(classifier(images), expected, atol=1e-6)
    classifier.train()(images).sum().backward()
    learning = [p for p in classifier.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)  # what has none stops several processes
    assert not classifier.network.head.weight.requires_grad


def test_accuracy_is_counted_by_ranking(run: PretrainingRun) -> None:
    task = Classification.of(replace(run, recipe=RECIPE.with_overrides({"batch_size": 4})), torch.device("cpu"))
    torch.nn.init.normal_(task.model.classifier.weight)
    score = task.evaluate(task.model.state_dict())
    assert score is not None
    hits = []
    for path, number in task.folder.val.files:
        crop = centre_window(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), (32, 48)).astype(np.float32) / 255
        normalised = (crop - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        with torch.no_grad():
            logits = task.model.eval()(torch.from_numpy(normalised.transpose(2, 0, 1)[None]).float())[0]
        hits.append(sorted(range(3), key=lambda k: -logits[k].item()).index(number) == 0)
    assert score.details == Accuracy(pytest.approx(100 * np.mean(hits)), 100.0, 9)  # type: ignore[arg-type]


def test_without_val_it_is_trained_and_not_scored(folder: Path, run: PretrainingRun, tmp_path: Path) -> None:
    recipe = RECIPE.with_overrides({"iterations": 1, "val_share": 0})
    result = pretrain(replace(run, data=str(folder / "train"), recipe=recipe), tmp_path / "run", tensorboard=False)
    assert result.accuracy is None
    assert read_record(result.model).scores == {}


def test_mistakes_leave_no_run(run: PretrainingRun, undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        pretrain(replace(run, data=str(tmp_path / "none")), tmp_path / "run")
    assert not (tmp_path / "run/run.json").exists()
    with pytest.raises(RunError, match="already holds a run"):
        pretrain(run, undisturbed)
