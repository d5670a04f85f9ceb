"""Full disks, and read-only folders: one line, nothing earlier lost, and it resumes once there is space."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import run
from commands import SCENES, expand_words, train_words
from disks import Disk, mounted
from safetensors.numpy import load_file

import lpsnet.training.loop as loop
from lpsnet.errors import RunError
from lpsnet.studies.network_latency import TIMING


@pytest.fixture
def disk() -> Iterator[Disk]:
    with mounted(24) as disk:
        yield disk


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed, a model of it, and images."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(*train_words(folder / "run")).code == 0
    assert run("export", "--model", folder / "run/model.safetensors", "--out", folder / "model.onnx").code == 0
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        (folder / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), noise)
    return folder


@pytest.fixture(autouse=True)
def _quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    from expansion_tiny import QUICK_TURN

    monkeypatch.setattr("lpsnet.search.measure.TURN", QUICK_TURN)
    monkeypatch.setitem(TIMING, "small", "quick")


def _segment(folder: Path, out: Path) -> Sequence[Any]:
    return ["segment", folder / "photos", "--model", folder / "model.onnx", "--out", out / "segmented"]


def _export(folder: Path, out: Path) -> Sequence[Any]:
    return ["export", "--model", folder / "run/model.safetensors", "--out", out / "model.onnx"]


def _evaluate(folder: Path, out: Path) -> Sequence[Any]:
    return ["evaluate", "--model", folder / "model.onnx", "--data", SCENES, "--json", out / "scores.json"]


def _train(folder: Path, out: Path) -> Sequence[Any]:
    return [*train_words(out / "run"), "--resume"]


def _grow(folder: Path, out: Path) -> Sequence[Any]:
    return expand_words(out / "grown")


def _study(folder: Path, out: Path) -> Sequence[Any]:
    return ["study", "embedded", "--models", folder / "model.onnx", "--size", "48x64", "--out", out / "study"]


COMMANDS = {
    "segment": _segment,
    "export": _export,
    "evaluate": _evaluate,
    "train": _train,
    "expand": _grow,
    "study": _study,
}
commands = pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)


def _files(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("filler", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@commands
def test_a_full_disk_gets_one_line_and_the_command_works_once_there_is_room(
    disk: Disk, trained: Path, words: Callable[[Path, Path], Sequence[Any]]
) -> None:
    filler = disk.fill(leave_kib=0)
    command = words(trained, disk.path)
    assert "No space left on device" in run(*command).line
    assert not [name for name, content in _files(disk.path).items() if content], "half of something was left"
    filler.unlink()
    assert run(*command).code == 0
    assert any(_files(disk.path).values())


@commands
def test_a_folder_that_cannot_be_written_to_gets_one_line_and_keeps_what_it_has(
    disk: Disk, trained: Path, words: Callable[[Path, Path], Sequence[Any]]
) -> None:
    command = words(trained, disk.path)
    assert run(*command).code == 0
    before = _files(disk.path)
    with disk.read_only():
        line = run(*command).line
    assert "Read-only file system" in line
    assert _files(disk.path) == before


def test_a_training_that_filled_the_disk_resumes_to_the_same_result(
    disk: Disk, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for a checkpoint or two, and not for the next: the last one stays whole."""
    monkeypatch.setattr(loop, "EPOCH_CHECKPOINT_SECONDS", 0)
    state = (trained / "run" / "state.safetensors").stat().st_size
    filler = disk.fill(leave_kib=2 * state // 1024 + 16)
    line = run(*train_words(disk.path / "run")).line
    assert "No space left on device" in line
    assert (disk.path / "run" / "state.safetensors").stat().st_size == state
    filler.unlink()
    assert run(*train_words(disk.path / "run"), "--resume").code == 0
    given, expected = (load_file(folder / "run/model.safetensors") for folder in (disk.path, trained))
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(given[name], value, err_msg=name)


def _expand(out: Path) -> str:
    """A whole search with trainings that take no time; the journal's decisions, without times of day."""
    from expansion_tiny import REPETITIONS, RUN, TableDevice, train_in_no_time

    from lpsnet.search.run import JOURNAL, run_expansion

    run_expansion(RUN, out, device=TableDevice(out), train=train_in_no_time, repetitions=REPETITIONS)
    lines = (out / JOURNAL).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if '"kind":"step"' in line).replace('"at":', "")


def test_a_search_that_filled_the_disk_resumes_to_the_same_result(disk: Disk, tmp_path: Path) -> None:
    """It is stopped again and again, with a little more room each time, wherever that may be."""
    out, stops = disk.path / "search", 0
    filler = disk.fill(leave_kib=8)
    for kib in range(64, 24_000, 64):
        try:
            given = _expand(out)
            break
        except RunError:
            stops += 1
            with filler.open("rb+") as file:
                file.truncate(max(0, filler.stat().st_size - kib * 1024))
    assert stops > 2
    assert re.sub(r'"20[^"]*"', "", given) == re.sub(r'"20[^"]*"', "", _expand(tmp_path / "undisturbed"))
