"""Compiles the loops in `inference/kernels.c`, `models/training_kernels.c` and `data/jpeg_scan.c` when the package is
built or installed.

They are called through ctypes and know nothing of Python, so one file serves all its versions. Where there is no C
compiler, or it fails, the package is whole without them: NumPy, OpenCV and torch compute the same, and of JPEG files
that are damaged inside fewer are noticed.

By hand, for a checkout that is not installed: `python build_kernels.py`.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
SOURCE = ROOT / "lpsnet" / "inference" / "kernels.c"
LIBRARY = SOURCE.with_name("kernels.bin")
JPEG_SOURCE = ROOT / "lpsnet" / "data" / "jpeg_scan.c"
TRAINING_SOURCE = ROOT / "lpsnet" / "models" / "training_kernels.c"
LIBRARIES = {
    LIBRARY: SOURCE,
    JPEG_SOURCE.with_suffix(".bin"): JPEG_SOURCE,
    TRAINING_SOURCE.with_suffix(".bin"): TRAINING_SOURCE,
}
# No floating-point flag is ever looked at: loops over classes become vectors
FLAGS = ("-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")
FINITE = {SOURCE}  # logits are finite; numbers of a training that diverges are not


def build(library: Path = LIBRARY, source: Path = SOURCE) -> bool:
    """Compile to `library`; False, and nothing done, where that cannot be."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        return False
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f".{library.name}-") as folder:
        made = Path(folder) / library.name
        flags = [*FLAGS, *(["-ffinite-math-only"] if source in FINITE else [])]
        done = subprocess.run([compiler, "-shared", *flags, "-o", made, source], capture_output=True)
        if done.returncode == 0:
            made.replace(library)  # not over it: a program that runs with the old one would crash
        return done.returncode == 0


if __name__ == "__main__":
    for made, source in LIBRARIES.items():
        print(f"Wrote {made}" if build(made, source) else f"No C compiler that works; {made.name} is not needed")
else:
    try:
        from hatchling.builders.hooks.plugin.interface import BuildHookInterface
    except ImportError:  # imported by a test
        pass
    else:

        class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
            """What hatchling calls before it packs a wheel, or an editable one."""

            def initialize(self, version: str, build_data: dict[str, Any]) -> None:
                made = [library for library, source in LIBRARIES.items() if build(library, source)]
                build_data["artifacts"] += [f"/{library.relative_to(ROOT)}" for library in made]
                if made:
                    build_data["pure_python"] = False
                    build_data["tag"] = f"py3-none-{_platform()}"


def _platform() -> str:
    import sysconfig

    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
