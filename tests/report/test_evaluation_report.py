"""The report of an evaluation: every figure is the file's, every image the data's, every name stays text."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from page_reading import check_self_contained, read_page
from shifted_labels import DATA, shifted

from lpsnet.data.corruptions import corrupt
from lpsnet.data.dataset import open_dataset
from lpsnet.data.synthetic import SCENES
from lpsnet.errors import RunError
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.report import evaluation as evaluation_page
from lpsnet.report.evaluation import (
    WRONG,
    ImageOptions,
    Source,
    best_and_worst,
    class_colours,
    difference,
    robustness_section,
    show_images,
)
from lpsnet.report.html import Gallery
from lpsnet.report.report import write_report


def test_figures_are_those_of_the_file(evaluated: dict[str, Any], tmp_path: Path) -> None:
    names = list(evaluated["ious"])
    drawn = {name: [10.0 + number, 20.0 + number] for number, name in enumerate(names)} | {names[0]: [None, None]}
    evaluated = {**evaluated, "miou_interval": [44.96, 55.04], "iou_intervals": drawn}
    evaluation_file = tmp_path / "drawn.json"
    evaluation_file.write_text(json.dumps(evaluated), encoding="utf-8")
    page = read_page(write_report(evaluation_file).read_text(encoding="utf-8"))
    check_self_contained(page)
    assert page.fact("mIoU") == f"{evaluated['miou']:.2f} %"
    assert page.fact("Pixel accuracy") == f"{evaluated['pixel_accuracy']:.2f} %"
    assert page.fact("Boundary mIoU") == f"{evaluated['boundary_miou']:.2f} %"
    assert page.fact("Images") == "7"
    rows = page.table("Class", "IoU (%)", "95 % interval", "Accuracy (%)", "Boundary IoU (%)")
    shown = {name: (iou, *figures) for name, iou, _, *figures, _ in rows}
    assert {name: interval for name, _, interval, *_ in rows} == {
        name: "–" if number == 0 else f"{10 + number}.0 to {20 + number}.0" for number, name in enumerate(names)
    }
    assert "95 % interval of mIoU, from these images drawn again at random, with repetition: 45.0 to 55.0." in page.text
    assert shown == {
        name: tuple(
            "–" if value is None else f"{value:.1f}"
            for value in (iou, evaluated["accuracies"][name], evaluated["boundary_ious"][name])
        )
        for name, iou in evaluated["ious"].items()
    }
    known = [float(row[1]) for row in rows if row[1] != "–"]
    assert known == sorted(known, reverse=True)
    matrix = np.array(evaluated["confusion_matrix"])
    shares = 100 * matrix.sum(axis=1) / matrix.sum()
    assert {row[0]: row[-1] for row in rows} == {
        name: f"{share:.2f}" for name, share in zip(evaluated["ious"], shares, strict=True)
    }
    assert "lpsnet evaluate --model 'no such.onnx'" in page.text
    assert page.fact("engine") == "a shift"


def test_the_matrix_and_its_greatest_confusions(evaluated: dict[str, Any], evaluation_file: Path) -> None:
    page = read_page(write_report(evaluation_file).read_text(encoding="utf-8"))
    names, matrix = list(evaluated["ious"]), np.array(evaluated["confusion_matrix"])
    said = re.findall(r"truth: (.+)\nprediction: (.+)\n[\d.]+ % of it, ([\d,]+) pixels", "\n".join(page.tips))
    found = {(names.index(truth), names.index(taken)): int(count.replace(",", "")) for truth, taken, count in said}
    assert found == {place: matrix[place] for place in np.ndindex(*matrix.shape) if matrix[place]}
    off = [(matrix[i, j] / matrix[i].sum(), names[i], names[j]) for i, j in found if i != j and matrix[i].sum()]
    greatest = sorted(off, reverse=True)[0]
    truth, taken, share, _ = page.table("Truth", "Taken for")[0]
    assert (truth, taken, share) == (greatest[1], greatest[2], f"{100 * greatest[0]:.1f}")


def test_too_many_classes_to_draw_have_their_table(evaluated: dict[str, Any], tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(150)]
    matrix = np.eye(150, dtype=int)
    matrix[3, 5] = 3
    many = {
        "ious": dict.fromkeys(names, 50.0),
        "accuracies": dict.fromkeys(names, 50.0),
        "confusion_matrix": matrix.tolist(),
        "boundary_ious": {},
    }
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({**evaluated, **many}), encoding="utf-8")
    page = read_page(write_report(path).read_text(encoding="utf-8"))
    assert "svg" not in page.opened
    assert page.table("Truth", "Taken for") == [["class 3", "class 5", "75.0", "3"]]


def test_best_and_worst_are_sorted(evaluated: dict[str, Any]) -> None:
    found = best_and_worst(Evaluation.model_validate(evaluated), 2)
    ranked = sorted(((it["miou"], it["name"]) for it in evaluated["per_image"]), reverse=True)
    assert [(name, miou) for _, name, miou in found] == [(n, m) for m, n in (*ranked[:2], ranked[-1], ranked[-2])]
    every = best_and_worst(Evaluation.model_validate(evaluated), 50)
    assert sorted(name for _, name, _ in every) == sorted(name for _, name in ranked), "none is shown twice"


def test_images_are_the_datas_own(evaluated: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, note = _gallery(evaluated, monkeypatch, lambda labels, number: shifted(labels, number))
    assert gallery is not None
    assert note == ""
    split = open_dataset(DATA).split("val")
    for title, images in gallery.rows:
        number = split.names.index(title.split(": ")[1].split(",")[0])
        truth, prediction = split.labels(number), shifted(split.labels(number), number)
        wrong = 100 * np.mean((truth != prediction)[truth != 255])
        assert images[3].caption == f"Difference: {wrong:.1f} % wrong"
        image = _decoded(images[0].source)
        assert np.abs(image.astype(int) - split.image(number)).mean() < 6, "JPEG changes little"
        red = np.abs(_decoded(images[3].source).astype(int) - WRONG).sum(axis=2) < 90
        assert 100 * red.mean() == pytest.approx(wrong, abs=6)
    assert [name for name, _ in gallery.legend[:-1]] == list(evaluated["ious"])


def test_a_note_where_predictions_have_changed(evaluated: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, note = _gallery(evaluated, monkeypatch, lambda labels, number: np.zeros_like(labels))
    assert "have changed since" in note


def test_images_of_averaged_views_are_those_of_one_and_said_to_be(
    evaluated: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Source] = []

    def show(evaluation: Evaluation, source: Source, count: int) -> tuple[None, str]:
        asked.append(source)
        return None, ""

    monkeypatch.setattr(evaluation_page, "show_images", show)
    for protocol in ({"precision": "bf16"}, {"precision": "f32", "averaged": "probabilities"}):
        changed = {**evaluated, "protocol": {**evaluated["protocol"], "model": "m", **protocol}}
        evaluation_page.gallery_of(Evaluation.model_validate(changed), ImageOptions())
    assert [(it.precision, it.is_averaged) for it in asked] == [("bf16", False), ("f32", True)]
    averaged = Source(DATA, "val", "m.onnx", is_averaged=True)
    _, note = _gallery(evaluated, monkeypatch, lambda labels, number: np.zeros_like(labels), source=averaged)
    assert note.startswith("Several views of every image were averaged")


def test_colours_are_those_of_the_data(evaluated: dict[str, Any]) -> None:
    own = {name: [number, 2, 3] for number, name in enumerate(evaluated["ious"])}
    assert class_colours(Evaluation.model_validate({**evaluated, "colours": own})) == tuple(map(tuple, own.values()))
    older = Evaluation.model_validate({key: value for key, value in evaluated.items() if key != "colours"})
    assert class_colours(older) == SCENES.colours


def test_the_difference_pixel_by_pixel() -> None:
    dice = np.random.default_rng(0)
    image = dice.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    truth = dice.choice(np.array([0, 1, 2, 255], np.uint8), (9, 11))
    prediction = dice.integers(0, 3, (9, 11), dtype=np.uint8)
    found = difference(image, truth, prediction)
    for place in np.ndindex(9, 11):
        if truth[place] == 255:
            assert found[place].max() <= 85
        elif truth[place] != prediction[place]:
            assert tuple(found[place]) == WRONG
        else:
            assert found[place].min() == found[place].max() >= 127


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ImageOptions(), "no model file at models/no such.onnx"),
        (ImageOptions(data="camvid:nowhere"), "nowhere does not exist"),
        (ImageOptions(data="scenes:size=48x64,num_val=1"), "no model file"),
    ],
)
def test_the_report_is_written_without_images(evaluation_file: Path, options: ImageOptions, reason: str) -> None:
    page = read_page(write_report(evaluation_file, images=options).read_text(encoding="utf-8"))
    (note,) = [text for text in page.texts if text.startswith("No images are shown")]
    assert reason in note
    assert "\n" not in note
    assert page.images() == []
    assert page.table("Class")


def test_none_are_looked_for_where_none_are_wanted(evaluation_file: Path) -> None:
    html = write_report(evaluation_file, images=ImageOptions(count=0)).read_text(encoding="utf-8")
    assert "No images are shown" not in html


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% for x in page %}",
    "</title></svg></style><iframe src=//x>",
    "a\x00b\u202ec\ud800",
    "javascript:alert(1)",
    "<!--",
)


def test_names_from_other_peoples_files_stay_text(evaluated: dict[str, Any], tmp_path: Path) -> None:
    names = dict(zip(evaluated["ious"], HOSTILE, strict=True))
    renamed = {key: {names[name]: value for name, value in evaluated[key].items()} for key in ("ious", "accuracies")}
    protocol = {"data": HOSTILE[0], "model": HOSTILE[1], "split": HOSTILE[2], HOSTILE[3]: HOSTILE[4]}
    images = [{"name": HOSTILE[0], "miou": 1.0}]
    more = {"boundary_ious": {}, "protocol": protocol, "per_image": images, "command": HOSTILE[1]}
    path = tmp_path / "a <b> & 'c'.json"
    path.write_text(json.dumps({**evaluated, **renamed, **more}), encoding="utf-8")
    page = read_page(write_report(path).read_text(encoding="utf-8"))
    check_self_contained(page)
    assert {"img", "iframe"}.isdisjoint(page.opened)
    shown = {row[0] for row in page.table("Class")}
    assert shown == {name.replace("\x00", "\ufffd").replace("\ud800", "\ufffd") for name in HOSTILE}
    assert page.fact(HOSTILE[3].replace("_", " ")) == HOSTILE[4]
    assert any(HOSTILE[0] in tip for tip in page.tips)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"miou": 101.0}, "miou"),
        ({"miou": "high"}, "miou"),
        ({"confusion_matrix": [[1]]}, "confusion matrix"),
        ({"confusion_matrix": [["1"] * 8] * 7 + [["x"] * 8]}, "confusion_matrix"),
        ({"confusion_matrix": [[-1] * 8] * 8}, "numbers of pixels"),
        ({"per_image": [{"miou": 1.0}]}, "per_image.0.name"),
        ({"accuracies": {}}, "same classes"),
        ({"ious": {}}, "ious"),
        ({"protocol": None}, "protocol"),
    ],
)
def test_a_file_that_is_not_as_it_should_be(
    evaluated: dict[str, Any], tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({**evaluated, **change}), encoding="utf-8")
    with pytest.raises(RunError, match=re.escape(where)) as caught:
        write_report(path)
    assert "\n" not in str(caught.value)


def test_classes_without_pixels_have_dashes(evaluated: dict[str, Any], tmp_path: Path) -> None:
    none = dict.fromkeys(evaluated["ious"])
    empty = {"miou": None, "ious": none, "accuracies": none, "confusion_matrix": [[0] * 8] * 8, "per_image": []}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({**evaluated, **empty}), encoding="utf-8")
    page = read_page(write_report(path).read_text(encoding="utf-8"))
    assert {row[1] for row in page.table("Class")} == {"–"}
    assert page.fact("mIoU") == "– %"


def _gallery(
    evaluated: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    predict: Any,
    *,
    source: Source = Source(DATA, "val", "m.onnx"),  # noqa: B008 - frozen
) -> tuple[Gallery | None, str]:
    """The images with predictions of `predict`, which is given the truth and the image's number."""
    split = open_dataset(DATA).split("val")
    images = [split.image(number) for number in range(len(split))]

    class Segmenter:
        def __init__(self, model: str, **options: object) -> None:
            assert model == "m.onnx"

        def __call__(self, image: np.ndarray) -> np.ndarray:
            (number,) = [n for n, own in enumerate(images) if np.array_equal(own, image)]
            result: np.ndarray = predict(split.labels(number), number)
            return result

    monkeypatch.setattr("lpsnet.report.evaluation.Segmenter", Segmenter)
    return show_images(Evaluation.model_validate(evaluated), source, 2)


