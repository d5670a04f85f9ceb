"""Containers, against Python's own zip module, and what must not be taken for one."""

import zipfile
from pathlib import Path

import pytest

from lpsnet.data.labels import CAMVID
from lpsnet.errors import ModelFileError
from lpsnet.inference.model_file import CONTENTS, read_container, read_record, write_container
from lpsnet.record import ModelRecord

RECORD = ModelRecord(architecture="tiny", label_space=CAMVID, input_size=(360, 480), licence="CC0 — frei")
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture(params=list(CONTENTS))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"model{request.param}"
    write_container(path, description=b"7767517\n", weights=WEIGHTS, record=RECORD)
    return path


def repacked(path: Path, method: int = zipfile.ZIP_STORED, **members: bytes | None) -> Path:
    """The container with members (dots written as _) changed, added or left out."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents |= {name.replace("_", "."): content for name, content in members.items() if content is not None}
    left_out = {name.replace("_", ".") for name, content in members.items() if content is None}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            if name not in left_out:
                archive.writestr(name, content)
    return path


def test_what_was_written_is_read(path: Path) -> None:
    assert read_container(path) == (b"7767517\n", WEIGHTS)
    assert read_record(path) == RECORD


def test_it_is_a_zip_file_with_fixed_names(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["record.json", *CONTENTS[path.suffix]]
        assert archive.read("record.json").decode() == RECORD.to_json()


def test_equal_contents_give_equal_files(path: Path) -> None:
    first = path.read_bytes()
    write_container(path, description=b"7767517\n", weights=WEIGHTS, record=RECORD)
    assert path.read_bytes() == first


def test_nothing_is_unpacked(path: Path) -> None:
    read_container(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_compressed_container_is_refused(path: Path) -> None:
    repacked(path, zipfile.ZIP_DEFLATED, model_bin=bytes(10**6))
    with pytest.raises(ModelFileError, match="is compressed"):
        read_container(path)


@pytest.mark.parametrize("members", [{"model_bin": None}, {"record_json": None}, {"more_txt": b"x"}, {"__/evil": b"x"}])
def test_other_members_than_the_named_ones_are_refused(path: Path, members: dict[str, bytes | None]) -> None:
    repacked(path, **members)
    for read in (read_container, read_record):
        with pytest.raises(ModelFileError, match="must hold exactly"):
            read(path)


def test_a_name_that_is_there_twice_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("record.json", b"{}")
    with pytest.raises(ModelFileError, match="must hold exactly"):
        read_record(path)


def test_damage_is_noticed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(WEIGHTS) + 5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"is not a whole .* file"):
        read_container(path)


def test_half_a_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelFileError, match=r"is not a whole .* file"):
        read_record(path)


def test_a_record_that_is_not_text_is_refused(path: Path) -> None:
    repacked(path, record_json=b"\xff\xfe{}")
    with pytest.raises(ModelFileError, match="not UTF-8"):
        read_record(path)


def test_a_size_that_is_a_lie_asks_for_no_memory(path: Path) -> None:
    """The size of the weights in the archive's directory, set to nearly 4 GB."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = b"\xfe\xff\xff\xff" * 2
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"too large|whole"):
        read_container(path)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"unknown container suffix '.zip'"):
        write_container(tmp_path / "model.zip", description=b"", weights=b"", record=RECORD)
    assert not list(tmp_path.iterdir())
