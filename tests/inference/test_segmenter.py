"""The segmenter against an independent chain: resizing, network, upsampling and argmax in torch, in float."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lpsnet.architecture import get_architecture
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, LpsnetError, ModelFileError
from lpsnet.inference.engines import FakeSession
from lpsnet.inference.kernels import find_kernels
from lpsnet.inference.segmenter import Segmenter
from lpsnet.record import ModelRecord, Normalisation

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from lpsnet.export.onnx import export_onnx  # noqa: E402
from lpsnet.models.network import Network, create_model  # noqa: E402

SPACE = LabelSpace.from_names("five", "abcde")
NORMALISATION = Normalisation(mean=(0.3, 0.5, 0.4), std=(0.2, 0.25, 0.3))
ARCH = "B=1,1,1,1,1;C=4,6,8,8,8;R=1,1/4"

Exported = dict[bool, tuple[Network, Path]]


def _record(**fields: object) -> ModelRecord:
    return ModelRecord(architecture=ARCH, label_space=SPACE, normalisation=NORMALISATION, **fields)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """align_corners -> a network and its file that takes any size."""
    found = {}
    for align_corners in (True, False):
        torch.manual_seed(3)
        net = create_model(ARCH, num_classes=5, align_corners=align_corners).eval()
        path = tmp_path_factory.mktemp("models") / "m.onnx"
        export_onnx(net, path, record=_record(align_corners=align_corners))
        found[align_corners] = net, path
    return found


def _smooth(seed: int, size: tuple[int, int]) -> np.ndarray:
    """An image without edges: sums of a few slow waves."""
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(0, 2 * np.pi, length) for length in size)
    waves = [np.sin(a * y[:, None] + b * x + c) for a, b, c in rng.uniform(-2, 2, (9, 3))]
    nchw = np.array(waves).reshape(3, 3, *size).sum(axis=0)
    return np.round((nchw / 3 + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)


@torch.inference_mode()
def _reference(net: Network, image: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """The same chain in torch: resizing in float64, normalising, the network, upsampling in float64, argmax."""
    resize = torch.nn.functional.interpolate
    choices = {"mode": "bilinear", "align_corners": net.align_corners}
    nchw = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    nchw = resize(nchw, input_size, **choices)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (NORMALISATION.mean, NORMALISATION.std))
    logits = net(((nchw / 255 - mean) / std).float())
    labels: np.ndarray = resize(logits.double(), image.shape[:2], **choices).argmax(1)[0].numpy()
    return labels


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("image_size", "input_size"),
    [((96, 128), None), ((77, 131), None), ((96, 128), (128, 160)), ((130, 150), (70, 81)), ((60, 200), (128, 128))],
)
def test_labels_are_those_of_the_reference(
    exported: Exported, align_corners: bool, image_size: tuple[int, int], input_size: tuple[int, int] | None
) -> None:
    net, path = exported[align_corners]
    segment = Segmenter(path, input_size=input_size, num_threads=1)
    agreeing = []
    for seed in range(4):
        image = _smooth(seed, image_size)
        labels = segment(image)
        assert labels.dtype == np.uint8
        assert labels.shape == image_size
        agreeing.append((labels == _reference(net, image, input_size or image_size)).mean())
    assert len(np.unique(labels)) > 1  # or there would be nothing to agree on
    assert np.mean(agreeing) >= 0.999


def test_the_recorded_input_size_is_used_unless_another_is_asked_for() -> None:
    session = FakeSession(lambda image: np.zeros((1, 5, 4, 4), np.float32))
    image = _smooth(0, (50, 70))
    Segmenter.from_session(session, _record(input_size=(64, 96)))(image)
    Segmenter.from_session(session, _record(input_size=(64, 96)), input_size=(32, 40))(image)
    Segmenter.from_session(session, _record())(image)
    Segmenter.from_session(session, _record())(image[:1, :40])  # smaller than a network takes
    sizes = [shape[2:] for (shape,) in session.shapes]
    assert sizes == [(64, 96), (32, 40), (50, 70), (32, 40)]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (31, 33), (40, 41)])
def test_images_of_any_size_are_segmented(exported: Exported, size: tuple[int, int]) -> None:
    labels = Segmenter(exported[True][1])(_smooth(1, size))
    assert labels.shape == size
    assert labels.max() < 5


def test_logits_are_the_networks(exported: Exported) -> None:
    net, path = exported[True]
    segment = Segmenter(path)
    image = _smooth(2, (64, 80))
    with torch.inference_mode():
        expected = net(torch.from_numpy(segment.prepare(image)))[0].numpy()
    logits = segment.logits(image)
    assert logits.dtype == np.float32
    assert logits.shape == (5, 4, 5)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.ptp(expected))
    with pytest.warns(DeprecationWarning, match="call logits"):
        np.testing.assert_array_equal(segment.scores(image), logits)


def test_what_a_segmenter_says_of_itself(exported: Exported) -> None:
    path = exported[True][1]
    segment = Segmenter(str(path), num_threads=1, input_size=(64, 96))
    assert segment.label_space == SPACE
    assert segment.record.architecture is not None
    assert segment.engine.startswith("onnxruntime ")
    assert segment.input_size == (64, 96)
    assert segment.protocol == {
        "model": str(path),
        "runtime": "onnxruntime",
        "engine": segment.engine,
        "precision": "f32",
        "num_threads": 1,
        "input_size": [64, 96],
        "path_inputs": True,
        "align_corners": True,
        "layout": "planes",
        "compiled_loops": find_kernels() is not None,
    }


def test_a_file_for_one_size_takes_any_image(tmp_path: Path, exported: Exported) -> None:
    net, _ = exported[True]
    path = tmp_path / "fixed.onnx"
    export_onnx(net, path, record=_record(input_size=(128, 128)), size=(64, 96))
    segment, image = Segmenter(path), _smooth(5, (81, 71))
    assert segment.input_size == (64, 96)
    assert (segment(image) == _reference(net, image, (64, 96))).mean() >= 0.995
    with pytest.raises(ModelFileError, match="exported for 64 x 96, not 128 x 128"):
        Segmenter(path, input_size=(128, 128))


def test_threads_may_share_a_segmenter(exported: Exported) -> None:
    segment = Segmenter(exported[True][1], num_threads=1)
    images = [_smooth(seed, (40 + seed, 60)) for seed in range(12)]
    alone = [segment(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for labels, expected in zip(pool.map(segment, images), alone, strict=True):
            np.testing.assert_array_equal(labels, expected)


def test_a_image_is_not_changed(exported: Exported) -> None:
    image = _smooth(0, (40, 50))
    image.flags.writeable = False
    flipped = image[:, ::-1]
    segment = Segmenter(exported[True][1])
    np.testing.assert_array_equal(segment(flipped), segment(flipped.copy()))


def test_what_is_no_image_is_refused(exported: Exported) -> None:
    segment = Segmenter(exported[True][1])
    for call in (segment, segment.logits):
        with pytest.raises(DataError, match=r"got float64; scale 0..1 by 255"):
            call(np.zeros((40, 50, 3)))


@pytest.mark.parametrize("shape", [(1, 4, 3, 3), (5, 3, 3), (2, 5, 3, 3)])
def test_scores_that_do_not_fit_the_record_are_refused(shape: tuple[int, ...]) -> None:
    segment = Segmenter.from_session(FakeSession(lambda image: np.zeros(shape, np.float32)), _record())
    with pytest.raises(ModelFileError, match="its record names 5 classes"):
        segment(_smooth(0, (40, 40)))


def test_settings_that_cannot_be(exported: Exported, tmp_path: Path) -> None:
    path = exported[True][1]
    for choices, message in [
        ({"runtime": "onxruntime"}, "unknown runtime 'onxruntime'; did you mean 'onnxruntime'"),
        ({"precision": "f64"}, "unknown precision 'f64'"),
        ({"precision": "int8"}, "not quantised"),
        ({"num_threads": 0}, "num_threads is a whole number"),
        ({"num_threads": 1, "threads": 2}, "are the same setting"),
        ({"input_size": (16, 64)}, "each at least 32"),
        ({"input_size": (64,)}, "input_size is height and width"),
    ]:
        with pytest.raises(LpsnetError, match=message):
            Segmenter(path, **choices)
    with pytest.raises(ModelFileError, match=r"unknown model|no models come"):
        Segmenter("lpsnet_xxl")


def test_a_checkpoint_gives_the_labels_of_its_export(exported: Exported, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    from lpsnet.models.checkpoint import save_checkpoint

    net, path = exported[True]
    save_checkpoint(net, tmp_path / "m.safetensors", record=_record(form=net.form))
    segment, image = Segmenter(tmp_path / "m.safetensors"), _smooth(4, (70, 90))
    assert segment.protocol["runtime"] == "pytorch"
    assert (segment(image) == Segmenter(path)(image)).mean() >= 0.999


def test_a_checkpoint_is_run_by_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without asking; its record comes from its header."""
    numpy_side = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "m.safetensors"
    numpy_side.save_file({"w": np.ones(1, np.float32)}, path, metadata={"lpsnet": _record().to_json()})
    asked = []

    def open_session(runtime: str, options: object) -> FakeSession:
        asked.append(runtime)
        return FakeSession(lambda image: np.zeros((1, 5, 2, 2), np.float32))

    monkeypatch.setattr("lpsnet.inference.segmenter.open_session", open_session)
    assert Segmenter(path).label_space == SPACE
    Segmenter(path, runtime="onnxruntime")
    assert asked == ["pytorch", "onnxruntime"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("image_size", "input_size"), [((96, 128), None), ((77, 131), (100, 90))])
