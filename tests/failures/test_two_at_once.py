"""Two runs into one folder: the second is refused with the first one's process id, and touches nothing."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from commands import SCENES, train_words

_HOLD = (
    "import sys; from pathlib import Path; from lpsnet import io\n"
    "out = Path(sys.argv[2])\n"
    "out.mkdir(parents=True, exist_ok=True)\n"
    "journal = lambda: io.exclusive(out / 'journal.jsonl.lock')\n"
    "folder = lambda: io.locked_folder(out)\n"
    "with {'journal': journal, 'folder': folder}[sys.argv[1]](): print('held', flush=True); sys.stdin.read()"
)


class Holder:
    """Another process that holds a folder as a run does."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, how: str, out: Path) -> int:
        command = [sys.executable, "-c", _HOLD, how, str(out)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process.pid


@pytest.fixture
def hold() -> Iterator[Holder]:
    holder = Holder()
    yield holder
    for process in holder.processes:
        process.communicate("")


def _pretrain(out: Path, folder: Path) -> Sequence[Any]:
    import cv2
    import numpy as np

    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "photos" / name), np.zeros((32, 32, 3), np.uint8))
    settings = ["--set", "epochs=1", "--set", "batch_size=2", "--set", "crop_size=32x32"]
    return [
        "pretrain",
        "--data",
        folder / "photos",
        "--arch",
        "tiny",
        "--recipe",
        "pictures_small",
        *settings,
        "--out",
        out,
    ]


def _expand(out: Path, folder: Path) -> Sequence[Any]:
    numbers = ["--threads", "1", "--size", "48x64", "--steps", "1"]
    engine = ["--runtime", "onnxruntime", "--precision", "f32"]
    return ["expand", "--data", SCENES, "--recipe", "demo", *engine, *numbers, "--out", out]


COMMANDS = {
    "train": ("folder", lambda out, folder: train_words(out)),
    "pretrain": ("folder", _pretrain),
    "expand": ("journal", _expand),
    "study": ("folder", lambda out, folder: ["study", "widths", "--threads", "1", "--out", out]),
}


@pytest.mark.parametrize(("how", "words"), COMMANDS.values(), ids=COMMANDS)
def test_the_second_is_refused(tmp_path: Path, hold: Holder, how: str, words: Any) -> None:
    out = tmp_path / "run"
    command = words(out, tmp_path)
    owner = hold(how, out)
    (out / "work").write_text("of the first")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    line = run(*command).line
    assert str(owner) in line
    assert str(out) in line
    assert {path: path.read_bytes() for path in before} == before
    added = {path.relative_to(out).parts[0] for path in out.rglob("*") if path.is_file()} - {it.name for it in before}
    assert added <= {"latency"}, "an expansion looks at its engine first, with a network that both would write alike"
