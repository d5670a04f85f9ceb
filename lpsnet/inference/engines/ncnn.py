"""Tencent's ncnn, for phones and single-board computers: runs `.ncnn` containers (see `inference/model_file.py`).

By default ncnn uses half precision where the processor supports it, so every such option is set explicitly. The
precision used is read from the loaded layers, as options that a layer does not support are silently ignored.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lpsnet import agent
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference import engines, model_file, onnx_graph

# option of ncnn -> the precisions that enable it
_OPTIONS: dict[str, tuple[engines.Precision, ...]] = {
    "use_fp16_packed": ("f16",),
    "use_fp16_storage": ("f16",),
    "use_fp16_arithmetic": ("f16",),
    "use_bf16_packed": ("bf16",),
    "use_bf16_storage": ("bf16",),
    "use_int8_inference": ("f32", "bf16", "f16", "int8"),  # the file determines whether a network is quantised
    "use_vulkan_compute": (),
}
_INT8_PARAMETER = "8"  # of a convolution: int8_scale_term, 0 if not quantised


def open_session(options: engines.SessionOptions) -> "NcnnSession":
    """Load an ncnn model for the CPU.

    Raises:
        MissingDependencyError: ncnn is not installed.
        ModelFileError: the file is not usable, or the requested precision is not possible on this machine.
    """
    engines.check_suffix(options, (".ncnn",), runtime="ncnn")
    try:
        import ncnn
    except ImportError:
        raise MissingDependencyError.for_extra("ncnn", "ncnn") from None
    description, weights = model_file.read_container(options.path)
    net = ncnn.Net()
    agent.set_ncnn_options(net, settings(options))
    layers = _parse(description, options)
    _load(ncnn, net, layers, description, weights, options)
    return NcnnSession(net, layers, options, mat=ncnn.Mat, engine=f"ncnn {ncnn.__version__}")


def settings(options: engines.SessionOptions) -> dict[str, bool | int]:
    """Options of ncnn by name."""
    threads = {} if options.num_threads is None else {"num_threads": options.num_threads}
    return {**{name: options.precision in precisions for name, precisions in _OPTIONS.items()}, **threads}


def on_device(options: engines.SessionOptions) -> engines.OnDevice:
    """How a device opens a model; errors as for `open_session`."""
    engines.check_suffix(options, (".ncnn",), runtime="ncnn")
    description, weights = model_file.read_container(options.path)
    layers = _parse(description, options)
    shapes = [shape for layer in layers if (shape := layer.input_shape) is not None]

    def judge(facts: Mapping[str, Any]) -> engines.Judged:
        used, possible = _precision_used(facts["layers"], layers, options), _possible(facts["layers"])
        return f"ncnn {facts['version']}", used, facts["num_threads"], possible

    how = {"options": settings(options)}
    return engines.OnDevice("ncnn", (description, weights), (".param", ".bin"), how, judge, shapes)


class NcnnSession:
    """A network loaded by ncnn; see `Session`. Images of a batch are computed one by one."""

    runtime: Final = "ncnn"

    def __init__(
        self, net: Any, layers: list["_Layer"], options: engines.SessionOptions, *, mat: Any, engine: str
    ) -> None:
        self.engine = engine
        self.precision = engines.check_precision(
            _precision_used(agent.ncnn_layers(net), layers, options),
            options,
            possible=_possible(agent.ncnn_layers(net)),
        )
        self.num_threads = int(net.opt.num_threads)
        self._net, self._mat, self._path = net, mat, options.path
        self._inputs: list[str] = net.input_names()
        shapes = [shape for layer in layers if (shape := layer.input_shape) is not None]
        self._output: str = net.output_names()[0]
        if options.path_ratios is None:
            self._shapes = engines.fix_size(shapes, options)
        else:
            self._take_paths(options, shapes[0][2:], shapes[0][1] or 3)
        self._reads_only = agent.ncnn_reads_only(net)

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of normalised images; see `Session.run`."""
        return engines.run_one_by_one(self._run_one, engines.check_inputs(inputs, self._shapes))

    def _take_paths(self, options: engines.SessionOptions, own: engines.Shape, channels: int) -> None:
        """Use the resized images as inputs: ncnn accepts values for any blob and skips the layers before it."""
        same = set(self._net.input_indexes())
        users = [layer for layer in self._net.layers() if _computes_with(layer, same)]
        resizers = [layer for layer in users if layer.type == "Interp"]
        with onnx_graph.edit_errors(options.path):
            found = onnx_graph.find_path_inputs(
                own,
                options.path_ratios or (),
                options.input_size,
                lambda size: self._resized_images(resizers, channels, size),
            )
            if (used_whole := len(users) > len(resizers)) != any(name is None for name, _ in found):
                raise onnx_graph.EditError(f"a path of ratio 1 is {'missing' if used_whole else 'not there'}")
        self._inputs = [name or self._inputs[0] for name, _ in found]
        self._shapes = tuple((None, channels, *(size or (None, None))) for _, size in found)

    def _resized_images(self, resizers: list[Any], channels: int, size: tuple[int, int]) -> dict[str, engines.Shape]:
        """The blobs that the image is resized to, by name, with height and width for an image of `size`."""
        extractor = self._net.create_extractor()
        black = np.zeros(
            (channels, *size), np.float32
        )  # a variable, as ncnn uses its memory without keeping a reference
        extractor.input(self._inputs[0], self._mat(black))
        names = [self._net.blobs()[layer.tops[0]].name for layer in resizers]
        mats = [extractor.extract(name)[1] for name in names]
        return {name: (mat.h, mat.w) for name, mat in zip(names, mats, strict=True)}

    def _run_one(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = self._net.create_extractor()
        for name, array in zip(self._inputs, arrays, strict=True):
            mat = self._mat(array[0])  # the array's own memory
            extractor.input(name, mat if self._reads_only else mat.clone())
        status, logits = extractor.extract(self._output)
        if status != 0:
            raise ModelFileError(f"ncnn cannot run {self._path}: it stopped with code {status}")
        return np.array(logits, np.float32)[None]


def _computes_with(layer: Any, same: set[int]) -> bool:
    """Whether a layer computes with one of these blobs; the copies made by a `Split` are added to them."""
    if same.isdisjoint(layer.bottoms):
        return False
    if layer.type == "Split":
        same.update(layer.tops)
    return bool(layer.type != "Split")


class _Layer:
    """A line of an ncnn description: kind, name, input and output counts, their names, parameters `key=value`."""

    def __init__(self, line: str) -> None:
        kind, _, num_bottoms, num_tops, *rest = line.split()
        num_blobs = int(num_bottoms) + int(num_tops)
        self.kind = kind
        self.parameters = dict(part.split("=", 1) for part in rest[num_blobs:])

    @property
    def input_shape(self) -> engines.Shape | None:
        """Of an input layer (parameters: 0 width, 1 height, 2 channels); None for other layers."""
        if self.kind != "Input":
            return None
        return (None, *(int(self.parameters.get(key, 0)) or None for key in "210"))


def _parse(description: bytes, options: engines.SessionOptions) -> list[_Layer]:
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
    ncnn: Any, net: Any, layers: list[_Layer], description: bytes, weights: bytes, options: engines.SessionOptions
) -> None:
    if net.load_param_mem(description.decode()) != 0 or len(net.layers()) != len(layers):
        raise ModelFileError(f"ncnn cannot load {options.path}: its description is not a network of this ncnn")
    reader = _weight_reader(ncnn, weights)
    if net.load_model(reader) != 0 or reader.position != len(weights):
        raise ModelFileError(f"ncnn cannot load {options.path}: its weights do not belong to its description")


