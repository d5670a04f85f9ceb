"""Commands in this process, on a tiny network and generated scenes."""

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lpsnet.cli import main

SCENES = "scenes:size=48x64,num_train=6,num_val=2"
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
_SETTINGS = ("batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32")


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """What a command that was refused says: one line, and no more."""
        assert self.code == 2, self
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("lpsnet: ")]
        assert len(lines) == 1, self.err
        return lines[0]


def run(*words: object) -> Result:
    """A command; exit code and what it says."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["lpsnet", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv = before
    return Result(code, out.getvalue(), err.getvalue())


def train_words(out: Path, *, iterations: int = 24) -> Sequence[object]:
    """A training of some seconds."""
    settings = [word for it in (*_SETTINGS, f"iterations={iterations}") for word in ("--set", it)]
    return ["train", "--data", SCENES, "--arch", ARCH, "--recipe", "demo", *settings, "--out", out]
