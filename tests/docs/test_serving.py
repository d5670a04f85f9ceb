"""The example of a server: real processes and threads on 127.0.0.1, real clients, the labels of `Segmenter`."""

import importlib.util
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from documents import ROOT
from numpy.typing import NDArray

import lpsnet
from lpsnet.data.images import read_image

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx2")
psutil = pytest.importorskip("psutil")
uvicorn = pytest.importorskip("uvicorn")

EXAMPLE = ROOT / "docs/examples/serve_fastapi.py"
MODEL = "camvid_lite0"
QUEUE, MAX_MIB, MAX_PIXELS = 30, 1, 600_000


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/health").status_code == 200)
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The address of the example in a process of its own, and the process."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    options = {"model": MODEL, "port": port, "workers": 2, "queue": QUEUE, "max-mib": MAX_MIB, "max-pixels": MAX_PIXELS}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with log.open("wb") as written:
        process = subprocess.Popen([sys.executable, EXAMPLE, *words], stdout=written, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or answers(url))
        assert process.poll() is None, log.read_text()
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def segment() -> lpsnet.Segmenter:
    return lpsnet.Segmenter(MODEL, num_threads=1)


def picture(seed: int) -> NDArray[np.uint8]:
    """Areas and edges, of another size for each seed."""
    rng = np.random.default_rng(seed)
    height, width = 200 + 37 * (seed % 7), 300 + 53 * (seed % 5)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def encoded(image: NDArray[np.uint8], suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1].tobytes())


def labels_in(response: Any) -> NDArray[np.uint8]:
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png"), response.text
    return np.asarray(cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED))


def test_thirty_clients_at_once_get_the_segmenters_labels(
    server: tuple[str, Any], segment: lpsnet.Segmenter, tmp_path: Path
) -> None:
    url, process = server
    suffixes = (".png", ".jpg", ".webp", ".bmp", ".tiff")
    bodies = [encoded(picture(seed), suffixes[seed % 5]) for seed in range(30)]
    start = threading.Barrier(30)

    def post(body: bytes) -> Any:
        with httpx.Client(timeout=120) as client:
            start.wait()
            return client.post(f"{url}/segment", content=body)

    peaks = []
    for _ in range(2):
        with ThreadPoolExecutor(30) as clients:
            responses = list(clients.map(post, bodies))
        peaks.append(process.memory_info().rss)
    for seed, (body, response) in enumerate(zip(bodies, responses, strict=True)):
        path = tmp_path / f"{seed}{suffixes[seed % 5]}"
        path.write_bytes(body)
        np.testing.assert_array_equal(labels_in(response), segment(read_image(path)).labels)
    assert peaks[1] - peaks[0] < 16 * 2**20, peaks
    assert httpx.get(f"{url}/health").json()["taken"] == 0


def test_a_flood_is_refused_in_bounded_memory(server: tuple[str, Any]) -> None:
    """Three times as many clients as are taken, each with almost the largest body: those beyond are refused at once."""
    url, process = server
    noise = np.random.default_rng(0).integers(0, 256, (560, 600, 3), np.uint8)
    body = encoded(noise, ".png")
    assert 0.95 * MAX_MIB * 2**20 < len(body) < MAX_MIB * 2**20
    httpx.post(f"{url}/segment", content=body, timeout=120)
    before, highest, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = threading.Barrier(3 * QUEUE)

    def post(_: int) -> Any:
        with httpx.Client(timeout=120) as client:
            start.wait()
            return client.post(f"{url}/segment", content=body)

    with ThreadPoolExecutor(3 * QUEUE) as clients:
        responses = list(clients.map(post, range(3 * QUEUE)))
    done.set()
    watcher.join()
    codes = [response.status_code for response in responses]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= QUEUE
    refused = next(response for response in responses if response.status_code == 503)
    assert (refused.headers["retry-after"], "try again" in refused.json()["detail"]) == ("1", True)
    # Bodies are held as parts and whole for a moment; connections have buffers of 64 KiB
    assert highest - before < 2 * QUEUE * MAX_MIB * 2**20 + 48 * 2**20, (before, highest)


