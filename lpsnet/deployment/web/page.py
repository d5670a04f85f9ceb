"""A static page that segments in the visitor's browser: `lpsnet web`.

The page is the files of `static/` beside a copy of the model and its record. ONNX Runtime for browsers comes with the
package (`static/runtime/README.md` says what and why), so that a page can be made, and visited, without a network.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lpsnet.data.images import read_image
from lpsnet.deployment.model_file import read_record
from lpsnet.deployment.models import find_model
from lpsnet.errors import DataError, ModelFileError
from lpsnet.io import atomic_path, write_text

MODEL_NAME = "model.onnx"
RECORD_NAME = "record.json"
PAGE_NAME = "page.json"  # what the page shows that is not in the record
SHOWN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # pictures that every browser shows

_HTML_ESCAPES = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&"})  # JSON reads them back


@dataclass(frozen=True)
class WebPage:
    """A page that was written.

    Attributes:
        folder: what a server is to serve.
        model: the file whose copy the page runs.
        num_bytes: of all files of the page.
    """

    folder: Path
    model: Path
    num_bytes: int


def write_page(model: str | Path, out: Path, *, example: Path | None = None) -> WebPage:
    """Write a page that runs a model in the browser; files of an earlier page in the folder are replaced.

    Args:
        model: an ONNX file with a record, or the name of a model that comes with the package.
        out: folder of the page, made where it is missing.
        example: a picture that the page offers to segment.

    Raises:
        ModelFileError: there is no such model, it is not ONNX, or it holds no usable record.
        DataError: the example is no picture, or of a format that browsers do not show.
        RunError: the folder cannot be written to.
    """
    path = find_model(model)
    if path.suffix.lower() != ".onnx":
        raise ModelFileError(f"a browser runs .onnx files, not {path}; make one with: lpsnet export --to onnx")
    record = read_record(path)
    copied = {**_static_files(), MODEL_NAME: path, **_example(example)}
    page = {"name": path.stem, "file": MODEL_NAME, "bytes": path.stat().st_size, "example": _example_name(copied)}
    written = {RECORD_NAME: json.loads(record.to_json()), PAGE_NAME: page}
    for name, source in copied.items():
        with atomic_path(out / name) as temporary:
            shutil.copyfile(source, temporary)
    for name, value in written.items():
        write_text(out / name, _json_text(value))
    return WebPage(out, path, sum((out / name).stat().st_size for name in (*copied, *written)))


def _static_files() -> dict[str, Path]:
    """The page's own files: place in the page to file."""
    folder = Path(str(resources.files("lpsnet.deployment.web") / "static"))
    return {file.relative_to(folder).as_posix(): file for file in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _example(path: Path | None) -> dict[str, Path]:
    if path is None:
        return {}
    read_image(path)  # says what is wrong with it
    if path.suffix.lower() not in SHOWN_SUFFIXES:
        raise DataError(f"browsers do not show {path}; an example is one of {', '.join(SHOWN_SUFFIXES)}")
    return {f"example{path.suffix.lower()}": path}


def _example_name(names: dict[str, Path]) -> str | None:
    return next((name for name in names if name.startswith("example.")), None)


def _json_text(value: dict[str, Any]) -> str:
    """JSON in ASCII that no reader can take for HTML, whatever the names in a record are."""
    return json.dumps(value, indent=2, allow_nan=False).translate(_HTML_ESCAPES) + "\n"
