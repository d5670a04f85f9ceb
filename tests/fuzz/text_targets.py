"""Texts that people write: architectures, sizes, data set descriptions, list files, recipes."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from damage import JSON, altered, scrambled
from fuzzing import Target

from lpsnet.architecture import Architecture, get_architecture, list_architectures
from lpsnet.cli.output import parse_size
from lpsnet.data.dataset import open_dataset
from lpsnet.training.classification import get_pretraining_recipe
from lpsnet.training.config import RECIPES, Recipe, get_recipe, parse_overrides

_ARCHITECTURES = [*list_architectures(), *(str(get_architecture(name)) for name in ("tiny", "lpsnet_s", "step_14"))]
_PIECES = [*"BCR=;,/{}.- x×½٣\0", "0", "1", "-1", "99999999999", "1e9", "1/0", "0/1", "999999999/999999999", "nan"]

_DESCRIPTIONS: list[Any] = [
    {"names": ["road", "car", "person"]},
    {"names": {0: "road", 7: "car"}, "ignore": [255, 3], "ids": {0: "road", 7: "car"}},
    {
        "path": ".",
        "name": "mine",
        "colour_map": {"road": [1, 2, 3], "car": [[4, 5, 6], [7, 8, 9]]},
        "ignore": "others",
        "colours": {"road": [1, 2, 3], "car": [4, 5, 6]},
    },
    {
        "names": ["a", "b", "c", "d", "e"],
        "images": {"train": "images/train", "val": ["images/train/0.png"]},
        "masks": {"train": "masks/train"},
        "exclude": ["0"],
    },
    {"names": ["a", "b", "c"], "images": "images/train", "masks": "masks/train", "val_fraction": 0.5},
    {
        "train": "images/train",
        "val": ["images/train"],
        "masks_dir": "masks",
        "names": {0: "road", 1: "car"},
        "label_mapping": {0: 0, 7: 1, 255: "ignore_label"},
    },
    {"names": ["a", "b", "c"], "images": "images", "masks": "masks", "lists": "{split}.txt", "mask_suffix": "_L.png"},
    {
        "format": "coco",
        "annotations": {"train": ["coco.json"]},
        "images": "images",
        "labels": {"car": "thing"},
        "names": ["thing"],
        "background": "ground",
        "ignore": ["person"],
        "line_width": 2.5,
        "draw": ["bbox"],
        "skip": ["point"],
    },
    {
        "format": "yolo",
        "names": {0: "a", 1: "b"},
        "images": "images/train",
        "annotations": "texts",
        "val_fraction": 0.5,
    },
]
_COCO = {
    "images": [{"id": 1, "file_name": "train/0.png", "height": 4, "width": 4}],
    "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]},
        {"image_id": 1, "category_id": 2, "segmentation": {"size": [4, 4], "counts": [3, 5, 8]}},
    ],
}
_YAML_PIECES = [
    *(": ", "- ", "[", "]", "{", "}", "\n", "  ", "? ", "~", "\t", "'", '"', "\ufeff", "null", ".inf"),
    *("&a ", "*a", "<<: *a", "a: &b [*b]", "%YAML 9.9\n---\n", "---\n", "...\n"),
    *(
        "!!python/object/apply:os.system ['exit 3']",
        "!!binary x",
        "!!timestamp x",
        "!!int x",
        "!!set {a}",
        "!!omap [a: 1]",
    ),
    *("2020-99-99", "1:99:99", "9" * 5_000, "0x" + "f" * 5_000),
]
_LISTS = [
    "images/train/0.png masks/train/0.png\nimages/train/1.png\n",
    "/SegNet/CamVid/train/0.png /SegNet/CamVid/trainannot/0.png\n",
    "0\n1\n",
]
_DATA = ["scenes", "scenes:size=32x64,num_train=2,num_val=1,seed=3", "camvid:", "cityscapes:.", "bdd100k:x", "x.yaml"]


def _architecture(text: str, folder: Path) -> None:
    value = get_architecture(text)
    assert Architecture.parse(str(value)) == value
    assert Architecture.from_json(value.to_json()) == value


def _architecture_json(value: Any, folder: Path) -> None:
    architecture = Architecture.from_json(json.dumps(value))
    assert Architecture.from_json(architecture.to_json()) == architecture


def _size(text: str, folder: Path) -> None:
    size = parse_size(text)
    assert size is not None
    assert min(size) >= 32


def _dataset(text: str, folder: Path) -> None:
    """The description stands beside real files; what it says is opened and its samples are read."""
    for name in ("images/train/0", "images/train/1", "masks/train/0", "masks/train/1_L"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((4, 4), np.uint8))
    (folder / "train.txt").write_text("0\n")
    (folder / "texts").mkdir()
    (folder / "texts/0.txt").write_text("1 0 0 1 0 1 1\n")
    (folder / "coco.json").write_text(json.dumps(_COCO))
    path = folder / "d.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    dataset = open_dataset(path)
    for split in dataset.parts.values():
        for number in range(min(2, len(split))):
            sample = split[number]
            assert sample.labels.shape == sample.image.shape[:2]
            assert set(np.unique(sample.labels)) <= {*range(dataset.label_space.num_classes), 255}


def _list_file(text: str, folder: Path) -> None:
    (folder / "all.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    _dataset("names: [a, b]\nimages: {train: all.txt}\nmasks: {train: all.txt}\n", folder)


def _data_text(text: str, folder: Path) -> None:
    """What `--data` takes, short of walking through the machine's own folders."""
    if text.partition(":")[0] in ("scenes", "") or ":" not in text:
        open_dataset(text)
    else:
        open_dataset(f"{text}{folder}")


