"""What `lpsnet web` writes, without a browser."""

import gzip
import hashlib
import json
import re
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from engine_models import small_network

from lpsnet.data.images import write_png
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, ModelFileError, RunError
from lpsnet.export.onnx import export_onnx
from lpsnet.inference.model_file import read_record
from lpsnet.inference.web import HOST, make_server, write_page
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.record import ModelRecord

NAMES = ("</script>", "a & b", "<b>", "größe", '"')
RUNTIME = Path(str(resources.files("lpsnet.inference.web") / "static/runtime"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = small_network()
    record = default_record(net, label_space=LabelSpace.from_names("odd", NAMES))
    path = tmp_path_factory.mktemp("model") / "street.onnx"
    export_onnx(net, path, record=record)
    return path


def test_the_model_and_its_record(model: Path, tmp_path: Path) -> None:
    page = write_page(model, tmp_path / "web")
    assert (page.folder / "model.onnx").read_bytes() == model.read_bytes()
    text = (page.folder / "record.json").read_text(encoding="ascii")
    assert not re.search("[<>&]", text)
    assert ModelRecord.from_json(text) == read_record(model)
    shown = json.loads((page.folder / "page.json").read_text())
    assert shown == {"name": "street", "file": "model.onnx", "bytes": model.stat().st_size, "example": None}
    assert page.num_bytes == sum(path.stat().st_size for path in page.folder.rglob("*") if path.is_file())


def test_every_file_that_a_file_names_is_there(model: Path, tmp_path: Path) -> None:
    write_page(model, tmp_path)
    texts = [path.read_text(encoding="utf-8") for path in [*tmp_path.glob("*.js"), tmp_path / "index.html"]]
    pattern = r"""(?:from |src=|href=|URL\(|import\()["']([^"'#:]+)["']"""
    named = {name for text in texts for name in re.findall(pattern, text)}
    assert len(named) > 10
    assert all((tmp_path / name).is_file() for name in named)
    assert not [text for text in texts if re.search(r"""["'](?:https?:)?//""", text)], "nothing from elsewhere"


def test_no_text_becomes_html() -> None:
    for path in RUNTIME.parent.glob("*.js"):
        assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval\\(", path.read_text()), (
            path.name
        )


def test_the_runtime_is_the_published_one() -> None:
    """The sums in its README are those of the files in the npm package; `npm pack` gives them to anyone."""
    table = dict(re.findall(r"^\| `([\w.]+)` \|.*`([0-9a-f]{64})` \|$", (RUNTIME / "README.md").read_text(), re.M))
    assert len(table) == 2
    for name, expected in table.items():
        content = (RUNTIME / name).read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
        assert hashlib.sha256(content).hexdigest() == expected


def test_an_example(model: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "Image.png", np.zeros((40, 50, 3), np.uint8))
    page = write_page(model, tmp_path / "web", example=tmp_path / "Image.png")
    assert json.loads((page.folder / "page.json").read_text())["example"] == "example.png"
    assert (page.folder / "example.png").read_bytes() == (tmp_path / "Image.png").read_bytes()


def test_written_again_it_is_another_page(model: Path, tmp_path: Path) -> None:
    write_page(model, tmp_path / "web")
    other = model.rename(model.with_name("other.onnx"))
    write_page(other, tmp_path / "web")
    other.rename(model)
    assert json.loads((tmp_path / "web/page.json").read_text())["name"] == "other"


def test_what_cannot_run_in_a_browser(model: Path, tmp_path: Path) -> None:
    save_checkpoint(small_network(), tmp_path / "net.safetensors")
    with pytest.raises(ModelFileError, match="lpsnet export --to onnx"):
        write_page(tmp_path / "net.safetensors", tmp_path / "web")
    with pytest.raises(ModelFileError, match="no model file"):
        write_page(tmp_path / "missing.onnx", tmp_path / "web")
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(DataError, match=r"note\.png"):
        write_page(model, tmp_path / "web", example=tmp_path / "note.png")
    assert not (tmp_path / "web").exists()


def test_our_own_server(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("here")
    with make_server(tmp_path, 0) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with urllib.request.urlopen(f"http://{HOST}:{server.server_port}/") as answer:
            assert answer.read() == b"here"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        thread.join()
        with pytest.raises(RunError, match=rf"port {server.server_port}: .*; choose another one"):
            make_server(tmp_path, server.server_port)


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port that a folder is served on; every answer has ended when the block has."""
    with make_server(folder, 0) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def answered(port: int, request: bytes) -> bytes:
    """All that comes back for a request, sent as it is."""
    with socket.create_connection((HOST, port), timeout=10) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def status_of(port: int, address: str) -> int:
    return int(answered(port, f"GET {address} HTTP/1.0\r\n\r\n".encode("latin-1")).split()[1])


@pytest.fixture
def page_folder(tmp_path: Path) -> Path:
    """A page beside a file that is not to be had, and with links to it."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/index.html").write_text("secret")
    folder = tmp_path / "web"
    (folder / "listed").mkdir(parents=True)
    (folder / "index.html").write_text("here")
    (folder / "listed/file.txt").write_text("here, too")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "away").symlink_to(tmp_path / "outside")
    (folder / "inside.txt").symlink_to("index.html")
    return folder


OUTSIDE = ["/link.txt", "/away/", "/away/index.html", "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt"]
OUTSIDE += ["//etc/passwd", "/..%5csecret.txt", "/..\\secret.txt", "/listed/", "/listed", "/none", "/index.html/"]


@pytest.mark.parametrize("address", [*OUTSIDE, "/%00", "/%ff", "/%ed%a0%80", "/" + "a" * 5000, "/" + "a/" * 5000])
def test_what_is_no_file_of_the_page_is_not_found(
    page_folder: Path, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(page_folder) as port:
        assert status_of(port, address) == 404
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["/", "/index.html", "/?a=b", "/inside.txt", "/listed/file.txt", "/listed/../"])
def test_files_of_the_page_are_found(page_folder: Path, address: str) -> None:
    linked = page_folder.with_name("linked")
    linked.symlink_to(page_folder)
    with served(linked) as port:
        assert status_of(port, address) == 200


def test_a_first_page_from_elsewhere_is_not_found(page_folder: Path) -> None:
    (page_folder / "index.html").unlink()
    with served(page_folder) as port:
        assert status_of(port, "/") == 404
        (page_folder / "index.html").symlink_to(page_folder.parent / "secret.txt")
        assert status_of(port, "/") == 404


def test_a_head_is_the_answer_without_the_file(page_folder: Path) -> None:
    with served(page_folder) as port:
        head = answered(port, b"HEAD / HTTP/1.0\r\n\r\n")
        assert head.split()[1] == b"200"
        assert head.endswith(b"\r\n\r\n")
        assert b"Content-Length: 4" in head


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.0\r\nA: " + b"a" * 100_000, b"GET /" + b"a" * 100_000, b"?\r\n"])
def test_what_is_no_request_is_refused_without_a_word(
    page_folder: Path, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(page_folder) as port:
        answer = answered(port, request_ + b"\r\n\r\n")
    assert re.match(rb"HTTP/1.0 4\d\d |<!DOCTYPE HTML>", answer)  # the latter where the request names no version
    assert capfd.readouterr() == ("", "")


def test_a_client_that_says_nothing_blocks_no_other(page_folder: Path) -> None:
    with (
        served(page_folder) as port,
        socket.create_connection((HOST, port)),
        socket.create_connection((HOST, port)) as half,
    ):
        half.sendall(b"GET / HT")
        assert status_of(port, "/") == 200


def test_clients_that_go_away_leave_no_word(page_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (page_folder / "model.onnx").write_bytes(bytes(16_000_000))  # more than the buffers between the two hold
    with served(page_folder) as port:
        for _ in range(20):
            with socket.create_connection((HOST, port)) as client:
                client.sendall(b"GET /model.onnx HTTP/1.0\r\n\r\n")
                client.recv(1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends it by a reset
    assert capfd.readouterr() == ("", "")


def test_a_mistake_of_ours_is_not_kept_quiet(page_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with make_server(page_folder, 0) as server:
        try:
            raise AssertionError("ours")
        except AssertionError:
            server.handle_error(None, (HOST, 1))
    assert "AssertionError: ours" in capfd.readouterr().err
