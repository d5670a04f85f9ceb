"""What all exports have in common: the checks before, one file written in one step, and the proof after.

A format is a value, `Format`, and a function that writes a network to a path. The file takes its place only once the
engine that is to run it has given the network's own scores and labels.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from lpsnet import __version__
from lpsnet.data.split import Split
from lpsnet.errors import ModelFileError, unknown_name
from lpsnet.export.quantisation import Quantisation, Size, check_quantisation
from lpsnet.export.report import ExportReport, MiouCheck
from lpsnet.export.verification import BOUNDS, ODD_SIZES, Bounds, compare_miou, verify
from lpsnet.inference.engines import PRECISIONS, Precision, Session, SessionOptions, open_session
from lpsnet.inference.preprocess import Picture
from lpsnet.io import atomic_path
from lpsnet.models.network import MIN_INPUT, Network
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord

# (deployed network, record of the file, path): writes the file
Write = Callable[[Network, ModelRecord, Path], None]

NUM_COMPARED = 4  # pictures of the calibration that a quantised file is compared on, where no others are given
_CHECKED_SIZE = (256, 512)  # where neither the export nor the record names a size


@dataclass(frozen=True, slots=True)
class Format:
    """What a network can be exported to.

    Attributes:
        name: as in `EXPORTERS`.
        suffix: of its files.
        runtime: the engine that proves a file.
        precisions: what files there are.
    """

    name: str
    suffix: str
    runtime: str
    precisions: tuple[Precision, ...]


class Proof(TypedDict, total=False):
    """What a file is held against besides random pictures: keywords that every exporter takes.

    Keys:
        pictures: real ones, H x W x 3 uint8 RGB each, for scores and labels.
        labelled: pictures with labels, on which mIoU is compared before and after; None for none.
        min_label_agreement: share of the pixels of a real picture, in percent, that must keep their label.
        max_miou_loss: points of mIoU the file may lose. For both None is the bound of its precision (`BOUNDS`).
    """

    pictures: Sequence[Picture]
    labelled: Split | None
    min_label_agreement: float | None
    max_miou_loss: float | None


def write_proved(
    net: Network,
    path: str | Path,
    *,
    format: Format,
    write: Write,
    record: ModelRecord,
    size: Size | None,
    precision: Precision,
    quantisation: Quantisation | None = None,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write a network in a format and prove the file; there is none if anything fails.

    Args:
        net: of any form, on any device; it is fused where it is not, and not touched.
        path: the file to write, with the format's suffix.
        format, write: the format, and what writes a network in it.
        record: of the network; what the network itself knows (architecture, form, size) is taken from there.
        size: (height, width) in pixels that the file is for; None for a file that takes any.
        precision: arithmetic of the file.
        quantisation: how an int8 file is made, which `write` has seen to; needed for int8.
        proof: what it is held against; see `Proof`.

    Raises:
        ModelFileError: the record does not fit the network, the size is too small, int8 was asked for without
            pictures, or the file is not the network.
        MissingDependencyError: a package is not installed.
        RunError: the file cannot be written.
    """
    path = Path(path)
    _check(net, path, format, record, size, precision)
    bounds = _bounds(precision, proof)
    num_calibrated = len(check_quantisation(quantisation).pictures) if precision == "int8" else 0
    started = time.perf_counter()
    deployed = fuse(net).to("cpu", torch.float32)
    record = final_record(deployed, record, size)
    with atomic_path(path) as temporary:
        write(deployed, record, temporary)
        written = time.perf_counter()
        session = _open(temporary, format, precision)
        return ExportReport(
            path=path,
            format=format.name,
            precision=precision,
            size=size,
            num_bytes=temporary.stat().st_size,
            engine=session.engine,
            checks=verify(
                deployed,
                session,
                record=record,
                sizes=checked_sizes(record, size),
                pictures=_pictures(proof, quantisation),
                bounds=bounds,
            ),
            export_s=written - started,
            verify_s=time.perf_counter() - written,
            miou=_compare_miou(deployed, session, record, size, bounds, proof),
            num_calibration_pictures=num_calibrated,
        )


def _pictures(proof: Proof, quantisation: Quantisation | None) -> Sequence[Picture]:
    """Real pictures to compare on: those given, or else some that were calibrated on."""
    given = proof.get("pictures", ())
    return given if len(given) or quantisation is None else quantisation.pictures[:NUM_COMPARED]


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


def checked_sizes(record: ModelRecord, size: Size | None) -> tuple[Size, ...]:
    """The sizes that a file is proved at: its own, or for a file that takes any the record's and odd ones."""
    return (size,) if size is not None else (record.input_size or _CHECKED_SIZE, *ODD_SIZES)


def _open(path: Path, format: Format, precision: Precision) -> Session:
    """The written file in its engine, computing in f32 where it can: a file in f16 is checked for its weights first of
    all. A quantised one computes in int8."""
    asked: tuple[Precision, ...] = ("int8",) if precision == "int8" else ("f32", precision)
    for wish in asked[:-1]:
        with contextlib.suppress(ModelFileError):
            return open_session(format.runtime, SessionOptions(path, wish, torch.get_num_threads()))
    return open_session(format.runtime, SessionOptions(path, asked[-1], torch.get_num_threads()))


def _bounds(precision: Precision, proof: Proof) -> Bounds:
    asked = {"label_agreement": proof.get("min_label_agreement"), "miou_lost": proof.get("max_miou_loss")}
    return replace(BOUNDS[precision], **{name: value for name, value in asked.items() if value is not None})


def _compare_miou(
    deployed: Network, session: Session, record: ModelRecord, size: Size | None, bounds: Bounds, proof: Proof
) -> MiouCheck | None:
    labelled = proof.get("labelled")
    if labelled is None:
        return None
    return compare_miou(deployed, session, labelled, record=record, size=size, most_lost=bounds.miou_lost)


def _check(
    net: Network, path: Path, format: Format, record: ModelRecord, size: Size | None, precision: Precision
) -> None:
    if path.suffix.lower() != format.suffix:
        raise ModelFileError(f"a model file for {format.name} ends in {format.suffix}; got {path}")
    if precision not in PRECISIONS:
        raise ModelFileError(unknown_name("precision", precision, format.precisions))
    if precision not in format.precisions:
        allowed = " or ".join(filter(None, (", ".join(format.precisions[:-1]), format.precisions[-1])))
        raise ModelFileError(f"files for {format.name} are exported in {allowed}; got {precision}")
    if record.label_space.num_classes != net.num_classes:
        raise ModelFileError(
            f"the record names {record.label_space.num_classes} classes, the network {net.num_classes}"
        )
    if record.align_corners != net.align_corners:
        raise ModelFileError(f"the record has align_corners={record.align_corners}, the network {net.align_corners}")
    if size is not None and min(size) < MIN_INPUT:
        raise ModelFileError(f"a network takes pictures from {MIN_INPUT}x{MIN_INPUT} up; got {size[0]}x{size[1]}")
