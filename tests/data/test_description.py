"""Descriptions that are refused: one line that names the file, the key and what is allowed."""

from pathlib import Path

import numpy as np
import pytest
from image_files import write_image

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of one image each, labelled with 0."""
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / f"{split}1.png", np.zeros((4, 6, 3), np.uint8))
        write_image(tmp_path / "masks" / split / f"{split}1.png", np.zeros((4, 6), np.uint8))
    return tmp_path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nmaes: [a]", "unknown key 'nmaes'; did you mean 'names'?"),
        ("names: [a]\ncolors: [[1, 2, 3]]", "unknown key 'colors'; did you mean 'colours'?"),
        ("names: 3", "'names' is not usable"),
        ("names: [yes, no]", "quote yes, no, 1"),
        ("names: []", "'names' is missing"),
        ("images: images", "'names' is missing"),
        ("names: [a, a]", "uses a class name twice"),
        ("names: [a, '']", "has a class without a name"),
        ("names: [a]\npath: nowhere", "nowhere does not exist"),
        ("names: [a]\nimages: pictures/{split}", "nothing like"),
        ("names: [a]\nimages: {train: pictures}", "pictures does not exist"),
        ("names: [a]\nmasks: {trian: masks/train}", "'masks' has split 'trian'"),
        ("names: [a]\nimages: {val: images/train}", "would need"),
        ("names: [a]\nmasks: labels/{split}", "there are no label files"),
        ("names: [a]\nmask_suffix: _L", "look at 'masks' and 'mask_suffix'"),
        ("names: [a]\nimage_suffix: _L", "there are no images; look at 'images' and 'image_suffix'"),
        ("names: [a]\nids: [1, 2]", "'ids' has 2 entries for 1 classes"),
        ("names: [a, b]\nids: [1, 1]", "id 1 is given two meanings"),
        ("names: [a]\nids: {1: b}", "unknown class 'b'"),
        ("names: [a]\nids: {1: 1}", "'ids' names class 1; 0 to 0 are possible"),
        ("names: [a]\nids: {70000: a}", "id 70000 cannot stand in a label file"),
        ("names: [a]\nignore: [0]", "id 0 is in 'ignore' and also has a class"),
        ("names: [a]\nignore: [[0, 0, 0]]", "'ignore' lists colours"),
        ("names: [a]\ncolour_map: {b: [0, 0, 0]}", "'colour_map': unknown class 'b'"),
        ("names: [a, b]\ncolour_map: {b: [0, 0, 0]}", "'colour_map' has no colour for class 'a'"),
        ("colour_map: {a: [0, 0, 0], b: [0, 0, 0]}", "colour (0, 0, 0) is given two meanings"),
        ("colour_map: {a: [0, 0, 256]}", "'colour_map' is not usable"),
        ("colour_map: {a: [0, 0, 1]}\nids: [1]", "exclude each other"),
        ("names: [a]\ncolours: [[1, 2, 3], [4, 5, 6]]", "1 names but 2 colours"),
        ("names: [a]\nval_fraction: 0.5", "'images' has splits already"),
        ("names: [a]\nval_fraction: 1.5", "'val_fraction' is not usable"),
        ("names: [a]\nlists: '{split}.txt'", "'images' is a folder that all splits share"),
        ("- a\n- b", "is no description of a data set"),
        ("", "is no description of a data set"),
        ("names: [a", "this is not YAML"),
        ("names: !!python/object/apply:os.getcwd []", "this is not YAML"),
    ],
)
def test_descriptions_that_are_refused(folder: Path, text: str, expected: str) -> None:
    (folder / "data.yaml").write_text(text)
    assert expected in refusal(folder / "data.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00names", b"names: [a]\x00"])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.yaml").write_bytes(content)
    assert "is not a YAML text file" in refusal(tmp_path / "data.yaml")
