"""What runs compare to know whether their data is still the same."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.data.dataset import Dataset, changed_contents, data_contents, file_contents, open_dataset
from lpsnet.data.labels import CAMVID, LabelSpace
from lpsnet.data.split import Sample
from lpsnet.errors import DataError

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
    contents = data_contents(scenes, "train+val", "val+train")
    assert contents["train+val"] != contents["val+train"]
    assert contents["train+val samples"] != contents["val+train samples"]


def test_files_are_distinguished_by_folder_name_and_size(tmp_path: Path) -> None:
    for folder, text in (("a", "1"), ("b", "22")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text(text, encoding="utf-8")
    one, other = tmp_path / "a" / "x", tmp_path / "b" / "x"
    texts = [file_contents(paths, "pictures") for paths in ([one], [other], [one, other], [other, one])]
    assert len(set(texts)) == 4
    assert texts[2].startswith("2 pictures (")
    one.write_text("123", encoding="utf-8")
    assert file_contents([one], "pictures") != texts[0]


@dataclass(frozen=True)
class Drawn:
    """A split of somebody's own: images of one colour and one class."""

    colour: int = 0
    class_id: int | None = 0
    name: str = "train"
    label_space: LabelSpace = CAMVID
    names: tuple[str, ...] = ("a", "b", "c")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.names[index], self.image(index), self.labels(index))

    def image(self, index: int) -> np.ndarray:
        return np.full((32, 32, 3), self.colour, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        if self.class_id is None:
            raise DataError("no labels")
        return np.full((32, 32), self.class_id, np.uint8)


def _drawn(**kinds: object) -> dict[str, str]:
    split = Drawn(**kinds)
    return data_contents(Dataset("own", CAMVID, {split.name: split}), split.name)


@pytest.mark.parametrize("other", ["size=32x48", "seed=1", "size=64x32"])
def test_other_scenes_of_the_same_names_are_noticed(other: str) -> None:
    words = {"size": "32x32", "num_train": "2", "num_val": "2", "seed": "0"}
    key, _, value = other.partition("=")
    one, two = (
        data_contents(
            open_dataset(f"scenes:{','.join(f'{k}={v}' for k, v in it.items())}"), "train", "val", "train+val"
        )
        for it in (words, {**words, key: value})
    )
    assert one.keys() == two.keys()
    assert {k for k in one if one[k] != two[k]} == {f"{name} samples" for name in ("train", "val", "train+val")}


def test_other_pixels_and_labels_of_a_split_of_somebodys_own_are_noticed() -> None:
    kinds = [_drawn(), _drawn(colour=1), _drawn(class_id=1), _drawn(class_id=None), _drawn(names=("a", "b", "d"))]
    assert kinds[0] == _drawn()
    assert len({it["train samples"] for it in kinds}) == 5
    assert kinds[0]["train samples"].startswith("3 samples (")


def test_splits_of_files_are_not_opened(described: Path) -> None:
    """And what is said of them stays what older versions said, byte for byte."""
    (described.parent / "images" / "train" / "1.png").write_bytes(b"nothing")
    assert list(_contents(described)) == ["classes", "train"]


def test_what_an_older_version_did_not_say_is_assumed_equal() -> None:
    now = _drawn()
    older = {key: value for key, value in now.items() if not key.endswith(" samples")}
    assert changed_contents(older, now) == []
    assert changed_contents(now, now) == []
    assert changed_contents(now, _drawn(colour=1)) == ["train samples"]
    assert changed_contents({**older, "val": "x"}, now) == ["val"]
    assert changed_contents(older, {**now, "val": "x"}) == ["val"]
