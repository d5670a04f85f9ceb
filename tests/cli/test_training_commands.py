"""`pretrain`, what `train --init` says, the options of `evaluate`, and the lines of progress."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lpsnet.cli.train as commands
from lpsnet.architecture import get_architecture
from lpsnet.data.corruptions import CORRUPTIONS
from lpsnet.data.dataset import open_dataset
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.training.run import Status

SCENES = "scenes:size=48x64,num_train=4,num_val=2"
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
SETTINGS = ("batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32", "warmup_iterations=0")


def settings(*more: str) -> list[str]:
    return [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            path = tmp_path / "pictures" / name / f"{number}.png"
            cv2.imwrite(str(path), rng.integers(0, 256, (50, 60, 3), dtype=np.uint8))
    return tmp_path / "pictures"


def test_pretraining_is_where_a_training_starts(run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pre"
    first = run(
        *("pretrain", "--data", folder, "--arch", ARCH, "--recipe", "pictures_small", "--out", out),
        *settings("epochs=1", "val_share=0.25"),
    )
    assert first.code == 0, first.err
    assert "2 classes, 6 images to train on, 2 to score" in first.err
    assert "% top-1" in first.out
    assert f"--init {out / 'model.safetensors'}" in first.out
    second = run(
        *("train", "--data", SCENES, "--arch", ARCH, "--recipe", "demo", "--init", out / "model.safetensors"),
        *("--out", tmp_path / "run", *settings("iterations=1")),
    )
    assert second.code == 0, second.err
    assert f"tensors taken from {out / 'model.safetensors'}, skipped: head (another class count)\n" in second.err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lpsnet.data.synthetic import SCENES as SPACE
    from lpsnet.models.checkpoint import default_record

    network = create_model(ARCH, num_classes=SPACE.num_classes).eval()
    record = default_record(network, label_space=SPACE).model_copy(
        update={"training": {"data": "scenes", "split": "train", "init": None, "recipe": {"name": "demo", "seed": 7}}}
    )
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(network, path, record=record)
    return path


def test_evaluation_by_several_views_is_named_in_the_result(run, model: Path, tmp_path: Path) -> None:
    words = ("evaluate", "--model", model, "--data", SCENES, "--json")
    plain, averaged = tmp_path / "plain.json", tmp_path / "averaged.json"
    assert run(*words, plain).code == 0
    assert run(*words, averaged, "--flip", "--scales", "1,1.5", "--window", "48x48", "--stride", "24x24").code == 0
    protocol = json.loads(plain.read_text())["protocol"]
    assert (protocol["flip"], protocol["multi_scale"], protocol["sliding_window"]) == (False, False, False)
    assert protocol["picture_sizes"] == [[48, 64]]
    assert protocol["training"]["pretrained_from"] is None
    assert protocol["training"]["seed"] == 7
    protocol = json.loads(averaged.read_text())["protocol"]
    assert (protocol["flip"], protocol["multi_scale"]) == (True, [1.0, 1.5])
    assert protocol["sliding_window"] == {"size": [48, 48], "stride": [24, 24]}


def test_robustness_is_printed_and_kept(run, model: Path, tmp_path: Path) -> None:
    words = ("evaluate", "--model", model, "--data", SCENES, "--json", tmp_path / "scores.json")
    assert run(*words).code == 0
    plain = json.loads((tmp_path / "scores.json").read_text())
    result = run(*words, "--robustness")
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    robust = scores.pop("robustness")
    assert scores | {"command": ""} == plain | {"command": ""}
    assert robust["num_images"] == 2
    assert robust["clean_miou"] == plain["miou"]
    assert [(it["corruption"], it["strength"]) for it in robust["scores"]] == [(name, "middle") for name in CORRUPTIONS]
    assert f"{robust['mean_miou']:.2f}" in result.out
    assert "Robustness, 2 images" in result.out
    assert run(*words, "--robustness", "--corruptions", "mild,jpeg", "--robustness-images", "1").code == 0
    chosen = json.loads((tmp_path / "scores.json").read_text())["robustness"]
    assert (chosen["num_images"], len(chosen["scores"])) == (1, 1)
    assert (chosen["scores"][0]["corruption"], chosen["scores"][0]["value"]) == ("jpeg", 25)


def test_predictions_are_saved_beside_the_scores(run, model: Path, tmp_path: Path) -> None:
    result = run("evaluate", "--model", model, "--data", SCENES, "--save-predictions", tmp_path / "out", "--boundary")
    assert result.code == 0
    assert "Wrote 2 label maps" in result.out
    assert "boundary IoU %" in result.out
    val = open_dataset(SCENES).split("val")
    for number, name in enumerate(val.names):
        saved = cv2.imread(str(tmp_path / f"out/{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(saved, Segmenter(model)(val.image(number)))


def test_images_without_labels_are_predicted_alone(run, model: Path, tmp_path: Path) -> None:
    names = open_dataset(SCENES).label_space.names
    (tmp_path / "images/test").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/test/a.png"), np.zeros((48, 64, 3), np.uint8))
    classes = "".join(f"  {i}: {name}\n" for i, name in enumerate(names))
    description = f"names:\n{classes}images:\n  test: images/test\nmasks: {{}}\n"
    (tmp_path / "data.yaml").write_text(description, encoding="utf-8")
    words = ("evaluate", "--model", model, "--data", tmp_path / "data.yaml", "--split", "test")
    result = run(*words, "--save-predictions", tmp_path / "out")
    assert result.code == 0, result.err
    assert "Not scored" in result.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert run(*words).code == 2
    refused = run(*words, "--save-predictions", tmp_path / "out", "--robustness")
    assert refused.code == 2
    assert "--robustness compares with labels, and split 'test' cannot be scored: " in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("interval", "shown"), [(None, False), ((float("nan"), float("nan")), False), ((40.0, 60.0), True)]
)
def test_an_interval_is_printed_where_there_is_one(
    capsys: pytest.CaptureFixture[str], interval: tuple[float, float] | None, shown: bool
) -> None:
    space = open_dataset(SCENES).label_space
    scored = Evaluation.of(space, np.eye(space.num_classes, dtype=np.int64), [("a", 100.0)], {})
    commands.print_scores(scored.model_copy(update={"miou_interval": interval}))
    printed = capsys.readouterr().out
    assert ("95 % interval" in printed, "40.0–60.0" in printed) == (shown, shown)
    assert "nan" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label-ids"], "--save-predictions"),
        (["--label-ids", "--save-predictions", "x"], "Cityscapes classes"),
        (["--robustness", "--corruptions", "strong,jpg"], "'jpg'; did you mean 'jpeg'? Allowed: "),
        (["--corruptions", "jpeg"], "--corruptions without --robustness would do nothing: give it, too"),
        (["--robustness-images", "100"], "--robustness-images without --robustness"),
        (["--scales", "a"], "0.75,1,1.25"),
        (["--scales", "0"], "scales lie between"),
        (["--window", "48"], "HEIGHTxWIDTH"),
        (["--stride", "48x48"], "give their size too"),
    ],
)
def test_options_that_cannot_be(run, model: Path, options: list[str], message: str) -> None:
    result = run("evaluate", "--model", model, "--data", SCENES, *options)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_lines_of_progress_tell_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 60.0, 3600.0, 7000.0])
    monkeypatch.setattr(commands.time, "monotonic", lambda: next(clock))
    lines = commands._Lines()
    for iteration in (1, 11, 101, 201):
        lines(Status(iteration, 201, 0.5, 0.01, 2.0, "epoch 1: good" if iteration == 11 else ""))
    assert capsys.readouterr().err.splitlines() == [
        "1/201  loss 0.500  lr 0.0100  2.0 images/s",
        "epoch 1: good",
        "11/201  loss 0.500  lr 0.0100  2.0 images/s  19 min left",
        "101/201  loss 0.500  lr 0.0100  2.0 images/s  1 h 0 min left",
        "201/201  loss 0.500  lr 0.0100  2.0 images/s",
    ]


def test_a_training_starts_from_a_model_that_comes_with_the_package(run, tmp_path: Path) -> None:
    result = run(
        "train", "--data", "scenes:size=128x192,num_train=2,num_val=1", "--arch", "lpsnet_s", "--recipe", "demo",
        "--init", "cityscapes_m", "--set", "iterations=1", "--set", "batch_size=2", "--set", "crop_size=128x192",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "skipped: none" in result.err + result.out


@pytest.mark.parametrize(
    ("arch", "init", "wanted", "block"),
    [
        (None, None, "lpsnet_s", "conv3x3"),
        ("lite0", None, "lite0", "efficientnet_lite"),
        (None, "light", "B=1,2,2,3,3;C=16,24,40,80,112;R=1/2", "efficientnet_lite"),  # trained on as it is
        ("B=1,2,2,3,3;C=16,24,40,80,112;R=3/2", "light", "B=1,2,2,3,3;C=16,24,40,80,112;R=3/2", "efficientnet_lite"),
        ("lpsnet_m", "light", "lpsnet_m", "conv3x3"),  # a name tells its blocks; that they do not fit is refused later
        ("lite0", "pre", "lite0", "efficientnet_lite"),
        (None, "no record", "lpsnet_s", "conv3x3"),
    ],
)
def test_the_network_is_that_of_the_weights_unless_asked_for(
    tmp_path: Path, arch: str | None, init: str | None, wanted: str, block: str
) -> None:
    weights = None if init is None else tmp_path / "weights.safetensors"
    if init == "no record":
        save_file({"a": torch.zeros(1)}, weights)
    elif weights is not None:
        name = "B=1,2,2,3,3;C=16,24,40,80,112;R=1/2" if init == "light" else "tiny"
        kind = "efficientnet_lite" if init == "light" else "conv3x3"
        save_checkpoint(create_model(name, num_classes=3, block=kind, form="plain"), weights)
    assert commands._network_of(arch, None, weights) == (get_architecture(wanted), block)


def test_a_teacher_and_images_without_labels(run, model: Path, folder: Path, tmp_path: Path) -> None:
    words = ("train", "--data", SCENES, "--arch", ARCH, "--recipe", "demo", *settings("iterations=2"))
    first = run(*words, "--teacher", model, "--unlabelled", folder, "--out", tmp_path / "run")
    assert first.code == 0, first.err
    assert f"Teacher: {model}; 8 images without labels are learnt from it, 1 of the 2 in a batch\n" in first.err
    alone = run(*words, "--unlabelled", folder, "--out", tmp_path / "other")
    assert (alone.code, alone.err.count("\n")) == (2, 1)
    assert "give --unlabelled with --teacher" in alone.err
    nowhere = run(*words, "--teacher", "camvid_s", "--out", tmp_path / "other")
    assert (nowhere.code, nowhere.err.count("\n")) == (2, 1)
    assert "the teacher camvid_s does not know 'vegetation', 'person' of the data, and knows tree," in nowhere.err
