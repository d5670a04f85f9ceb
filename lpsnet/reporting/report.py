"""`lpsnet report`: finds out what a folder or file is, and writes its page."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lpsnet.errors import RunError
from lpsnet.inference.model_file import METADATA_READERS
from lpsnet.io import write_text
from lpsnet.reporting.benchmark_page import benchmark_page
from lpsnet.reporting.evaluation_page import PictureOptions, evaluation_page
from lpsnet.reporting.expansion_page import expansion_page
from lpsnet.reporting.model_page import model_page
from lpsnet.reporting.page import Page, render
from lpsnet.reporting.reading import read_json
from lpsnet.reporting.study_page import study_page
from lpsnet.reporting.training_page import training_page

PAGE = "report.html"

Builder = Callable[[Path, PictureOptions], Page]

# kind of folder -> the file that makes it one, and the builder of its page
_FOLDERS: dict[str, tuple[str, Builder]] = {
    "an expansion": ("journal.jsonl", lambda path, pictures: expansion_page(path)),
    "a training": ("run.json", training_page),
}
# kind of JSON file -> the keys that make it one, and the builder of its page
_FILES: dict[str, tuple[frozenset[str], Builder]] = {
    "an evaluation": (frozenset({"confusion_matrix", "ious"}), evaluation_page),
    "a benchmark": (frozenset({"results", "comparisons"}), lambda path, pictures: benchmark_page(path)),
    "a study": (frozenset({"study", "findings", "rows"}), lambda path, pictures: study_page(path)),
}
_WANTED = (
    "the folder of a training, an expansion or a study, a JSON file of lpsnet evaluate, benchmark or study, "
    "or a model file"
)


@dataclass(frozen=True, slots=True)
class Found:
    """Something to report on.

    Attributes:
        path: the folder or file.
        kind: what it is, in words.
        build: makes its page.
        page: where that is written unless asked otherwise.
    """

    path: Path
    kind: str
    build: Builder
    page: Path


def write_report(path: Path, *, out: Path | None = None, pictures: PictureOptions | None = None) -> Path:
    """Write the page of a run.

    Args:
        path: a run's folder, or a JSON file of figures, or a folder that holds one such file.
        out: the page; beside what it is about unless given.
        pictures: which are shown.

    Returns:
        The page.

    Raises:
        RunError: there is nothing to report on, or it cannot be read.
        MissingDependencyError: Jinja is not installed.
    """
    found = find(path)
    page = out or found.page
    command = ["lpsnet", "report", str(path), *(["--out", str(out)] if out else [])]
    write_text(page, render(found.build(found.path, pictures or PictureOptions()), command=shlex.join(command)))
    return page


def find(path: Path) -> Found:
    """What is to be reported on at a path.

    Raises:
        RunError: nothing, or more than one thing.
    """
    if path.is_file() and path.suffix.lower() in METADATA_READERS:
        return Found(path, "a model", lambda path, pictures: model_page(path), path.with_suffix(".html"))
    if path.is_file():
        if (found := _file(path, path.with_suffix(".html"))) is not None:
            return found
        raise RunError(f"{path} is no file that can be reported on; give {_WANTED}")
    if not path.is_dir():
        raise RunError(f"there is no {path}; give {_WANTED}")
    if (folder := _folder(path)) is not None:
        return folder
    files = [it for it in map(_quiet_file, _json_files(path)) if it is not None]
    if len(files) > 1:
        names = ", ".join(it.path.name for it in files)
        raise RunError(f"{path} holds several things to report on; give one of these files: {names}")
    if files:
        return Found(files[0].path, files[0].kind, files[0].build, path / PAGE)
    raise RunError(f"{path} holds nothing to report on{_hint(path)}; give {_WANTED}")


def _folder(path: Path) -> Found | None:
    for kind, (name, build) in _FOLDERS.items():
        if (path / name).is_file():
            return Found(path, kind, build, path / PAGE)
    return None


def _file(path: Path, page: Path) -> Found | None:
    value = read_json(path)
    for kind, (keys, build) in _FILES.items():
        if isinstance(value, dict) and keys <= set(value):
            return Found(path, kind, build, page)
    return None


def _quiet_file(path: Path) -> Found | None:
    """As `_file`, for files nobody said were ours."""
    try:
        return _file(path, path.with_suffix(".html"))
    except RunError:
        return None


def _json_files(path: Path) -> Iterator[Path]:
    return (it for it in sorted(path.glob("*.json")) if it.is_file())


def _hint(path: Path) -> str:
    """Which folders in it do."""
    inside = [it.name for it in sorted(path.iterdir()) if it.is_dir() and _folder(it) is not None]
    return f" itself, but {', '.join(inside[:5])} in it can be" if inside else ""
