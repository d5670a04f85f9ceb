"""A server of a page's files for this machine alone: Python's own, with two headers that let the page use threads.

Browsers give threads that share memory only to pages isolated from all others, which these headers ask for. Nothing
but files that lie in the page's folder is served: no list of what is there, and no link that leads out of it.
"""

import functools
import http.server
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from lpsnet.errors import RunError

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
        except (ValueError, OSError):  # no path at all: it holds a null byte, or is too long
            return False

    def end_headers(self) -> None:
        for name, value in ISOLATION:
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may go away when it likes
            super().handle_error(request, client_address)


def make_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of a folder, bound but not yet serving; port 0 takes a free one.

    Raises:
        RunError: the port is taken, or is not to be had.
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
