"""YAML of others: plain values, or one line that says what is wrong with the file."""

from pathlib import Path

import pytest

from lpsnet.data.yaml_files import MAX_BYTES, read_yaml
from lpsnet.errors import DataError


def test_plain_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffname: Straße\nids: {1: [2, 3.5, null]}\n".encode())
    assert read_yaml(path, what="recipe") == {"name": "Straße", "ids": {1: [2, 3.5, None]}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1\n", "line 2: this is not YAML"),
        (b"\xff\xfe\xfa", "not a YAML text file"),
        (b"[" * 5_000, "not a YAML text file"),
        (b"a: !!int x", "holds a value that is not what its tag says"),
        (b"a: !!timestamp x", "holds a value that is not what its tag says"),
        (b"a: 2020-99-99", "holds a value that is not what its tag says"),
        (b"a: !!python/object/apply:os.getcwd []", "this is not YAML"),
        (b"# " + b"x" * MAX_BYTES, "it is no recipe"),
    ],
    ids=range(8),
)
def test_what_is_no_such_file_gets_one_line_with_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_yaml(path, what="recipe")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(DataError, match="cannot read the recipe"):
            read_yaml(path, what="recipe")
