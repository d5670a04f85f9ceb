"""OpenVINO's own format: read faster than ONNX and, with weights in f16, half as large; in int8, a quarter.

The network goes through ONNX; the converted model is packed with the record into one file (`.openvino`).
"""

import tempfile
from pathlib import Path
from typing import Any, Unpack

from lpsnet.errors import MissingDependencyError
from lpsnet.export.onnx import to_onnx
from lpsnet.export.quantise import Size, check_quantisation, quantise_for_openvino
from lpsnet.export.verify import ExportOptions, ExportReport, Format, Request, write_proved
from lpsnet.inference.model_file import write_container
from lpsnet.models.network import Network

FORMAT = Format("openvino", ".openvino", runtime="openvino", precisions=("f32", "f16", "int8"))


def export_openvino(net: Network, path: str | Path, **options: Unpack[ExportOptions]) -> ExportReport:
    """Write a network as one `.openvino` file and verify it with OpenVINO; arguments and errors as for `export_onnx`.

    Precision "f16" keeps the weights in f16; the arithmetic is chosen when the file is run.
    """
    return write_proved(net, path, format=FORMAT, write=_write, **options)


def _write(deployed: Network, path: Path, request: Request) -> None:
    record, size, precision, quantisation = request
    model = _convert(deployed, size)
    if precision == "int8":
        model = quantise_for_openvino(model, check_quantisation(quantisation), record=record, size=size)
    description, weights = packed(model, half=precision == "f16")
    write_container(path, description=description, weights=weights, record=record)


def _convert(deployed: Network, size: Size | None) -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingDependencyError.for_extra("openvino", "openvino") from None
    return openvino.Core().read_model(to_onnx(deployed, size=size).SerializeToString())


def packed(model: Any, *, half: bool) -> tuple[bytes, bytes]:
    """Description and weights as OpenVINO writes them; with `half` the weights in f16."""
    import openvino

    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        description = Path(folder) / "model.xml"
        openvino.save_model(model, description, compress_to_fp16=half)
        return description.read_bytes(), description.with_suffix(".bin").read_bytes()
