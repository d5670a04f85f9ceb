"""What exports to containers (`deployment.container`) have in common: all but the conversion itself."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lpsnet.deployment.container import write_container
from lpsnet.deployment.preparation import Picture
from lpsnet.deployment.runtimes.session import Precision, SessionOptions, open_session
from lpsnet.errors import ModelFileError
from lpsnet.export.onnx import final_record
from lpsnet.export.report import ExportReport
from lpsnet.export.verification import F32_BOUNDS, ODD_SIZES, Bounds, Size, verify
from lpsnet.files import atomic_path
from lpsnet.model.fusion import fuse
from lpsnet.model.network import MIN_INPUT, Network
from lpsnet.record import ModelRecord

# (deployed network, size or None, whether weights are kept in f16) -> description and weights
Convert = Callable[[Network, Size | None, bool], tuple[bytes, bytes]]

# Weights rounded to 11 bits of mantissa. Seen over untrained networks of all blocks and interactions: at most 7e-3 of
# the range of the scores, and the same label at 99.5 % of the pixels of noise, where all classes are close.
BOUNDS: dict[Precision, Bounds] = {"f32": F32_BOUNDS, "f16": Bounds(score_difference=2e-2, label_agreement=98.0)}

_CHECKED_SIZE = (256, 512)  # where neither the export nor the record names a size


def export_container(
    net: Network,
    path: str | Path,
    *,
    to: str,
    convert: Convert,
    record: ModelRecord,
    size: Size | None,
    pictures: Sequence[Picture],
    precision: Precision,
) -> ExportReport:
    """Convert a network, write it as a container named by its format `to`, and prove it with the engine of that name.

    Arguments and errors as for `export_ncnn`.
    """
    path = Path(path)
    _check(net, path, to, record, size, precision)
    started = time.perf_counter()
    deployed = fuse(net).to("cpu", torch.float32)
    record = final_record(deployed, record, size)
    description, weights = convert(deployed, size, precision == "f16")
    with atomic_path(path) as temporary:
        write_container(temporary, description=description, weights=weights, record=record)
        written = time.perf_counter()
        session = open_session(to, SessionOptions(temporary, num_threads=torch.get_num_threads()))
        sizes = (size,) if size is not None else (record.input_size or _CHECKED_SIZE, *ODD_SIZES)
        checks = verify(deployed, session, record=record, sizes=sizes, pictures=pictures, bounds=BOUNDS[precision])
        num_bytes = temporary.stat().st_size
    return ExportReport(
        path=path,
        format=to,
        precision=precision,
        size=size,
        num_bytes=num_bytes,
        engine=session.engine,
        checks=checks,
        export_s=written - started,
        verify_s=time.perf_counter() - written,
    )


def _check(net: Network, path: Path, to: str, record: ModelRecord, size: Size | None, precision: Precision) -> None:
    if path.suffix.lower() != f".{to}":
        raise ModelFileError(f"a model file for {to} ends in .{to}; got {path}")
    if precision not in BOUNDS:
        raise ModelFileError(f"files for {to} are exported in {' or '.join(BOUNDS)}; got {precision}")
    if record.label_space.num_classes != net.num_classes:
        raise ModelFileError(
            f"the record names {record.label_space.num_classes} classes, the network {net.num_classes}"
        )
    if record.align_corners != net.align_corners:
        raise ModelFileError(f"the record has align_corners={record.align_corners}, the network {net.align_corners}")
    if size is not None and min(size) < MIN_INPUT:
        raise ModelFileError(f"a network takes pictures from {MIN_INPUT}x{MIN_INPUT} up; got {size[0]}x{size[1]}")
