"""The command line from end to end, in this process: what it writes, what it says, and how it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import command_line
import cv2
import numpy as np
import pytest

import lpsnet
from lpsnet.data.images import read_image
from lpsnet.data.labels import LabelSpace
from lpsnet.models.checkpoint import default_record, save_checkpoint

SCENES = "scenes:size=48x64,num_train=6,num_val=2"
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run/model.safetensors` and `model.onnx`, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("cli")
    arguments = ["--data", SCENES, "--arch", ARCH, "--recipe", "demo", "--out", folder / "run"]
    settings = ["iterations=4", "batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32"]
    for words in (
        ("train", *arguments, *[word for setting in settings for word in ("--set", setting)]),
        ("export", "--model", folder / "run/model.safetensors", "--out", folder / "model.onnx"),
    ):
        assert not command_line.run(*words).code
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "street.png"
    cv2.imwrite(str(path), cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (81, 61)))
    return path


def test_train_leaves_a_run(trained: Path) -> None:
    names = {path.name for path in (trained / "run").iterdir()}
    assert {"run.json", "log.csv", "state.safetensors", "model.safetensors"} <= names


def test_evaluate_gives_the_same_figures_for_checkpoint_and_export(run, trained: Path, tmp_path: Path) -> None:
    figures = []
    for model in (trained / "run/model.safetensors", trained / "model.onnx"):
        out = tmp_path / f"{model.suffix}.json"
        result = run("evaluate", "--model", model, "--data", SCENES, "--split", "val", "--json", out)
        assert result.code == 0
        assert "mIoU" in result.out
        figures.append(json.loads(out.read_text()))
    ours, theirs = figures
    assert ours["num_images"] == theirs["num_images"] == 2
    assert ours["miou"] == pytest.approx(theirs["miou"], abs=0.1)
    assert theirs["protocol"]["runtime"] == "onnxruntime"
    assert set(ours["ious"]) == {"sky", "building", "road", "pavement", "vegetation", "car", "person", "pole"}


def test_json_on_standard_output_is_alone_there(run, trained: Path) -> None:
    result = run("evaluate", "--model", trained / "model.onnx", "--data", SCENES, "--json", "-")
    assert json.loads(result.out)["protocol"]["split"] == "val"
    assert "Next:" in result.err


def test_segment_writes_labels_and_overlay_of_the_images_size(run, trained: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("segment", image, "--model", trained / "model.onnx", "--out", out)
    assert result.code == 0, result.err
    labels = cv2.imread(str(out / "street.labels.png"), cv2.IMREAD_UNCHANGED)
    assert (labels.shape, labels.dtype) == ((61, 81), np.uint8)
    expected = lpsnet.Segmenter(trained / "model.onnx")(read_image(image))
    assert np.array_equal(labels, expected)
    assert cv2.imread(str(out / "street.overlay.png")).shape == (61, 81, 3)
    assert str(out) in result.out
    assert "Next: lpsnet" in result.out


def test_segment_keeps_the_folders_of_images_apart(run, trained: Path, image: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.png").write_bytes(image.read_bytes())
    assert run("segment", tmp_path / "in", "--model", trained / "model.onnx", "--out", tmp_path / "out").code == 0
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a/x.labels.png", "a/x.overlay.png", "b/x.labels.png", "b/x.overlay.png"]
    clash = run("segment", tmp_path / "in/a/x.png", tmp_path / "in/b/x.png", "--model", trained / "model.onnx")
    assert clash.code == 2
    assert "would both write" in clash.err


def test_one_bad_image_does_not_stop_the_others(run, trained: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    result = run("segment", tmp_path / "*.png", "--model", trained / "model.onnx", "--out", tmp_path / "out")
    assert result.code == 2
    assert "text.png" in result.err
    assert (tmp_path / "out" / "street.labels.png").exists()


def variants(image: np.ndarray) -> dict[str, np.ndarray]:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return {
        "16 bit": image.astype(np.uint16) * 257,
        "transparent": np.dstack([image, np.full(image.shape[:2], 128, np.uint8)]),
        "grey": grey,
        "grey 16 bit": grey.astype(np.uint16) * 257,
    }


@pytest.mark.parametrize("kind", ["16 bit", "transparent", "grey", "grey 16 bit"])
def test_unusual_images_give_the_labels_of_the_plain_one(
    run, trained: Path, image: Path, tmp_path: Path, kind: str
) -> None:
    plain = cv2.imread(str(image))
    if kind.startswith("grey"):
        plain = cv2.cvtColor(cv2.cvtColor(plain, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    cv2.imwrite(str(tmp_path / "plain.png"), plain)
    cv2.imwrite(str(tmp_path / "unusual.png"), variants(plain)[kind])
    images = (tmp_path / "plain.png", tmp_path / "unusual.png")
    assert run("segment", *images, "--model", trained / "model.onnx", "--out", tmp_path / "out").code == 0
    one, other = (cv2.imread(str(tmp_path / f"out/{p.stem}.labels.png"), cv2.IMREAD_UNCHANGED) for p in images)
    assert np.array_equal(one, other)


def test_info_counts_and_shows_the_record(run, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "info.json"
    assert run("info", "lpsnet_s", "--json", out).code == 0
    figures = json.loads(out.read_text())
    assert (figures["parameters"], figures["macs"]) == (3_371_075, pytest.approx(10.421e9, rel=1e-4))
    small = run("info", "lpsnet_s", "--size", "360x480", "--classes", "19")
    assert "0.888" in small.out
    result = run("info", trained / "model.onnx", "--json", "-")
    assert json.loads(result.out)["record"]["architecture"] == str(lpsnet.get_architecture(ARCH))
    assert "vegetation" in result.err


def test_data_convert(run, tmp_path: Path) -> None:
    """Says where the output is and the next command; leaves a folder with files alone unless it is asked to."""
    result = run("data", "convert", SCENES, "--to", "coco", "--out", tmp_path / "coco")
    assert result.code == 0
    assert f"to {tmp_path / 'coco'}" in result.out
    assert result.out.splitlines()[-1] == f"Next: lpsnet data check coco:{tmp_path / 'coco'}"
    assert run("data", "check", f"coco:{tmp_path / 'coco'}").code == 0
    assert "--overwrite" in run("data", "convert", SCENES, "--to", "coco", "--out", tmp_path / "coco").line
    assert run("data", "convert", SCENES, "--to", "yolo", "--out", tmp_path / "coco", "--overwrite").code == 0
    assert "did you mean 'coco'?" in run("data", "convert", SCENES, "--to", "cocoo", "--out", tmp_path / "x").line
    assert (
        "tolerance" in run("data", "convert", SCENES, "--to", "coco", "--out", tmp_path / "x", "--tolerance", -1).line
    )


def test_a_description_that_was_edited_is_never_replaced_unasked(run, tmp_path: Path) -> None:
    for number in range(3):
        for kind, array in (
            ("images", np.random.default_rng(number).integers(0, 255, (40, 40, 3))),
            ("masks", np.eye(40)),
        ):
            (tmp_path / "d" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "d" / kind / f"{number}.png"), array.astype(np.uint8))
    out = tmp_path / "d.yaml"
    assert run("data", "check", tmp_path / "d", "--out", out).code == 0
    out.write_text(out.read_text().replace("class_1", "car"))
    edited = out.read_text()
    refused = run("data", "check", tmp_path / "d", "--out", out)
    assert refused.code == 2
    assert "may have been edited" in refused.line
    assert out.read_text() == edited
    assert run("data", "check", out).code == 0
    assert run("data", "check", tmp_path / "d", "--out", out, "--overwrite").code == 0
    assert "class_1" in out.read_text()


def test_no_path_is_said_twice_in_a_line(run, tmp_path: Path) -> None:
    for kind in ("images/train", "masks/train"):
        (tmp_path / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / kind / "a.png"), np.zeros((40, 40), np.uint8))
    cv2.imwrite(str(tmp_path / "images/train/b.png"), np.zeros((40, 40), np.uint8))
    (tmp_path / "data.yaml").write_text("names: [a, b]")
    errors = [line for line in run("data", "check", tmp_path).out.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert errors[0].count(str(tmp_path / "images/train/b.png")) == 1


def test_data_check_accepts_scenes_and_finds_what_is_wrong(run, tmp_path: Path) -> None:
    assert run("data", "check", SCENES).code == 0
    for split in ("train", "val"):
        for kind, value in (("images", np.zeros((40, 40, 3), np.uint8)), ("masks", np.full((40, 40), 7, np.uint8))):
            (tmp_path / kind / split).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / kind / split / "a.png"), value)
    (tmp_path / "data.yaml").write_text("names: [road, car]\n")
    result = run("data", "check", tmp_path / "data.yaml", "--json", tmp_path / "found.json")
    assert result.code == 2
    kinds = {finding["kind"] for finding in json.loads((tmp_path / "found.json").read_text())["findings"]}
    assert "unknown_values" in kinds
    assert "a.png" in result.out


def other_classes(tmp_path: Path) -> Path:
    net = lpsnet.create_model(ARCH, num_classes=3)
    path = tmp_path / "three.safetensors"
    save_checkpoint(net, path, record=default_record(net, label_space=LabelSpace.numbered(3)))
    return path


def bad_labels(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for kind, value in (("images", np.zeros((64, 64, 3), np.uint8)), ("masks", np.full((64, 64), 9, np.uint8))):
            (tmp_path / kind / split).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / kind / split / "a.png"), value)
    path = tmp_path / "data.yaml"
    path.write_text("names: [road, car]\n")
    return path


MISTAKES = {
    "missing image": lambda t, m: ["segment", t / "none.png", "--model", m],
    "missing model": lambda t, m: ["segment", t, "--model", t / "none.onnx"],
    "unknown bundled model": lambda t, m: ["segment", t, "--model", "lpsnet_q"],
    "text as a model": lambda t, m: ["evaluate", "--model", text(t, "a.onnx"), "--data", SCENES],
    "text as a checkpoint": lambda t, m: ["export", "--model", text(t, "a.safetensors"), "--out", t / "a.onnx"],
    "unknown architecture": lambda t, m: ["info", "lpsnet_q"],
    "no network": lambda t, m: ["train", "--data", SCENES, "--arch", "B=1;C=2;R=3", "--out", t / "o"],
    "unknown recipe": lambda t, m: ["train", "--data", SCENES, "--recipe", "x", "--out", t / "o"],
    "bad setting": lambda t, m: ["train", "--data", SCENES, "--set", "seed=-1", "--out", t / "o"],
    "unknown data set": lambda t, m: ["train", "--data", "kitti:/x", "--out", t / "o"],
    "missing data": lambda t, m: ["train", "--data", "camvid:/none", "--out", t / "o"],
    "unknown split": lambda t, m: ["evaluate", "--model", m, "--data", SCENES, "--split", "test"],
    "labels outside the space": lambda t, m: ["train", "--data", bad_labels(t), "--recipe", "demo", "--out", t / "o"],
    "model of other classes": lambda t, m: ["evaluate", "--model", other_classes(t), "--data", SCENES],
    "folder below a file": lambda t, m: ["train", "--data", SCENES, "--recipe", "demo", "--out", text(t, "f") / "o"],
    "results below a file": lambda t, m: ["segment", png(t), "--model", m, "--out", text(t, "f") / "o"],
    "bad size": lambda t, m: ["info", "lpsnet_s", "--size", "big"],
    "tiny size": lambda t, m: ["info", "lpsnet_s", "--size", "8x8"],
    "unknown runtime": lambda t, m: ["segment", png(t), "--model", m, "--runtime", "caffe"],
    "unknown precision": lambda t, m: ["segment", png(t), "--model", m, "--precision", "f8"],
    "unknown format": lambda t, m: ["export", "--model", other_classes(t), "--to", "coreml", "--out", t / "a.onnx"],
    "unknown option": lambda t, m: ["segment", "--modell", m],
    "unknown command": lambda t, m: ["segmnt"],
    "missing argument": lambda t, m: ["segment", "--model", m],
    "value out of range": lambda t, m: ["segment", png(t), "--model", m, "--opacity", "nan"],
    "no number": lambda t, m: ["segment", png(t), "--model", m, "--threads", "two"],
    "threads beyond all machines": lambda t, m: ["segment", png(t), "--model", m, "--threads", "9" * 20],
    "seed beyond all numbers": lambda t, m: ["train", "--data", SCENES, "--set", f"seed={2**64}", "--out", t / "o"],
    "pipe as a data set": lambda t, m: ["train", "--data", pipe(t, "a.yaml"), "--out", t / "o"],
    "pipe as a recipe": lambda t, m: ["train", "--data", SCENES, "--recipe", pipe(t, "a.yaml"), "--out", t / "o"],
    "pipe as a model": lambda t, m: ["info", pipe(t, "a.safetensors")],
    "pipe as a run": lambda t, m: ["train", "--data", SCENES, "--out", pipe(t, "run.json").parent, "--resume"],
    "no name": lambda t, m: ["segment", "", "--model", m],
    "no data": lambda t, m: ["train", "--data", "", "--out", t / "o"],
}  # fmt: skip


# words, and what the line has to say
NUMBERS_AND_PLACES = {
    "budget": (
        ["fit", SCENES, "--budget-ms", "inf", "--out", "o"],
        "'--budget-ms': got inf; a finite number is needed",
    ),
    "minutes": (["train", "--data", SCENES, "--minutes", "inf", "--out", "o"], "'--minutes': got inf; a finite number"),
    "memory": (["fit", SCENES, "--budget-ms", "9", "--memory-mib", "1e999", "--out", "o"], "'--memory-mib': got inf"),
    "tolerance": (["data", "convert", SCENES, "--to", "coco", "--out", "o", "--tolerance", "nan"], "got nan; a finite"),
    "out is a file": (["train", "--data", SCENES, "--recipe", "demo", "--out", "f"], "f is a file, where a folder is"),
    "fit into a file": (["fit", SCENES, "--budget-ms", "9", "--plan", "--out", "f"], "f is a file, where a folder is"),
    "results into a file": (
        ["segment", "p.png", "--model", "camvid_s", "--out", "f"],
        "f is a file, where a folder is",
    ),
    "figures into a folder": (["info", "lpsnet_s", "--json", "d"], "d is a folder, where a file is needed"),
    "a run among images": (
        ["train", "--data", SCENES, "--recipe", "demo", "--out", "."],
        "holds images, such as p.png",
    ),
    "a fit among images": (["fit", SCENES, "--budget-ms", "9", "--plan", "--out", "."], "holds images, such as p.png"),
    "an image as data": (["train", "--data", "p.png", "--out", "o"], "'p.png' is a file of no kind that is read"),
    "no such folder": (["train", "--data", "photos", "--out", "o"], "no folder or file is called 'photos'"),
}


@pytest.mark.parametrize("mistake", NUMBERS_AND_PLACES)
def test_the_line_says_what_is_wrong_and_leaves_nothing(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    monkeypatch.chdir(tmp_path)
    png(tmp_path)
    text(tmp_path, "f")
    (tmp_path / "d").mkdir()
    words, expected = NUMBERS_AND_PLACES[mistake]
    result = run(*words)
    assert result.code == 2, result
    assert expected in result.line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "f", "p.png"]


def test_an_empty_name_is_not_the_current_folder(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a variable that is not set: `lpsnet data check "$DATA"`."""
    bad_labels(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "the data set has an empty name" in run("data", "check", "").out


@pytest.mark.parametrize(("is_known", "is_sound"), [(True, True), (True, False), (False, True)])
def test_the_next_command_of_the_data_check_is_one_that_works(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool, is_sound: bool
) -> None:
    """A guess has to be written down before it is trained on, and so has what leaves out the unusable."""
    for number in range(3):
        for kind, array in (("images" if is_known else "scans", np.arange(4800) % 251), ("masks", np.arange(4800) % 2)):
            folder = tmp_path / "d" / kind / "train"
            folder.mkdir(parents=True, exist_ok=True)
            painted = array.astype(np.uint8).reshape(40, 40, 3) if kind != "masks" else array[:1600].reshape(40, 40)
            cv2.imwrite(str(folder / f"{number}.png"), (painted + number * (kind != "masks")).astype(np.uint8))
    if not is_sound:
        (tmp_path / "d/masks/train/1.png").unlink()
    monkeypatch.chdir(tmp_path)
    result = run("data", "check", "d")
    (line,) = [line for line in result.out.splitlines() if line.startswith("Next: ")]
    if is_known and is_sound:
        assert line == "Next: lpsnet train --data d --out runs/first"
        return
    assert line == "Next: lpsnet data check d --out d.yaml"
    written = run(*line.split()[2:])
    assert written.code == (0 if is_sound else 2)
    assert "Next: lpsnet train --data d.yaml --out runs/first" in written.out
    assert run("data", "check", "d.yaml").code == 0


def text(folder: Path, name: str) -> Path:
    (folder / name).write_text("not what the name says")
    return folder / name


def pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


def png(folder: Path) -> Path:
    cv2.imwrite(str(folder / "p.png"), np.zeros((40, 40, 3), np.uint8))
    return folder / "p.png"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_clear_line_and_exit_code_2(run, trained: Path, tmp_path: Path, mistake: str) -> None:
    result = run(*MISTAKES[mistake](tmp_path, trained / "model.onnx"))
    assert result.code == 2, result
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith("lpsnet: ")]
    assert len(lines) == 1
    assert len(lines[0]) > 20
    assert "─" not in result.err, "no box"


