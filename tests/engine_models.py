"""One small network in the file format of every engine."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.data.labels import LabelSpace
from lpsnet.export.export import export
from lpsnet.export.litert import export_litert
from lpsnet.export.onnx import export_openvino
from lpsnet.export.phones import export_ncnn
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.record import ModelRecord

ARCHITECTURE = "B=1,1,1,1,1;C=4,8,8,8,8;R=3/4,1/4"
NUM_CLASSES = 5

Array = NDArray[np.float32]


def small_network(*, align_corners: bool = True) -> Network:
    """Seeded, with logits of about -3 to 3 and batch norms that do something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model(ARCHITECTURE, num_classes=NUM_CLASSES, align_corners=align_corners)
        for _ in range(20):
            net(torch.randn(2, 3, 64, 64))  # for the batch norms' statistics
        torch.nn.init.normal_(net.head.weight)
    return net.eval()


def record(net: Network) -> ModelRecord:
    return default_record(net, label_space=LabelSpace.numbered(NUM_CLASSES))


def write_model(net: Network, path: Path, *, size: tuple[int, int] | None = None, **options: Any) -> Path:
    """Write `net` in the format of the path's suffix."""
    if path.suffix == ".safetensors":
        save_checkpoint(net, path)
    elif path.suffix == ".onnx":
        export(net, path, to="onnx", record=record(net), size=size)
    else:
        exporter = {".ncnn": export_ncnn, ".openvino": export_openvino, ".tflite": export_litert}[path.suffix]
        exporter(net, path, record=record(net), size=size, **options)
    return path


def images(*shape: int, seed: int = 0) -> Array:
    """Normalised noise, N x 3 x H x W."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def logits(net: Network, images: Array) -> Array:
    """What the network gives in torch."""
    with torch.inference_mode():
        return net(torch.from_numpy(images)).numpy()


def difference(given: Array, expected: Array) -> float:
    """The largest absolute difference, as a share of the range of what is expected."""
    assert given.shape == expected.shape
    assert given.dtype == np.float32
    return float(np.abs(given - expected).max() / np.ptp(expected))
