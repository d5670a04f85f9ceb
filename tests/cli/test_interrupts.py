"""Ctrl-C: the exit code that shells expect, one line, and the command that resumes."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TRAIN = [
    *("train", "--data", "scenes:size=48x64,num_train=6,num_val=2", "--arch", "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"),
    *("--recipe", "demo", "--set", "batch_size=2", "--set", "crop_size=48x64", "--set", "num_workers=1"),
]


def start(words: Sequence[object]) -> subprocess.Popen[str]:
    code = "from lpsnet.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupt(process: subprocess.Popen[str], after: str) -> tuple[int, str]:
    """Send SIGINT once a line of standard error holds `after`; exit code and what standard error says then."""
    assert process.stderr is not None
    for line in process.stderr:
        if after in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate()
    return process.returncode, rest


def test_an_interrupted_training_names_the_command_that_resumes_it(tmp_path: Path) -> None:
    out = tmp_path / "run of today"
    words = [*TRAIN, "--set", "iterations=100000", "--out", out]
    code, said = interrupt(start(words), "/100000")
    assert code == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"lpsnet: stopped. Resume with: {shlex.join(['lpsnet', *map(str, words)])} --resume"
    assert (out / "run.json").exists()
    code, said = interrupt(start([*words, "--resume"]), "/100000")
    assert code == 130
    assert said.splitlines()[-1].endswith("--resume")
    assert said.splitlines()[-1].count("--resume") == 1


@pytest.mark.parametrize("command", ["info", "segment", ""])
def test_other_commands_say_that_nothing_is_half_written(command: str) -> None:
    """The signal comes while the arguments are being looked at, before anything is done."""
    code = "import os, signal, lpsnet.cli as cli\ncli.app = lambda **_: os.kill(os.getpid(), signal.SIGINT)\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "lpsnet: stopped. What was finished before is in place; no file is half written.\n"


def test_while_modules_are_loaded_nothing_was_begun(tmp_path: Path) -> None:
    """A module that the command loads first, in place of the real one, gets the signal."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from lpsnet.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "info"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "lpsnet: stopped. Nothing was begun.\n")
