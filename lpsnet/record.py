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
from lpsnet.data.channels import RGB_NAMES, Channels
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import LpsnetError, ModelFileError

RECORD_KEY = "lpsnet"  # the metadata key in ONNX and safetensors files
RECORD_FORMAT = 1

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0 .. 1; official implementation (design-notes, 'Normalisation')
IMAGENET_STD = (0.229, 0.224, 0.225)

Form = Literal["reparameterised", "plain", "deployed"]


class Normalisation(BaseModel):
    """x -> (x / max_value - mean) / std for the numbers x of an image, one value per channel.

    Attributes:
        mean, std: of RGB unless there are other channels; as many as channels, 1 to 16.
        max_value: 255 for channels of 8 bits, 65535 for 16, also for numbers of fewer, such as 12, bits in 16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    max_value: Literal[255, 65535] = 255

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.mean or not self.std:
            raise ModelFileError("normalisation needs a mean and a deviation for each channel")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ModelFileError("normalisation needs finite means and deviations greater than 0")
        if len(self.mean) != len(self.std):
            raise ModelFileError(f"normalisation has {len(self.mean)} means and {len(self.std)} deviations")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _as_before(self, serialise: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records of 8 bits are as earlier versions wrote them."""
        values: dict[str, Any] = serialise(self)
        return {key: value for key, value in values.items() if key != "max_value" or value != 255}


def plain_normalisation(count: int) -> Normalisation:
    """That of `count` channels of which nothing is known: the numbers of a byte become 0 to 1."""
    return Normalisation(mean=(0.0,) * count, std=(1.0,) * count)


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
        channels: of the images it takes, by name; not written for RGB.
        normalisation: applied to the images' numbers before the network, one mean and deviation for each channel.
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
    channels: tuple[str, ...] = RGB_NAMES
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
        """Records of this package's own networks have no entries about other code, those of RGB none about channels."""
        values: dict[str, Any] = serialise(self)
        if self.channels == RGB_NAMES:
            del values["channels"]
        return {key: value for key, value in values.items() if value or not key.startswith("network")}

    @property
    def image_channels(self) -> Channels:
        """What images the model takes: names and bits of their channels."""
        return Channels(self.channels, 8 if self.normalisation.max_value == 255 else 16)

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if len(self.normalisation.mean) != len(self.image_channels.names):
            count = f"{len(self.channels)} channels and a normalisation of {len(self.normalisation.mean)}"
            raise ModelFileError(f"the record has {count}; each channel has a mean and a deviation")
        return self

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
