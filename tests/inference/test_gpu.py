"""On an NVIDIA GPU: fusion, export, agreement and latency; and what is said where there is none.

    pytest -m gpu -s tests/inference/test_gpu.py

takes about a minute and prints the latencies of LPS-Net-S at 1024x2048. It needs torch with CUDA and onnx with
onnxslim; ONNX Runtime may be the one without CUDA.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from lpsnet import agent
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import LpsnetError
from lpsnet.export.export import write_for_runtime
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.preprocess import prepare
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse

SIZE = (1024, 2048)
HAS_GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs CUDA")


@pytest.fixture(scope="module")
def net() -> Network:
    """LPS-Net-S in its training form, with batch norms that do something and logits of a useful range.

    Statistics are those of scenes, which it is given, as after a training: features stay far below the largest number
    of f16. With those of random numbers a scene's would grow from block to block.
    """
    torch.manual_seed(0)
    net = create_model("lpsnet_s")
    scenes, record = SceneSplit(size=(256, 512), count=2, seed=0, name="gpu"), default_record(net)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches, here one
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        net(torch.from_numpy(np.concatenate([prepare(scenes.image(n), record, size=(256, 512)) for n in range(2)])))
    torch.nn.init.normal_(net.head.weight, std=0.1)
    return net.eval()


@pytest.fixture(scope="module")
def files(net: Network, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network for each engine."""
    folder, record = tmp_path_factory.mktemp("models"), default_record(net)
    runtimes = ("pytorch", *(["onnxruntime"] if _can_export() else []))
    return {
        runtime: write_for_runtime(net, folder, "s", runtime=runtime, record=record, size=SIZE) for runtime in runtimes
    }


def _can_export() -> bool:
    try:
        import onnx  # noqa: F401
        import onnxslim  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return SceneSplit(size=SIZE, count=1, seed=0, name="gpu").image(0)


def _distance(logits: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(logits - expected).max() / np.ptp(expected))


@pytest.mark.gpu
@needs_gpu
def test_fusion_on_the_gpu_is_the_network_on_the_processor(net: Network) -> None:
    images = torch.randn(2, 3, 317, 517)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = net(images).numpy()
        fused = fuse(net).cuda()(images.cuda()).cpu().numpy()
    assert _distance(fused, expected) < 1e-4


@pytest.mark.gpu
@needs_gpu
def test_an_export_proves_itself_beside_a_gpu(net: Network, tmp_path: Path, image: np.ndarray) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxslim")
    from lpsnet.export.onnx import export_onnx

    on_gpu = create_model("lpsnet_s").eval()
    on_gpu.load_state_dict(net.state_dict())
    report = export_onnx(on_gpu.cuda(), tmp_path / "s.onnx", record=default_record(net), images=[image])
    assert report.label_agreement >= 99.9


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("precision", "least"), [("f32", 99.9), ("bf16", 95.0), ("f16", 99.0)])
def test_labels_on_the_gpu_are_those_of_onnx_runtime(
    files: dict[str, Path], image: np.ndarray, precision: str, least: float
) -> None:
    if "onnxruntime" not in files:
        pytest.skip("needs onnx and onnxslim")
    on_gpu = Segmenter(files["pytorch"], runtime="pytorch_cuda", precision=precision)
    assert on_gpu.precision == precision
    assert torch.cuda.get_device_name() in on_gpu.engine
    agreement = 100 * float((on_gpu(image) == Segmenter(files["onnxruntime"])(image)).mean())
    print(f"\n{precision}: {agreement:.4f} % of the labels are those of ONNX Runtime")
    assert agreement >= least


@pytest.mark.gpu
@needs_gpu
def test_latencies(files: dict[str, Path]) -> None:
    """Printed; a table by engine and precision."""
    from lpsnet.benchmark.benchmark import Candidate, benchmark
    from lpsnet.cli.benchmark import print_benchmark
    from lpsnet.models.profile import complexity

    macs = complexity("lpsnet_s", size=SIZE).macs
    cells = [
        Candidate("lpsnet_s", files["pytorch"], runtime, precision, macs=macs)
        for runtime in ("pytorch_cuda", "pytorch_compiled")
        for precision in ("f32", "bf16", "f16")
    ]
    cells += [Candidate("lpsnet_s", path, "onnxruntime_cuda", "f32", macs=macs) for path in files.values()][1:]
    found = benchmark(cells, size=SIZE, protocol="quick", memory=False)
    print_benchmark(found)
    measured = {(row.runtime, row.precision): row for row in found.results}
    assert {("pytorch_cuda", precision) for precision in ("f32", "bf16", "f16")} <= measured.keys()
    assert all(torch.cuda.get_device_name() in row.engine or "CUDA" in row.engine for row in found.results)
    assert torch.cuda.get_device_name() in found.machine["identity"]


@pytest.mark.skipif(HAS_GPU, reason="there is CUDA")
def test_a_gpu_that_is_not_there_is_one_line(files: dict[str, Path]) -> None:
    with pytest.raises(LpsnetError, match=r"takes a GPU; this PyTorch .* sees none here") as caught:
        open_session("pytorch_cuda", SessionOptions(files["pytorch"]))
    assert "\n" not in str(caught.value)


def test_onnx_runtime_without_cuda_is_one_line(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    if "onnxruntime" not in files:
        pytest.skip("needs onnx and onnxslim")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(LpsnetError, match="pip install onnxruntime-gpu") as caught:
        open_session("onnxruntime_cuda", SessionOptions(files["onnxruntime"]))
    assert "\n" not in str(caught.value)


def test_onnx_runtime_that_falls_back_is_refused(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the package has CUDA and the machine has not: it computes on the processor without a word."""
    import onnxruntime

    if HAS_GPU or "onnxruntime" not in files:
        pytest.skip("needs onnx and onnxslim, and no GPU")
    from lpsnet.inference.engines import onnxruntime as ours

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [ours._CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(agent, "onnxruntime_providers", lambda *_: ["CPUExecutionProvider"])
    with pytest.raises(LpsnetError, match="fell back to the processor"):
        open_session("onnxruntime_cuda", SessionOptions(files["onnxruntime"]))
