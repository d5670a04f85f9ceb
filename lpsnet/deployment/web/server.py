"""A server of a page's files for this machine alone: Python's own, with two headers that let the page use threads.

Browsers give threads that share memory only to pages isolated from all others, which these headers ask for.
"""

import functools
import http.server
from collections.abc import Callable
from pathlib import Path

from lpsnet.errors import RunError

HOST = "127.0.0.1"
ISOLATION = (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp"))


class _Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        for name, value in ISOLATION:
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def make_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of a folder, bound but not yet serving; port 0 takes a free one.

    Raises:
        RunError: the port is taken, or is not to be had.
    """
    try:
        return http.server.ThreadingHTTPServer((HOST, port), functools.partial(_Handler, directory=str(folder)))
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
