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


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", program]


def test_a_command_takes_what_it_fills() -> None:
    base = peak_memory_mib(python("pass"))
    assert 1 < base < 100
    assert peak_memory_mib(python("b'x' * (200 * 2**20)")) - base == pytest.approx(200, abs=10)


def test_a_command_does_not_inherit_the_peak_of_the_one_that_asks() -> None:
    """A process that has held 300 MiB; Linux would hand that on to what it starts."""
    program = (
        "b'x' * (300 * 2**20)\n"
        "from lpsnet.benchmark.machine import peak_memory_mib\n"
        f"print(peak_memory_mib({python('pass')!r}))"
    )
    import subprocess

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(said.stdout) < 100


def test_a_function_takes_what_it_fills() -> None:
    less, more = (peak_memory_mib(functools.partial(fill, size)) for size in (10, 160))
    assert more - less == pytest.approx(150, abs=15)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (fail, "ZeroDivisionError: by zero"),
        (vanish, "ended without a word"),
        (lambda: None, "give a function of a module"),
        (python("raise SystemExit('no model')"), "ended with 1, .*: no model"),
        (["there-is-no-such-program"], "could not be started: .*No such file"),
        ([], "no command"),
    ],
)
def test_work_that_fails_has_no_peak(work: object, message: str) -> None:
    with pytest.raises(RunError, match=message) as error:
        peak_memory_mib(work)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
