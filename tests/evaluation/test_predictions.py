"""Predicted label maps on the disk, and official ids against the list that comes with the data set's scripts."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.data.labels import BDD100K, CAMVID, CITYSCAPES
from lpsnet.errors import DataError
from lpsnet.evaluation.evaluate import PredictionFolder, official_id_table

# Cityscapes, 'labels.py': the ids of the classes with train ids 0 to 18
OFFICIAL = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_class_ids_are_written_as_they_are(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 11, (7, 9), dtype=np.uint8)
    folder = PredictionFolder(tmp_path / "out", label_space=CAMVID)
    folder.write("town/a", labels)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out/town/a.png"), cv2.IMREAD_UNCHANGED), labels)
    assert folder.num_written == 1


@pytest.mark.parametrize("space", [CITYSCAPES, BDD100K])
def test_official_ids(tmp_path: Path, space: object) -> None:
    labels = np.arange(19, dtype=np.uint8)[None]
    PredictionFolder(tmp_path, label_space=space, official_ids=True).write("a", labels)  # type: ignore[arg-type]
    assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[0].tolist() == OFFICIAL


def test_the_table_has_nothing_else() -> None:
    table = official_id_table()
    assert table[:19].tolist() == OFFICIAL
    assert not table[19:].any()


def test_official_ids_are_for_cityscapes_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="camvid"):
        PredictionFolder(tmp_path, label_space=CAMVID, official_ids=True)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="cannot make the folder"):
        PredictionFolder(tmp_path / "file", label_space=CAMVID).write("a", np.zeros((2, 2), np.uint8))
