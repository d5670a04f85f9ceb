"""The page of `lpsnet web` in a real browser, served by Python's plain file server, without any other network.

Oracles: `Segmenter` for label maps, `prepare` and `label_map` for the page's own versions of them.
"""

import base64
import contextlib
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Chromium, find_chromium
from engine_models import small_network
from numpy.typing import NDArray

from lpsnet.data.images import read_image, read_mask, write_png
from lpsnet.data.labels import LabelSpace
from lpsnet.export.onnx import to_onnx, write_model
from lpsnet.inference.label_map import label_map
from lpsnet.inference.preprocess import prepare
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.web import make_server, write_page
from lpsnet.models.checkpoint import default_record
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord, Normalisation

ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
NAMES = ("road", HOSTILE, "Straße & Weg", "</script><script>document.title='taken'</script>", "sky")
STARTED = "document.getElementById('engine').textContent.startsWith('Web')"
SHOWN = "document.getElementById('network').textContent !== '–' && document.getElementById('busy').hidden"
ARCHITECTURE = "B=1,1,1,1,1;C=4,8,8,8,8;R=3/4,1/4"


class PlainServer(http.server.SimpleHTTPRequestHandler):
    """Python's own, silent."""

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def running(server: http.server.ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def served(folder: Path) -> contextlib.AbstractContextManager[str]:
    handler = functools.partial(PlainServer, directory=str(folder))
    return running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))


@pytest.fixture(scope="module")
def program() -> str:
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium here that runs; install it (apt-get install chromium), or name it in LPSNET_CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser(program: str) -> Iterator[Chromium]:
    with Chromium(program, ALONE, "--disable-gpu", *CAMERA) as browser:
        yield browser


def write_network(path: Path, *, align_corners: bool = True, input_size: tuple[int, int] | None = None) -> Path:
    net = small_network(align_corners=align_corners)
    record = default_record(net, label_space=LabelSpace.from_names("odd names", NAMES))
    normalisation = Normalisation(mean=(0.2, 0.5, 0.7), std=(0.3, 0.2, 0.25))
    record = record.model_copy(update={"input_size": input_size, "normalisation": normalisation})
    write_model(to_onnx(fuse(net).eval(), size=None), path, record=record)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a page and the model that it runs."""
    folder = tmp_path_factory.mktemp("page")
    model = write_network(folder / "odd.onnx")
    write_page(model, folder / "web", example=write_image(folder / "example.png", 60, 80))
    with served(folder / "web") as url:
        yield url, model


def write_image(path: Path, height: int, width: int) -> Path:
    """Soft shapes and noise, in colours that leave no channel alone."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 90 * np.sin(y / 9 + c) * np.cos(x / (7 + c)) for c in range(3)], axis=-1)
    write_png(path, (waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8))
    return path


def segment(browser: Chromium, url: str, image: Path) -> None:
    browser.open(url)
    browser.wait_for(STARTED)
    browser.choose_files("#image-file", image)
    browser.wait_for(SHOWN)


def saved_labels(browser: Chromium, folder: Path, name: str) -> NDArray[Any]:
    """What the button 'Save labels' saves."""
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.evaluate("document.getElementById('save-labels').click()")
    wait_for_file(browser, folder / name)
    return read_mask(folder / name)


def wait_for_file(browser: Chromium, path: Path) -> None:
    """Chromium writes under another name first."""
    for _ in range(600):
        if path.is_file():
            return
        browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    raise AssertionError(f"{path.name} was not saved")


