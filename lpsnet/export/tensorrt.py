"""TensorRT: an ONNX file that it reads. The engine itself is built on the device it is to run on, by TensorRT there.

The file in f32 serves for f16 and bf16 as well: TensorRT is told what it may compute in when it builds the engine. In
int8 the file says where to quantise, in the way TensorRT wants it (`quantisation.quantise_onnx`). The file is proved
with ONNX Runtime; the report holds the command that builds an engine from it and times that as the paper does.

Not tried on hardware: written from TensorRT's documentation.
"""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from lpsnet.export.onnx import to_onnx, write_model
from lpsnet.export.proving import Format, Proof, write_proved
from lpsnet.export.quantisation import Quantisation, Size, check_quantisation, quantise_onnx
from lpsnet.export.report import ExportReport
from lpsnet.inference.engines import Precision
from lpsnet.inference.engines.tensorrt import trtexec_command
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord

FORMAT = Format("tensorrt", ".onnx", runtime="onnxruntime", precisions=("f32", "f16", "bf16", "int8"))
PAPER_SIZE = (1024, 2048)  # of the paper's timings; for the command, where neither export nor record names a size


def export_tensorrt(
    net: Network,
    path: str | Path,
    *,
    record: ModelRecord,
    size: Size | None = None,
    precision: Precision = "f32",
    quantisation: Quantisation | None = None,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write an ONNX file for TensorRT, and prove it with ONNX Runtime; its `engine_command` runs `trtexec` on it.

    Args:
        net, path, record, size, proof: as in `proving.write_proved`; the path ends in `.onnx`.
        precision: what the engine is to compute in: "f32", "f16", "bf16" or "int8".
        quantisation: for int8, and needed for it.

    Raises:
        ModelFileError, MissingDependencyError, RunError: as `export_onnx`.
    """

    def write(deployed: Network, record: ModelRecord, path: Path) -> None:
        model = to_onnx(deployed, size=size)
        if precision == "int8":
            wish = check_quantisation(quantisation)
            model = quantise_onnx(model, wish, record=record, size=size, for_tensorrt=True)
        write_model(model, path, record=record)

    in_file: Precision = "int8" if precision == "int8" else "f32"
    report = write_proved(
        net,
        path,
        format=FORMAT,
        write=write,
        record=record,
        size=size,
        precision=in_file,
        quantisation=quantisation,
        **proof,
    )
    timed_size = None if size is not None else record.input_size or PAPER_SIZE
    command = trtexec_command(Path(path), precision=precision, size=timed_size)
    return replace(report, precision=precision, engine_command=tuple(command))
