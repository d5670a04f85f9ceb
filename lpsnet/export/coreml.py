"""Core ML, for Apple's devices: an `.mlpackage` folder for images of one size, by Apple's coremltools.

Core ML runs on Apple's systems only. So an export is not proved by its labels, as all others are, but by its structure:
the written package is loaded again, and it holds the network's convolutions, each with the network's own weights, and
an input and an output of the network's shapes. It was not run on hardware.

coremltools takes the network as torch exports it. Two things it cannot take there are changed: names that are only
another name of a map, and the bounds of a ReLU6, which it wants as floating-point numbers.
"""

import contextlib
import io
import logging
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from lpsnet.errors import MissingDependencyError, ModelFileError, RunError
from lpsnet.export.quantise import Size
from lpsnet.export.verify import ExportOptions, ExportReport, check_options, final_record
from lpsnet.export.verify import Format as _Format
from lpsnet.models.any_network import Model
from lpsnet.models.reparameterise import fuse, with_strides
from lpsnet.record import RECORD_KEY, ModelRecord

FORMAT = _Format("coreml", ".mlpackage", runtime="", precisions=("f32", "f16"))
NOT_RUN = "its structure only; not verified on hardware, as Core ML needs an Apple device"


def export_coreml(net: Model, path: str | Path, **options: Unpack[ExportOptions]) -> ExportReport:
    """Write a network as an `.mlpackage` folder, and check its structure; it is not run, see the top of this file.

    Arguments as for `export_onnx`; `size` is needed, and what images and labels a file is compared on does not matter.
    In f32 and f16 (weights and arithmetic). The record is the entry `lpsnet` of the package's user-defined metadata.

    Raises:
        ModelFileError: the record does not fit the network, coremltools does not take it, or what was written is not
            the network's structure.
        MissingDependencyError: coremltools is not installed.
        RunError: the folder cannot be written.
    """
    path, record, precision = Path(path), options["record"], options.get("precision", "f32")
    size = options.get("size")
    if size is None:
        own = record.input_size
        hint = f"; its record names {own[0]}x{own[1]}" if own else ""
        raise ModelFileError(f"a package for Core ML takes images of one size: --size HxW{hint}")
    check_options(net, path, FORMAT, record, size, precision)
    coremltools = _import()
    started = time.perf_counter()
    deployed = with_strides(fuse(net).to("cpu", torch.float32))
    record = final_record(deployed, record, size)
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder, _quietly():
        package = Path(folder) / "model.mlpackage"
        model = _convert(coremltools, deployed, size, half=precision == "f16")
        model.user_defined_metadata[RECORD_KEY] = record.to_json()
        model.save(str(package))
        written = time.perf_counter()
        _check(coremltools, package, deployed, record, size)
        _put(package, path)
    return ExportReport(
        path=path,
        format=FORMAT.name,
        precision=precision,
        size=size,
        num_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        engine=f"coremltools {coremltools.__version__}, {NOT_RUN}",
        checks=(),
        export_s=written - started,
        verify_s=time.perf_counter() - written,
        engine_command=("xcrun", "coremlcompiler", "compile", str(path), str(path.parent)),
    )


def _import() -> Any:
    try:
        with _quietly():
            import coremltools
    except ImportError:
        raise MissingDependencyError.for_extra("coremltools", "coreml") from None
    return coremltools


def _convert(coremltools: Any, deployed: Model, size: Size, *, half: bool) -> Any:
    image = torch.zeros(1, deployed.in_channels, *size)
    try:
        program = torch.export.export(deployed, (image,)).run_decompositions({})
        _simplify(program.graph_module.graph)
        return coremltools.convert(
            program,
            inputs=[coremltools.TensorType("image", shape=tuple(image.shape))],
            outputs=[coremltools.TensorType("logits", dtype=np.float32)],
            convert_to="mlprogram",
            compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,
        )
    except Exception as error:  # of any kind: a converter meets what it was not made for
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"coremltools cannot convert the network: {type(error).__name__}: {reason}") from None


def _simplify(graph: Any) -> None:
    """Changes the graph in place; see the top of this file."""
    for node in list(graph.nodes):
        name = str(node.target)
        if name.startswith(("aten.alias", "aten.detach", "aten.lift_fresh")):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif name.startswith("aten.hardtanh"):
            node.args = (node.args[0], *map(float, node.args[1:]))
    graph.lint()


def _check(coremltools: Any, package: Path, deployed: Model, record: ModelRecord, size: Size) -> None:
    """Raise ModelFileError unless the package, loaded again, has the network's convolutions, weights and shapes."""
    spec = coremltools.utils.load_spec(str(package))
    if spec.description.metadata.userDefined[RECORD_KEY] != record.to_json():
        raise ModelFileError("the package does not hold the record it was given")
    with torch.inference_mode():
        shape = deployed(torch.zeros(1, deployed.in_channels, *size)).shape
    shapes = [list(port.type.multiArrayType.shape) for port in (*spec.description.input, *spec.description.output)]
    if shapes != [[1, deployed.in_channels, *size], list(shape)]:
        raise ModelFileError(f"the package takes and gives {shapes}, not what the network does")
    own = [module.weight.detach().numpy() for module in deployed.modules() if isinstance(module, torch.nn.Conv2d)]
    found = list(read_weights(coremltools, package))
    if Counter(weight.shape for weight in found) != Counter(weight.shape for weight in own):
        raise ModelFileError(f"the package has {len(found)} convolutions, not the {len(own)} of the network")
    for weight in own:
        close = (np.allclose(each, weight, rtol=2e-3, atol=1e-6) for each in found if each.shape == weight.shape)
        if not any(close):
            raise ModelFileError(f"the package lacks the weights of a convolution of the network, {weight.shape}")


def read_weights(coremltools: Any, package: Path) -> Iterator[Any]:
    """The weights of every convolution of a package, K x C x h x w float32, in its order.

    Args:
        coremltools: the module.
        package: an `.mlpackage` folder with a program.
    """
    for operation in read_program(coremltools, package).functions["main"].find_ops(op_type="conv"):
        yield np.asarray(operation.weight.val, np.float32)


def read_program(coremltools: Any, package: Path) -> Any:
    """The program in an `.mlpackage` folder, with its weights, as coremltools has it (`coremltools.converters.mil`)."""
    from coremltools.converters.mil.frontend.milproto import load

    model = coremltools.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    return load.load(spec, spec.specificationVersion, model.weights_dir)


def _put(package: Path, path: Path) -> None:
    """Move the package to its place; one that stood there is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.stem[:64]}-", dir=path.parent)) / path.name
        shutil.copytree(package, beside)
        if path.is_dir():
            shutil.rmtree(path)
        beside.rename(path)
        beside.parent.rmdir()
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the converter's progress and its remarks on versions of other packages."""
    log = logging.getLogger("coremltools")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
