"""YAML of others: plain values, or one line that says what is wrong with the file."""

import os
from pathlib import Path

import pytest

from lpsnet.errors import DataError
from lpsnet.io import MAX_BYTES, read_yaml


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
        (b"a: !!int x", "has a value that does not fit its tag"),
        (b"a: !!timestamp x", "has a value that does not fit its tag"),
        (b"a: 2020-99-99", "has a value that does not fit its tag"),
        (b"a: !!python/object/apply:os.getcwd []", "this is not YAML"),
        (b"# " + b"x" * MAX_BYTES, "it is no recipe"),
        (b"ids: {0: 0,\n 1: 1,\n 0: 2}", "line 3: the key 0 occurs twice; remove all but one"),
        (b"names: [a]\nnames: [b]", "line 2: the key 'names' occurs twice"),
    ],
    ids=range(10),
)
def test_what_is_no_such_file_gets_one_line_with_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_yaml(path, what="recipe")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_key_in_two_mappings_and_in_a_merged_one_is_not_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nother: {<<: *base, a: 3}\n", encoding="utf-8")
    assert read_yaml(path, what="recipe")["other"] == {"a": 3, "b": 2}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"cannot read the recipe .*a.yaml: it is a device, pipe or socket, not a file"):
        read_yaml(path, what="recipe")


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(DataError, match="cannot read the recipe"):
            read_yaml(path, what="recipe")
