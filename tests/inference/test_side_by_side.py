"""Folders of images: several at the same time give what one after the other gives."""

import threading
from pathlib import Path

import numpy as np
import pytest

from lpsnet.cli.segment import MAX_WORKERS, _workers_and_threads
from lpsnet.data.images import write_png
from lpsnet.data.synthetic import SCENES, SceneSplit
from lpsnet.errors import RunError
from lpsnet.inference.outputs import Annotations, Style
from lpsnet.inference.pipeline import Source, find_sources, segment_images
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.windows import Windows

NAMES = ("labels", "overlay", "confidence")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of several sizes, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        split = SceneSplit(size=(60 + number, 90 - number), count=1, seed=number, name="s")
        write_png(folder / f"{number:02}.png", split.image(0))
    (folder / "05b.png").write_bytes(b"no image")
    return folder


def test_the_files_are_those_of_one_after_the_other(photos: Path, tmp_path: Path) -> None:
    found = find_sources([str(photos)])
    outcomes = {}
    for workers in (1, 4):
        segmenter, out = Segmenter("camvid_s", num_threads=1, input_size=(64, 96)), tmp_path / str(workers)
        style = Style(segmenter.label_space)
        with Annotations(out, ("coco",), segmenter.label_space) as notes:
            options = {"outputs": NAMES, "style": style, "annotations": notes, "num_workers": workers}
            outcomes[workers] = list(segment_images(segmenter, found, out, **options))
            notes.write()
    assert [outcome.source for outcome in outcomes[4]] == [source.path for source in found]
    assert [bool(outcome.problem) for outcome in outcomes[4]] == [source.stem.name == "05b" for source in found]
    files = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert len(files) >= 3 * 12 + 1
    for file in files:
        assert (tmp_path / "4" / file).read_bytes() == (tmp_path / "1" / file).read_bytes(), file


def made_up(count: int) -> list[Source]:
    return [Source(Path(f"{number}.png"), Path(str(number)), "image") for number in range(count)]


def test_as_many_run_at_the_same_time_as_there_are_workers_and_no_more(photos: Path, tmp_path: Path) -> None:
    lock, met, inside, most = threading.Lock(), threading.Barrier(3), 0, 0

    def segment(image: np.ndarray) -> np.ndarray:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        met.wait(timeout=30)  # all three have to be here
        with lock:
            inside -= 1
        return np.zeros(image.shape[:2], np.uint8)

    found = [source for source in find_sources([str(photos)]) if source.stem.name != "05b"]
    options = {"outputs": ("labels",), "style": Style(SCENES), "num_workers": 3}
    assert len(list(segment_images(segment, found, tmp_path, **options))) == 12
    assert most == 3


def test_what_cannot_be_written_ends_it(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder has to be")
    called = []

    def segment(image: np.ndarray) -> np.ndarray:
        called.append(image.shape)
        return np.zeros(image.shape[:2], np.uint8)

    options = {"outputs": ("labels",), "style": Style(SCENES), "num_workers": 2}
    with pytest.raises(RunError):
        list(segment_images(segment, find_sources([str(photos)]), tmp_path / "out", **options))
    assert len(called) <= 4


@pytest.mark.parametrize(
    ("count", "threads", "cores", "wanted"),
    [
        (10, None, 2, (2, 1)),
        (10, None, 1, (1, 1)),
        (3, None, 8, (3, 2)),
        (10, 2, 8, (4, 2)),
        (10, 8, 2, (1, 8)),
        (50, None, 64, (MAX_WORKERS, 8)),
        (1, None, 4, (1, None)),
        (0, 3, 4, (1, 3)),
    ],
)
def test_workers_and_threads_share_the_cores(
    count: int, threads: int | None, cores: int, wanted: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpsnet.agent.affinity", lambda: set(range(cores)))
    assert _workers_and_threads(made_up(count), threads, None) == wanted


def test_videos_and_windows_have_one_worker() -> None:
    film = Source(Path("a.mp4"), Path("a"), "video")
    assert _workers_and_threads([*made_up(5), film], None, None) == (1, None)
    assert _workers_and_threads(made_up(5), 2, Windows((64, 64), 16)) == (1, 2)
