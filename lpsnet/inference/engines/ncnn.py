"""Tencent's ncnn, for phones and single-board computers: runs `.ncnn` containers (see `inference/model_file.py`).

ncnn chooses half precision by itself where the processor has it, so every such option is set by name, and what is
really used is asked of the loaded layers: an option that a layer does not support is passed over without a word.
"""

import ctypes
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lpsnet.architecture import path_size
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference.engines import (
    Precision,
    SessionOptions,
    Shape,
    check_inputs,
    check_precision,
    check_suffix,
    fix_size,
    run_one_by_one,
)
from lpsnet.inference.model_file import read_container
from lpsnet.inference.onnx_graph import EditError, choose, size_to_try, wanted_sizes

# options of ncnn -> the precisions for which they are on
_OPTIONS: dict[str, tuple[Precision, ...]] = {
    "use_fp16_packed": ("f16",),
    "use_fp16_storage": ("f16",),
    "use_fp16_arithmetic": ("f16",),
    "use_bf16_packed": ("bf16",),
    "use_bf16_storage": ("bf16",),
    "use_int8_inference": ("f32", "bf16", "f16", "int8"),  # whether a network is quantised is up to its file
    "use_vulkan_compute": (),
}
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
_INT8_PARAMETER = "8"  # of a convolution: int8_scale_term, not 0 where it is quantised
# Layers whose result may be the memory they were given, and that never write to it
_PASSING_ON = ("Split", "Interp")


def open_session(options: SessionOptions) -> "NcnnSession":
    """Load an ncnn model for the CPU.

    Raises:
        MissingDependencyError: ncnn is not installed.
        ModelFileError: the file is not usable, or the precision asked for is not possible on this machine.
    """
    check_suffix(options, (".ncnn",), runtime="ncnn")
    try:
        import ncnn
    except ImportError:
        raise MissingDependencyError.for_extra("ncnn", "ncnn") from None
    description, weights = read_container(options.path)
    net = ncnn.Net()
    for name, precisions in _OPTIONS.items():
        if hasattr(net.opt, name):  # an older ncnn has fewer of them
            setattr(net.opt, name, options.precision in precisions)
    if options.num_threads is not None:
        net.opt.num_threads = options.num_threads
    layers = _parse(description, options)
    _load(ncnn, net, layers, description, weights, options)
    return NcnnSession(net, layers, options, mat=ncnn.Mat, engine=f"ncnn {ncnn.__version__}")


