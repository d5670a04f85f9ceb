"""The numbers that every training run has, whatever it teaches: how long, how fast, how evaluated (Section 4.2).

A recipe is these and those of what is taught: `Recipe` for segmentation, `PretrainingRecipe` for classification. The
training loop knows these alone.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lpsnet.errors import RunError, unknown_name


class LoopSettings(BaseModel):
    """What a recipe says about the loop.

    Attributes:
        name: the recipe this one is, or was made from.
        source: where its numbers come from.
        iterations: optimiser steps of the run; exactly one of `iterations` and `epochs` is given.
        epochs: passes over the training pictures, in place of `iterations`.
        batch_size: pictures in one optimiser step, over all processes together.
        learning_rate: at the start; it falls as `schedule` says.
        schedule: "poly": lr * (1 - t / T) ** poly_power, Section 4.2; "cosine": lr * (1 + cos(pi t / T)) / 2.
        warmup_iterations: steps over which the learning rate rises linearly from 0 first.
        momentum, weight_decay, poly_power: of stochastic gradient descent, Section 4.2.
        decay_norm: whether weight decay also applies to batch norm and biases.
        form: "reparameterised" (RepVGG branches, Section 4.2) or "plain".
        freeze_batch_norm: use and keep the statistics the network starts with.
        ema_decay: of the moving average of the weights that is evaluated and delivered; 0 means none.
        precision: arithmetic of the forward pass: "auto" is bf16 where the hardware computes in it, else f32.
        cuda_graph: on one GPU, start a step's operations all at once (`graphed.py`); not in f16, nor with OHEM.
        augment_on: "auto" augments on a GPU whose memory (`cache_mib`) holds pictures of one size; "workers" never.
        num_workers: threads that decode and augment pictures.
        cache_mib: memory for decoded pictures, on the device where they are augmented there; 0 decodes every time.
        evaluate_every: epochs between evaluations on the validation split; 0 evaluates at the end only.
        seed: of weights, order and augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    source: str = ""
    iterations: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    schedule: Literal["poly", "cosine"] = "poly"
    warmup_iterations: int = Field(default=0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    poly_power: float = Field(default=0.9, ge=0, allow_inf_nan=False)
    decay_norm: bool = True
    form: Literal["reparameterised", "plain"] = "reparameterised"
    freeze_batch_norm: bool = False
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    cuda_graph: bool = True
    augment_on: Literal["auto", "workers"] = "auto"
    num_workers: int = Field(default=2, ge=1, le=256)
    cache_mib: int = Field(default=4096, ge=0)
    evaluate_every: int = Field(default=10, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.iterations is None) == (self.epochs is None):
            raise RunError(f"recipe {self.name!r} needs exactly one of iterations and epochs")
        return self

    def num_iterations(self, num_pictures: int) -> int:
        """Optimiser steps of the run on a training split of `num_pictures`."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return max(1, round(self.epochs * num_pictures / self.batch_size))

    def learning_rate_at(self, iteration: int, num_iterations: int) -> float:
        """The learning rate of step `iteration` (from 0): linear warm-up, then the schedule."""
        done = iteration / num_iterations
        fall: float = (1 - done) ** self.poly_power if self.schedule == "poly" else (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * fall * min(1.0, (iteration + 1) / (self.warmup_iterations + 1))

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """A copy with some numbers changed; giving `epochs` takes `iterations` away and the other way round.

        Raises:
            RunError: a key is not part of a recipe, or its value is not possible.
        """
        if unknown := [key for key in overrides if key not in type(self).model_fields]:
            raise RunError(unknown_name("recipe setting", unknown[0], type(self).model_fields))
        values = {**self.model_dump(), **overrides}
        for key, other in (("epochs", "iterations"), ("iterations", "epochs")):
            if overrides.get(key) is not None and other not in overrides:
                values[other] = None
        return self.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The recipe with these values, e.g. from a run's record; errors as for `with_overrides`."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            if first["type"] == "literal_error" and key in cls.model_fields:
                allowed = get_args(cls.model_fields[key].annotation)
                raise RunError(unknown_name(f"{key} of a recipe", first["input"], allowed)) from None
            message = first["msg"].removeprefix("Value error, ")
            raise RunError(f"recipe setting {key}: {message}" if key else message) from None

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """What the settings are that need not be given, as JSON values: what a run meant that did not know of them."""
        known = {name: field.default for name, field in cls.model_fields.items() if not field.is_required()}
        defaults: dict[str, Any] = json.loads(json.dumps(known))
        return defaults
