"""The study of the whole way from image to label map: that it measures what it says. No figure is judged here."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from lpsnet.benchmark.timing import PROTOCOLS  # noqa: E402
from lpsnet.data.labels import LabelSpace  # noqa: E402
from lpsnet.errors import ModelFileError  # noqa: E402
from lpsnet.export.onnx import export_onnx  # noqa: E402
from lpsnet.inference.engines import Precision  # noqa: E402
from lpsnet.inference.preprocess import prepare  # noqa: E402
from lpsnet.inference.segmenter import Segmenter  # noqa: E402
from lpsnet.models.network import Network, create_model  # noqa: E402
from lpsnet.record import ModelRecord  # noqa: E402
from lpsnet.studies.end_to_end import Engine, measure_end_to_end, reference_segmenter  # noqa: E402

SHORT = replace(PROTOCOLS["quick"], warm_up_s=0, duration_s=0.02, turn_s=0.001)
Exported = tuple[Network, Path, ModelRecord]


def _export(folder: Path, ratios: str) -> Exported:
    torch.manual_seed(0)
    arch = f"B=1,1,1,1,1;C=4,6,8,8,8;R={ratios}"
    net = create_model(arch, num_classes=5).eval()
    torch.nn.init.normal_(net.head.weight)
    record = ModelRecord(architecture=arch, label_space=LabelSpace.numbered(5))
    export_onnx(net, folder / "m.onnx", record=record)
    return net, folder / "m.onnx", record


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export(tmp_path_factory.mktemp("model"), "3/4,1/4")


def _smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(0.05 * y + 0.11 * x), np.sin(0.09 * x), np.cos(0.07 * y - 0.06 * x)]
    return np.round(127.5 * (1 + np.stack(waves, axis=2))).astype(np.uint8)


def test_every_way_is_measured_interleaved(exported: Exported) -> None:
    pytest.importorskip("openvino")
    precision: Precision = "f32"
    engines = [Engine("onnxruntime"), Engine("openvino", precision)]
    threads = torch.get_num_threads()
    results = measure_end_to_end(exported[1], _smooth(96, 128), engines=engines, num_threads=1, protocol=SHORT)
    assert torch.get_num_threads() == threads
    assert [result.engine for result in results] == engines
    run_ids = set()
    for result in results:
        assert result.network_by_path is not None
        latencies = (result.network, result.network_by_path, result.fast, result.naive)
        run_ids |= {latency.run_id for latency in latencies}
        assert result.bare in latencies[:2]
        assert result.bare.median_ms == min(latency.median_ms for latency in latencies[:2])
        assert result.overhead.num_rounds == result.fast.num_rounds
        assert result.agreement >= 99.9
        assert result.protocol["num_threads"] == 1
        figures = json.loads(json.dumps(result.to_dict()))
        assert figures["overhead"]["ratio"] == result.overhead.ratio
        assert figures["fast"]["median_ms"] == result.fast.median_ms
        assert figures["bare_is"] in ("network", "network_by_path")
    assert len(run_ids) == 1


def test_a_network_without_paths_to_feed_is_measured_as_it_is(tmp_path: Path) -> None:
    _, path, _ = _export(tmp_path, "1")
    (result,) = measure_end_to_end(path, _smooth(64, 64), protocol=SHORT)
    assert result.network_by_path is None
    assert result.bare is result.network
    assert result.to_dict()["network_by_path"] is None


def test_an_engine_that_does_not_exist_is_refused(exported: Exported) -> None:
    with pytest.raises(ModelFileError, match="unknown runtime"):
        measure_end_to_end(exported[1], _smooth(64, 64), engines=[Engine("onix")], protocol=SHORT)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("image_size", "input_size"), [((96, 128), None), ((70, 90), (96, 128)), ((300, 200), (96, 96))]
)
def test_the_fast_way_gives_the_labels_of_the_reference(
    tmp_path: Path, image_size: tuple[int, int], input_size: tuple[int, int] | None, align_corners: bool
) -> None:
    """Also where the image is shrunk so much that it is averaged first."""
    torch.manual_seed(0)
    net = create_model("B=1,1,1,1,1;C=4,6,8,8,8;R=3/4,1/4", num_classes=5, align_corners=align_corners).eval()
    record = ModelRecord(architecture=net.architecture, label_space=LabelSpace.numbered(5), align_corners=align_corners)
    image = _smooth(*image_size)
    with torch.inference_mode():  # every class is the best somewhere
        normalised = torch.from_numpy(prepare(image, record, size=input_size))
        net.head.bias -= net(normalised).mean(dim=(0, 2, 3))
    export_onnx(net, tmp_path / "m.onnx", record=record)
    segment = Segmenter(tmp_path / "m.onnx", input_size=input_size)
    assert segment.path_inputs
    labels = segment(image)
    assert len(np.unique(labels)) > 2
    reference = reference_segmenter(net, record, input_size=input_size)(image)
    assert reference.dtype == np.uint8
    assert (labels == reference).mean() >= 0.999