def _recipe(text: str, folder: Path) -> None:
    path = folder / "r.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    recipe = get_recipe(str(path))
    assert recipe.num_iterations(100) >= 1
    for iteration in (0, recipe.num_iterations(100) - 1):
        assert recipe.learning_rate_at(iteration, recipe.num_iterations(100)) >= 0
    assert Recipe.from_values(json.loads(recipe.model_dump_json())) == recipe


def _pretraining_recipe(text: str, folder: Path) -> None:
    path = folder / "r.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    get_pretraining_recipe(str(path))


def _override(text: str, folder: Path) -> None:
    recipe = get_recipe("camvid_small").with_overrides(parse_overrides([text]))
    recipe.num_iterations(100)


def _dumped(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True)


_BASED = {"base": "demo", "epochs": 2, "crop_size": [64, 96]}
_VALID_RECIPES = [_BASED, *(recipe.model_dump(mode="json") for recipe in RECIPES.values())]
_RECIPE_TEXTS = scrambled([_dumped(recipe) for recipe in _VALID_RECIPES], _YAML_PIECES)
_PRETRAINING_TEXTS = scrambled(["base: imagenet\nepochs: 1\n"], _YAML_PIECES)
_OVERRIDES = ["epochs=2", "crop_size=360x480", "scale=0.5,2", "loss=ohem", "learning_rate=0.1", "decay_norm=true"]
_OVERRIDE_TEXTS = scrambled(_OVERRIDES, [*"=x,[]{}", "1e999", "NaN", "9" * 5_000, "[" * 2_000])
_DESCRIPTION_TEXTS = scrambled([_dumped(description) for description in _DESCRIPTIONS], _YAML_PIECES)
_LIST_TEXTS = scrambled(_LISTS, ["\n", " ", "..", "/", "\0", "~", "*", "\ufeff", "\x85"])
_DATA_TEXTS = scrambled(_DATA, [*",=:x", "0", "9" * 30, "..", "~nobody-here", "*", "\0"])
_ARCHITECTURE_JSON = altered([get_architecture("lpsnet_s").to_dict()]) | JSON

TARGETS = (
    Target("architecture", scrambled(_ARCHITECTURES, _PIECES), _architecture, many=2_000, few=60),
    Target("architecture as json", _ARCHITECTURE_JSON, _architecture_json, many=1_000),
    Target("size", scrambled(["360x480", "32×32"], _PIECES), _size, many=500),
    Target("description", altered(_DESCRIPTIONS).map(_dumped), _dataset, many=2_000, few=60),
    Target("description as text", _DESCRIPTION_TEXTS, _dataset, many=1_500, few=50),
    Target("list file", _LIST_TEXTS, _list_file, many=1_000),
    Target("data text", _DATA_TEXTS, _data_text, many=1_000),
    Target("recipe", altered(_VALID_RECIPES).map(_dumped), _recipe, many=2_000, few=60),
    Target("recipe as text", _RECIPE_TEXTS, _recipe, many=1_000, few=40),
    Target("recipe of pretraining", _PRETRAINING_TEXTS, _pretraining_recipe, many=500),
    Target("setting of a recipe", _OVERRIDE_TEXTS, _override, many=1_000),
)
