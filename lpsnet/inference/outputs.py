"""What `lpsnet segment` writes: images of a label map (`OUTPUTS`), and annotations for label programs (`FORMATS`).

Images are H x W x 3 uint8 RGB, label maps H x W uint8 class ids with `IGNORE_INDEX` for pixels without one, confidence
and margin H x W uint16, 65535 for 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lpsnet.data import convert, dataset
from lpsnet.data.formats import geojson
from lpsnet.data.images import Image, Labels, Mask
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, LpsnetError, unknown_name
from lpsnet.inference import visualise
from lpsnet.inference.confidence import Certainty
from lpsnet.inference.result import Segmentation

DEFAULT_OUTPUTS = ("labels", "overlay")
PART = "part"  # in the names of incomplete videos

_FONT_SHARE = 60  # height of an image divided by that of a capital letter in its legend
_MIN_LEGEND_TEXT = 9  # pixels of a capital letter below an image


@dataclass(frozen=True, slots=True)
class Style:
    """How images are drawn.

    Attributes:
        label_space: names and colours of the classes.
        opacity: of the colours over the image, 0 to 1.
        legend: whether a legend stands below, which makes images higher.
    """

    label_space: LabelSpace
    opacity: float = 0.55
    legend: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise LpsnetError(f"opacity lies between 0 and 1; got {self.opacity}")


def _overlay(image: Image, labels: Labels, style: Style) -> Image:
    return visualise.overlay(image, labels, style.label_space, opacity=style.opacity)


def _confidence(image: Image, labels: Labels, style: Style) -> Mask:
    return _as_16_bit(_segmentation(labels).confidence)


def _margin(image: Image, labels: Labels, style: Style) -> Mask:
    return _as_16_bit(_segmentation(labels).margin)


def _as_16_bit(certainty: Certainty) -> Mask:
    levels: Mask = np.rint(certainty * np.float32(65_535)).astype(np.uint16)
    return levels


def _segmentation(labels: Labels) -> Segmentation:
    if not isinstance(labels, Segmentation):
        raise DataError("confidence is known for the results of a segmenter alone, which keep the network's logits")
    return labels


class Output(NamedTuple):
    """A row of `OUTPUTS`.

    Attributes:
        draw: H x W x 3 image, H x W label map and style to H x W or H x W x 3, uint8 or uint16.
        in_videos: whether videos of it can be written.
    """

    draw: Callable[[Image, Labels, Style], Mask]
    in_videos: bool = True


class Format(NamedTuple):
    """A row of `FORMATS`: annotations that a label program opens.

    Attributes:
        write: all of a run, into a folder of their own.
        copies_images: whether the images are copied there, as the program looks for them beside its files.
    """

    write: convert.Write
    copies_images: bool = True


# the name is part of the files' names, STEM.NAME.png
OUTPUTS: dict[str, Output] = {
    "labels": Output(lambda image, labels, style: np.asarray(labels)),
    "overlay": Output(_overlay),
    "colours": Output(lambda image, labels, style: visualise.colourise(labels, style.label_space)),
    "side-by-side": Output(lambda image, labels, style: visualise.side_by_side(image, _overlay(image, labels, style))),
    "confidence": Output(_confidence, in_videos=False),
    "margin": Output(_margin, in_videos=False),
}
FORMATS = {name: Format(write) for name, write in dataset.WRITERS.items() if name != "masks"}
FORMATS["geojson"] = Format(geojson.write, copies_images=False)
_TOGETHER = {"confidence": ("confidence", "margin")}  # asked for by one name


def list_outputs() -> tuple[str, ...]:
    """The names that `--write` takes."""
    return (*OUTPUTS, *FORMATS)


def check_outputs(names: Sequence[str]) -> tuple[str, ...]:
    """The names in their order, without duplicates; each may hold several with commas between them.

    Raises:
        LpsnetError: one is neither in `OUTPUTS` nor in `FORMATS`, or there are none.
    """
    single = [name.strip() for text in names for name in text.split(",")]
    for name in single:
        if name not in list_outputs():
            raise LpsnetError(unknown_name("result to write", name, list_outputs()))
    if not single:
        raise LpsnetError(f"nothing to write was asked for; there are {', '.join(list_outputs())}")
    return tuple(dict.fromkeys(part for name in single for part in _TOGETHER.get(name, (name,))))


def check_video_outputs(names: Sequence[str]) -> None:
    """LpsnetError if one of the outputs cannot be a video."""
    able = [name for name, row in OUTPUTS.items() if row.in_videos]
    if refused := [name for name in names if name not in able]:
        raise LpsnetError(f"{refused[0]} is written for images, not for videos, which take {', '.join(able)}")


def draw(output: str, image: Image, labels: Labels, style: Style) -> Mask:
    """One of `OUTPUTS`.

    Returns:
        `labels`: H x W uint8 class ids; `confidence`, `margin`: H x W uint16; else H x W x 3 uint8 RGB, with a legend
        if the style has one.

    Raises:
        DataError: the label map does not fit the image, or its logits are needed and not known.
    """
    drawn = OUTPUTS[output].draw(image, labels, style)
    if not style.legend or drawn.ndim == 2:
        return drawn
    return np.vstack([drawn, below(style, (image.shape[0], drawn.shape[1]))])


def is_output(path: Path) -> bool:
    """Whether a file is named like an output, so that a second run skips it."""
    _, *marks = path.stem.lower().removesuffix(f".{PART}").split(".")
    return bool(marks) and marks[-1] in OUTPUTS


def below(style: Style, size: tuple[int, int]) -> Image:
    """The legend below a drawing of that height and width; its height is even, as video encoders require."""
    return _legend(style.label_space, size[1], size[0])


@lru_cache(maxsize=8)
def _legend(label_space: LabelSpace, width: int, height: int) -> Image:
    text_height = min(visualise.MAX_TEXT_HEIGHT, max(_MIN_LEGEND_TEXT, height // _FONT_SHARE))
    drawn = visualise.legend(label_space, width=width, text_height=text_height)
    return np.pad(drawn, ((0, drawn.shape[0] % 2), (0, 0), (0, 0)), constant_values=255)
