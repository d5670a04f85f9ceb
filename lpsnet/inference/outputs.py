"""What `lpsnet segment` writes: images of a label map (`OUTPUTS`), and annotations for label programs (`FORMATS`).

Images are H x W x 3 uint8 RGB, label maps H x W uint8 class ids with `IGNORE_INDEX` for pixels without one, confidence
and margin H x W uint16, 65535 for 1.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from lpsnet.data import convert, dataset, images
from lpsnet.data.images import Image, Labels, Mask
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, LpsnetError, RunError, unknown_name
from lpsnet.inference import result
from lpsnet.inference.label_map import Certainty
from lpsnet.inference.result import MAX_TOLERANCE, Segmentation
from lpsnet.io import atomic_path, inside

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
    return result.overlay(image, labels, style.label_space, opacity=style.opacity)


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
    "colours": Output(lambda image, labels, style: result.colourise(labels, style.label_space)),
    "side-by-side": Output(lambda image, labels, style: result.side_by_side(image, _overlay(image, labels, style))),
    "confidence": Output(_confidence, in_videos=False),
    "margin": Output(_margin, in_videos=False),
}
FORMATS = {name: Format(write) for name, write in dataset.WRITERS.items() if name != "masks"}
FORMATS["geojson"] = Format(convert.write_geojson, copies_images=False)
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
    text_height = min(result.MAX_TEXT_HEIGHT, max(_MIN_LEGEND_TEXT, height // _FONT_SHARE))
    drawn = result.legend(label_space, width=width, text_height=text_height)
    return np.pad(drawn, ((0, drawn.shape[0] % 2), (0, 0), (0, 0)), constant_values=255)


# Annotations: every format has a folder of its own with copies of the images, laid out as `lpsnet data convert` writes
# data sets, so it can be opened, uploaded, or used as `--data` once it is corrected. The images are its split `train`.

SPLIT = "train"
DEFAULT_TOLERANCE = 1.0  # pixels: few enough points to move by hand


class _Kept(NamedTuple):
    """An image that was segmented: its file, its name without suffix, its size, and a file with its label map."""

    source: Path
    name: str
    size: tuple[int, int]
    labels: Path


class Annotations:
    """Label maps of a run, kept in a temporary folder until they are written. Use it in a `with` block.

    Args:
        out: every format is written to `OUT/FORMAT`.
        formats: names in `FORMATS`.
        space: the classes.
        tolerance: how far, in pixels, an outline may be from the border of its pixels; 0 is exact.
        overwrite: whether files of an earlier run, which may have been corrected since, are replaced.
        link: whether images are symbolic links instead of copies.

    Raises:
        RunError: a folder has files already.
        DataError: the tolerance is out of range.
    """

    def __init__(
        self,
        out: Path,
        formats: Sequence[str],
        space: LabelSpace,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        overwrite: bool = False,
        link: bool = False,
    ) -> None:
        if not 0 <= tolerance <= MAX_TOLERANCE:
            raise DataError(f"a tolerance is 0 to {MAX_TOLERANCE} pixels; got {tolerance}")
        self._folders = {name: Path(os.path.abspath(out / name)) for name in formats}  # noqa: PTH100 - keeps links
        for folder in self._folders.values():
            if not overwrite and folder.is_dir() and any(folder.iterdir()):
                advice = "give another folder, or --overwrite to replace those of the same names"
                raise RunError(f"{folder} has annotations already, which may have been corrected; {advice}")
        self.formats = tuple(formats)
        self._space, self._tolerance, self._link = space, tolerance, link
        self._kept: list[_Kept] = []

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="lpsnet-")
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def add(self, source: Path, name: str, labels: Labels) -> None:
        """Keep the label map, H x W uint8, of an image; `name` has "/" between folders and no suffix."""
        if self._folders:
            file = Path(self._temporary.name) / f"{len(self._kept)}.png"
            images.write_png(file, np.asarray(labels))
            self._kept.append(_Kept(source, name, (labels.shape[0], labels.shape[1]), file))

    def write(self) -> tuple[dict[str, Path], list[str]]:
        """Write all that was added.

        Returns:
            The folder of each format, and what is to be known about them, a line each.

        Raises:
            RunError: a folder cannot be written to.
        """
        remarks: list[str] = []
        for name, folder in self._folders.items() if self._kept else ():
            target = convert.Target(folder, self._space, (SPLIT,))
            remarks += [f"{name}: {remark}" for remark in FORMATS[name].write(target, self._samples(name, target))]
        return dict(self._folders) if self._kept else {}, remarks

    def _samples(self, form: str, target: convert.Target) -> Iterator[convert.Converted]:
        for kept in self._kept:
            file = kept.source
            if FORMATS[form].copies_images:
                file = inside(target.images / SPLIT, f"{kept.name}{kept.source.suffix}")
                _place(kept.source, file, link=self._link)
            labels = images.read_mask(kept.labels)
            yield convert.Converted(SPLIT, kept.name, file, kept.size, labels.astype(np.uint8), self._tolerance)


def _place(source: Path, file: Path, *, link: bool) -> None:
    """The image at another place: a copy, or a symbolic link."""
    with atomic_path(file) as temporary:
        if not link:
            shutil.copyfile(source, temporary)
            return
    try:
        file.unlink()
        file.symlink_to(os.path.abspath(source))  # noqa: PTH100 - keeps links
    except OSError as error:
        raise RunError(f"cannot link {file}: {error.strerror or error}; copy the images instead") from None
