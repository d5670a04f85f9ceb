"""Work for executors under test, in a module of its own so that other processes find it, and a pool to be killed."""

import os
import signal
import sys
import time
from pathlib import Path

from lpsnet.errors import DataError
from lpsnet.search.executors import LocalPool


def square(number: int) -> int:
    return number * number


def process_of(path: Path) -> int:
    """Says which process it is in a file, too; waits if the file's name says so."""
    path.write_text(str(os.getpid()))
    if "wait" in path.name:
        time.sleep(60)
    return os.getpid()


def die_at_first(path: Path) -> str:
    """Killed the first time, done the second."""
    attempts = int(path.read_text()) if path.exists() else 0
    path.write_text(str(attempts + 1))
    if attempts == 0 and "well" not in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{path.name} after {attempts}"


def die(number: int) -> int:
    os._exit(7)


def refuse(number: int) -> int:
    raise DataError(f"no image {number}")


def break_down(number: int) -> int:
    return 1 // (number - number)


def visible_gpu(number: int) -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


if __name__ == "__main__":
    list(
        LocalPool(2).run(process_of, [Path(sys.argv[1]) / f"{i} wait" for i in range(2)], on_progress=lambda line: None)
    )
