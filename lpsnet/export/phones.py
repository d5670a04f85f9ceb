"""For phones and single-board computers: ncnn by Tencent's converter pnnx, and Core ML by Apple's coremltools.

**ncnn**, one `.ncnn` file. pnnx reads a traced network. Three things in ours are changed on a copy first, because ncnn
cannot express them:

- A 1x1 convolution with stride 2 is written as one over every second row and column (`models/blocks.py`), for
  training. ncnn has no layer for such a slice; it gets the strided convolution, the same function.
- The size of a path, max(1, floor(r H)), is traced as a clamp, which pnnx does not accept in arithmetic on sizes. It
  is rewritten as a maximum: ncnn then computes the size of every resize at run time.
- A block that reshapes by the image's size (`shufflenet`) can be expressed for a fixed size only.

**Core ML**, an `.mlpackage` folder for images of one size. Core ML runs on Apple's systems only. So an export is not
proved by its labels, as all others are, but by its structure: the written package is loaded again, and it holds the
network's convolutions, each with the network's own weights, and an input and an output of the network's shapes. It was
not run on hardware.

coremltools takes the network as torch exports it. Two things it cannot take there are changed: names that are only
another name of a map, and the bounds of a ReLU6, which it wants as floating-point numbers.
"""

import contextlib
import io
import logging
import operator
import shutil
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from lpsnet.architecture import SCORE_STRIDE, Architecture, path_size
from lpsnet.errors import MissingDependencyError, ModelFileError, RunError
from lpsnet.export.quantise import Size
from lpsnet.export.verify import (
    ExportOptions,
    ExportReport,
    Format,
    Request,
    check_options,
    final_record,
    write_proved,
)
from lpsnet.inference.model_file import write_container
from lpsnet.models.any_network import Model
from lpsnet.models.reparameterise import fuse, with_strides
from lpsnet.record import RECORD_KEY, ModelRecord

NCNN_FORMAT = Format("ncnn", ".ncnn", runtime="ncnn", precisions=("f32", "f16"))

_TRACED_SIZE = (64, 96)  # of a network for any size, the first of two
_TRACED_STEP = 32
# Of a network of other code for any size: lengths differ down to stride 64; what it does with them is seen in the proof
_ANY_SIZES = (_TRACED_SIZE, (192, 256))

_CLAMP = """
graph(%length, %low, %none):
  %clamped = aten::clamp(%length, %low, %none)
  return (%clamped)"""
_MAXIMUM = """
graph(%length, %low, %none):
  %bound = prim::NumToTensor(%low)
  %clamped = aten::maximum(%length, %bound)
  return (%clamped)"""


def export_ncnn(net: Model, path: str | Path, **options: Unpack[ExportOptions]) -> ExportReport:
    """Write a network as one `.ncnn` file and verify it with ncnn; arguments and errors as for `export_onnx`.

    Precision "f16" keeps the weights in f16; the arithmetic is chosen when the file is run. There is no int8: ncnn's
    own quantiser is no package. ModelFileError also if ncnn cannot express the network for that size.
    """
    return write_proved(net, path, format=NCNN_FORMAT, write=_write_ncnn, **options)


def _write_ncnn(deployed: Model, path: Path, request: Request) -> None:
    description, weights = _convert_ncnn(deployed, request.size, request.precision == "f16")
    write_container(path, description=description, weights=weights, record=request.record)


def _convert_ncnn(deployed: Model, size: Size | None, half: bool) -> tuple[bytes, bytes]:
    sizes = (size,) if size is not None else _traced_sizes_of(deployed)
    traced = _trace(with_strides(deployed), sizes[0])
    lines, weights = run_pnnx(traced, [(deployed.in_channels, *traced_size) for traced_size in sizes], half=half)
    _check_layers(lines, size)
    return "\n".join([*map(_line_with_shape(size, deployed.in_channels), lines), ""]).encode(), weights


def _traced_sizes_of(deployed: Model) -> tuple[Size, ...]:
    return _ANY_SIZES if deployed.architecture is None else traced_sizes(deployed.architecture)


def traced_sizes(architecture: Architecture) -> tuple[Size, Size]:
    """The sizes of two images for which no map of a network has the same height or the same width.

    pnnx finds out what changes between the two, and takes a length that is the same in both for a constant. Lengths are
    only ever divided on the way, so what differs at the end of a path differs everywhere on it.
    """
    height, width = (_longer(length, architecture.ratios) for length in _TRACED_SIZE)
    return _TRACED_SIZE, (height, width)


