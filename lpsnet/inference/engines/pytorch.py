"""PyTorch itself, without an export: runs `.safetensors` checkpoints, fused, on CUDA where there is a GPU.

The only engine that needs torch and `lpsnet.models`; both are imported when a session is opened.

PyTorch's number of threads is a property of the calling thread, not of a network: each session sets its own number
before it computes, which also affects other work of that thread.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference import engines

_POSSIBLE: dict[str, list[engines.Precision]] = {"cpu": ["f32", "bf16"], "cuda": ["f32", "bf16", "f16"]}
_MAX_COMPILED = 256  # networks per process; PyTorch's own limit for all of them


def open_session(
    options: engines.SessionOptions, *, compiled: bool = False, cuda_only: bool = False
) -> "PyTorchSession":
    """Load a checkpoint.

    Args:
        compiled: use `torch.compile` when the network first runs at a size.
        cuda_only: refuse to compute on the CPU; otherwise the CPU is used where there is no CUDA.

    Raises:
        MissingDependencyError: torch is not installed.
        ModelFileError: the file is not usable, the requested precision is not possible here, or CUDA is missing.
    """
    engines.check_suffix(options, (".safetensors",), runtime="pytorch")
    try:
        import torch

        from lpsnet.models.checkpoint import load_checkpoint
        from lpsnet.models.reparameterise import fuse
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "train") from None
    if cuda_only and not torch.cuda.is_available():
        raise ModelFileError(f"the runtime pytorch_cuda takes a GPU; this PyTorch ({torch.__version__}) sees none here")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = fuse(load_checkpoint(options.path))
    session = PyTorchSession(torch, net, options, device=device, compiled=compiled)
    session.runtime = "pytorch_cuda" if cuda_only else session.runtime
    return session


class PyTorchSession:
    """A fused network in evaluation mode, channels-last; see `Session`."""

    def __init__(self, torch: Any, net: Any, options: engines.SessionOptions, *, device: str, compiled: bool) -> None:
        possible = _POSSIBLE[device]
        used = options.precision if options.precision in possible else "f32"
        self.runtime = "pytorch_compiled" if compiled else "pytorch"
        self.engine = f"torch {torch.__version__} on {_device_name(torch, device)}"
        self.precision = engines.check_precision(used, options, possible=possible)
        self._shapes = engines.fix_size([(None, getattr(net, "in_channels", 3), None, None)], options)
        self._torch, self._path, self._device = torch, options.path, device
        self.num_threads = options.num_threads or int(torch.get_num_threads())
        self._type = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[self.precision]
        self._net = net.to(device=device, dtype=self._type, memory_format=torch.channels_last)
        self._forward: Callable[..., Any] = _compile(torch, self._net) if compiled else self._net

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of normalised images; see `Session.run`. Copies to and from a GPU are part of it."""
        (array,) = engines.check_inputs(inputs, self._shapes)
        torch = self._torch
        self._set_threads()
        try:
            with torch.inference_mode(), exact_float32(torch, self._device):
                image = torch.from_numpy(array if array.flags.writeable else array.copy()).to(
                    self._device, self._type, memory_format=torch.channels_last
                )
                logits: NDArray[np.float32] = self._forward(image).float().contiguous().cpu().numpy()
        except RuntimeError as error:  # out of memory, or torch.compile finds no compiler
            raise ModelFileError(f"PyTorch cannot run {self._path}: {engines.one_line(error)}") from None
        return logits

    def _set_threads(self) -> None:
        if self._torch.get_num_threads() != self.num_threads:
            self._torch.set_num_threads(self.num_threads)


def _compile(torch: Any, net: Any) -> Callable[..., Any]:
    """The network, to be compiled when it first runs.

    Beyond a number of networks of one class, 8 by default, PyTorch warns and computes without compiling, which would
    falsify the timing of the ninth model of a benchmark.
    """
    limits = torch._dynamo.config
    name = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"
    setattr(limits, name, max(getattr(limits, name), _MAX_COMPILED))
    compiled: Callable[..., Any] = torch.compile(net)
    return compiled


def exact_float32(torch: Any, device: str) -> contextlib.AbstractContextManager[None]:
    """A context without TF32, which cuDNN uses for float32 by default (the paper's latencies are FP32)."""
    if device == "cpu":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return context


def _device_name(torch: Any, device: str) -> str:
    return str(torch.cuda.get_device_name()) if device == "cuda" else "CPU"
