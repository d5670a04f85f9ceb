"""Atomic writing."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lpsnet.errors import RunError
from lpsnet.io import atomic_path, expand_home, inside, locked_folder, write_text


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_get_the_text_and_stay_pipes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
        write_text(path, "all of it")
        assert reader.communicate(timeout=20)[0] == "all of it"
    with pytest.raises(RunError, match="it is a device, pipe or socket; give the path of a file"), atomic_path(pipe):
        raise AssertionError("nothing would be written")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout here")
@pytest.mark.parametrize("redirected", [False, True])
def test_standard_output_by_its_path(tmp_path: Path, redirected: bool) -> None:
    words = [sys.executable, "-c", "import lpsnet.io as f; f.write_text(f.Path('/dev/stdout'), 'all of it')"]
    if redirected:
        with (tmp_path / "file").open("w") as file:
            subprocess.run(words, stdout=file, check=True)
        assert (tmp_path / "file").read_text() == "all of it"
    else:
        assert subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout == "all of it"


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


@pytest.mark.parametrize("name", ["f", "f/a", "f/a/b.txt"])
def test_a_file_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_text("")
    if name != "f":
        with pytest.raises(RunError, match=rf"{tmp_path}/f is a file, where a folder is needed; give another place"):
            write_text(tmp_path / name, "x")
    with (
        pytest.raises(RunError, match=rf"{tmp_path}/f is a file, where a folder is needed"),
        locked_folder(tmp_path / name),
    ):
        pass
    (tmp_path / "d").mkdir()
    with pytest.raises(RunError, match=rf"{tmp_path}/d is a folder, where a file is needed"):
        write_text(tmp_path / "d", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "f"]