def _decoded(uri: str) -> np.ndarray:
    kind, data = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[:, :, ::-1])


def test_robustness_is_a_table_with_examples(evaluated: dict[str, Any], tmp_path: Path) -> None:
    scored = [
        {"corruption": "jpeg", "strength": "strong", "value": 7, "miou": 31.25},
        {"corruption": "not yet <known>", "strength": "mild", "value": 0.5, "miou": None},
    ]
    robust = {"num_images": 5, "clean_miou": 51.5, "mean_miou": 31.25, "scores": scored}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({**evaluated, "robustness": robust}), encoding="utf-8")
    page = read_page(write_report(path).read_text(encoding="utf-8"))
    check_self_contained(page)
    assert page.fact("mIoU under corruptions") == "31.25 %"
    rows = page.table("Corruption", "mIoU (%)", "Loss (points)", "Strength")
    assert [row[:4] for row in rows] == [
        ["none", "51.5", "", ""],
        ["jpeg", "31.2", "20.2", "strong: 7"],
        ["not yet <known>", "–", "–", "mild: 0.5"],
    ]
    assert (
        "On 5 of the 7 images: 51.5 mIoU as they are, 31.2 in the mean under corruptions, 20.2 points less."
        in page.text
    )
    split = open_dataset(DATA).split("val")
    section = robustness_section(Evaluation.model_validate({**evaluated, "robustness": robust}), ImageOptions())
    gallery = section.parts[-1]
    assert isinstance(gallery, Gallery)
    ((title, (clean, corrupted)),) = gallery.rows
    assert split.names[3] in title
    assert [clean.caption, corrupted.caption] == ["as it is", "jpeg, strong"]
    np.testing.assert_allclose(_decoded(clean.source), split.image(3), atol=40)
    wanted = corrupt("jpeg", split.image(3), "strong", index=3)
    assert np.abs(_decoded(corrupted.source).astype(int) - wanted).mean() < 6
    assert len(robustness_section(Evaluation.model_validate(evaluated), ImageOptions()).parts) == 0
    without = Evaluation.model_validate({**evaluated, "robustness": robust})
    assert len(robustness_section(without, ImageOptions(data="nowhere")).parts) == 2
    assert len(robustness_section(without, ImageOptions(count=0)).parts) == 2
