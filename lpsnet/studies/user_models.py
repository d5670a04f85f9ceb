"""Model files that the user has put beside ours: which there are, and at what size each is measured."""

import re
from pathlib import Path

from lpsnet.benchmark.benchmark import Candidate
from lpsnet.errors import RunError
from lpsnet.inference.model_file import find_record
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES
from lpsnet.studies.study import Settings

Size = tuple[int, int]


def model_files(path: Path | None) -> list[Path]:
    """The file, or all model files in the folder, in the order of their names; none for None.

    Raises:
        RunError: there is no such file or folder, or no model file in it.
    """
    if path is None:
        return []
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*") if file.suffix.lower() in DEFAULT_RUNTIMES) if path.is_dir() else []
    if not found:
        kinds = ", ".join(DEFAULT_RUNTIMES)
        raise RunError(f"no model files in {path}; put files of these kinds there: {kinds}")
    return found


def input_size(file: Path, usual: Size) -> Size:
    """(height, width) that a file is measured at.

    That in its name (`stdc1_512x1024.onnx`), or else that of its record, or else the usual one.
    """
    if match := re.search(r"(\d{2,5})x(\d{2,5})$", file.stem):
        return int(match[1]), int(match[2])
    record = find_record(file)
    return usual if record is None or record.input_size is None else record.input_size


def candidates(settings: Settings, usual: Size) -> list[Candidate]:
    """The user's files by every engine asked for that reads them, else by the usual one of their kind."""
    found = []
    for file in model_files(settings.models):
        own = DEFAULT_RUNTIMES[file.suffix.lower()]
        runtimes = settings.runtimes if file.suffix.lower() == ".onnx" else (own,)
        size = input_size(file, usual)
        found += [Candidate(file.stem, file, runtime, settings.precision, size=size) for runtime in runtimes]
    return found


def fingerprint(file: Path) -> list[str | int]:
    """Name, bytes and time of last change: what a result depends on besides the settings."""
    status = file.stat()
    return [file.name, status.st_size, status.st_mtime_ns]
