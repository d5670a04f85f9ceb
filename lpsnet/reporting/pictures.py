"""The best and the worst pictures of an evaluation: picture, truth, prediction, and where the two differ.

An evaluation's file holds no pictures. They are opened and segmented anew, with the data and the model it names; where
one is not there any more, the report goes on without.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.dataset import open_dataset
from lpsnet.data.labels import IGNORE_INDEX, LabelSpace
from lpsnet.data.split import Split
from lpsnet.errors import DataError, LpsnetError, MissingDependencyError, ModelFileError
from lpsnet.evaluation.metrics import confusion_matrix, scores
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.visualise import overlay
from lpsnet.reporting.evaluation_file import EvaluationFile
from lpsnet.reporting.page import Gallery, Picture

Image = NDArray[np.uint8]

WRONG = (213, 94, 0)  # RGB of pixels that were taken for another class
MAX_WIDTH = 520  # pixels of a picture in the page
# Colours in full, or thin wrong pixels would be washed out
_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 88),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
_HALF = ("bf16", "f16")  # arithmetics that are asked for; a quantised file computes in its own
_SAME = 1.0  # points of mIoU; a picture that scores otherwise now is not what was evaluated


@dataclass(frozen=True, slots=True)
class Source:
    """Where pictures and predictions come from.

    Attributes:
        data: as `open_dataset` takes it.
        split: of the data.
        model: a model file, or a bundled model's name.
        runtime: the engine; None for the file's own.
        precision: the arithmetic; None for f32, or what the file is quantised to.
        input_size: (height, width) that the model runs at; None for its own.
        is_averaged: whether scores are those of several views of a picture; what is shown is one view's.
    """

    data: str
    split: str
    model: str
    runtime: str | None = None
    precision: str | None = None
    input_size: tuple[int, int] | None = None
    is_averaged: bool = False


def show_pictures(evaluation: EvaluationFile, source: Source, count: int) -> tuple[Gallery | None, str]:
    """The `count` best and the `count` worst pictures; and, where something is missing for them, what, in a line.

    Args:
        evaluation: says which they are.
        source: of pictures and predictions.
        count: at least 1.
    """
    try:
        split = open_dataset(source.data).split(source.split)
        if split.label_space.names != evaluation.names:
            raise DataError(f"{source.data} has other classes now than were evaluated")
        segmenter = Segmenter(
            source.model,
            runtime=source.runtime,
            precision=source.precision if source.precision in _HALF else "f32",
            input_size=source.input_size,
        )
        rows = list(_rows(evaluation, split, segmenter, count))
    except ModuleNotFoundError as error:
        return None, _without(MissingDependencyError.from_import(error) or error)
    except (LpsnetError, OSError) as error:
        return None, _without(error)
    legend = tuple(zip(split.label_space.names, split.label_space.colours, strict=True))
    wrong = ("taken for another class", WRONG)
    note = ""
    if source.is_averaged:
        note = "Several views of every picture were averaged; the predictions below are of the picture as it is."
    elif not all(same for _, _, same in rows):
        note = "Pictures below do not score as they did when this was evaluated: data or model have changed since."
    return Gallery(tuple((title, pictures) for title, pictures, _ in rows), (*legend, wrong)), note


def best_and_worst(evaluation: EvaluationFile, count: int) -> list[tuple[str, str, float]]:
    """(what it is, name, mIoU in percent) of the best pictures, best first, then of the worst, worst first."""
    scored = [(it.name, it.miou) for it in evaluation.per_image if it.miou is not None]
    ranked = sorted(scored, key=lambda entry: -entry[1])
    count_worst = min(count, len(ranked) // 2)
    count_best = min(count, len(ranked) - count_worst)
    best = [(f"Best {place}", *it) for place, it in enumerate(ranked[:count_best], start=1)]
    worst = [(f"Worst {place}", *it) for place, it in enumerate(ranked[::-1][:count_worst], start=1)]
    return best + worst


def difference(image: Image, truth: Image, prediction: Image) -> Image:
    """The picture in pale grey, wrong pixels in `WRONG`; pixels without a label are dark.

    Args:
        image: H x W x 3 uint8 RGB.
        truth, prediction: H x W uint8 class ids.

    Returns:
        H x W x 3 uint8 RGB.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    result: Image = (255 - (255 - grey) // 2).astype(np.uint8)
    labelled = truth != IGNORE_INDEX
    result[~labelled] = grey[~labelled] // 3
    result[labelled & (truth != prediction)] = WRONG
    return result


def data_uri(image: Image) -> str:
    """A picture, H x W x 3 uint8 RGB, as a JPEG inside a page."""
    height, width = image.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(height * MAX_WIDTH / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], _JPEG)
    assert done, "OpenCV writes JPEG"
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _rows(
    evaluation: EvaluationFile, split: Split, segmenter: Segmenter, count: int
) -> Iterator[tuple[str, tuple[Picture, ...], bool]]:
    """A row's title, its pictures, and whether it scores as it did."""
    places = {name: index for index, name in enumerate(split.names)}
    for what, name, miou in best_and_worst(evaluation, count):
        if name not in places:
            raise DataError(f"the data has no picture {name!r} any more")
        sample = split[places[name]]
        prediction = segmenter(sample.image)
        matrix = confusion_matrix(sample.labels, prediction, num_classes=split.label_space.num_classes)
        title = f"{what}: {name}, {miou:.1f} mIoU"
        pictures = _pictures(sample.image, sample.labels, prediction, split.label_space)
        yield title, pictures, abs(scores(matrix).miou - miou) <= _SAME


def _pictures(image: Image, truth: Image, prediction: Image, space: LabelSpace) -> tuple[Picture, ...]:
    labelled = truth != IGNORE_INDEX
    wrong = float(np.mean(truth[labelled] != prediction[labelled])) if labelled.any() else 0.0
    shown: Sequence[tuple[str, Image]] = (
        ("Picture", image),
        ("Truth", overlay(image, truth, space)),
        ("Prediction", overlay(image, prediction, space)),
        (f"Difference: {100 * wrong:.1f} % wrong", difference(image, truth, prediction)),
    )
    return tuple(Picture(data_uri(picture), caption) for caption, picture in shown)


def _without(error: Exception) -> str:
    moved = isinstance(error, DataError | ModelFileError)
    advice = ". If data or model have moved, say where they are with --data and --model" if moved else ""
    return f"No pictures are shown: {' '.join(str(error).split())}{advice}."
