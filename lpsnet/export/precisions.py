"""What another precision gains and costs: one network in every precision that an engine has, measured side by side."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lpsnet.benchmark.benchmark import Benchmark, Candidate, benchmark
from lpsnet.data.split import Split
from lpsnet.errors import ModelFileError
from lpsnet.export.export import export
from lpsnet.export.report import ExportReport
from lpsnet.inference.engines import PRECISIONS
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord

# format -> the engine that runs its files here. TensorRT runs its own elsewhere; ncnn's are not quantised.
_ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}


def beside_other_precisions(
    net: Network,
    quantised: ExportReport,
    *,
    record: ModelRecord,
    labelled: Split | None = None,
    num_threads: int | None = None,
    protocol: str = "quick",
    progress: Callable[[str, float], None] | None = None,
) -> Benchmark:
    """A quantised file beside the same network in f32, and in the half precisions that engine and machine have.

    Args:
        net, record: what was exported.
        quantised: the report of its export in int8.
        labelled: pictures to compare mIoU on; None for none.
        num_threads, protocol, progress: as in `benchmark`.

    Raises:
        ModelFileError: no engine here runs files of that format.
    """
    if quantised.format not in _ENGINES:
        raise ModelFileError(f"no engine here runs quantised files for {quantised.format}, so they cannot be timed")
    runtime, name = _ENGINES[quantised.format], quantised.path.name
    size = quantised.size or record.input_size or quantised.checks[0].size
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        whole = Path(folder) / f"f32{quantised.path.suffix}"
        export(net, whole, to=quantised.format, record=record, size=quantised.size)
        cells = [Candidate(name, whole, runtime, precision) for precision in PRECISIONS if precision != "int8"]
        found = benchmark(
            [*cells, Candidate(name, quantised.path, runtime, "int8")],
            size=size,
            num_threads=num_threads,
            protocol=protocol,
            memory=False,
            labelled=labelled,
            progress=progress,
        )
    return replace(found, problems=())  # that this machine lacks a precision is no problem here
