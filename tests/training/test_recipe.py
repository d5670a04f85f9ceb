"""Recipes: the paper's numbers, overriding, reading from YAML, and refusing what cannot be."""

from dataclasses import replace
from pathlib import Path

import pytest

from lpsnet.data.augment import Augmentation
from lpsnet.errors import RunError
from lpsnet.training.config import RECIPES, get_recipe, parse_overrides

# Section 4.2: iterations, batch size, learning rate, crop, loss, needs pre-training
PAPER = {
    "paper_cityscapes": (90_000, 16, 0.01, (768, 768), "cross_entropy", False),
    "paper_cityscapes_strong": (180_000, 16, 0.01, (768, 1536), "ohem", True),
    "paper_bdd100k": (180_000, 16, 0.01, (720, 1280), "ohem", True),
    "paper_camvid": (40_000, 12, 0.03, (720, 960), "ohem", True),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers(name: str) -> None:
    r = get_recipe(name)
    assert (r.iterations, r.batch_size, r.learning_rate, r.crop_size, r.loss, r.init_required) == PAPER[name]
    assert (r.momentum, r.weight_decay, r.poly_power, r.scale) == (0.9, 5e-4, 0.9, (0.5, 2.0))
    assert (r.form, r.class_weights, r.loss_stride) == ("reparameterised", "none", 1)
    assert "Section 4.2" in r.source


def test_poly_learning_rate_by_hand() -> None:
    recipe = get_recipe("paper_cityscapes")
    assert recipe.learning_rate_at(0, 90_000) == 0.01
    assert recipe.learning_rate_at(45_000, 90_000) == pytest.approx(0.01 * 0.5**0.9)
    warm = recipe.with_overrides({"warmup_iterations": 9})
    assert warm.learning_rate_at(4, 10**9) == pytest.approx(0.005)
    assert warm.learning_rate_at(9, 10**9) == pytest.approx(0.01)


def test_cosine_learning_rate_by_hand() -> None:
    recipe = get_recipe("paper_cityscapes").with_overrides({"schedule": "cosine"})
    assert recipe.learning_rate_at(0, 90) == 0.01
    assert recipe.learning_rate_at(30, 90) == pytest.approx(0.0075)
    assert recipe.learning_rate_at(45, 90) == pytest.approx(0.005)


def test_defaults_are_json_and_make_the_recipe_again() -> None:
    recipe = get_recipe("camvid_small")
    values = recipe.model_dump(mode="json")
    defaults = type(recipe).defaults()
    assert defaults["scale"] == [0.5, 2.0]
    assert {key for key in values if key not in defaults} == {"name"}
    given = {key: value for key, value in values.items() if key == "name" or defaults[key] != value}
    assert type(recipe).from_values(given) == recipe


def test_augmentations_that_are_off_are_reached_by_name_and_change_nothing_otherwise() -> None:
    recipe = get_recipe("demo")
    before = Augmentation(
        crop_size=(128, 256), scale=(0.75, 1.5), flip_probability=0.5, brightness=0.5, contrast=0.5, saturation=0.5
    )
    assert recipe.augmentation == before
    assert not {"hue", "rotation", "max_class_share", "corruption"} & recipe.model_dump(mode="json").keys(), (
        "recipes keep their JSON"
    )
    overrides = parse_overrides(["rotation=10", "hue=20.5", "max_class_share=0.75", "corruption=0.5"])
    changed = recipe.with_overrides(overrides)
    kept = {"rotation_degrees": 10, "hue_degrees": 20.5, "max_class_share": 0.75, "corruption": 0.5}
    assert changed.augmentation == replace(before, **kept)
    assert type(recipe).from_values(changed.model_dump(mode="json")) == changed
    assert changed.with_overrides({"rotation": 0, "hue": 0, "max_class_share": 1, "corruption": 0}) == recipe


LATER = {"patience": 3, "class_mix": 0.5, "rare_class_crops": 0.25, "aux_weight": 0.4, "frozen_stages": 2}
LATER |= {"teacher_weight": 2.0, "teacher_temperature": 1.0, "unlabelled_share": 0.25}


def test_settings_that_came_later_are_named_only_where_they_are_used() -> None:
    recipe = get_recipe("camvid_small")
    assert not LATER.keys() & recipe.model_dump(mode="json").keys(), "recipes keep their JSON"
    changed = recipe.with_overrides(parse_overrides([f"{key}={value}" for key, value in LATER.items()]))
    assert LATER.items() <= changed.model_dump(mode="json").items()
    assert type(recipe).from_values(changed.model_dump(mode="json")) == changed


@pytest.mark.parametrize(("share", "batch_size", "count"), [(0.5, 8, 4), (0.01, 8, 1), (0.99, 8, 7), (0.5, 2, 1)])
def test_images_without_labels_in_a_batch(share: float, batch_size: int, count: int) -> None:
    recipe = get_recipe("demo").with_overrides({"unlabelled_share": share, "batch_size": batch_size})
    assert recipe.num_unlabelled == count


def test_epochs_and_iterations_replace_each_other() -> None:
    recipe = get_recipe("paper_cityscapes").with_overrides({"epochs": 2, "batch_size": 10})
    assert recipe.iterations is None
    assert recipe.num_iterations(365) == 73
    assert recipe.with_overrides({"iterations": 7}).num_iterations(365) == 7


def test_overrides_are_read_as_people_write_them() -> None:
    texts = ["learning_rate=0.1", "crop_size=360x480", "scale=0.5,2", "loss=ohem", "init_required=false", "seed=3"]
    values = parse_overrides(texts)
    assert values["crop_size"] == [360, 480]
    recipe = get_recipe("paper_camvid").with_overrides(values)
    assert (recipe.crop_size, recipe.scale, recipe.seed, recipe.init_required) == ((360, 480), (0.5, 2.0), 3, False)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["learning_rat=1"], "did you mean 'learning_rate'"),
        (["learning_rate"], "key=value"),
        (["learning_rate=fast"], "learning_rate"),
        (["learning_rate=-1"], "learning_rate"),
        (["crop_size=0x10"], "crop_size"),
        (["scale=2,1"], "scale"),
        (["iterations=null"], "exactly one of iterations, epochs, minutes"),
        (["loss=focal"], "loss"),
    ],
)
def test_bad_overrides_get_one_line(settings: list[str], part: str) -> None:
    with pytest.raises(RunError, match=part) as caught:
        get_recipe("paper_cityscapes").with_overrides(parse_overrides(settings))
    assert "\n" not in str(caught.value)


def test_yaml_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: camvid_small\nepochs: 3\nflip: 0\n", encoding="utf-8")
    assert get_recipe(str(path)) == RECIPES["camvid_small"].with_overrides({"name": "mine", "epochs": 3, "flip": 0})


@pytest.mark.parametrize(
    "text",
    [
        "- a\n",
        "base: nothing\n",
        "!!python/object:os.system {}\n",
        "epochs: [\n",
        "1: 2\n",
        "base: [demo]\n",
        "\x00",
        "epochs: 1\nx: 2\n",
    ],
)
def test_bad_yaml_gets_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError) as caught:
        get_recipe(str(path))
    assert "\n" not in str(caught.value)
    assert "bad.yaml" in str(caught.value)


def test_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(RunError, match="did you mean 'camvid_small'"):
        get_recipe("camvid_smal")
