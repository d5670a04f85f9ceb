"""What is looked at before a training: the usual size, labels that teach nothing, batches that cannot be."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.architecture import Architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import DataError, DivergedError, RunError
from lpsnet.training.config import NUM_SURVEYED, Recipe, Survey, get_recipe, parse_overrides, survey
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import diverged
from lpsnet.training.segmentation import Segmentation, train

ARCH = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))


def data_set(folder: Path, sizes: list[tuple[int, int]], *, values: tuple[int, ...] = (0, 1)) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, size in enumerate(sizes):
            for kind in ("images", "masks"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{split}{number}.png"), image)
            labels = np.resize(np.array(values, np.uint8), size)
            cv2.imwrite(str(folder / "masks" / split / f"{split}{number}.png"), labels)
    (folder / "data.yaml").write_text("names: [road, car, sky]")
    return folder / "data.yaml"


def run_of(data: Path, **settings: object) -> TrainingRun:
    values = {"iterations": 1, "batch_size": 2, "crop_size": (32, 32), "precision": "f32", "num_workers": 1}
    recipe = get_recipe("demo").with_overrides(values | settings)
    return TrainingRun(str(data), ARCH, recipe)


def task(run: TrainingRun) -> Segmentation:
    import torch

    return Segmentation.of(run, torch.device("cpu"))


def test_the_model_is_for_the_most_common_size_not_the_first(tmp_path: Path) -> None:
    made = task(run_of(data_set(tmp_path, [(90, 40), (40, 64), (40, 64)])))
    assert made._record().input_size == (40, 64)
    assert "the model is for the most common, 40x64 (2 of 3); --size sets another" in made.opening


def test_of_equally_common_sizes_the_largest() -> None:
    assert Survey({(40, 64): 2, (64, 64): 2, (90, 90): 1}, (1,), 5).usual_size == (64, 64)


def test_one_size_and_all_classes_say_nothing(tmp_path: Path) -> None:
    assert task(run_of(data_set(tmp_path, [(40, 64)] * 3, values=(0, 1, 2)))).opening == ""


def test_a_class_that_never_occurs_is_said(tmp_path: Path) -> None:
    opening = task(run_of(data_set(tmp_path, [(40, 64)] * 3))).opening
    assert "'sky' not in the 3 of 3 label files looked at" in opening


def test_nothing_labelled_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = data_set(tmp_path, [(40, 64)] * 3, values=(255,))
    with pytest.raises(DataError, match="no pixel of split 'train' has a label"):
        train(run_of(data), tmp_path / "out", tensorboard=False)
    assert not (tmp_path / "out" / "log.csv").exists()


def test_labels_after_many_files_without_are_found(tmp_path: Path) -> None:
    """Those looked at first hold none: the others are read until one does."""
    data = data_set(tmp_path, [(32, 32)] * (2 * NUM_SURVEYED), values=(255,))
    labelled = sorted((tmp_path / "masks" / "train").iterdir())[1]  # every second is looked at
    cv2.imwrite(str(labelled), np.full((32, 32), 2, np.uint8))
    found = survey(open_dataset(data).split("train"))
    assert found.pixels == (0, 0, 32 * 32)


def test_a_batch_norm_of_one_number_is_refused(tmp_path: Path) -> None:
    data = data_set(tmp_path, [(64, 64)] * 2)
    from dataclasses import replace

    deep = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1/2",))
    with pytest.raises(RunError, match=r"one image a batch and a crop of 32x32 .* --set batch_size=2"):
        task(replace(run_of(data, batch_size=1), architecture=deep))
    opening = task(replace(run_of(data, batch_size=1, crop_size=(128, 128)), architecture=deep)).opening
    assert "a batch is one image" in opening


def test_without_val_that_is_said(tmp_path: Path) -> None:
    data = data_set(tmp_path, [(40, 64)] * 2, values=(0, 1, 2))
    data.write_text("names: [road, car, sky]\nimages: {train: images/train}\nmasks: {train: masks/train}")
    assert task(run_of(data)).opening == "Data: no split 'val', only 'train': the network is not evaluated"


def test_a_val_without_labels_is_said_and_does_not_stop_the_training(tmp_path: Path) -> None:
    data = data_set(tmp_path, [(40, 64)] * 2, values=(0, 1, 2))
    data.write_text("names: [road, car, sky]\nmasks: {train: masks/train}")
    made = task(run_of(data))
    assert "split 'val' has no labels" in made.opening
    assert made.opening.endswith("the network is not evaluated")
    assert made.evaluate(made.model.state_dict()) is None


def test_what_is_not_finite_is_named() -> None:
    error = diverged(6, 0.02, what="weights are no longer finite, though every loss was,")
    assert isinstance(error, DivergedError)
    assert "loss is no longer" not in str(error)
    assert str(diverged(6, 0.02)).startswith("the loss is no longer finite at iteration 6; try a lower learning rate")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("crop_size=320", "crop_size: got 320; two values are needed, as 320x480 or 0.5,2"),
        ("batch_size=many", "batch_size: got many; a whole number is needed"),
        ("batch_size=0", "batch_size: got 0; a number of at least 1 is needed"),
        ("flip=2", "flip: got 2; a number of at most 1 is needed"),
        ("learning_rate=0", "learning_rate: got 0; a number above 0 is needed"),
        ("init_required=perhaps", "init_required: got perhaps; true or false is needed"),
        ("crop_size=1.5x20", "crop_size.0: got 1.5; a whole number is needed"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_in_plain_words(setting: str, words: str) -> None:
    with pytest.raises(RunError) as refused:
        get_recipe("demo").with_overrides(parse_overrides([setting]))
    assert str(refused.value) == f"recipe setting {words}"


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_every_refusal_of_a_recipe_is_in_our_words(name: str) -> None:
    """Whatever is given, none of the validator's own words is left."""
    assert not [words for words in map(partial(refusal, name), VALUES) if "Input should" in words]


VALUES = (None, "x", -1e9, 1e400, [], [1, 2, 3], {}, True)


def refusal(name: str, value: object) -> str:
    """What a recipe says to this value; empty if it takes it."""
    try:
        get_recipe("demo").with_overrides({name: value})
    except RunError as error:
        return str(error)
    return ""