@pytest.fixture
def shown(browser: Chromium, page: tuple[str, Path], tmp_path: Path) -> NDArray[np.uint8]:
    """The right labels of a segmented image of 80x120 that the page shows; it is left there for the next test."""
    image = write_image(tmp_path / "shown.png", 80, 120)
    if browser.evaluate("location.href") != page[0] or not browser.evaluate("overlay.width === 120"):
        segment(browser, page[0], image)
    return Segmenter(page[1])(read_image(image))


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (97, 131)),
        ({"input_size": (64, 96)}, (201, 307)),  # averaged before it is shrunk
        ({"input_size": (64, 96), "align_corners": False}, (50, 70)),
        ({}, (20, 45)),  # smaller than a network takes
    ],
)
def test_labels_are_those_of_the_segmenter(
    browser: Chromium, tmp_path: Path, settings: dict[str, Any], size: tuple[int, int]
) -> None:
    model = write_network(tmp_path / "model.onnx", **settings)
    image = write_image(tmp_path / "picture.png", *size)
    write_page(model, tmp_path / "web")
    with served(tmp_path / "web") as url:
        segment(browser, url, image)
        labels = saved_labels(browser, tmp_path / "saved", "picture.labels.png")
    expected = Segmenter(model)(read_image(image))
    assert labels.shape == size
    assert len(np.unique(expected)) > 1
    assert np.mean(labels == expected) >= 0.99


def test_it_asks_for_its_own_files_only_and_breaks_no_rule_of_its_own(
    browser: Chromium, page: tuple[str, Path], tmp_path: Path
) -> None:
    segment(browser, page[0], write_image(tmp_path / "picture.png", 64, 64))
    assert browser.requests()
    assert all(url.startswith((page[0], "blob:", "data:")) for url in browser.requests())
    assert browser.events_of("Runtime.exceptionThrown") == []
    entries = [event["params"]["entry"] for event in browser.events_of("Log.entryAdded")]
    assert [entry["text"] for entry in entries if entry["level"] == "error"] == []


@pytest.mark.usefixtures("shown")
def test_names_are_text_whatever_they_hold(browser: Chromium) -> None:
    shown = browser.evaluate("[...document.querySelectorAll('#legend .text')].map((text) => text.textContent)")
    assert shown == list(NAMES)
    assert browser.evaluate("document.title") == "odd – segmentation in this browser"
    assert browser.evaluate("document.querySelectorAll('#legend img, #legend script').length") == 0


def test_shares_opacity_and_hover(browser: Chromium, shown: NDArray[np.uint8]) -> None:
    shares = browser.evaluate("[...document.querySelectorAll('#legend .share')].map((each) => each.textContent)")
    expected = 100 * np.bincount(shown.reshape(-1), minlength=5) / shown.size
    assert [float(share.removesuffix(" %")) for share in shares] == pytest.approx(expected, abs=1)

    browser.evaluate("(opacity.value = 30, opacity.dispatchEvent(new Event('input')))")
    assert browser.evaluate("getComputedStyle(document.getElementById('overlay')).opacity") == "0.3"

    box = browser.evaluate("document.getElementById('view').getBoundingClientRect().toJSON()")
    y, x = inner_place(shown)
    point = {"x": box["x"] + (x + 0.5) / 120 * box["width"], "y": box["y"] + (y + 0.5) / 80 * box["height"]}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **point)
    assert browser.evaluate("document.querySelector('#tip .text').textContent") == NAMES[shown[y, x]]


def inner_place(labels: NDArray[np.uint8]) -> tuple[int, int]:
    """A pixel whose neighbours to three pixels away have its label, and it is not the commonest one."""
    for label in np.argsort(np.bincount(labels.reshape(-1), minlength=5))[:-1]:
        for y, x in np.argwhere(labels[3:-3, 3:-3] == label) + 3:
            if (labels[y - 3 : y + 4, x - 3 : x + 4] == label).all():
                return int(y), int(x)
    raise AssertionError("no such pixel")


def test_the_keyboard_reads_classes_too(browser: Chromium, shown: NDArray[np.uint8]) -> None:
    browser.evaluate("document.getElementById('view').focus()")
    for key in ("ArrowLeft", "ArrowDown", "ArrowRight"):  # the first shows the cross, in the middle
        browser.press(key)
    assert browser.evaluate("spoken.textContent") == NAMES[shown[41, 61]]


