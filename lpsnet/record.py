"""The record: everything about a model that its file holds besides the weights.

ONNX holds it in its metadata under `lpsnet`, safetensors in its header under the same key, both as JSON text. A model
file alone is enough to run, evaluate, benchmark or report on it.
"""

import json
import math
from typing import Any, Literal, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from lpsnet.architecture import Architecture, get_architecture
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import LpsnetError, ModelFileError

RECORD_KEY = "lpsnet"  # the metadata key in ONNX and safetensors files
RECORD_FORMAT = 1

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0 .. 1; official implementation (design-notes, 'Normalisation')
IMAGENET_STD = (0.229, 0.224, 0.225)

Form = Literal["reparameterised", "plain", "deployed"]


class Normalisation(BaseModel):
    """x -> (x / 255 - mean) / std for RGB bytes x, one value per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ModelFileError("normalisation needs finite means and deviations greater than 0")
        return self


class ModelRecord(BaseModel):
    """The record of a model file.

    Attributes:
        architecture: the triple {B, C, R}; None for a network of another kind.
        network: the code of a network that was given by `--network`, e.g. "unet.py:build"; "" for others.
        network_digest: the first eight hexadecimal digits of that file's SHA-256.
        block: convolutional block (Table 2), e.g. "conv3x3"; "" for a network of other code.
        interaction: path interaction (Figure 6), e.g. "bilateral_b"; "" for a network of other code.
        form: "reparameterised" (training form with parallel branches), "plain" (training form without) or "deployed".
        label_space: the classes, in the order of the logits' channels.
        normalisation: applied to RGB bytes before the network.
        input_size: default (height, width) of the input in pixels; None if unset.
        align_corners: the bilinear convention of every resize, in the network and after it.
        training: the recipe, the data, seeds, versions, machine and time of the run, as JSON values.
        scores: evaluation results by protocol, as JSON values; IoUs in percent.
        licence: terms of the weights, in a sentence.
        lpsnet_version: the version that wrote the file.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, hide_input_in_errors=True)

    format: int = RECORD_FORMAT
    architecture: Architecture | None
    network: str = ""
    network_digest: str = ""
    block: str = "conv3x3"
    interaction: str = "bilateral_b"
    form: Form = "deployed"
    label_space: LabelSpace
    normalisation: Normalisation = Normalisation()
    input_size: tuple[int, int] | None = None
    align_corners: bool = True
    training: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
    lpsnet_version: str = ""

    @field_validator("architecture", mode="before")
    @classmethod
    def _read_architecture(cls, value: object) -> object:
        return get_architecture(value) if isinstance(value, str) else value

    @field_serializer("architecture")
    def _write_architecture(self, value: Architecture | None) -> str | None:
        return None if value is None else str(value)

    @pydantic.model_serializer(mode="wrap")
    def _without_unused(self, serialise: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records of this package's own networks have no entries about other code."""
        values: dict[str, Any] = serialise(self)
        return {key: value for key, value in values.items() if value or not key.startswith("network")}

    @property
    def title(self) -> str:
        """What kind of network it is, for people: the triple, or whose code it is."""
        other = f"network {self.network}" if self.network else "a network of another program"
        return other if self.architecture is None else str(self.architecture)

    @field_validator("input_size")
    @classmethod
    def _check_input_size(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not all(1 <= length <= 65_536 for length in value):
            raise ModelFileError(f"input_size is height and width in pixels, 1 to 65536; got {value}")
        return value

    @field_validator("format")
    @classmethod
    def _check_format(cls, value: int) -> int:
        if value != RECORD_FORMAT:
            raise ModelFileError(f"record format {value} is not known to this version (it reads {RECORD_FORMAT})")
        return value

    def to_json(self) -> str:
        """JSON text that `from_json` reads back."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, *, source: object = "model file") -> Self:
        """Read a record that came with `source`.

        Raises:
            ModelFileError: the text is no record.
        """
        try:
            record = cls.model_validate(json.loads(text))
            record.to_json()  # fails for text that cannot be written again, such as half a character
            return record
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "record"
            raise ModelFileError(f"the record in {source} is not usable: {where}: {first['msg']}") from None
        except (LpsnetError, ValueError, RecursionError) as error:
            raise ModelFileError(f"the record in {source} cannot be read: {error}") from None
