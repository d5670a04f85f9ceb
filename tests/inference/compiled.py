"""The compiled loops for tests, installed or compiled here; and a fixture that runs a module with and without."""

import functools
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpsnet.inference import kernels, label_map
from lpsnet.inference import preprocess as preparation

ROOT = Path(__file__).parents[2]


@functools.cache
def compiled_kernels() -> kernels.Kernels:
    """Skips the test where there are none and no compiler."""
    kernels.find_kernels.cache_clear()
    if found := kernels.find_kernels():
        return found
    library = Path(tempfile.mkdtemp()) / "kernels.so"
    if not runpy.run_path(str(ROOT / "build_kernels.py"))["build"](library):
        pytest.skip("the compiled loops are not installed, and there is no C compiler")
    return kernels.Kernels(library)


@pytest.fixture(scope="module", autouse=True, params=["compiled", "NumPy"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Imported by a test module, it runs all of its tests twice."""
    found = compiled_kernels() if request.param == "compiled" else None
    with pytest.MonkeyPatch.context() as patch:
        for module in (label_map, preparation):
            patch.setattr(module, "find_kernels", lambda: found)
        yield request.param
