"""Folders of classified images, as people have them and as they do not fit."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.errors import DataError
from lpsnet.training.classification import open_image_folder


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((4, 5, 3), 7, np.uint8))
    return root


def listed(images, root: Path) -> list[tuple[str, int]]:
    return [(path.relative_to(root).as_posix(), number) for path, number in images.files]


def test_train_and_val(tmp_path: Path) -> None:
    make(tmp_path, "train/b/1.png", "train/a/2.jpg", "train/a/deep/3.jpg", "val/b/4.png", "train/.git/x.png")
    (tmp_path / "train/a/notes.txt").write_text("not an image", encoding="utf-8")
    folder = open_image_folder(tmp_path, val_share=0.5)
    assert folder.classes == ("a", "b")
    assert listed(folder.train, tmp_path) == [("train/a/2.jpg", 0), ("train/a/deep/3.jpg", 0), ("train/b/1.png", 1)]
    assert listed(folder.val, tmp_path) == [("val/b/4.png", 1)]
    image = folder.train[2]
    assert image.image.shape == (4, 5, 3)
    assert (image.labels.shape, image.labels.dtype, int(image.labels)) == ((), np.int64, 1)


@pytest.mark.parametrize("base", ["", "train/"])
def test_a_share_of_every_class_is_set_apart(tmp_path: Path, base: str) -> None:
    make(tmp_path, *(f"{base}{name}/{number}.png" for name in "ab" for number in range(10)))
    first, again, other = (open_image_folder(tmp_path, val_share=0.3, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [sum(number == n for _, n in first.val.files) for number in (0, 1)] == [3, 3]
    whole = {path for path, _ in (*first.train.files, *first.val.files)}
    assert len(whole) == len(first.train) + len(first.val) == 20
    assert len(open_image_folder(tmp_path, val_share=0).val) == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.png"], "at least 2 are needed"),
        (["a/1.png"], "at least 2 are needed"),
        (["train/a/1.png"], "at least 2 are needed"),
        (["a/1.png", "b/notes.txt"], "class 'b' has no image"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "not in train: 'c'"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, files: list[str], message: str) -> None:
    make(tmp_path, *(name for name in files if name.endswith("png")))
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    with pytest.raises(DataError, match=message):
        open_image_folder(tmp_path, val_share=0.1)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_image_folder(tmp_path / "none", val_share=0.1)
