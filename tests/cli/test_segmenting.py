"""`lpsnet segment` on videos and cameras, in this process, beside what the segmenter says of each frame alone."""

import _thread
import json
import signal
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import torch

import lpsnet
from lpsnet.data.dataset import open_dataset
from lpsnet.data.synthetic import SCENES, draw_scene
from lpsnet.export.onnx import export_onnx
from lpsnet.inference import video as camera
from lpsnet.models.network import create_model
from lpsnet.record import ModelRecord

ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model(ARCH, num_classes=SCENES.num_classes)
        net(torch.randn(2, 3, 72, 96))
        torch.nn.init.normal_(net.head.weight)
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export_onnx(net.eval(), path, record=ModelRecord(architecture=ARCH, label_space=SCENES))
    return path


def make_video(path: Path, num_frames: int, size: tuple[int, int] = (72, 96)) -> Path:
    """A camera that moves along a street and back, at 15 frames a second."""
    height, width = size
    wide, _ = draw_scene(np.random.default_rng(0), (height, width + 120))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=15, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            left = abs(number * 4 % 240 - 120)
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, left : left + width]))))
        container.mux(video.encode())
    return path


def read_video(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(np.ascontiguousarray(read[1][..., ::-1]))
    return frames


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_video_comes_out_as_large_and_as_fast_with_the_segmenters_labels(run, model: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "drive.mp4", 12)
    result = run("segment", source, "--model", model, "--out", tmp_path / "out", "--json", "-")
    assert result.code == 0, result.err
    assert names(tmp_path / "out") == ["drive.labels.mkv", "drive.overlay.mp4"]
    segment = lpsnet.Segmenter(model)
    frames, maps = read_video(source), read_video(tmp_path / "out/drive.labels.mkv")
    assert len(np.unique(maps[0])) > 1
    for image, labels in zip(frames, maps, strict=True):
        np.testing.assert_array_equal(labels[..., 0], segment(image))
    overlay = tmp_path / "out/drive.overlay.mp4"
    assert [image.shape for image in read_video(overlay)] == [(72, 96, 3)] * 12
    assert cv2.VideoCapture(str(overlay)).get(cv2.CAP_PROP_FPS) == 15
    (report,) = json.loads(result.out)["videos"]
    assert (report["num_frames"], report["whole"], report["problem"]) == (12, True, None)
    assert report["overlay"] == str(overlay)
    assert 0 < report["frames_per_second"] <= report["frames_per_second_without_drawing"]
    assert "12 frames" in result.err
    assert "without drawing" in result.err


def test_a_folder_of_both_with_all_options(run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    make_video(tmp_path / "in/sub/a.mp4", 4)
    cv2.imwrite(str(tmp_path / "in/a.png"), np.zeros((72, 96, 3), np.uint8))
    options = ["--write", "side-by-side", "--write", "overlay", "--legend", "--opacity", "1", "--max-frames", "3"]
    result = run("segment", tmp_path / "in", "--model", model, "--out", tmp_path / "out", *options)
    assert result.code == 0, result.err
    found = ["a.overlay.png", "a.side-by-side.png", "sub/a.overlay.mp4", "sub/a.side-by-side.mp4"]
    assert names(tmp_path / "out") == found
    still, moving = cv2.imread(str(tmp_path / "out/a.overlay.png")), read_video(tmp_path / "out/sub/a.overlay.mp4")
    assert len(moving) == 3
    assert still.shape == moving[0].shape
    assert still.shape[0] > 72
    labels = lpsnet.Segmenter(model)(np.zeros((72, 96, 3), np.uint8))
    colours = np.array(SCENES.colours, np.uint8)[labels]
    np.testing.assert_array_equal(still[:72, :, ::-1], colours)  # opacity 1: the colours alone


def test_one_bad_video_does_not_stop_the_others(run, model: Path, tmp_path: Path) -> None:
    make_video(tmp_path / "good.mp4", 3)
    (tmp_path / "bad.mp4").write_text("no video")
    result = run("segment", tmp_path / "*.mp4", "--model", model, "--out", tmp_path / "out")
    assert result.code == 2
    assert "bad.mp4 cannot be decoded" in result.err
    assert names(tmp_path / "out") == ["good.labels.mkv", "good.overlay.mp4"]


def interrupt_once_something_is_written(folder: Path) -> None:
    """Ctrl-C, as soon as frames are in a file that is not yet in its place."""

    def press() -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if any(path.stat().st_size for path in folder.glob(".*.mkv")):
                # As if the signal had come: that from the system crashed this process now and then (SI_KERNEL).
                # Processes of their own are sent real ones in test_interrupts.py.
                _thread.interrupt_main(signal.SIGINT)
                return  # and never later: it would end the process that runs the tests
            time.sleep(0.01)

    threading.Thread(target=press, daemon=True).start()


def test_ctrl_c_keeps_what_was_done_under_another_name(run, model: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "long.mp4", 3000)
    (tmp_path / "out").mkdir()
    interrupt_once_something_is_written(tmp_path / "out")
    result = run("segment", source, tmp_path / "*.mp4", "--model", model, "--out", tmp_path / "out")
    assert result.code == 130
    assert names(tmp_path / "out") == ["long.labels.part.mkv", "long.overlay.part.mp4"]
    assert 0 < len(read_video(tmp_path / "out/long.overlay.part.mp4")) < 3000
    assert "stopped" in result.out
    assert "Stopped before everything was done" in result.err


class FakeCamera:
    """Gives noise for ever."""

    def __init__(self, index: int) -> None:
        self.index, self._rng = index, np.random.default_rng(0)

    def isOpened(self) -> bool:
        return self.index == 1

    def read(self) -> tuple[bool, np.ndarray]:
        return True, self._rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)

    def get(self, what: int) -> float:
        return 30.0 if what == cv2.CAP_PROP_FPS else 0.0

    def set(self, what: int, value: float) -> bool:
        return True

    def release(self) -> None:
        pass


def test_a_camera_until_ctrl_c(run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "open_capture", FakeCamera)
    (tmp_path / "out").mkdir()
    interrupt_once_something_is_written(tmp_path / "out")
    result = run("segment", "1", "--model", model, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert names(tmp_path / "out") == ["camera_1.labels.mkv", "camera_1.overlay.mp4"]
    assert len(read_video(tmp_path / "out/camera_1.overlay.mp4")) > 0
    missing = run("segment", "7", "--model", model, "--out", tmp_path / "out")
    assert missing.code == 2
    assert "camera 7 gives no image" in missing.err


def test_the_model_and_the_folder_have_defaults(
    run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lpsnet.inference import hub as models

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "list_models", lambda: {models.DEFAULT_MODEL: model})
    monkeypatch.setattr(models, "check_sum", Path)
    cv2.imwrite("a.png", np.zeros((72, 96, 3), np.uint8))
    result = run("segment", "a.png")
    assert result.code == 0, result.err
    assert names(tmp_path / "segmented") == ["a.labels.png", "a.overlay.png"]


def test_an_unknown_product_gets_the_nearest(run, model: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", 2)
    result = run("segment", source, "--model", model, "--write", "overlays")
    assert result.code == 2
    assert "did you mean 'overlay'" in result.err


def test_a_long_stream_in_little(run, model: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", 5)
    options = ["--minutes", "0.01", "--interval", "0.1", "--turns", "1", "--turn", "0.1", "--threads", "1"]
    result = run("stream", source, "--model", model, *options, "--json", tmp_path / "a.json")
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["duration_s"] >= 0.6
    assert figures["samples"][-1]["num_frames"] == figures["num_frames"] > 5
    assert figures["protocol"]["num_threads"] == 1
    assert f"{figures['memory_spread_percent']:.2f} %" in result.out
    assert f"{figures['frames_per_second_without_drawing']:.1f} without" in result.out


def test_annotations_and_confidence(run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image, _ = draw_scene(np.random.default_rng(0), (72, 96))
    cv2.imwrite(str(tmp_path / "in/a.png"), image[..., ::-1])
    words = ["segment", tmp_path / "in", "--model", model, "--out", tmp_path / "in/out", "--tolerance", "0"]
    result = run(*words, "--write", "coco,confidence", "--write", "labels", "--json", "-")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["annotations"] == {"coco": str(tmp_path / "in/out/coco")}
    assert set(report["pictures"][0]) == {"source", "labels", "confidence", "margin", "problem"}
    labels = lpsnet.Segmenter(model)(image).labels
    (split,) = open_dataset(f"coco:{tmp_path}/in/out/coco").parts.values()
    np.testing.assert_array_equal(split[0].labels, labels)
    again = run(*words, "--write", "coco")
    assert again.code == 2
    assert "--overwrite" in again.err
    again = run(*words, "--write", "coco", "--overwrite", "--json", "-")
    assert len(json.loads(again.out)["pictures"]) == 1  # not the copies in the folder of the first run
    make_video(tmp_path / "drive.mp4", 2)
    refused = run("segment", tmp_path / "drive.mp4", "--model", model, "--write", "coco")
    assert refused.code == 2
    assert "coco is written for images" in refused.err


def test_a_large_image_by_windows(run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIFF file of more pixels than are ever decoded at once, beside the same windows in memory."""
    image = np.tile(draw_scene(np.random.default_rng(0), (120, 200))[0], (3, 2, 1))
    path = tmp_path / "map.tif"
    cv2.imwrite(str(path), image[..., ::-1], (cv2.IMWRITE_TIFF_ROWSPERSTRIP, 16))
    monkeypatch.setenv("LPSNET_MAX_PIXELS", str(100 * 400))
    words = ["segment", path, "--model", model, "--window", "96x128", "--overlap", "24", "--legend"]
    result = run(*words, "--out", tmp_path / "out", "--write", "labels,overlay,confidence")
    assert result.code == 0, result.err
    expected = lpsnet.Segmenter(model).windows(image, (96, 128), 24)
    found = {name: cv2.imread(str(tmp_path / f"out/map.{name}.png"), cv2.IMREAD_UNCHANGED)
             for name in ("labels", "overlay", "confidence", "margin")}  # fmt: skip
    np.testing.assert_array_equal(found["labels"], expected)
    np.testing.assert_array_equal(found["overlay"][:360, :, ::-1], expected.overlay())
    assert found["overlay"].shape[0] > 360  # the legend
    np.testing.assert_allclose(found["confidence"] / 65535, expected.confidence, atol=1e-5)
    np.testing.assert_allclose(found["margin"] / 65535, expected.margin, atol=1e-5)
    refused = run(*words, "--out", tmp_path / "out", "--write", "coco")
    assert refused.code == 2
    assert "traced in the whole label map" in refused.err
    monkeypatch.delenv("LPSNET_MAX_PIXELS")
    result = run(*words, "--out", tmp_path / "out", "--write", "coco", "--tolerance", "0")
    assert result.code == 0, result.err
    (split,) = open_dataset(f"coco:{tmp_path}/out/coco").parts.values()
    np.testing.assert_array_equal(split[0].labels, expected)
    cv2.imwrite(str(tmp_path / "map.png"), image[..., ::-1])
    result = run("segment", tmp_path / "map.png", *words[2:], "--out", tmp_path / "png")
    assert "decoded whole" in result.out
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "png/map.labels.png"), cv2.IMREAD_UNCHANGED), expected)


def test_windows_of_a_video_and_options_that_do_not_fit(run, model: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "drive.mp4", 2, size=(144, 192))
    result = run("segment", source, "--model", model, "--window", "96x128", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    segment, frames = lpsnet.Segmenter(model), read_video(source)
    for image, labels in zip(frames, read_video(tmp_path / "out/drive.labels.mkv"), strict=True):
        np.testing.assert_array_equal(labels[..., 0], segment.windows(image, (96, 128)))
    for words in (["--overlap", "3"], ["--window", "96x128", "--overlap", "96"], ["--window", "16x16"]):
        refused = run("segment", source, "--model", model, *words)
        assert refused.code == 2
        assert "window" in refused.err or "32x32" in refused.err
