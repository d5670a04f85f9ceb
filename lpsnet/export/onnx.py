"""ONNX: the format that every engine here can read, directly or through its own converter.

One input `image` (N x 3 x H x W float32, RGB, normalised as the record says) and one output `logits` (N x K x h x w).
With a free size, N, H and W may change from call to call: path sizes floor(r H) are computed in the file from the size
of the picture. With a fixed size, N is 1 and every size is a constant, which is what engines of small devices want.

The TorchScript exporter is used: it gives what the other one gives, in a tenth of the time and without more files.
"""

import io
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lpsnet import __version__
from lpsnet.deployment.preparation import Picture
from lpsnet.deployment.runtimes.onnxruntime import SIZE_NAMES
from lpsnet.deployment.runtimes.session import Precision, SessionOptions, open_session
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export.report import ExportReport
from lpsnet.export.verification import ODD_SIZES, Size, verify
from lpsnet.files import atomic_path
from lpsnet.model.fusion import fuse
from lpsnet.model.network import MIN_INPUT, Network
from lpsnet.record import RECORD_KEY, ModelRecord

OPSET = 17
MAX_BYTES = 1_900_000_000  # of weights; a protocol buffer holds 2 GB

_TRACED_SIZE = (64, 96)  # of the picture that a free-size network is traced with
_CHECKED_SIZE = (256, 512)  # where neither the export nor the record names a size


def export_onnx(
    net: Network,
    path: str | Path,
    *,
    record: ModelRecord,
    size: Size | None = None,
    pictures: Sequence[Picture] = (),
    precision: Precision = "f32",
    opset: int = OPSET,
) -> ExportReport:
    """Write a network as one ONNX file and prove it against the network with ONNX Runtime.

    Args:
        net: of any form, on any device; it is fused where it is not, and not touched.
        path: the file to write, ending in `.onnx`; there is no file if anything fails.
        record: of the network; what the network itself knows (architecture, form, size) is taken from there.
        size: (height, width) in pixels that the file is for; None for a file that takes any.
        pictures: real pictures to compare on, H x W x 3 uint8 RGB each, besides random ones.
        precision: only "f32" here.
        opset: version of ONNX's operators.

    Raises:
        ModelFileError: the record does not fit the network, the size is too small, or the written file's scores or
            labels are not those of the network.
        MissingDependencyError: onnx or onnxslim is not installed.
        RunError: the file cannot be written.
    """
    path = Path(path)
    _check(net, path, record, size, precision)
    started = time.perf_counter()
    deployed = fuse(net).to("cpu", torch.float32)
    record = final_record(deployed, record, size)
    model = to_onnx(deployed, size=size, opset=opset)
    _add_record(model, record)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        written = time.perf_counter()
        session = open_session("onnxruntime", SessionOptions(temporary, num_threads=torch.get_num_threads()))
        checks = verify(deployed, session, record=record, sizes=_sizes(record, size), pictures=pictures)
        num_bytes = temporary.stat().st_size
    return ExportReport(
        path=path,
        format="onnx",
        precision=precision,
        size=size,
        num_bytes=num_bytes,
        engine=session.engine,
        checks=checks,
        export_s=written - started,
        verify_s=time.perf_counter() - written,
    )


def to_onnx(deployed: Network, *, size: Size | None, opset: int = OPSET) -> Any:
    """A deployed network as a checked `onnx.ModelProto`, simplified, without record; `size` as for `export_onnx`.

    Raises:
        MissingDependencyError: onnx or onnxslim is not installed.
    """
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "onnx", "export") from None
    # With free sizes, inferring shapes by computer algebra takes seconds and saves a few operations on numbers only
    model = onnxslim.slim(onnx.load_from_string(_trace(deployed, size, opset)), no_shape_infer=size is None)
    model.producer_name, model.producer_version = "lpsnet", __version__
    onnx.checker.check_model(model, full_check=True)
    return model


def final_record(deployed: Network, record: ModelRecord, size: Size | None) -> ModelRecord:
    """The record of the exported file: `record`, with what the network and the export know better."""
    return record.model_copy(
        update={
            "architecture": deployed.architecture,
            "block": deployed.block,
            "interaction": deployed.interaction,
            "form": deployed.form,
            "input_size": size or record.input_size,
            "lpsnet_version": __version__,
        }
    )


def _check(net: Network, path: Path, record: ModelRecord, size: Size | None, precision: Precision) -> None:
    if path.suffix.lower() != ".onnx":
        raise ModelFileError(f"an ONNX file ends in .onnx; got {path}")
    if precision != "f32":
        raise ModelFileError(f"ONNX files are exported in f32; got {precision}")
    if record.label_space.num_classes != net.num_classes:
        raise ModelFileError(
            f"the record names {record.label_space.num_classes} classes, the network {net.num_classes}"
        )
    if record.align_corners != net.align_corners:
        raise ModelFileError(f"the record has align_corners={record.align_corners}, the network {net.align_corners}")
    if size is not None and min(size) < MIN_INPUT:
        raise ModelFileError(f"a network takes pictures from {MIN_INPUT}x{MIN_INPUT} up; got {size[0]}x{size[1]}")
    num_bytes = sum(parameter.numel() * 4 for parameter in net.parameters())
    if num_bytes > MAX_BYTES:
        raise ModelFileError(f"the network's weights take {num_bytes:,} bytes; an ONNX file holds {MAX_BYTES:,}")


def _trace(deployed: Network, size: Size | None, opset: int) -> bytes:
    free = {0: "batch", 2: SIZE_NAMES[0], 3: SIZE_NAMES[1]}
    free_scores = {0: "batch", 2: "score_height", 3: "score_width"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter's deprecation, and remarks on traced sizes, which are checked
        torch.onnx.export(
            deployed,
            (torch.zeros(1, 3, *(size or _TRACED_SIZE)),),
            buffer,  # type: ignore[arg-type]  # what this exporter takes besides a path
            dynamo=False,
            opset_version=opset,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": free, "logits": free_scores} if size is None else None,
        )
    return buffer.getvalue()


def _add_record(model: Any, record: ModelRecord) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = RECORD_KEY, record.to_json()


def _sizes(record: ModelRecord, size: Size | None) -> tuple[Size, ...]:
    return (size,) if size is not None else (record.input_size or _CHECKED_SIZE, *ODD_SIZES)