def _longer(length: int, ratios: Sequence[Fraction]) -> int:
    """The next length in pixels that gives logits of another length on every path."""

    def at_the_ends(image: int) -> list[int]:
        return [-(-path_size((image, image), ratio)[0] // SCORE_STRIDE) for ratio in ratios]

    longer = (length + _TRACED_STEP * step for step in count(1))
    return next(n for n in longer if all(map(operator.ne, at_the_ends(n), at_the_ends(length))))


def run_pnnx(traced: Any, shapes: Sequence[tuple[int, int, int]], *, half: bool) -> tuple[list[str], bytes]:
    """The lines of ncnn's description, and the weights, of a network traced by torch.

    Args:
        traced: takes one float32 tensor 1 x C x H x W.
        shapes: (C, H, W) of that; with two, what differs between them may change from call to call.
        half: whether weights are kept in f16.

    Raises:
        ModelFileError: the converter failed.
        MissingDependencyError: pnnx is not installed.
    """
    try:
        import pnnx
    except ImportError:
        raise MissingDependencyError.for_extra("pnnx", "ncnn") from None
    inputs = [f"inputshape{i or ''}=[1,{c},{h},{w}]f32" for i, (c, h, w) in zip((0, 2), shapes, strict=False)]
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        traced.save(f"{folder}/model.pt")
        command = [pnnx.EXEC_PATH, "model.pt", *inputs, f"fp16={int(half)}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        description, weights = Path(folder) / "model.ncnn.param", Path(folder) / "model.ncnn.bin"
        if done.returncode != 0 or not description.exists() or not weights.exists():
            raise ModelFileError(f"pnnx could not convert the network: it ended with {done.returncode}")
        return description.read_text(encoding="utf-8").splitlines(), weights.read_bytes()


def _trace(net: Model, size: Size) -> Any:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is deprecated, and pnnx reads nothing else
        traced: Any = torch.jit.trace(net, torch.zeros(1, net.in_channels, *size))  # type: ignore[no-untyped-call]
    torch._C._jit_pass_inline(traced.graph)
    torch._C._jit_pass_custom_pattern_based_rewrite_graph(_CLAMP, _MAXIMUM, traced.graph)
    return traced


def _check_layers(lines: list[str], size: Size | None) -> None:
    """What ncnn has no layer for, pnnx writes under a name with a dot; ncnn would refuse it with no reason."""
    foreign = sorted({kind for kind in (line.split(" ", 1)[0] for line in lines[2:]) if "." in kind})
    if foreign:
        hint = "; export it for a fixed size" if size is None else ""
        raise ModelFileError(f"ncnn has no layer for {', '.join(foreign)} in this network{hint}")


def _line_with_shape(size: Size | None, channels: int) -> Any:
    """Puts the input's shape, which pnnx leaves out, into its line: 0 width, 1 height, 2 channels."""
    shape = "" if size is None else f" 0={size[1]} 1={size[0]}"
    return lambda line: f"{line.rstrip()}{shape} 2={channels}" if line.split(" ", 1)[0] == "Input" else line


COREML_FORMAT = Format("coreml", ".mlpackage", runtime="", precisions=("f32", "f16"))
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
    check_options(net, path, COREML_FORMAT, record, size, precision)
    coremltools = _import_coremltools()
    started = time.perf_counter()
    deployed = with_strides(fuse(net).to("cpu", torch.float32))
    record = final_record(deployed, record, size)
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder, _quietly():
        package = Path(folder) / "model.mlpackage"
        model = _convert_coreml(coremltools, deployed, size, half=precision == "f16")
        model.user_defined_metadata[RECORD_KEY] = record.to_json()
        model.save(str(package))
        written = time.perf_counter()
        _check_structure(coremltools, package, deployed, record, size)
        _put(package, path)
    return ExportReport(
        path=path,
        format=COREML_FORMAT.name,
        precision=precision,
        size=size,
        num_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        engine=f"coremltools {coremltools.__version__}, {NOT_RUN}",
        checks=(),
        export_s=written - started,
        verify_s=time.perf_counter() - written,
        engine_command=("xcrun", "coremlcompiler", "compile", str(path), str(path.parent)),
    )


def _import_coremltools() -> Any:
    try:
        with _quietly():
            import coremltools
    except ImportError:
        raise MissingDependencyError.for_extra("coremltools", "coreml") from None
    return coremltools


def _convert_coreml(coremltools: Any, deployed: Model, size: Size, *, half: bool) -> Any:
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


def _check_structure(coremltools: Any, package: Path, deployed: Model, record: ModelRecord, size: Size) -> None:
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
