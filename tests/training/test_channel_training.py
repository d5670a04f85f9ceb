"""From a folder of images of other channels to an exported file: the same score on every way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from lpsnet.architecture import get_architecture
from lpsnet.data.channels import Channels
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import DataError
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.export.export import export
from lpsnet.fitting import fit, plan
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.training.config import get_recipe
from lpsnet.training.data import measured_normalisation
from lpsnet.training.run import TrainingRun
from lpsnet.training.segmentation import train

ARCH = get_architecture("B=1,1,1,1,1;C=8,8,16,16,16;R=1")
SETTINGS: dict[str, Any] = {
    "batch_size": 4,
    "crop_size": (48, 64),
    "precision": "f32",
    "num_workers": 1,
    "ema_decay": 0,
}
SIX = ["blue", "green", "red", "edge", "nir", "swir"]


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """12 bit in 16, two classes that only the fifth channel tells apart."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((48, 64), np.uint8)
    labels[:, : int(rng.integers(16, 48))] = 1
    image = rng.normal(1000, 100, (48, 64, 6))
    image[..., 4] += 1500.0 * labels
    return image.clip(0, 4095).astype(np.uint16), labels


def write_data(root: Path, kind: str) -> Path:
    keys = {"six": f"channels: [{', '.join(SIX)}]", "thermal": "channels: [heat]"}
    keys["depth"] = "channels: [red, green, blue, depth]\nextra_images: depth/{split}"
    for split, seeds in (("train", range(8)), ("val", range(100, 103))):
        for folder in (f"images/{split}", f"masks/{split}", f"depth/{split}"):
            (root / folder).mkdir(parents=True)
        for seed in seeds:
            image, labels = scene(seed)
            cv2.imwrite(str(root / f"masks/{split}/{seed}.png"), labels)
            if kind == "six":
                tifffile.imwrite(
                    root / f"images/{split}/{seed}.tif", image, photometric="minisblack", planarconfig="contig"
                )
            elif kind == "thermal":
                cv2.imwrite(str(root / f"images/{split}/{seed}.png"), image[..., 4])
            else:
                cv2.imwrite(str(root / f"images/{split}/{seed}.png"), (image[..., :3] // 16).astype(np.uint8))
                cv2.imwrite(str(root / f"depth/{split}/{seed}.png"), image[..., 4])
    (root / "data.yaml").write_text(f"names: [soil, plant]\n{keys[kind]}\n")
    return root / "data.yaml"


def run_of(data: Path, **settings: Any) -> TrainingRun:
    recipe = get_recipe("demo").with_overrides({**SETTINGS, **settings})
    return TrainingRun(data=str(data), architecture=ARCH, recipe=recipe)


@pytest.mark.parametrize("kind", ["six", "thermal", "depth"])
def test_channels_are_learnt_and_scored_alike_everywhere(tmp_path: Path, kind: str) -> None:
    data = write_data(tmp_path / "data", kind)
    result = train(
        run_of(data, iterations=60, class_mix=0.2, rare_class_crops=0.5), tmp_path / "run", tensorboard=False
    )
    record, val = read_record(result.model), open_dataset(data).split("val")
    assert record.image_channels == val.channels
    assert record.normalisation == measured_normalisation(open_dataset(data).split("train"))
    assert record.normalisation.max_value == 65535
    assert result.evaluation is not None
    assert result.evaluation.miou > 80, "told apart by one channel alone"
    exported = tmp_path / "model.onnx"
    report = export(load_checkpoint(result.model), exported, to="onnx", record=record, labelled=val)
    assert report.miou is not None
    assert all(check.label_agreement >= 99.9 for check in report.checks)
    for path in (result.model, exported):
        segmenter = Segmenter(path, num_threads=1)
        assert segmenter.record.image_channels == val.channels
        matrix = evaluate(segmenter, val).confusion_matrix
        assert np.abs(np.subtract(matrix, result.evaluation.confusion_matrix)).sum() <= 0.001 * np.sum(matrix)


def test_normalisation_is_numpys_and_follows_weights_of_the_same_channels(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", "six")
    images = np.concatenate([scene(seed)[0].reshape(-1, 6) for seed in range(8)]) / 65535
    train(run_of(data, iterations=1), tmp_path / "first", tensorboard=False)
    first = read_record(tmp_path / "first/model.safetensors")
    assert np.allclose(first.normalisation.mean, images.mean(0))
    assert np.allclose(first.normalisation.std, images.std(0))
    other = write_data(tmp_path / "other", "six")
    for path in (tmp_path / "other/images/train").iterdir():
        tifffile.imwrite(path, tifffile.imread(path) // 2, photometric="minisblack", planarconfig="contig")
    run = run_of(other, iterations=1)
    again = TrainingRun(str(other), ARCH, run.recipe, init=tmp_path / "first/model.safetensors")
    train(again, tmp_path / "second", tensorboard=False)
    assert read_record(tmp_path / "second/model.safetensors").normalisation == first.normalisation


def test_weights_for_rgb_start_a_training_of_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(run_of(Path("scenes:size=48x64,num_train=4,num_val=2"), iterations=1), tmp_path / "rgb", tensorboard=False)
    data = write_data(tmp_path / "data", "six")
    recipe = run_of(data, iterations=1, learning_rate=1e-9).recipe
    run = TrainingRun(str(data), ARCH, recipe, init=tmp_path / "rgb/model.safetensors")
    with caplog.at_level("INFO"):
        train(run, tmp_path / "six", tensorboard=False)
    messages = [record.getMessage() for record in caplog.records]
    assert any("filters for blue, green, red, edge, nir, swir are made of those for red" in line for line in messages)
    rgb, six = (load_checkpoint(tmp_path / name / "model.safetensors").state_dict() for name in ("rgb", "six"))
    name = "paths.0.stages.0.0.unit.conv3x3.conv.weight"
    assert six[name].shape[1] == 6
    assert np.allclose(six[name].sum(1).numpy(), rgb[name].sum(1).numpy(), atol=1e-4)
    assert read_record(tmp_path / "six/model.safetensors").channels == tuple(SIX)


def test_a_constant_channel_and_other_channels_are_no_trap(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", "six")
    for path in (tmp_path / "data/images/train").iterdir():
        image = tifffile.imread(path)
        image[..., 0] = 5
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    norm = measured_normalisation(open_dataset(data).split("train"))
    assert norm.std[0] == 1.0
    assert norm.mean[0] == pytest.approx(5 / 65535)
    for settings, more, message in (
        ({"corruption": 0.5}, {}, "those of RGB cameras"),
        ({}, {"teacher": tmp_path / "teacher.safetensors"}, "a teacher"),
    ):
        run = replace(run_of(data, iterations=1, **settings), **more)
        with pytest.raises(DataError, match=f"{message}.*; here are 6 channels"):
            train(run, tmp_path / "refused", tensorboard=False)
    assert open_dataset(data).split("train").channels == Channels(tuple(SIX), 16)


@pytest.mark.usefixtures("short_timing")
def test_a_fit_of_six_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path / "data", "six")
    row = plan.Start("tiny", str(ARCH), "conv3x3", "", 1.0)
    monkeypatch.setattr(
        plan, "STARTS", (row, replace(row, name="half", architecture=str(ARCH.replace(ratios=("1/2",)))))
    )
    device = {"runtime": "onnxruntime", "precision": "f32", "threads": 1}
    fitted = fit(data, out=tmp_path / "fit", budget_ms=1000, minutes=0.3, **device)
    assert "channels: 6 channels of 16 bits" in " ".join(fitted.plan.reasons)
    assert read_record(fitted.model).image_channels == Channels(tuple(SIX), 16)
    assert fitted.evaluation.robustness is None  # corruptions are of RGB images
    image, labels = scene(100)
    assert (Segmenter(fitted.model)(image) == labels).mean() == pytest.approx(
        fitted.evaluation.pixel_accuracy / 100, abs=0.25
    )
