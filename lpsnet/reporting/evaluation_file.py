"""What `lpsnet evaluate --json` wrote, or a training left of its last evaluation, read back."""

from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lpsnet.data.labels import LABEL_SPACES, MAX_CLASSES, Colour, LabelSpace
from lpsnet.reporting.reading import CommandText, Figures, Percent, parsed, read_json

Byte = Annotated[int, Field(ge=0, le=255)]


class PictureScore(Figures):
    """A picture and its mIoU in percent."""

    name: str
    miou: Percent


class EvaluationFile(Figures):
    """See `Evaluation.to_dict`."""

    miou: Percent
    pixel_accuracy: Percent
    mean_accuracy: Percent
    frequency_weighted_iou: Percent
    ious: dict[str, Percent] = Field(min_length=1, max_length=MAX_CLASSES)
    accuracies: dict[str, Percent]
    num_images: int
    confusion_matrix: list[list[int]]
    per_image: list[PictureScore]
    protocol: dict[str, Any]
    boundary_miou: Percent = None
    boundary_ious: dict[str, Percent] = Field(default_factory=dict)
    colours: dict[str, tuple[Byte, Byte, Byte]] = Field(default_factory=dict)
    command: CommandText = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.ious)
        if len(self.confusion_matrix) != count or any(len(row) != count for row in self.confusion_matrix):
            raise ValueError(f"the confusion matrix of {count} classes has {count} rows and columns")
        if any(not 0 <= pixels < 2**62 for row in self.confusion_matrix for pixels in row):
            raise ValueError("a confusion matrix holds numbers of pixels")
        if set(self.accuracies) != set(self.ious) or not set(self.boundary_ious) <= set(self.ious):
            raise ValueError("IoUs and accuracies are of the same classes")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """The evaluation in a JSON file.

        Raises:
            RunError: there is none.
        """
        return parsed(cls, read_json(path), path)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in the order of the matrix."""
        return tuple(self.ious)

    @property
    def matrix(self) -> NDArray[np.int64]:
        """K x K pixel counts; rows are the truth, columns the prediction."""
        return np.array(self.confusion_matrix, np.int64)

    @property
    def class_colours(self) -> tuple[Colour, ...]:
        """Of the classes, RGB bytes. Where the file has none: those of a label space with these classes, or others."""
        if self.colours.keys() == self.ious.keys():
            return tuple(self.colours[name] for name in self.names)
        known = (space.colours for space in (*LABEL_SPACES.values(), _scenes()) if space.names == self.names)
        return next(known, LabelSpace.numbered(len(self.names)).colours)


def _scenes() -> LabelSpace:
    from lpsnet.data.synthetic import SCENES

    return SCENES
