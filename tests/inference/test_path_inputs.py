"""Sessions that take the paths' inputs in place of the image, against the network in torch, which resizes itself."""

import functools
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from lpsnet.architecture import path_size  # noqa: E402
from lpsnet.errors import DataError, ModelFileError  # noqa: E402
from lpsnet.export.onnx import in_half_precision, to_onnx  # noqa: E402
from lpsnet.inference.engines import Session, SessionOptions, open_session  # noqa: E402
from lpsnet.inference.onnx_graph import EditError, OnnxModel, split_at_paths  # noqa: E402
from lpsnet.models.network import Network, create_model  # noqa: E402
from lpsnet.models.reparameterise import fuse  # noqa: E402

Size = tuple[int, int]

ONNX_RUNTIMES = ("onnxruntime", "openvino")
FIXED = (75, 98)
RATIOS = ("3/4", "1/4")
CASES = [
    (RATIOS, FIXED),
    (("1", "1/4"), None),
    (("9/8", "1/2", "1/3"), None),
    (("1", "2/3", "1/3"), FIXED),
    (("1/2",), None),
]


@dataclass(frozen=True)
class Case:
    """A network, and a file of it for any size or for `FIXED`."""

    net: Network
    path: Path
    size: Size | None

    @property
    def ratios(self) -> tuple[Fraction, ...]:
        return self.net.architecture.ratios

    def open(self, runtime: str, **options: Any) -> Session:
        return open_session(runtime, SessionOptions(self.path, num_threads=1, path_ratios=self.ratios, **options))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """Exports every case once, for all engines."""
    return functools.cache(lambda ratios, size: _export(tmp_path_factory.mktemp("case"), ratios, size))


def _export(folder: Path, ratios: tuple[str, ...], size: Size | None, **choices: Any) -> Case:
    torch.manual_seed(1)
    arch = f"B=1,1,1,1,1;C=4,6,8,8,8;R={','.join(ratios)}"
    net = create_model(arch, num_classes=5, **choices).eval()
    onnx.save(to_onnx(fuse(net), size=size), folder / "m.onnx")
    return Case(net, folder / "m.onnx", size)


@pytest.fixture(scope="module", params=[None, FIXED], ids=["any size", "one size"])
def case(request: pytest.FixtureRequest, exported: Callable[..., Case]) -> Case:
    return exported(RATIOS, request.param)