def test_a_class_is_shown_alone(browser: Chromium, shown: NDArray[np.uint8]) -> None:
    pixels = "overlay.getContext('2d').getImageData(0, 0, overlay.width, overlay.height).data"
    opaque = f"{pixels}.filter((value, i) => i % 4 === 3 && value > 0).length"
    assert browser.evaluate(opaque) == 80 * 120
    label = int(np.bincount(shown.reshape(-1)).argmax())
    button = f"document.querySelectorAll('#legend button')[{label}]"
    browser.evaluate(f"{button}.click()")
    share = float(browser.evaluate(f"{button}.querySelector('.share').textContent").removesuffix(" %"))
    assert browser.evaluate(opaque) / (80 * 120) == pytest.approx(share / 100, abs=1e-3)
    assert browser.evaluate(f"{button}.getAttribute('aria-pressed')") == "true"
    browser.evaluate(f"{button}.click()")
    assert browser.evaluate(opaque) == 80 * 120


def test_the_example_is_segmented(browser: Chromium, page: tuple[str, Path]) -> None:
    browser.open(page[0])
    browser.wait_for(STARTED)
    browser.evaluate("example.click()")
    browser.wait_for(SHOWN)
    assert browser.evaluate("[overlay.width, overlay.height]") == [80, 60]


def test_a_file_that_is_no_image_is_named(browser: Chromium, page: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    browser.open(page[0])
    browser.wait_for(STARTED)
    browser.choose_files("#image-file", tmp_path / "broken.png")
    browser.wait_for("!problem.hidden")
    assert "broken.png is not an image" in browser.evaluate("problem.textContent")


def test_a_missing_model_is_named(browser: Chromium, page: tuple[str, Path], tmp_path: Path) -> None:
    write_page(page[1], tmp_path)
    (tmp_path / "model.onnx").unlink()
    with served(tmp_path) as url:
        browser.open(url)
        browser.wait_for("!problem.hidden")
        assert "model.onnx is missing on this server (404)" in browser.evaluate("problem.textContent")


def test_the_camera(browser: Chromium, page: tuple[str, Path]) -> None:
    browser.open(page[0])
    browser.wait_for(STARTED)
    browser.evaluate("camera.click()")
    browser.wait_for("document.getElementById('timing').textContent.includes('Images a second')")
    assert browser.evaluate("camera.getAttribute('aria-pressed')") == "true"
    browser.evaluate("camera.click()")
    assert browser.evaluate("camera.getAttribute('aria-pressed')") == "false"


def test_a_camera_asked_for_twice_is_not_left_on(browser: Chromium, page: tuple[str, Path]) -> None:
    """Two clicks before the first is answered open two streams: one may stay open, and none after a third."""
    browser.open(page[0])
    browser.wait_for(STARTED)
    browser.evaluate(
        "(window.tracks = [], window.ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices),"
        " navigator.mediaDevices.getUserMedia = async (wanted) => {"
        "   const stream = await ask(wanted); tracks.push(...stream.getTracks()); return stream; })"
    )
    live = "tracks.filter((track) => track.readyState === 'live').length"
    browser.evaluate("(camera.click(), camera.click())")
    browser.wait_for(f"tracks.length === 2 && {live} === 1 && camera.getAttribute('aria-pressed') === 'true'")
    browser.evaluate("camera.click()")
    browser.wait_for(f"{live} === 0")


def test_a_video_plays_and_pauses(browser: Chromium, page: tuple[str, Path], tmp_path: Path) -> None:
    write_video(tmp_path / "clip.webm", num_pictures=20)
    browser.open(page[0])
    browser.wait_for(STARTED)
    browser.choose_files("#video-file", tmp_path / "clip.webm")
    browser.wait_for(
        "!player.hidden && overlay.width === 64 && document.getElementById('clock').textContent !== '0:00'"
    )
    browser.evaluate("play.click()")
    browser.wait_for("play.textContent === 'Play'")
    assert browser.evaluate("clock.textContent").endswith(" / 0:02")


def write_video(path: Path, *, num_pictures: int) -> None:
    av = pytest.importorskip("av", reason="writing a video needs PyAV")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_pictures):
            image = np.full((48, 64, 3), 12 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_threads_from_our_own_server(browser: Chromium, page: tuple[str, Path], tmp_path: Path) -> None:
    write_page(page[1], tmp_path / "web")
    image = write_image(tmp_path / "picture.png", 64, 90)
    with running(make_server(tmp_path / "web", 0)) as url:
        segment(browser, url, image)
        assert browser.evaluate("engine.textContent") == browser.evaluate(
            "`WebAssembly, ${Math.min(navigator.hardwareConcurrency, 8)} threads`"
        )
        labels = saved_labels(browser, tmp_path / "saved", "picture.labels.png")
    assert np.mean(labels == Segmenter(page[1])(read_image(image))) >= 0.99


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("target", [(40, 50), (97, 201), (130, 150), (33, 67)])
def test_preparation(browser: Chromium, page: tuple[str, Path], align_corners: bool, target: tuple[int, int]) -> None:
    """From 97x201: shrunk with and without averaging, kept, enlarged, and one axis each way."""
    image = np.random.default_rng(1).integers(0, 256, (97, 201, 3), np.uint8)
    record = ModelRecord(
        architecture=None,
        label_space=LabelSpace.numbered(2),
        normalisation=Normalisation(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 1)),
        align_corners=align_corners,
    )
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    result = run_module(
        browser,
        page[0],
        f"(await import('./preparation.js')).prepare(bytes, [97, 201], {list(target)}, {record.to_json()})",
        rgba.tobytes(),
    )
    given = np.frombuffer(result, np.float32).reshape(1, 3, *target)
    expected = prepare(image, record, size=target)
    assert np.abs(given - expected).max() < 1e-4 * np.ptp(expected)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(9, 12), (61, 83), (5, 30), (1, 1)])
