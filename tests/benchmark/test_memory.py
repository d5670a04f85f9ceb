"""Peak memory of work that is known to take so much."""

import functools
import os
import sys

import pytest

from lpsnet.benchmark.machine import peak_memory_mib
from lpsnet.errors import RunError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not measured on Windows")


def fill(mebibytes: int) -> None:
    """Touch so much memory, and give it back."""
    bytearray(b"x") * (mebibytes * 2**20)


def fail() -> None:
    raise ZeroDivisionError("by zero")


def vanish() -> None:
    os._exit(3)


def test_a_function_takes_what_it_fills() -> None:
    less, more = (peak_memory_mib(functools.partial(fill, size)) for size in (10, 160))
    assert more - less == pytest.approx(150, abs=15)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (fail, "ZeroDivisionError: by zero"),
        (vanish, "ended without a result"),
        (lambda: None, "give a function of a module"),
    ],
)
def test_work_that_fails_has_no_peak(work: object, message: str) -> None:
    with pytest.raises(RunError, match=message) as error:
        peak_memory_mib(work)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