def _weight_reader(ncnn: Any, weights: bytes) -> Any:
    """A reader over bytes. ncnn's own function for memory has no length and would read beyond damaged weights."""

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


def _precision_used(
    loaded: Sequence[Sequence[Any]], layers: list["_Layer"], options: engines.SessionOptions
) -> engines.Precision:
    convolutions = [layer for layer in layers if layer.kind in agent.NCNN_CONVOLUTIONS]
    quantised = [layer for layer in convolutions if layer.parameters.get(_INT8_PARAMETER, "0") != "0"]
    if len(quantised) > len(convolutions) / 2:
        return "int8"
    return options.precision if options.precision in _possible(loaded) else "f32"


def _possible(loaded: Sequence[Sequence[Any]]) -> list[engines.Precision]:
    """float32, and the half precisions that most convolutions (or layers, if there are none) support, as in
    `agent.ncnn_layers`."""
    layers = [layer for layer in loaded if layer[0] in agent.NCNN_CONVOLUTIONS] or loaded
    possible: list[engines.Precision] = ["f32"]
    if sum(in_bf16 for _, in_bf16, _ in layers) > len(layers) / 2:
        possible.append("bf16")
    if sum(in_f16 for *_, in_f16 in layers) > len(layers) / 2:
        possible.append("f16")
    return possible
