"""The compiled loops: that they are found, can be left out, and survive a fork. What they compute is tested with
`label_map` and `preparation`, which run all their tests with and without them."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compiled import ROOT, compiled_kernels

from lpsnet.inference import kernels


def test_bands_cover_everything_once() -> None:
    for length in (1, 2, 7, 100):
        for num_threads in (1, 2, 3, 8, 200):
            counts = np.zeros(length, int)

            def count(begin: int, end: int, counts: np.ndarray = counts) -> None:
                counts[begin:end] += 1

            kernels.in_bands(count, length, num_threads)
            assert (counts == 1).all()


def test_an_error_in_a_band_comes_through() -> None:
    def fail(begin: int, end: int) -> None:
        if begin:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kernels.in_bands(fail, 4, 2)


def _work(_: int) -> int:
    counts = np.zeros(4, int)

    def count(begin: int, end: int) -> None:
        counts[begin:end] += 1

    kernels.in_bands(count, 4, 2)
    return int(counts.sum())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    assert _work(0) == 4  # the parent's threads are there now
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(_work, [0]).get(timeout=30) == [4]


def test_a_library_in_use_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that runs with it would crash; it keeps the old file, which no longer has a name."""
    monkeypatch.syspath_prepend(ROOT)
    from build_kernels import build

    library = tmp_path / "kernels.bin"
    library.write_bytes(b"in use")
    with library.open("rb") as held:
        if not build(library):
            pytest.skip("there is no C compiler")
        assert held.read() == b"in use"
    assert kernels.Kernels(library).path == library
    assert list(tmp_path.iterdir()) == [library]


@pytest.mark.parametrize(
    ("switch", "content", "found"), [("", "library", True), ("0", "library", False), ("", "damaged", False)]
)
def test_which_loops_are_taken(tmp_path: Path, switch: str, content: str, found: bool) -> None:
    """In a copy of the package with a library beside it, in a process of its own."""
    loops = compiled_kernels()
    package = Path(kernels.__file__).parents[1]
    shutil.copytree(package, tmp_path / "lpsnet", ignore=shutil.ignore_patterns("weights", "*.so", "*.pyd", "_*cache*"))
    library = tmp_path / "lpsnet" / "inference" / kernels.LIBRARY.name
    library.write_bytes(loops.path.read_bytes() if content == "library" else b"not a library")
    done = subprocess.run(
        [sys.executable, "-c", "from lpsnet.inference.kernels import find_kernels; print(find_kernels() is not None)"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), kernels.SWITCH: switch},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == str(found)