def test_both_ways_give_the_same_labels(
    exported: Exported, runtime: str, image_size: tuple[int, int], input_size: tuple[int, int] | None
) -> None:
    pytest.importorskip(runtime)
    path = exported[True][1]
    fast, plain = (
        Segmenter(path, runtime=runtime, input_size=input_size, num_threads=1, path_inputs=chosen)
        for chosen in (True, False)
    )
    assert (fast.path_inputs, plain.path_inputs) == (True, False)
    layout = "pixels" if runtime == "openvino" and find_kernels() else "planes"
    assert fast.protocol == plain.protocol | {"path_inputs": True, "layout": layout}
    image = _smooth(6, image_size)
    assert [array.shape for array in plain.inputs(image)] == [fast.prepare(image).shape]
    height, width = input_size or image_size
    sizes = [(height, width), (height // 4, width // 4)]
    shapes = [(1, 3, *size) if layout == "planes" else (1, *size, 3) for size in sizes]
    assert [array.shape for array in fast.inputs(image)] == shapes
    np.testing.assert_allclose(fast.logits(image), plain.logits(image), atol=1e-4 * np.ptp(plain.logits(image)))
    assert (fast(image) == plain(image)).mean() >= 0.999


@pytest.mark.parametrize("input_size", [None, (64, 80)])
def test_openvino_is_fed_in_the_arithmetic_it_computes_in(
    exported: Exported, input_size: tuple[int, int] | None
) -> None:
    pytest.importorskip("openvino")
    options: dict[str, Any] = {"runtime": "openvino", "precision": "bf16", "input_size": input_size, "num_threads": 1}
    try:
        fast, plain = (Segmenter(exported[True][1], path_inputs=chosen, **options) for chosen in (True, False))
    except ModelFileError as error:
        pytest.skip(str(error))
    assert fast.protocol["layout"] == ("pixels_bf16" if find_kernels() else "planes")
    image = _smooth(6, (96, 128))
    whole, _ = fast.inputs(image)
    assert whole.dtype == (np.uint16 if find_kernels() else np.float32)
    np.testing.assert_allclose(fast.logits(image), plain.logits(image), atol=0.03 * np.ptp(plain.logits(image)))
    assert (fast(image) == plain(image)).mean() >= 0.99


def test_what_has_no_paths_to_feed_is_run_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    record = _record().model_copy(update={"architecture": get_architecture("B=1,1,1,1,1;C=4,6,8,8,8;R=1")})
    export_onnx(create_model("B=1,1,1,1,1;C=4,6,8,8,8;R=1", num_classes=5), tmp_path / "m.onnx", record=record)
    segment = Segmenter(tmp_path / "m.onnx")
    assert not segment.path_inputs
    assert segment(_smooth(0, (50, 60))).shape == (50, 60)


def test_the_former_name_of_num_threads_still_counts(exported: Exported) -> None:
    with pytest.warns(DeprecationWarning, match="give num_threads") as warned:
        segment = Segmenter(exported[True][1], threads=1)
    assert segment.protocol["num_threads"] == 1
    assert warned[0].filename == __file__, "the warning names the line that is to be changed"


def test_opencv_keeps_its_threads(exported: Exported) -> None:
    before = cv2.getNumThreads()
    segment = Segmenter(exported[True][1], num_threads=before + 1)
    segment(_smooth(0, (50, 60)))
    segment.prepare(_smooth(0, (50, 60)))
    assert cv2.getNumThreads() == before


def _foreign(path: Path, size: tuple[int, int]) -> Path:
    """A file of another program, with no record: its logits are the colours, averaged over squares of four by four."""
    import onnx

    logits = onnx.helper.make_tensor_value_info("y", 1, None)
    image = onnx.helper.make_tensor_value_info("x", 1, [1, 3, *size])
    pool = onnx.helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[4, 4], strides=[4, 4])
    graph = onnx.helper.make_graph([pool], "graph", [image], [logits])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_file_of_another_program_is_segmented_with_a_record_given(tmp_path: Path, exported: Exported) -> None:
    path = _foreign(tmp_path / "foreign.onnx", (40, 48))
    colours = LabelSpace.from_names("colours", ["red", "green", "blue"])
    record = ModelRecord(architecture=None, label_space=colours, input_size=(40, 48), align_corners=False)
    segment = Segmenter(path, record=record)
    assert not segment.path_inputs
    image = np.zeros((80, 96, 3), np.uint8)
    image[:, :48, 2] = 255
    image[:, 48:, 0] = 255
    labels = segment(image)
    assert labels.shape == (80, 96)
    np.testing.assert_array_equal(labels, np.where(np.arange(96) < 48, 2, 0)[None].repeat(80, axis=0))
    with pytest.raises(ModelFileError, match="holds no lpsnet record"):
        Segmenter(path)
    with pytest.raises(ModelFileError, match="holds a record of its own"):
        Segmenter(exported[True][1], record=record)
