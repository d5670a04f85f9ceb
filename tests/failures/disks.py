"""Small disks of one's own: full ones and ones that cannot be written to, even by root."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A tmpfs mounted at `path`."""

    path: Path

    def fill(self, *, leave_kib: int) -> Path:
        """Write a file that takes all the room but `leave_kib`; removing it makes room again."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**16)):
                pass
        with filler.open("rb+") as file:
            file.truncate(max(0, filler.stat().st_size - leave_kib * 1024))
        return filler

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written meanwhile."""
        _mount("-o", "remount,ro", self.path)
        try:
            yield
        finally:
            _mount("-o", "remount,rw", self.path)


@contextlib.contextmanager
def mounted(mib: int) -> Iterator[Disk]:
    """A disk of `mib` MiB; the test is skipped where none can be mounted."""
    if not sys.platform.startswith("linux"):
        pytest.skip("a tmpfs is mounted on Linux only")
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount("-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a tmpfs cannot be mounted here, which takes root: {error}")
        try:
            yield Disk(Path(folder))
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)
