"""OpenVINO: its own format, read faster than ONNX and, with weights in f16, half as large.

The network goes through ONNX; what OpenVINO makes of it is packed with the record into one file (`.openvino`).
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lpsnet.deployment.preparation import Picture
from lpsnet.deployment.runtimes.session import Precision
from lpsnet.errors import MissingDependencyError
from lpsnet.export.onnx import to_onnx
from lpsnet.export.packing import export_container
from lpsnet.export.report import ExportReport
from lpsnet.export.verification import Size
from lpsnet.model.network import Network
from lpsnet.record import ModelRecord


def export_openvino(
    net: Network,
    path: str | Path,
    *,
    record: ModelRecord,
    size: Size | None = None,
    pictures: Sequence[Picture] = (),
    precision: Precision = "f32",
) -> ExportReport:
    """Write a network as one `.openvino` file and prove it against the network with OpenVINO.

    Args:
        net: of any form, on any device; it is fused where it is not, and not touched.
        path: the file to write, ending in `.openvino`; there is no file if anything fails.
        record: of the network; what the network itself knows (architecture, form, size) is taken from there.
        size: (height, width) in pixels that the file is for; None for a file that takes any.
        pictures: real pictures to compare on, H x W x 3 uint8 RGB each, besides random ones.
        precision: "f32", or "f16" for weights kept in f16; what is computed in is chosen when the file is run.

    Raises:
        ModelFileError: the record does not fit the network, the size is too small, or the written file's scores or
            labels are not those of the network.
        MissingDependencyError: openvino, onnx or onnxslim is not installed.
        RunError: the file cannot be written.
    """
    return export_container(
        net, path, to="openvino", convert=_convert, record=record, size=size, pictures=pictures, precision=precision
    )


def _convert(deployed: Network, size: Size | None, half: bool) -> tuple[bytes, bytes]:
    try:
        import openvino
    except ImportError:
        raise MissingDependencyError.for_extra("openvino", "openvino") from None
    model = openvino.Core().read_model(to_onnx(deployed, size=size).SerializeToString())
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        description = Path(folder) / "model.xml"
        openvino.save_model(model, description, compress_to_fp16=half)
        return description.read_bytes(), description.with_suffix(".bin").read_bytes()
