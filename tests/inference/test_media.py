"""What sources mean: files, folders, globs and cameras."""

from pathlib import Path

import pytest

from lpsnet.errors import DataError
from lpsnet.inference.pipeline import find_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("a.png", "b/c.JPG", "b/d.mp4", "b/d.overlay.mp4", "a.labels.png", "notes.txt", ".hidden.mp4", "b/e.MOV")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def found(*sources: object) -> list[tuple[str, str]]:
    return [(source.stem.as_posix(), source.kind) for source in find_sources([str(source) for source in sources])]


def test_a_folder_gives_all_below_it_but_its_own_results(folder: Path) -> None:
    assert found(folder) == [("a", "image"), ("b/c", "image"), ("b/d", "video"), ("b/e", "video")]


def test_globs_and_files(folder: Path) -> None:
    assert found(folder / "b/*.mp4") == [("d", "video")]
    assert found(folder / "**/*") == [("a", "image"), ("c", "image"), ("d", "video"), ("e", "video")]
    assert found(folder / "a.labels.png", folder / "notes.txt") == [("a.labels", "image"), ("notes", "image")]
    assert found(folder / "a.png", folder / "*.png") == [("a", "image")]


def test_numbers_are_cameras_unless_there_is_such_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert found("0", "2") == [("camera_0", "camera"), ("camera_2", "camera")]
    (folder / "2").mkdir()
    (folder / "2" / "x.png").write_bytes(b"x")
    assert found("2") == [("x", "image")]


def test_a_image_and_a_video_of_one_name_do_not_collide(folder: Path) -> None:
    (folder / "b" / "d.png").write_bytes(b"x")
    assert len(find_sources([str(folder)])) == 5
    (folder / "b" / "d.avi").write_bytes(b"x")
    with pytest.raises(DataError, match=r"would both write b/d\.labels"):
        find_sources([str(folder)])


@pytest.mark.parametrize("source", ["none.png", "*.gif", "-1", "0x", "camera"])
def test_what_names_nothing_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match="names no image, video or camera"):
        find_sources([source])
