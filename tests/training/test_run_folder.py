"""A run's folder: whose it is, and what its logs keep when a run goes back to its checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from lpsnet.errors import RunError
from lpsnet.training.run_folder import RunFolder, refuse_images

DEFAULTS = {"schedule": "poly", "seed": 0, "num_workers": 2}


def settings(**recipe: Any) -> dict[str, Any]:
    return {"data": "scenes", "init": None, "recipe": {"name": "demo", **recipe}}


def held(path: Path, value: object) -> RunFolder:
    (path / "run.json").write_text(json.dumps(value), encoding="utf-8")
    return RunFolder(path)


def test_a_run_from_before_a_setting_existed_resumes_with_its_default(tmp_path: Path) -> None:
    folder = held(tmp_path, settings(seed=3))
    folder.check(settings(seed=3, schedule="poly"), defaults=DEFAULTS, resume=True)
    with pytest.raises(RunError, match=r"recipe.schedule = poly, not cosine"):
        folder.check(settings(seed=3, schedule="cosine"), defaults=DEFAULTS, resume=True)


def test_a_setting_that_was_left_out_of_the_new_run_counts_too(tmp_path: Path) -> None:
    folder = held(tmp_path, settings(seed=3))
    with pytest.raises(RunError, match=r"recipe.seed = 3, not 0"):
        folder.check(settings(), defaults=DEFAULTS, resume=True)


def test_settings_that_change_nothing_may_change(tmp_path: Path) -> None:
    held(tmp_path, settings(num_workers=1)).check(settings(num_workers=7), defaults=DEFAULTS, resume=True)


def test_an_empty_folder_is_anybodys(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check(settings(), defaults=DEFAULTS, resume=False)
    folder.begin(settings())
    with pytest.raises(RunError, match="already holds a run"):
        folder.check(settings(), defaults=DEFAULTS, resume=False)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_run_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path).check(settings(), defaults=DEFAULTS, resume=True)
    assert "\n" not in str(caught.value)


def test_logs_go_back_to_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rows = [{"iteration": i, "loss": 1, "learning_rate": 1, "pictures_per_second": 1} for i in range(1, 9)]
    folder.append_log(rows)
    for iteration in (2, 4, 6, 8):
        folder.append_evaluation({"iteration": iteration})
    with folder.log.open("a", encoding="utf-8") as file:
        file.write("9,0.5")  # cut off by a crash
    folder.rewind_logs(8, num_iterations=8)
    assert [int(row["iteration"]) for row in folder.read_log()] == list(range(1, 9))
    assert [line["iteration"] for line in folder.read_evaluations()] == [2, 4, 6]  # the last is made again
    folder.rewind_logs(5, num_iterations=8)
    assert [int(row["iteration"]) for row in folder.read_log()] == [1, 2, 3, 4, 5]
    assert [line["iteration"] for line in folder.read_evaluations()] == [2, 4]


def test_resume_is_refused_with_other_settings(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    inputs = {"classes": "2 classes (1): a, b", "train": "4 images (2)"}
    folder.check_inputs(inputs)  # there is no run yet
    folder.begin(settings(), {"inputs": inputs})
    folder.check_inputs(inputs)
    says = r"started on other data or weights: classes: 2 classes \(1\): a, b then, 2 classes \(9\): b, a now; put back"
    with pytest.raises(RunError, match=says):
        folder.check_inputs({**inputs, "classes": "2 classes (9): b, a"})


def test_a_run_of_an_older_version_does_not_say_what_it_was_started_on(tmp_path: Path) -> None:
    held(tmp_path, settings()).check_inputs({"classes": "2 classes (1): a, b"})


def test_a_bundled_model_is_known_by_its_name_whatever_file_an_earlier_version_had(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin({"init": "/usr/lib/python3/site-packages/lpsnet/weights/camvid_s.safetensors", "recipe": {}})
    folder.check({"init": "camvid_s", "recipe": {}}, defaults={}, resume=True)
    with pytest.raises(RunError, match="has init = camvid_s, not camvid_m"):
        folder.check({"init": "camvid_m", "recipe": {}}, defaults={}, resume=True)


def test_a_run_without_an_iteration_is_forgotten(tmp_path: Path) -> None:
    folder = held(tmp_path, settings())
    folder.log.write_text("iteration,loss,learning_rate,pictures_per_second\n")
    folder.forget()
    assert list(tmp_path.iterdir()) == []
    folder = held(tmp_path, settings())
    folder.log.write_text("iteration,loss,learning_rate,pictures_per_second\n1,2.5,0.1,3\n")
    folder.forget()
    assert folder.run.exists()


def test_a_run_does_not_begin_among_images(tmp_path: Path) -> None:
    """A look for labelled images passes over folders of runs, so these images would be gone for it."""
    (tmp_path / "a.JPG").write_bytes(b"")
    with pytest.raises(RunError, match=r"holds images, such as a.JPG; give a folder of its own"):
        refuse_images(tmp_path)
    refuse_images(tmp_path / "run")
