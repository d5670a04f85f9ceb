"""One door to all formats: a table of exporters, each of which proves what it wrote against the network."""

import importlib
from pathlib import Path
from typing import Unpack

from lpsnet.errors import ModelFileError, unknown_name
from lpsnet.export.proving import Proof
from lpsnet.export.quantisation import Quantisation
from lpsnet.export.report import ExportReport
from lpsnet.inference.engines import Precision
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord

# format -> "module:function", called like `export_onnx`; imported when asked for, with its optional packages
EXPORTERS: dict[str, str] = {
    "onnx": "lpsnet.export.onnx:export_onnx",
    "openvino": "lpsnet.export.openvino:export_openvino",
    "ncnn": "lpsnet.export.ncnn:export_ncnn",
    "tensorrt": "lpsnet.export.tensorrt:export_tensorrt",
}


def export(
    net: Network,
    path: str | Path,
    *,
    to: str,
    record: ModelRecord,
    size: tuple[int, int] | None = None,
    precision: Precision = "f32",
    quantisation: Quantisation | None = None,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write a network for an engine; see the exporter of the format `to` for arguments and errors.

    Raises:
        ModelFileError: there is no such format, or the written file is not the network; then nothing is left behind.
        MissingDependencyError: the format needs a package that is not installed.
    """
    if to not in EXPORTERS:
        raise ModelFileError(unknown_name("export format", to, EXPORTERS))
    module, _, function = EXPORTERS[to].partition(":")
    exporter = getattr(importlib.import_module(module), function)
    report: ExportReport = exporter(
        net, path, record=record, size=size, precision=precision, quantisation=quantisation, **proof
    )
    return report