def _image(size: Size, *, number: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((number, 3, *size), np.float32)


def _inputs(net: Network, image: np.ndarray) -> list[np.ndarray]:
    """The image at every path's size, by torch in float64."""
    resize, nchw = torch.nn.functional.interpolate, torch.from_numpy(image).double()
    sizes = [path_size(image.shape[2:], ratio) for ratio in net.architecture.ratios]
    resized = (resize(nchw, size, mode="bilinear", align_corners=net.align_corners) for size in sizes)
    return [each.float().numpy() for each in resized]


@torch.inference_mode()
def _difference(net: Network, session: Session, image: np.ndarray) -> float:
    expected = deepcopy(net).double()(torch.from_numpy(image).double()).numpy()
    logits = session.run(*_inputs(net, image))
    assert logits.shape == expected.shape
    return float(np.abs(logits - expected).max() / np.ptp(expected))


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
@pytest.mark.parametrize(("ratios", "size"), CASES)
def test_scores_are_those_of_the_network(
    exported: Callable[..., Case], ratios: tuple[str, ...], size: Size | None, runtime: str
) -> None:
    pytest.importorskip(runtime)
    case = exported(ratios, size)
    session = case.open(runtime)
    for image_size in [size] if size else [(64, 96), (61, 131)]:
        assert _difference(case.net, session, _image(image_size)) < 1e-5


@pytest.mark.parametrize("size", [None, FIXED])
def test_openvino_takes_pixels(exported: Callable[..., Case], size: Size | None) -> None:
    """And nhwc in bfloat16: whatever it computes in, the logits are those of inputs that were rounded once."""
    pytest.importorskip("openvino")
    case = exported(RATIOS, size)
    nchw = [torch.from_numpy(each) for each in _inputs(case.net, _image(FIXED, number=3))]
    rounded = [each.to(torch.bfloat16) for each in nchw]
    whole = case.open("openvino")
    nhwc = [each.permute(0, 2, 3, 1).contiguous() for each in nchw]
    session = case.open("openvino", path_layout="nhwc")
    expected = whole.run(*(each.numpy() for each in nchw))
    np.testing.assert_allclose(session.run(*(each.numpy() for each in nhwc)), expected, atol=1e-5 * np.ptp(expected))

    halves = [each.permute(0, 2, 3, 1).contiguous().view(torch.int16).numpy().view(np.uint16) for each in rounded]
    session = case.open("openvino", path_layout="nhwc_bf16")
    expected = whole.run(*(each.float().numpy() for each in rounded))
    np.testing.assert_allclose(session.run(*halves), expected, atol=1e-5 * np.ptp(expected))
    with pytest.raises(DataError, match="takes uint16 any x "):
        session.run(*(each.numpy() for each in nhwc))
    with pytest.raises(ModelFileError, match=r"onnxruntime takes whole images, .* nhwc; openvino take these"):
        case.open("onnxruntime", path_layout="nhwc")


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_interactions_and_the_other_convention_make_no_difference(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    case = _export(tmp_path, ("1", "1/3"), None, interaction="attention_b", align_corners=False)
    assert _difference(case.net, case.open(runtime), _image((65, 99))) < 1e-5


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_a_size_is_compiled_for_and_then_kept_to(case: Case, runtime: str) -> None:
    pytest.importorskip(runtime)
    session = case.open(runtime, input_size=FIXED)
    assert _difference(case.net, session, _image(FIXED)) < 1e-5
    assert _difference(case.net, session, _image(FIXED, number=3)) < 1e-5
    with pytest.raises(DataError, match="takes float32"):
        session.run(*_inputs(case.net, _image((64, 98))))
    if case.size is not None:
        with pytest.raises(ModelFileError, match=r"cannot take its paths' inputs: it is for .*75.*, not for \(64"):
            case.open(runtime, input_size=(64, 98))


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_threads_may_share_a_session(case: Case, runtime: str) -> None:
    pytest.importorskip(runtime)
    session = case.open(runtime)
    batches = [_inputs(case.net, _image(case.size or (40 + seed, 60), seed=seed)) for seed in range(8)]
    alone = [session.run(*batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for logits, expected in zip(pool.map(lambda batch: session.run(*batch), batches), alone, strict=True):
            np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
@pytest.mark.parametrize("ratios", [("1",), ("3/4",), ("3/4", "1/2"), ("1", "3/4", "1/4")], ids=",".join)
def test_other_paths_than_the_files_are_refused(case: Case, runtime: str, ratios: tuple[str, ...]) -> None:
    pytest.importorskip(runtime)
    options = SessionOptions(case.path, path_ratios=tuple(map(Fraction, ratios)))
    with pytest.raises(ModelFileError, match="cannot take its paths' inputs") as caught:
        open_session(runtime, options)
    assert "\n" not in str(caught.value)


def test_a_network_whose_one_path_takes_the_image_has_nothing_to_split(tmp_path: Path) -> None:
    case = _export(tmp_path, ("1",), None)
    for runtime in ONNX_RUNTIMES:
        pytest.importorskip(runtime)
        with pytest.raises(ModelFileError, match="cannot take its paths' inputs"):
            case.open(runtime)


def test_engines_that_take_whole_images_say_so(case: Case) -> None:
    with pytest.raises(ModelFileError, match=r"takes whole images, .* nchw; onnxruntime, .*openvino, ncnn take"):
        case.open("pytorch")


def test_an_openvino_model_is_split_like_its_onnx_file(case: Case, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model = openvino.convert_model(case.path)
    openvino.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    session = Case(case.net, tmp_path / "m.xml", case.size).open("openvino")
    assert _difference(case.net, session, _image(FIXED)) < 1e-5


def test_a_quantised_file_may_quantise_the_image_first() -> None:
    """image -> int8 -> Resize -> result, and the path of ratio 1, which is added."""
    make = onnx.helper.make_node
    sizes = {"sizes": np.array([1, 3, 8, 16]), "scale": np.float32(0.5), "back": np.array([1, 3, 16, 32])}
    resize = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    nodes = [
        make("QuantizeLinear", ["image", "scale"], ["bytes"]),
        make("DequantizeLinear", ["bytes", "scale"], ["again"]),
        make("Resize", ["again", "", "", "sizes"], ["small"], **resize),
        make("Resize", ["small", "", "", "back"], ["large"], **resize),
        make("Add", ["large", "again"], ["logits"]),
    ]
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 3, 16, 32]) for name in ("image", "logits")]
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in sizes.items()]
    graph = onnx.helper.make_graph(nodes, "graph", values[:1], values[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    split = split_at_paths(OnnxModel.read(model.SerializeToString()), [Fraction(1), Fraction(1, 2)], size=(16, 32))
    assert [value.name for value in onnx.load_from_string(split).graph.input] == ["image", "small"]
    with pytest.raises(EditError, match=r"resized to \[\(8, 16\)\]"):
        split_at_paths(OnnxModel.read(model.SerializeToString()), [Fraction(1), Fraction(1, 4)], size=(16, 32))


def test_a_file_in_f16_takes_what_it_would_have_made(tmp_path: Path) -> None:
    """The path of ratio 1 takes float32 as before; the other f16, behind the cast that was in between."""
    case = _export(tmp_path, ("1", "1/2"), None)
    onnx.save(in_half_precision(onnx.load(case.path)), case.path)
    split = split_at_paths(OnnxModel.read(case.path.read_bytes()), case.ratios, size=None)
    elements = [value.type.tensor_type.elem_type for value in onnx.load_from_string(split).graph.input]
    assert elements == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]
    session = case.open("onnxruntime", precision=_precision_of(case))
    assert _difference(case.net, session, _image((64, 96))) < 1e-2


def _precision_of(case: Case) -> Any:
    return "f16" if platform.machine() in ("aarch64", "arm64") else "f32"


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_a_quantised_network_gives_the_scores_it_gives_for_images(case: Case, tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"image": _image(FIXED, seed=seed)} for seed in range(2)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    quantization.quantize_static(case.path, tmp_path / "int8.onnx", Reader(), op_types_to_quantize=["Conv"])
    quantised, image = Case(case.net, tmp_path / "int8.onnx", case.size), _image(FIXED)
    options = SessionOptions(quantised.path, num_threads=1)
    expected = open_session(runtime, options).run(image)
    try:
        session = quantised.open(runtime, precision="int8")
    except ModelFileError as error:
        if runtime == "onnxruntime":
            raise
        pytest.skip(f"{runtime} computes ONNX Runtime's quantised files in f32 on this processor: {error}")
    assert session.precision == "int8"
    logits = session.run(*_inputs(case.net, image))
    assert np.abs(logits - expected).max() < 0.05 * np.ptp(expected)  # a few steps of 256


@pytest.fixture(scope="module", params=[("3/4,1/4", None), ("1,1/3", FIXED)], ids=["any size", "one size"])
def ncnn_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    from lpsnet.data.labels import LabelSpace
    from lpsnet.export.phones import export_ncnn
    from lpsnet.models.checkpoint import default_record

    ratios, size = request.param
    torch.manual_seed(1)
    net = create_model(f"B=1,1,1,1,1;C=4,6,8,8,8;R={ratios}", num_classes=5).eval()
    path = tmp_path_factory.mktemp("ncnn") / "m.ncnn"
    export_ncnn(net, path, record=default_record(net, label_space=LabelSpace.numbered(5)), size=size)
    return Case(net, path, size)


def test_ncnn_takes_the_paths_inputs_too(ncnn_case: Case) -> None:
    session = ncnn_case.open("ncnn")
    for size in [ncnn_case.size] if ncnn_case.size else [(64, 96), (61, 131)]:
        assert _difference(ncnn_case.net, session, _image(size, number=2)) < 1e-4  # Winograd's convolutions
    session = ncnn_case.open("ncnn", input_size=FIXED)
    assert _difference(ncnn_case.net, session, _image(FIXED)) < 1e-4
    with pytest.raises(DataError, match="takes float32"):
        session.run(*_inputs(ncnn_case.net, _image((64, 98))))
    if ncnn_case.size is not None:
        with pytest.raises(ModelFileError, match="it is for"):
            ncnn_case.open("ncnn", input_size=(64, 98))


def test_other_paths_than_an_ncnn_files_are_refused(ncnn_case: Case) -> None:
    for ratios in (("1",), ("1", "3/4", "1/4"), ("1", "1/2"), ("1/3",), ("3/4", "1/3")):
        options = SessionOptions(ncnn_case.path, path_ratios=tuple(map(Fraction, ratios)))
        with pytest.raises(ModelFileError, match="cannot take its paths' inputs"):
            open_session("ncnn", options)
