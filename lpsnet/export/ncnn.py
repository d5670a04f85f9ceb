"""ncnn, through Tencent's converter pnnx: for phones and single-board computers, one `.ncnn` file.

pnnx reads a traced network. Three things in ours are changed on a copy first, because ncnn cannot express them:

- A 1x1 convolution with stride 2 is written as one over every second row and column (`models/blocks.py`), for
  training. ncnn has no layer for such a slice; it gets the strided convolution, the same function.
- The size of a path, max(1, floor(r H)), is traced as a clamp, which pnnx does not accept in arithmetic on sizes. It
  is rewritten as a maximum: ncnn then computes the size of every resize at run time.
- A block that reshapes by the image's size (`shufflenet`) can be expressed for a fixed size only.
"""

import operator
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Unpack

import torch

from lpsnet.architecture import SCORE_STRIDE, Architecture, path_size
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export.quantise import Size
from lpsnet.export.verify import ExportOptions, ExportReport, Format, Request, write_proved
from lpsnet.inference.model_file import write_container
from lpsnet.models.any_network import Model
from lpsnet.models.reparameterise import with_strides

FORMAT = Format("ncnn", ".ncnn", runtime="ncnn", precisions=("f32", "f16"))

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
    return write_proved(net, path, format=FORMAT, write=_write, **options)


def _write(deployed: Model, path: Path, request: Request) -> None:
    description, weights = _convert(deployed, request.size, request.precision == "f16")
    write_container(path, description=description, weights=weights, record=request.record)


def _convert(deployed: Model, size: Size | None, half: bool) -> tuple[bytes, bytes]:
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
