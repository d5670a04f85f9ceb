"""Intel's OpenVINO: runs ONNX files as they are, its own `.xml` with the `.bin` beside it, and `.openvino` containers.

By default OpenVINO chooses the arithmetic: on a CPU with bf16 it computes a float32 network in bf16, even if f16 is
requested. So the precision is always requested by name, and the one used is read from the names of the compiled
network's kernels.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lpsnet import agent
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference import engines, model_file, onnx_graph

DEVICE = "CPU"
SUFFIXES = (".onnx", ".openvino", ".xml")

# OpenVINO's name of a kernel's arithmetic -> ours
_PRECISIONS: dict[str, engines.Precision] = {"f32": "f32", "bf16": "bf16", "f16": "f16", "i8": "int8", "u8": "int8"}


def open_session(options: engines.SessionOptions) -> "OpenVinoSession":
    """Load an ONNX file or an OpenVINO model for the CPU.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelFileError: the file is not usable, or the precision asked for is not possible on this machine.
    """
    suffix = engines.check_suffix(options, SUFFIXES, runtime="openvino")
    try:
        import openvino
    except ImportError:
        raise MissingDependencyError.for_extra("openvino", "openvino") from None
    core = openvino.Core()
    try:
        model = _read_model(core, options, suffix)
        if options.path_ratios is not None:
            model = _split_at_paths(openvino, model, options)
        elif options.input_size is not None:
            shapes = engines.fix_size([_shape(port.partial_shape) for port in model.inputs], options)
            model.reshape([1, *map(_dimension, shapes[0][1:])])
        compiled = core.compile_model(model, DEVICE, compile_properties(options))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"OpenVINO cannot load {options.path}: {engines.one_line(error)}") from None
    version = openvino.__version__.split("-")[0]  # without the build's number
    return OpenVinoSession(
        compiled,
        options,
        engine=f"openvino {version}",
        possible=_possible(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")),
    )


def compile_properties(options: engines.SessionOptions) -> dict[str, object]:
    """Settings of OpenVINO: lowest latency for one image at a time, in the requested arithmetic."""
    properties: dict[str, object] = {
        # int8 is a property of the file; the parts that are not quantised are computed in float32
        "INFERENCE_PRECISION_HINT": "f32" if options.precision == "int8" else options.precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if options.num_threads is not None:
        properties["INFERENCE_NUM_THREADS"] = options.num_threads
    return properties


def on_device(options: engines.SessionOptions) -> engines.OnDevice:
    """How a device opens a model; errors as for `open_session`."""
    suffix = engines.check_suffix(options, SUFFIXES, runtime="openvino")
    files: tuple[bytes, ...] = (options.path.read_bytes(),)
    if suffix == ".openvino":
        files = model_file.read_container(options.path)
    elif suffix == ".xml":
        weights = options.path.with_suffix(".bin")
        if not weights.is_file():
            raise ModelFileError(
                f"{options.path} has its weights in {weights.name}, which is not beside it; put it there"
            )
        files = (*files, weights.read_bytes())
    how = {"device": DEVICE, "properties": compile_properties(options), "size": options.input_size}

    def judge(facts: Mapping[str, Any]) -> engines.Judged:
        version = facts["version"].split("-")[0]
        used, possible = _precision_of(facts["kernels"]), _possible(facts["capabilities"])
        return f"openvino {version}", used, facts["num_threads"], possible

    return engines.OnDevice("openvino", files, (".onnx",) if suffix == ".onnx" else (".xml", ".bin"), how, judge)


class OpenVinoSession:
    """A network compiled by OpenVINO; see `Session`. Concurrent calls of `run` are computed one by one."""

    runtime: Final = "openvino"

    def __init__(
        self, compiled: Any, options: engines.SessionOptions, *, engine: str, possible: list[engines.Precision]
    ) -> None:
        self.engine = engine
        self.precision = engines.check_precision(
            _precision_of(agent.openvino_kernels(compiled)), options, possible=possible
        )
        self.num_threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._path = options.path
        self._compiled = compiled
        shapes = [_shape(port.partial_shape) for port in compiled.inputs]
        self._single = any(shape[0] == 1 for shape in shapes)
        self._shapes = [(None, *shape[1:]) if self._single else shape for shape in shapes]
        self._kind: type[np.generic] = np.float32
        if options.path_ratios is not None and options.path_layout == "nhwc_bf16":
            self._kind = np.uint16
        # A request serves one caller at a time; as many are created as there are concurrent callers.
        self._requests: deque[Any] = deque([compiled.create_infer_request()])

    def run(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of normalised images; see `Session.run`."""
        arrays = engines.check_inputs(inputs, self._shapes, self._kind)
        return engines.run_one_by_one(self._infer, arrays) if self._single else self._infer(*arrays)

    def _infer(self, *arrays: NDArray[Any]) -> NDArray[np.float32]:
        tensors = list(arrays) if self._kind is np.float32 else [_bfloat16_tensor(array) for array in arrays]
        try:
            request = self._requests.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            logits: NDArray[np.float32] = request.infer(tensors, share_inputs=True)[0]
        except RuntimeError as error:
            raise ModelFileError(f"OpenVINO cannot run {self._path}: {engines.one_line(error)}") from None
        finally:
            self._requests.append(request)
        return logits


