"""OpenVINO's own format: read faster than ONNX and, with weights in f16, half as large; in int8, a quarter.

The network goes through ONNX; the converted model is packed with the record into one file (`.openvino`).
"""

import tempfile
from pathlib import Path
from typing import Any, Unpack

from lpsnet.errors import MissingDependencyError
from lpsnet.export.onnx import to_onnx
from lpsnet.export.quantise import Quantisation, Size, check_quantisation, quantise_for_openvino
from lpsnet.export.verify import ExportReport, Format, Proof, write_proved
from lpsnet.inference.engines import Precision
from lpsnet.inference.model_file import write_container
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord

FORMAT = Format("openvino", ".openvino", runtime="openvino", precisions=("f32", "f16", "int8"))


def export_openvino(
    net: Network,
    path: str | Path,
    *,
    record: ModelRecord,
    size: Size | None = None,
    precision: Precision = "f32",
    quantisation: Quantisation | None = None,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write a network as one `.openvino` file and prove it against the network with OpenVINO.

    Args:
        net, path, record, size, proof: as in `proving.write_proved`; the path ends in `.openvino`.
        precision: "f32"; "f16" for weights kept in f16, what is computed in being chosen when the file is run; "int8".
        quantisation: for int8, and needed for it.

    Raises:
        ModelFileError: the record does not fit the network, the size is too small, int8 was asked for without images,
            or the written file's scores, labels or mIoU are not those of the network.
        MissingDependencyError: openvino, nncf, onnx or onnxslim is not installed.
        RunError: the file cannot be written.
    """

    def write(deployed: Network, record: ModelRecord, path: Path) -> None:
        model = _convert(deployed, size)
        if precision == "int8":
            model = quantise_for_openvino(model, check_quantisation(quantisation), record=record, size=size)
        description, weights = packed(model, half=precision == "f16")
        write_container(path, description=description, weights=weights, record=record)

    return write_proved(
        net,
        path,
        format=FORMAT,
        write=write,
        record=record,
        size=size,
        precision=precision,
        quantisation=quantisation,
        **proof,
    )


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
