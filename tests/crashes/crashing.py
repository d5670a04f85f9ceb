"""Killing programs at random moments, with SIGKILL, and starting them again until one gets through.

A program is a function that does its work in a folder, and resumes what it finds there. It is run in processes
that a fork server starts, which has all that is slow to import, so that the kills fall into the work.
"""

import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_IMPORTED = [
    "torch",
    "lpsnet.training.segmentation",
    "lpsnet.search.run",
    "lpsnet.export.export",
    "lpsnet.studies.study",
]


@dataclass(frozen=True)
class Program:
    """What is killed.

    Attributes:
        name: of the program.
        run: a function of a module: does the work in a folder, or resumes it.
        result: what the folder must hold in the end, whatever happened: compared with that of an undisturbed run.
        check: raises if a file in the folder counts as whole and is not; called after every kill.
    """

    name: str
    run: Callable[[Path], None]
    result: Callable[[Path], object]
    check: Callable[[Path], None]

    def __str__(self) -> str:
        return self.name


def run_whole(program: Program, folder: Path) -> float:
    """Run it undisturbed; seconds that took, the start of the fork server not among them."""
    warm_up = Program("nothing", Path.exists, Path.exists, Path.exists)  # type: ignore[arg-type]
    _run(warm_up, folder, None)
    begun = time.monotonic()
    _run(program, folder, None)
    return time.monotonic() - begun


def run_and_kill(program: Program, folder: Path, *, moments: int, seconds: float, seed: int) -> int:
    """Start it, kill it at random moments within `seconds`, `moments` times in all, then let it finish.

    Where it gets through before it is killed, it begins again in a fresh folder below `folder`, and what it left is
    compared by the caller: all folders that were finished are `folder`/0, `folder`/1, …

    Returns:
        The number of folders.
    """
    dice, number = random.Random(seed), 0
    for _ in range(moments):
        # short of the work's length more often than not: a resumed run has less left
        killed = _run(program, folder / str(number), dice.uniform(0, 0.7 * seconds))
        program.check(folder / str(number))
        number += not killed
    _run(program, folder / str(number), None)
    return number + 1


def _run(program: Program, folder: Path, kill_after: float | None) -> bool:
    """Whether it was killed; AssertionError if it failed by itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=program.run, args=(folder,))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode in ((0,) if kill_after is None else (0, -9)), f"{program} ended with {process.exitcode}"
    return process.exitcode == -9
