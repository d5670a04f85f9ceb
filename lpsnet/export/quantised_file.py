"""An int8 file made from a file in f32: to measure what quantising gains. Nothing is proved here; `lpsnet export` does.

What is handed over to others goes through `export.export`, which starts from a checkpoint.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lpsnet.errors import MissingDependencyError, ModelFileError, unknown_name
from lpsnet.export.onnx import write_model
from lpsnet.export.openvino import packed
from lpsnet.export.quantisation import Quantisation, Size, quantise_for_openvino, quantise_onnx
from lpsnet.inference.model_file import write_container
from lpsnet.io import atomic_path
from lpsnet.record import ModelRecord


def quantise_file(
    whole: Path, *, runtime: str, quantisation: Quantisation, record: ModelRecord, size: Size, folder: Path
) -> Path:
    """Write an ONNX file of ours in int8 for an engine; the path of the file in `folder`.

    Args:
        whole: in f32.
        runtime: a name in `QUANTISERS`.
        quantisation: pictures to calibrate on, and what stays in floating point.
        record: of the file.
        size: (height, width) in pixels that pictures are prepared at.
        folder: for the file.

    Raises:
        ModelFileError: no engine of that name runs quantised files here, or the file is none of ours.
        MissingDependencyError: a package is not installed.
    """
    if runtime not in QUANTISERS:
        raise ModelFileError(unknown_name("runtime for int8", runtime, QUANTISERS))
    if record.architecture is None:
        raise ModelFileError(f"{whole} is not a network of this package, so its layers cannot be told apart")
    suffix, write = QUANTISERS[runtime]
    target = folder / f"{whole.stem}-{runtime}-int8{suffix}"
    with atomic_path(target) as temporary:
        write(whole, temporary, quantisation, record.model_copy(update={"input_size": size}), size)
    return target


def _write_onnx(whole: Path, target: Path, quantisation: Quantisation, record: ModelRecord, size: Size) -> None:
    model: Any = _import("onnx", "export").load(whole)
    write_model(quantise_onnx(model, quantisation, record=record, size=size), target, record=record)


def _write_openvino(whole: Path, target: Path, quantisation: Quantisation, record: ModelRecord, size: Size) -> None:
    model = _import("openvino", "openvino").Core().read_model(whole)
    quantised = quantise_for_openvino(model, quantisation, record=record, size=size)
    description, weights = packed(quantised, half=False)
    write_container(target, description=description, weights=weights, record=record)


def _import(package: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingDependencyError.for_extra(package, extra) from None


# engine -> suffix of its quantised files, and what writes them
QUANTISERS: dict[str, tuple[str, Callable[[Path, Path, Quantisation, ModelRecord, Size], None]]] = {
    "onnxruntime": (".onnx", _write_onnx),
    "openvino": (".openvino", _write_openvino),
}
