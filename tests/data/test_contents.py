"""What runs compare to know whether their data is still the same."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.data.contents import data_contents, file_contents
from lpsnet.data.datasets import open_dataset

YAML = """
names: [road, sky]
images: images/{split}
masks: masks/{split}
"""


@pytest.fixture
def described(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder / "train").mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(tmp_path / folder / "train" / f"{number}.png"), np.zeros((32, 32), np.uint8))
    path = tmp_path / "data.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


def _contents(path: Path) -> dict[str, str]:
    return data_contents(open_dataset(path), "train")


def test_it_is_the_same_as_long_as_nothing_changes(described: Path) -> None:
    first = _contents(described)
    assert first == _contents(described)
    assert list(first) == ["classes", "train"]
    assert first["classes"].startswith("2 classes (")
    assert first["classes"].endswith("): road, sky")
    assert first["train"].startswith("3 pictures (")


@pytest.mark.parametrize(
    ("was", "now", "changed"),
    [
        ("[road, sky]", "[sky, road]", {"classes"}),
        ("[road, sky]", "[road, sky, tree]", {"classes", "train"}),  # and files may hold another id
        ("[road, sky]", "[road, sky]\nids: {0: 1, 1: 0}", {"train"}),
        ("[road, sky]", "[road, sky]\nignore: [7]", {"train"}),
    ],
)
def test_another_description_is_noticed(described: Path, was: str, now: str, changed: set[str]) -> None:
    before = _contents(described)
    described.write_text(YAML.replace(was, now), encoding="utf-8")
    after = _contents(described)
    assert {key for key in before if before[key] != after[key]} == changed


def test_other_files_are_noticed(described: Path) -> None:
    seen, folders = [_contents(described)["train"]], [described.parent / it / "train" for it in ("images", "masks")]
    for folder in folders:
        (folder / "1.png").rename(folder / "4.png")
    seen.append(_contents(described)["train"])
    cv2.imwrite(str(folders[1] / "4.png"), np.eye(32, dtype=np.uint8))
    seen.append(_contents(described)["train"])
    for folder in folders:
        (folder / "0.png").unlink()
    seen.append(_contents(described)["train"])
    assert len(set(seen)) == 4
    assert seen[-1].startswith("2 pictures (")


def test_the_order_of_joined_splits_counts() -> None:
    scenes = open_dataset("scenes:size=32x32,num_train=2,num_val=2")
    assert len(set(data_contents(scenes, "train+val", "val+train").values())) == 3


def test_files_are_told_by_folder_name_and_size(tmp_path: Path) -> None:
    for folder, text in (("a", "1"), ("b", "22")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text(text, encoding="utf-8")
    one, other = tmp_path / "a" / "x", tmp_path / "b" / "x"
    texts = [file_contents(paths, "pictures") for paths in ([one], [other], [one, other], [other, one])]
    assert len(set(texts)) == 4
    assert texts[2].startswith("2 pictures (")
    one.write_text("123", encoding="utf-8")
    assert file_contents([one], "pictures") != texts[0]