def test_label_map(browser: Chromium, page: tuple[str, Path], align_corners: bool, size: tuple[int, int]) -> None:
    scores = np.random.default_rng(2).standard_normal((6, 9, 12), np.float32)
    flag = str(align_corners).lower()
    call = f"labelMap(new Float32Array(bytes.buffer), [6, 9, 12], {list(size)}, {flag})"
    result = run_module(browser, page[0], f"(await import('./label_map.js')).{call}", scores.tobytes())
    labels = np.frombuffer(result, np.uint8).reshape(size)
    assert np.mean(labels == label_map(scores, size, align_corners=align_corners)) > 0.999


def run_module(browser: Chromium, url: str, expression: str, data: bytes) -> bytes:
    """The bytes of the typed array that a JavaScript expression over `bytes` gives, on the page at `url`."""
    if browser.evaluate("location.href") != url:
        browser.open(url)
    text = json.dumps(base64.b64encode(data).decode())
    code = f"""(async () => {{
      const bytes = Uint8Array.from(atob({text}), (letter) => letter.charCodeAt(0));
      const result = {expression};
      const own = new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
      let letters = "";
      for (const byte of own) letters += String.fromCharCode(byte);
      return btoa(letters);
    }})()"""
    return base64.b64decode(browser.evaluate(code))


@pytest.mark.slow
def test_webgpu_gives_the_segmenters_labels(program: str, page: tuple[str, Path], tmp_path: Path) -> None:
    """On a GPU in software, where this Chromium has one."""
    flags = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-unsafe-swiftshader")
    image = write_image(tmp_path / "picture.png", 97, 131)
    with Chromium(program, ALONE, *flags) as browser:
        browser.open(page[0])
        if not browser.evaluate("Boolean(navigator.gpu) && navigator.gpu.requestAdapter().then(Boolean)"):
            pytest.skip("this Chromium has no software adapter for WebGPU")
        segment(browser, page[0], image)
        assert browser.evaluate("engine.textContent") == "WebGPU"
        labels = saved_labels(browser, tmp_path / "saved", "picture.labels.png")
    assert np.mean(labels == Segmenter(page[1])(read_image(image))) >= 0.99
