"""Writing predicted label maps as PNG files: class ids, or the official ids that the Cityscapes server takes."""

from pathlib import Path

import numpy as np

from lpsnet.data.formats.cityscapes import OFFICIAL_IDS
from lpsnet.data.images import write_png
from lpsnet.data.labels import CITYSCAPES, IGNORE_INDEX, LabelSpace
from lpsnet.errors import DataError
from lpsnet.evaluation.metrics import Labels
from lpsnet.io import inside


class PredictionFolder:
    """A folder of predicted label maps, `NAME.png` for each picture, 8-bit grey.

    Args:
        folder: made where it is missing, with the folders that names have in them.
        label_space: the classes that are predicted.
        official_ids: write the official ids of Cityscapes in place of the class ids.

    Raises:
        DataError: official ids are wanted of classes that are not Cityscapes'.
    """

    def __init__(self, folder: Path, *, label_space: LabelSpace, official_ids: bool = False) -> None:
        if official_ids and label_space.names != CITYSCAPES.names:
            raise DataError(f"official ids are those of the Cityscapes classes; the model's are {label_space.name!r}")
        self.folder = folder
        self.num_written = 0
        self._table = official_id_table() if official_ids else None

    def write(self, name: str, labels: Labels) -> None:
        """Write the label map, H x W uint8 class ids, of the picture called `name`.

        Raises:
            DataError: the folder cannot be written to.
        """
        path = inside(self.folder, f"{name}.png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {path.parent}: {error.strerror or error}") from None
        write_png(path, labels if self._table is None else self._table[labels])
        self.num_written += 1


def official_id_table() -> Labels:
    """256 uint8: the official Cityscapes id of every train id, 0 ('unlabeled') for what is none."""
    table = np.zeros(IGNORE_INDEX + 1, np.uint8)
    for official, train_id in OFFICIAL_IDS.values():
        if train_id != IGNORE_INDEX:
            table[train_id] = official
    return table
