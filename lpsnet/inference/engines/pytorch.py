"""PyTorch itself, without an export: runs `.safetensors` checkpoints, fused, on CUDA where there is a GPU.

The one engine of the deployment side that needs the design side; both are imported when a session is opened.

The number of threads is no property of a network in PyTorch but of the thread that calls it: a session sets it before
it computes, so that each session has its own, and other work of the calling thread sees it change.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference.engines import (
    Precision,
    SessionOptions,
    Shape,
    check_inputs,
    check_precision,
    check_suffix,
    fix_size,
    one_line,
)

_POSSIBLE: dict[str, list[Precision]] = {"cpu": ["f32", "bf16"], "cuda": ["f32", "bf16", "f16"]}
_MAX_COMPILED = 256  # networks of one process, PyTorch's own limit for all of them
_INPUT: Shape = (None, 3, None, None)


def open_session(options: SessionOptions, *, compiled: bool = False, cuda_only: bool = False) -> "PyTorchSession":
    """Load a checkpoint.

    Args:
        compiled: the network goes through `torch.compile` when it first runs at a size.
        cuda_only: refuse to compute on the processor; else that is done where there is no CUDA.

    Raises:
        MissingDependencyError: torch is not installed.
        ModelFileError: the file is not usable, or the precision asked for is not possible on this machine, or there is
            no CUDA where that is asked for.
    """
    check_suffix(options, (".safetensors",), runtime="pytorch")
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

    def __init__(self, torch: Any, net: Any, options: SessionOptions, *, device: str, compiled: bool) -> None:
        possible = _POSSIBLE[device]
        used = options.precision if options.precision in possible else "f32"
        self.runtime = "pytorch_compiled" if compiled else "pytorch"
        self.engine = f"torch {torch.__version__} on {_device_name(torch, device)}"
        self.precision = check_precision(used, options, possible=possible)
        self._shapes = fix_size([_INPUT], options)
        self._torch, self._path, self._device = torch, options.path, device
        self.num_threads = options.num_threads or int(torch.get_num_threads())
        self._type = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[self.precision]
        self._net = net.to(device=device, dtype=self._type, memory_format=torch.channels_last)
        self._forward: Callable[..., Any] = _compile(torch, self._net) if compiled else self._net

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of normalised images; see `Session.run`. Copies to and from a GPU are part of it."""
        (array,) = check_inputs(inputs, self._shapes)
        torch = self._torch
        self._set_threads()
        try:
            with torch.inference_mode(), exact_float32(torch, self._device):
                image = torch.from_numpy(array if array.flags.writeable else array.copy()).to(
                    self._device, self._type, memory_format=torch.channels_last
                )
                scores: NDArray[np.float32] = self._forward(image).float().contiguous().cpu().numpy()
        except RuntimeError as error:  # out of memory, or torch.compile finds no compiler
            raise ModelFileError(f"PyTorch cannot run {self._path}: {one_line(error)}") from None
        return scores

    def _set_threads(self) -> None:
        if self._torch.get_num_threads() != self.num_threads:
            self._torch.set_num_threads(self.num_threads)


def _compile(torch: Any, net: Any) -> Callable[..., Any]:
    """The network, to be compiled when it first runs.

    Past a number of networks of one class, 8 unless told, PyTorch warns and computes without compiling: the ninth model
    of a benchmark would be timed as something else.
    """
    limits = torch._dynamo.config
    name = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"
    setattr(limits, name, max(getattr(limits, name), _MAX_COMPILED))
    compiled: Callable[..., Any] = torch.compile(net)
    return compiled


def exact_float32(torch: Any, device: str) -> contextlib.AbstractContextManager[None]:
    """A context without TF32, which cuDNN takes for float32 unless told (the paper's latencies are FP32)."""
    if device == "cpu":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return context


def _device_name(torch: Any, device: str) -> str:
    return str(torch.cuda.get_device_name()) if device == "cuda" else "CPU"