class NcnnSession:
    """A network loaded by ncnn; see `Session`. Images of a batch are computed one after another."""

    runtime: Final = "ncnn"

    def __init__(self, net: Any, layers: list["_Layer"], options: SessionOptions, *, mat: Any, engine: str) -> None:
        self.engine = engine
        self.precision = check_precision(_precision_used(net, layers, options), options, possible=_possible(net))
        self.num_threads = int(net.opt.num_threads)
        self._net, self._mat, self._path = net, mat, options.path
        self._inputs: list[str] = net.input_names()
        shapes = [shape for layer in layers if (shape := layer.input_shape) is not None]
        self._output: str = net.output_names()[0]
        if options.path_ratios is None:
            self._shapes = fix_size(shapes, options)
        else:
            self._take_paths(options.path_ratios, shapes[0], options.input_size)
        self._reads_only = _reads_only(net)

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of normalised images; see `Session.run`."""
        return run_one_by_one(self._run_one, check_inputs(inputs, self._shapes))

    def _take_paths(self, ratios: Sequence[Fraction], shape: Shape, size: tuple[int, int] | None) -> None:
        """Take the resized images: ncnn may be given any blob, and computes nothing that leads to it."""
        own = shape[2:]
        try:
            tried = size_to_try(own, size)
            found, used_whole = self._resized_images(tried)
            names = choose(found, wanted_sizes(ratios, tried))
            if used_whole != (None in names):
                raise EditError(f"a path of ratio 1 is {'missing' if used_whole else 'not there'}")
        except EditError as error:
            raise ModelFileError(f"{self._path} cannot take its paths' inputs: {error}") from None
        self._inputs = [name or self._inputs[0] for name in names]
        is_fixed = size is not None or None not in own
        self._shapes = tuple((None, 3, *(path_size(tried, ratio) if is_fixed else (None, None))) for ratio in ratios)

    def _resized_images(self, size: tuple[int, int]) -> tuple[dict[str, Shape], bool]:
        """The blobs that the image is resized to, by name, with what an image of `size` comes to, found by trying;
        and whether the image is used otherwise."""
        blobs, same = self._net.blobs(), set(self._net.input_indexes())
        users = [layer for layer in self._net.layers() if _computes_with(layer, same)]
        extractor = self._net.create_extractor()
        black = np.zeros((3, *size), np.float32)  # named, for ncnn takes its memory without keeping it
        extractor.input(self._inputs[0], self._mat(black))
        names = [blobs[layer.tops[0]].name for layer in users if layer.type == "Interp"]
        mats = [extractor.extract(name)[1] for name in names]
        return {name: (mat.h, mat.w) for name, mat in zip(names, mats, strict=True)}, len(users) > len(names)

    def _run_one(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = self._net.create_extractor()
        for name, array in zip(self._inputs, arrays, strict=True):
            mat = self._mat(array[0])  # the array's own memory
            extractor.input(name, mat if self._reads_only else mat.clone())
        status, scores = extractor.extract(self._output)
        if status != 0:
            raise ModelFileError(f"ncnn cannot run {self._path}: it stopped with code {status}")
        return np.array(scores, np.float32)[None]


def _computes_with(layer: Any, same: set[int]) -> bool:
    """Whether a layer computes with one of these blobs; one that only gives them other names adds those to them."""
    if same.isdisjoint(layer.bottoms):
        return False
    if layer.type == "Split":
        same.update(layer.tops)
    return bool(layer.type != "Split")


class _Layer:
    """A line of an ncnn description: kind, name, numbers of inputs and outputs, their names, parameters `key=value`."""

    def __init__(self, line: str) -> None:
        kind, _, num_bottoms, num_tops, *rest = line.split()
        num_blobs = int(num_bottoms) + int(num_tops)
        self.kind = kind
        self.parameters = dict(part.split("=", 1) for part in rest[num_blobs:])

    @property
    def input_shape(self) -> Shape | None:
        """Shape of the input that this layer is (parameters: 0 width, 1 height, 2 channels); None for other layers."""
        if self.kind != "Input":
            return None
        return (None, *(int(self.parameters.get(key, 0)) or None for key in "210"))


def _parse(description: bytes, options: SessionOptions) -> list[_Layer]:
    try:
        lines = description.decode().splitlines()
        layers = [_Layer(line) for line in lines[2:] if line.strip()]  # the first two: magic number, counts
        num_inputs = sum(layer.input_shape is not None for layer in layers)
    except (UnicodeDecodeError, ValueError):
        num_inputs = 0
    if num_inputs == 0:
        raise ModelFileError(f"{options.path} cannot be used: its description is not a network of ncnn")
    return layers


def _load(
    ncnn: Any, net: Any, layers: list[_Layer], description: bytes, weights: bytes, options: SessionOptions
) -> None:
    if net.load_param_mem(description.decode()) != 0 or len(net.layers()) != len(layers):
        raise ModelFileError(f"ncnn cannot load {options.path}: its description is not a network of this ncnn")
    reader = _weight_reader(ncnn, weights)
    if net.load_model(reader) != 0 or reader.position != len(weights):
        raise ModelFileError(f"ncnn cannot load {options.path}: its weights do not belong to its description")


def _weight_reader(ncnn: Any, weights: bytes) -> Any:
    """ncnn's reader over bytes. Its own function for memory knows no length, and would read past damaged weights."""

    class Reader(ncnn.DataReader):  # type: ignore[misc]
        position = 0

        def read(self, buffer: object, size: int) -> int:
            part = weights[self.position : self.position + size]
            ctypes.memmove(_pointer(buffer), part, len(part))
            self.position += len(part)
            return len(part)

    return Reader()


def _pointer(capsule: object) -> int:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address: int = get_pointer(capsule, None)
    return address


def _precision_used(net: Any, layers: list[_Layer], options: SessionOptions) -> Precision:
    convolutions = [layer for layer in layers if layer.kind in _CONVOLUTIONS]
    quantised = [layer for layer in convolutions if layer.parameters.get(_INT8_PARAMETER, "0") != "0"]
    if len(quantised) > len(convolutions) / 2:
        return "int8"
    return options.precision if options.precision in _possible(net) else "f32"


def _possible(net: Any) -> list[Precision]:
    """float32, and the half precisions that most convolutions support on this processor; most layers without any."""
    layers = net.layers()
    layers = [layer for layer in layers if layer.type in _CONVOLUTIONS] or layers
    possible: list[Precision] = ["f32"]
    if sum(layer.support_bf16_storage for layer in layers) > len(layers) / 2:
        possible.append("bf16")
    if sum(layer.support_fp16_storage for layer in layers) > len(layers) / 2:
        possible.append("f16")
    return possible


def _reads_only(net: Any) -> bool:
    """Whether no layer writes to an input's memory; ncnn may compute in place, and the memory is the caller's."""
    shared = set(net.input_indexes())
    for layer in net.layers():
        if shared.isdisjoint(layer.bottoms):
            continue
        if layer.type in _PASSING_ON:
            shared.update(layer.tops)
        elif layer.type not in _CONVOLUTIONS:
            return False
    return True