def test_wrong_words_are_answered_with_where_the_right_ones_are(run) -> None:
    line = "lpsnet: No such command 'xyz'; 'lpsnet --help' lists what is allowed\n"
    assert run("xyz").err == line
    assert run("segment", "--opacity", "2", "a.png").err.endswith("; 'lpsnet segment --help' lists what is allowed\n")


def test_without_words_the_help_is_shown(run) -> None:
    result = run()
    assert result.code == 2
    assert "Usage: lpsnet [OPTIONS]" in result.out + result.err


def test_a_reader_that_has_enough_is_no_mistake() -> None:
    """The pipe is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    asked = [sys.executable, "-m", "lpsnet", "info", "lpsnet_s"]
    done = subprocess.run(asked, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_mistake_that_cannot_be_said_is_one() -> None:
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "-m", "lpsnet", "info", "nothing"], stderr=full).returncode == 2


def test_what_goes_wrong_inside_is_said_to_be_ours(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("lpsnet.models.profile.complexity", broken)
    result = run("info", "lpsnet_s")
    assert result.code == 1
    assert "a bug in lpsnet" in result.err
    assert "Traceback" not in result.err


def test_version_and_help(run) -> None:
    assert run("--version").out == f"lpsnet {lpsnet.__version__}\n"
    for command in ("train", "segment", "evaluate", "export", "info", "demo"):
        assert "Example" in run(command, "--help").out
    asked = [sys.executable, "-m", "lpsnet", "--help"]
    help_text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "Usage: lpsnet [OPTIONS]" in help_text
