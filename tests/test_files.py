"""Atomic writing."""

import os
import stat
from pathlib import Path

import pytest

from lpsnet.errors import RunError
from lpsnet.files import atomic_path, expand_home, inside, write_text


def test_a_finished_block_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_folder_that_cannot_be_written_to_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match="cannot write") as caught:
        write_text(tmp_path / "file" / "below.txt", "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..", "", ".", "a/..", "a\0b", "../run-2/x"])
def test_a_name_from_a_file_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="leads out of the folder"):
        inside(tmp_path / "run", name)


def test_a_name_within_the_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inside(tmp_path, "a/b.txt") == tmp_path / "a" / "b.txt"
    assert inside(tmp_path, "a/../b.txt") == tmp_path / "b.txt"
    monkeypatch.chdir(tmp_path)
    assert inside(Path("run"), "x") == tmp_path / "run" / "x"


def test_home_folders_are_put_in_where_there_is_such_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert expand_home("~/data") == Path("/home/someone/data")
    assert expand_home("~nobody-of-that-name/data") == Path("~nobody-of-that-name/data")
