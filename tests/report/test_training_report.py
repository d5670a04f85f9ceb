"""The report of a training: curves by their ticks, scores of the last evaluation, running ones, the record."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_reading import Page, check_self_contained, read_page
from svg_scale import of_class, parse, path_points, x_scale, y_scale

from lpsnet.errors import RunError
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.report.evaluation import ImageOptions
from lpsnet.report.report import write_report
from lpsnet.training.run_folder import RunFolder

RUN = {"data": "scenes", "split": "train", "architecture": "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2", "init": None}
RECIPE = {"name": "demo", "epochs": 12.0, "crop_size": [128, 256]}
STARTED = {"num_iterations": 50, "num_pictures": 400, "command": "lpsnet train --out 'a b'", "machine": "a machine"}
LOSSES = [3.0 - 0.05 * step for step in range(40)]


def make_run(path: Path, *, recipe: dict[str, Any] = RECIPE, losses: list[float] = LOSSES) -> RunFolder:
    folder = RunFolder(path)
    folder.begin({**RUN, "recipe": recipe}, STARTED)
    rates = [0.1 * (1 - step / 50) for step in range(len(losses))]
    folder.append_log(
        {"iteration": n + 1, "loss": loss, "learning_rate": rate, "pictures_per_second": 20.0 + n % 3}
        for n, (loss, rate) in enumerate(zip(losses, rates, strict=True))
    )
    for iteration, miou in ((10, 20.0), (20, 35.5), (40, 41.25)):
        folder.append_evaluation({"iteration": iteration, "miou": miou, "ious": {"road": 80.0, "car": None}})
    return folder


def report(path: Path) -> tuple[Page, list[str]]:
    html = write_report(path, images=ImageOptions(count=0)).read_text(encoding="utf-8")
    page = read_page(html)
    check_self_contained(page)
    return page, re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)


def test_curves_show_the_log(tmp_path: Path) -> None:
    make_run(tmp_path)
    _, charts = report(tmp_path)
    wide = [parse(svg) for svg in charts[::2]]
    expected = [
        (range(1, 41), LOSSES),
        ((10, 20, 40), (20.0, 35.5, 41.25)),
        (range(1, 41), [0.1 * (1 - step / 50) for step in range(40)]),
        (range(1, 41), [20.0 + step % 3 for step in range(40)]),
    ]
    assert len(wide) == len(expected)
    for root, (xs, ys) in zip(wide, expected, strict=True):
        x, y = x_scale(root), y_scale(root)
        (curve,) = of_class(root, "curve")
        points = path_points(curve)
        assert [x.value(a) for a, _ in points] == pytest.approx(list(xs), abs=x.tolerance)
        assert [y.value(b) for _, b in points] == pytest.approx(list(ys), abs=y.tolerance)


def test_a_running_training_shows_the_time_left(tmp_path: Path) -> None:
    make_run(tmp_path)
    page, _ = report(tmp_path)
    assert "This run is not finished: 40 iterations are done of 50, 10 are left." in page.texts
    assert page.fact("mIoU") == "41.25 %"
    assert page.fact("Iterations") == "40"
    assert page.fact("Last loss") == f"{LOSSES[-1]:.4g}"
    assert page.fact("Speed, median") == "21.0 images/s"
    assert page.table("Class") == [["road", "80.0"], ["car", "–"]]


def test_a_model_saved_while_training_does_not_end_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for key, is_said in {"saved": True, "finished": False}.items():
        facts = {"iterations": 40, key: "2026-11-30T00:00:00Z"}
        net = create_model("B=1,1,1,1,1;C=4,4,4,4,4;R=1", num_classes=2)
        save_checkpoint(net, folder.model, record=default_record(net).model_copy(update={"training": facts}))
        page, _ = report(tmp_path)
        assert ("This run is not finished: 40 iterations are done of 50, 10 are left." in page.texts) is is_said


def test_command_settings_and_recipe(tmp_path: Path) -> None:
    make_run(tmp_path)
    page, _ = report(tmp_path)
    assert STARTED["command"] in page.texts
    assert page.fact("architecture") == RUN["architecture"]
    assert page.fact("crop size") == "128x256"
    assert page.fact("machine") == "a machine"
    assert "init" not in dict(page.facts)


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin({**RUN, "recipe": RECIPE})
    page, charts = report(tmp_path)
    assert "This run has not come to its first iterations yet." in page.texts
    assert charts == []


def test_the_last_evaluation_in_full(tmp_path: Path, evaluated: dict[str, Any]) -> None:
    folder = make_run(tmp_path)
    folder.evaluation.write_text(json.dumps(evaluated), encoding="utf-8")
    page, _ = report(tmp_path)
    shown = {row[0]: row[1] for row in page.table("Class", "IoU (%)", "Accuracy (%)")}
    assert shown == {name: "–" if iou is None else f"{iou:.1f}" for name, iou in evaluated["ious"].items()}
    assert any(tip.startswith("truth: ") for tip in page.tips)


def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    make_run(tmp_path, losses=[3.0, float("inf"), 2.0, float("nan"), 1.0])
    _, charts = report(tmp_path)
    root = parse(charts[0])
    scale = y_scale(root)
    found = [scale.value(y) for _, y in path_points(of_class(root, "curve")[0])]
    assert found == pytest.approx([3.0, 2.0, 1.0], abs=scale.tolerance)


def test_texts_of_a_run_stay_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    folder = make_run(tmp_path, recipe={"name": hostile, hostile: hostile})
    folder.append_evaluation({"iteration": 41, "miou": 1.0, "ious": {hostile: 3.0}})
    page, _ = report(tmp_path)
    assert page.table("Class") == [[hostile, "3.0"]]
    assert page.fact(hostile) == hostile


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "[]"),
        ("run.json", "{"),
        ("log.csv", "iteration,loss,learning_rate,pictures_per_second\n1,x,0.1,3\n"),
        ("evaluations.jsonl", "{\n"),
        ("evaluation.json", "{}"),
        ("evaluation.json", "\xff"),
    ],
)
def test_damaged_files_are_refused_in_a_line(tmp_path: Path, name: str, content: str) -> None:
    make_run(tmp_path)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=re.escape(str(tmp_path))) as caught:
        report(tmp_path)
    assert "\n" not in str(caught.value)


def test_strange_numbers_in_evaluations_draw_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    with folder.evaluations.open("a", encoding="utf-8") as file:
        file.write(f'{{"iteration": 1{"0" * 400}, "miou": 5}}\n{{"iteration": 45, "miou": Infinity}}\n')
    page, charts = report(tmp_path)
    assert "inf" not in page.fact("Iterations")
    (curve,) = of_class(parse(charts[2]), "curve")
    assert len(path_points(curve)) == 3


def test_a_run_without_its_last_evaluation_says_how_to_make_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    folder.model.write_bytes(b"damaged")
    page, _ = report(tmp_path)
    (how,) = [text for text in page.texts if text.startswith("For the confusion matrix")]
    words = ["lpsnet", "evaluate", "--model", folder.model, "--data", "scenes", "--json", folder.evaluation]
    assert how.endswith(" ".join(map(str, words)))
    assert any(text.startswith("The model's record is not shown: ") for text in page.texts)
    assert "This run is not finished" not in page.text
