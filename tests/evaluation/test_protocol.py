"""What a figure says of its model's training."""

from lpsnet.data.labels import CAMVID
from lpsnet.evaluation.evaluate import training_protocol
from lpsnet.record import ModelRecord


def record(**training: object) -> ModelRecord:
    return ModelRecord(architecture=None, label_space=CAMVID, training=training, lpsnet_version="0.1.0")


def test_data_split_seed_and_weights_to_start_from() -> None:
    known = record(
        data="camvid:CamVid",
        split="train+val",
        init="imagenet.safetensors",
        num_pictures=468,
        iterations=900,
        recipe={"name": "camvid_small", "seed": 3, "epochs": 60.0, "crop_size": [360, 480], "momentum": 0.9},
        machine="a machine",
    )
    assert training_protocol(known) == {
        "lpsnet_version": "0.1.0",
        "data": "camvid:CamVid",
        "split": "train+val",
        "num_pictures": 468,
        "iterations": 900,
        "recipe": "camvid_small",
        "seed": 3,
        "epochs": 60.0,
        "crop_size": [360, 480],
        "pretrained_from": "imagenet.safetensors",
    }


def test_no_pretraining_is_said_too_and_nothing_is_made_up() -> None:
    assert training_protocol(record(init=None)) == {"lpsnet_version": "0.1.0", "pretrained_from": None}
    assert training_protocol(record(recipe="not a recipe")) == {"lpsnet_version": "0.1.0"}
