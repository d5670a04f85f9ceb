"""A static page that segments in the visitor's browser, and a server of its files for this machine: `lpsnet web`.

The page is the files of `static/` beside a copy of the model and its record. ONNX Runtime for browsers is part of the
package (`static/runtime/README.md`), so that a page works without a network. The server is Python's own with two
headers, which browsers require before a page may use threads with shared memory. It serves only files inside the
page's folder: no listings, no links that lead outside.
"""

import functools
import http.server
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from lpsnet.data.channels import require_rgb
from lpsnet.data.images import read_image
from lpsnet.errors import DataError, ModelFileError, RunError
from lpsnet.inference.hub import find_model
from lpsnet.inference.model_file import read_record
from lpsnet.io import atomic_path, write_text

MODEL_NAME = "model.onnx"
RECORD_NAME = "record.json"
PAGE_NAME = "page.json"  # contents of the page that are not in the record
SHOWN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # formats that every browser shows

_HTML_ESCAPES = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&"})  # JSON reads them back


@dataclass(frozen=True)
class WebPage:
    """A page that was written.

    Attributes:
        folder: the folder to serve.
        model: the original of the page's model.
        num_bytes: of all files together.
    """

    folder: Path
    model: Path
    num_bytes: int


def write_page(model: str | Path, out: Path, *, example: Path | None = None) -> WebPage:
    """Write a page that runs a model in the browser; files of an earlier page in the folder are replaced.

    Args:
        model: an ONNX file with a record, or the name of a model shipped with the package.
        out: folder of the page, created if missing.
        example: an image that the page offers to segment.

    Raises:
        ModelFileError: there is no such model, it is not ONNX, or it holds no usable record.
        DataError: the example is not an image, or of a format that browsers do not show.
        RunError: the folder cannot be written to.
    """
    path = find_model(model)
    if path.suffix.lower() != ".onnx":
        raise ModelFileError(f"a browser runs .onnx files, not {path}; make one with: lpsnet export --to onnx")
    record = read_record(path)
    require_rgb(record.image_channels, "the page gives models RGB images of 8 bits")
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
    folder = Path(str(resources.files("lpsnet.inference.web") / "static"))
    return {file.relative_to(folder).as_posix(): file for file in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _example(path: Path | None) -> dict[str, Path]:
    if path is None:
        return {}
    read_image(path)  # raises an error if it is not an image
    if path.suffix.lower() not in SHOWN_SUFFIXES:
        raise DataError(f"browsers do not show {path}; an example is one of {', '.join(SHOWN_SUFFIXES)}")
    return {f"example{path.suffix.lower()}": path}


def _example_name(names: dict[str, Path]) -> str | None:
    return next((name for name in names if name.startswith("example.")), None)


def _json_text(value: dict[str, Any]) -> str:
    """JSON in ASCII, escaped so that names in a record cannot be interpreted as HTML."""
    return json.dumps(value, indent=2, allow_nan=False).translate(_HTML_ESCAPES) + "\n"


HOST = "127.0.0.1"
ISOLATION = (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp"))


class _Handler(http.server.SimpleHTTPRequestHandler):
    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if not self._is_served():
            self.send_error(http.HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _is_served(self) -> bool:
        """Whether the address is that of a file in the folder, or of the folder itself, with its first page."""
        try:
            folder, path = Path(self.directory).resolve(), Path(self.translate_path(self.path)).resolve()
            file = (folder / "index.html").resolve() if path == folder else path
            return file.is_relative_to(folder) and file.is_file()
        except (ValueError, OSError):  # not a path: it has a null byte, or is too long
            return False

    def end_headers(self) -> None:
        for name, value in ISOLATION:
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may disconnect
            super().handle_error(request, client_address)


def make_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of a folder, bound but not yet serving; port 0 takes a free one.

    Raises:
        RunError: the port is taken or not allowed.
    """
    try:
        return _Server((HOST, port), functools.partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise RunError(f"cannot serve on port {port}: {error.strerror or error}; choose another one") from None


def serve(folder: Path, port: int, *, on_ready: Callable[[str], None]) -> None:
    """Serve a folder until it is interrupted; `on_ready` is called with the address once it answers.

    Raises:
        RunError: see `make_server`.
    """
    with make_server(folder, port) as server:
        on_ready(f"http://localhost:{server.server_port}")
        server.serve_forever()
