"""What a figure has to say of the model it belongs to: what it was trained on, from which weights, with which seed."""

from collections.abc import Mapping
from typing import Any

from lpsnet.record import ModelRecord

_OF_THE_RUN = ("data", "split", "num_pictures", "iterations", "init")
_OF_THE_RECIPE = ("name", "seed", "epochs", "crop_size")


def training_protocol(record: ModelRecord) -> dict[str, Any]:
    """How the model was trained, as JSON values, as far as its record says: data, split, pictures, weights to start
    from (`pretrained_from`, null for none), recipe and seed."""
    training = record.training
    recipe = training.get("recipe")
    recipe = recipe if isinstance(recipe, Mapping) else {}
    known: dict[str, Any] = {key: training[key] for key in _OF_THE_RUN if key in training}
    known |= {"recipe" if key == "name" else key: recipe[key] for key in _OF_THE_RECIPE if key in recipe}
    if "init" in known:
        known["pretrained_from"] = known.pop("init")
    return {"lpsnet_version": record.lpsnet_version, **known}