def _read_model(core: Any, options: engines.SessionOptions, suffix: str) -> Any:
    if suffix == ".openvino":
        return core.read_model(*model_file.read_container(options.path))
    return core.read_model(options.path)


def _bfloat16_tensor(array: NDArray[np.uint16]) -> Any:
    import openvino

    return openvino.Tensor(array, array.shape, openvino.Type.bf16)


def _split_at_paths(openvino: Any, model: Any, options: engines.SessionOptions) -> Any:
    """The model with an input for every path in place of the image; see `onnx_graph.split_at_paths`."""

    whole = _shape(model.inputs[0].partial_shape)
    channels = (whole[1] if len(whole) == 4 else None) or 3

    def resized(size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        probe = model.clone()
        probe.reshape([1, channels, *size])
        return {name: tuple(port.shape[2:]) for name, port in _resized_images(probe).items()}

    ratios, own, parameters = options.path_ratios or (), whole[2:], []
    with onnx_graph.edit_errors(options.path):
        ports = _resized_images(model)
        for name, size in onnx_graph.find_path_inputs(own, ratios, options.input_size, resized):
            parameter, image = _path_input(openvino, channels, size or (-1, -1), options.path_layout)
            for target in (model.inputs[0] if name is None else ports[name]).get_target_inputs():
                target.replace_source_output(image)
            parameters.append(parameter)
        split = openvino.Model(model.get_results(), parameters)
        left = {operation.friendly_name for operation in split.get_ordered_ops()}
        for ratio, parameter in zip(ratios, parameters, strict=True):
            if not any(target.get_node().friendly_name in left for target in parameter.output(0).get_target_inputs()):
                raise onnx_graph.EditError(f"it has no path of ratio {ratio}")
    return split


def _path_input(openvino: Any, channels: int, size: tuple[int, int], layout: engines.Layout) -> tuple[Any, Any]:
    """An input of that layout, and its conversion to 1 x C x h x w float32.

    OpenVINO computes in NHWC, so NHWC inputs need no reordering and NCHW inputs do. One image at a time: version 2026.4
    gives wrong results for quantised inputs with a free batch size.
    """
    operations = openvino.opset1
    if layout == "nchw":
        parameter = operations.parameter([1, channels, *size], openvino.Type.f32)
        return parameter, parameter.output(0)
    kind = openvino.Type.bf16 if layout == "nhwc_bf16" else openvino.Type.f32
    parameter = operations.parameter([1, *size, channels], kind)
    image = operations.transpose(parameter, operations.constant(np.array([0, 3, 1, 2])))
    return parameter, operations.convert(image, "f32").output(0)


def _resized_images(model: Any) -> dict[str, Any]:
    """Outputs of the operations that resize the model's input, by the operations' names."""
    users = (target.get_node() for target in model.inputs[0].get_target_inputs())
    return {user.friendly_name: user.output(0) for user in users if user.get_type_name() == "Interpolate"}


def _shape(partial_shape: Any) -> engines.Shape:
    return tuple(None if length.is_dynamic else length.get_length() for length in partial_shape)


def _dimension(length: int | None) -> int:
    return -1 if length is None else length


def _precision_of(kernels: Iterable[Sequence[str]]) -> engines.Precision:
    """The arithmetic of most convolutions, as OpenVINO reports it; of most operations if there are none.

    It is the suffix of the kernel's name, e.g. `brgconv_avx512_bf16`. The property `runtimePrecision` is wrong: with
    weights stored in f16 it reports f16 for a kernel that computes in f32.
    """
    used: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for kind, kernel in kernels:
        if kind not in ("Const", "Input", "Output"):
            used["Convolution" in kind][kernel.rpartition("_")[2].lower()] += 1
    counts = used[True] or used[False]
    name = counts.most_common(1)[0][0] if counts else "f32"
    if name not in _PRECISIONS:
        raise ModelFileError(f"OpenVINO computes the model in {name}, which is none of {', '.join(_PRECISIONS)}")
    return _PRECISIONS[name]


def _possible(capabilities: Sequence[str]) -> list[engines.Precision]:
    names = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}
    found: list[Any] = [precision for name, precision in names.items() if name in capabilities]
    return found
