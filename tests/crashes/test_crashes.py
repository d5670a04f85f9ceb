"""Killed at any moment, by SIGKILL, and started again, every command ends with what it would have ended with anyway.

pytest tests/crashes              one kill a program, of the quick ones
pytest tests/crashes -m slow      50 random moments a program, new ones every time; LPSNET_SEED repeats them
"""

import os
import time
from pathlib import Path

import pytest
from crashing import Program, run_and_kill, run_whole
from programs import PROGRAMS

MOMENTS = 50


def survive(program: Program, folder: Path, *, moments: int, seed: int) -> None:
    """What a program leaves after being killed is what it leaves undisturbed."""
    seconds = run_whole(program, folder / "undisturbed")
    expected = program.result(folder / "undisturbed")
    for number in range(run_and_kill(program, folder / "killed", moments=moments, seconds=seconds, seed=seed)):
        assert program.result(folder / "killed" / str(number)) == expected, f"seed {seed}, folder {number}"


@pytest.mark.parametrize("program", PROGRAMS[:2], ids=str)
def test_killed_once(program: Program, tmp_path: Path) -> None:
    survive(program, tmp_path, moments=1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_killed_at_many_moments(program: Program, tmp_path: Path) -> None:
    seed = int(os.environ.get("LPSNET_SEED", time.time_ns() % 2**32))
    survive(program, tmp_path, moments=MOMENTS, seed=seed)