def huge_png(width: int, height: int) -> bytes:
    """A small file that claims that many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


JPEG = encoded(picture(3), ".jpg")


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        (b"", 415, "the body has no bytes; send PNG, JPEG"),
        (b"hello", 415, "the body is not an image of a known format; send PNG, JPEG"),
        (b"%PDF-1.7\n" + bytes(999), 415, "is not an image of a known format"),
        (JPEG[: len(JPEG) // 2], 422, "the image is cut off"),
        (huge_png(100_000, 100_000), 413, "claims 100000 x 100000 pixels; at most 600,000 are allowed"),
        (huge_png(600_001, 1), 413, "claims 600001 x 1 pixels"),
        (huge_png(100, 100), 422, "damaged"),
        (bytes(MAX_MIB * 2**20 + 1), 413, "at most 1,048,576 bytes"),
        ((part for part in [bytes(2**18)] * 5), 413, "at most 1,048,576 bytes"),  # sent without its length
    ],
    ids=["empty", "text", "pdf", "cut", "huge", "long", "damaged", "large", "parts"],
)
def test_refusals_are_exact(server: tuple[str, Any], body: Any, code: int, detail: str) -> None:
    url, _ = server
    response = httpx.post(f"{url}/segment", content=body, timeout=60)
    assert response.status_code == code
    assert detail in response.json()["detail"]
    assert "\n" not in response.json()["detail"]
    assert httpx.get(f"{url}/health").json()["taken"] == 0


def test_polygons_cover_what_the_labels_cover(server: tuple[str, Any], segment: lpsnet.Segmenter) -> None:
    url, _ = server
    image = picture(1)
    asked = {"output": "polygons", "tolerance": "0"}
    found = httpx.post(f"{url}/segment", params=asked, content=encoded(image[..., ::-1], ".png"), timeout=60).json()
    labels = segment(image).labels
    assert (found["height"], found["width"]) == labels.shape
    classes = [each["name"] for each in httpx.get(f"{url}/model").json()["classes"]]
    assert classes == list(segment.label_space.names)
    for name, outlines in found["polygons"].items():
        area = sum(shoelace(np.array(ring)) for rings in outlines for ring in rings)  # holes turn the other way
        assert area == np.count_nonzero(labels == classes.index(name))
    assert set(found["polygons"]) == {classes[label] for label in np.unique(labels)}
    for wrong in ({"output": "gif"}, {"tolerance": "-1"}, {"tolerance": "nan"}):
        assert httpx.post(f"{url}/segment", params=wrong, content=JPEG).status_code == 422


def shoelace(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@pytest.fixture
def small_server(segment: lpsnet.Segmenter) -> Iterator[int]:
    """The port of the example in a thread here: two requests at a time, whose bodies have a second to come."""
    made = importlib.util.spec_from_file_location("serve_fastapi", EXAMPLE)
    assert made is not None
    assert made.loader is not None
    example = importlib.util.module_from_spec(made)
    sys.modules["serve_fastapi"] = example  # dataclasses look there
    made.loader.exec_module(example)
    limits = example.Limits(workers=1, queue=2, max_bytes=2**20, max_pixels=10**6, read_s=1.0)
    port = free_port()
    config = uvicorn.Config(example.create_app(segment, limits), port=port, log_level="error")
    own = uvicorn.Server(config)
    thread = threading.Thread(target=own.run)
    thread.start()
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"))
        yield port
    finally:
        own.should_exit = True
        thread.join(30)
        del sys.modules["serve_fastapi"]


def begin(port: int, body: bytes, sent: int) -> socket.socket:
    """A request of which only the beginning of the body is sent."""
    own = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    own.sendall(head.encode() + body[:sent])
    return own


def rest_of(own: socket.socket) -> tuple[int, bytes]:
    with own:
        parts = b"".join(iter(lambda: own.recv(65536), b""))
    head, _, content = parts.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def taken(port: int) -> int:
    return int(httpx.get(f"http://127.0.0.1:{port}/health").json()["taken"])


def test_the_queue_is_as_long_as_it_says(small_server: int, segment: lpsnet.Segmenter) -> None:
    port = small_server
    holding = [begin(port, JPEG, 100) for _ in range(2)]
    wait_until(lambda: taken(port) == 2)
    refused = httpx.post(f"http://127.0.0.1:{port}/segment", content=JPEG)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    holding[0].sendall(JPEG[100:])
    code, content = rest_of(holding[0])
    assert code == 200
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == picture(3).shape[:2]
    holding[1].close()  # goes away in the middle of its body
    wait_until(lambda: taken(port) == 0)
    assert httpx.post(f"http://127.0.0.1:{port}/segment", content=JPEG, timeout=60).status_code == 200


def test_a_body_that_does_not_come_holds_its_place_for_a_second_only(small_server: int) -> None:
    code, content = rest_of(begin(small_server, JPEG, 100))
    assert code == 408
    assert json.loads(content)["detail"] == "the body did not come within 1 s"
    assert taken(small_server) == 0
