"""The text after `--data`: what it may be, and the one line that refuses anything else."""

from pathlib import Path

import pytest

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import DataError


def refusal(text: object) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(str(text))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_texts_that_name_no_data_set(tmp_path: Path) -> None:
    assert "unknown data set 'camvd'; did you mean 'camvid:PATH'? Allowed: FILE.yaml, ade" in refusal("camvd:/data")
    assert "needs the folder it is in: camvid:PATH" in refusal("camvid")
    assert "none does not exist" in refusal(f"cityscapes:{tmp_path}/none")
    assert f"'lpsnet data check {tmp_path}'" in refusal(tmp_path)
    assert "cannot read the description" in refusal(tmp_path / "none.yaml")
    assert "FILE.yaml" in refusal("C:\\data\\set")
    assert "cannot read the description C:\\data\\set.yaml" in refusal("C:\\data\\set.yaml")


def test_scenes() -> None:
    dataset = open_dataset("scenes:size=32x64,num_train=3,num_val=2,seed=5")
    assert dataset.splits == ["train", "val"]
    assert [len(dataset.split(name)) for name in dataset.splits] == [3, 2]
    sample = dataset.split("train+val")[4]
    assert sample.image.shape == (32, 64, 3)
    assert sample.labels.shape == (32, 64)
    assert len(open_dataset("scenes").split("train")) == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scenes:sise=1x2", "did you mean 'size'?"),
        ("scenes:size=128", "HEIGHTxWIDTH"),
        ("scenes:num_val=0", "a whole number from 1"),
        ("scenes:seed=-1", "a whole number from 0"),
    ],
)
def test_scenes_settings_that_are_refused(text: str, expected: str) -> None:
    assert expected in refusal(text)
