"""Batch norm with its activation, and depthwise convolution, as networks are trained in bfloat16 on a CPU.

torch 2.13 takes four times as long for a batch norm and a ReLU6 of channels-last maps as memory needs, and three times
for the gradients of a depthwise convolution: together two thirds of a training step of EfficientNet-Lite0. Here they
are loops in C (`training_kernels.c`), which pass over the maps as rarely as can be: the activation belongs to the
batch norm, and padding to the convolution. Values are torch's but for rounding in bfloat16.

Without the compiled loops (no C compiler at installation, or `LPSNET_KERNELS=0`), for other numbers than bfloat16 and
on other devices torch computes the same.
"""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.inference.kernels import SWITCH, in_bands

LIBRARY = Path(__file__).with_name("training_kernels.bin")  # made by build_kernels.py
Padding = tuple[int, int, int, int]  # left, right, top, bottom, as for `F.pad`
Bounds = tuple[float, float]  # what an activation leaves: the smallest and the largest number

_LARGEST = torch.finfo(torch.float32).max
NO_BOUNDS: Bounds = (-_LARGEST, _LARGEST)
RELU: Bounds = (0.0, _LARGEST)
RELU6: Bounds = (0.0, 6.0)

_KERNELS, _STRIDES = (3, 5), (1, 2)  # of the depthwise convolutions
_LONG_ENOUGH = 256  # numbers in a loop
_LARGE_ENOUGH = 1 << 18  # numbers in a map; calling the loops takes longer than they gain on smaller ones
_MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_MAX": -4}  # malloc.h
_INT, _FLOAT, _POINTER = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
# function -> types of its arguments
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "lpsnet_norm_sums": (_POINTER, *(_INT,) * 3, *(_POINTER,) * 2),
    "lpsnet_norm": (*(_POINTER,) * 3, *(_FLOAT,) * 2, *(_INT,) * 3, _POINTER),
    "lpsnet_norm_gradient_sums": (*(_POINTER,) * 4, *(_FLOAT,) * 2, *(_INT,) * 3, *(_POINTER,) * 2),
    "lpsnet_norm_gradient": (*(_POINTER,) * 6, *(_FLOAT,) * 2, *(_INT,) * 3, _POINTER),
    "lpsnet_depthwise": (*(_POINTER,) * 3, *(_INT,) * 2, _POINTER),
    "lpsnet_depthwise_input_gradient": (*(_POINTER,) * 3, *(_INT,) * 2, _POINTER),
    "lpsnet_depthwise_weight_gradient": (*(_POINTER,) * 3, *(_INT,) * 2, _POINTER),
}


@functools.cache
def find_library() -> Any:
    """The compiled loops; None if the installation has none or they are disabled."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        library = ctypes.CDLL(str(LIBRARY))
        for name, arguments in _SIGNATURES.items():
            getattr(library, name).argtypes = arguments
            getattr(library, name).restype = None
    except (OSError, AttributeError):  # missing, or for another system
        return None
    return library


def is_used() -> bool:
    """Whether a training step is being computed in bfloat16 on a CPU, and the loops are there."""
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return False
    is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
    return torch.is_grad_enabled() and not is_traced and find_library() is not None


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, memory that tensors leave stays with the process, for the next ones; on Linux with the GNU C library.

    Otherwise a tensor of 32 MiB or more has fresh memory from the system, in which every page is cleared first: a
    tenth of a training step of EfficientNet-Lite0 on one core, and more.
    """
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    for parameter, value in (("M_MMAP_MAX", 0), ("M_TRIM_THRESHOLD", -1)):
        library.mallopt(_MALLOPT[parameter], value)
    try:
        yield
    finally:
        for parameter, value in (("M_MMAP_MAX", 65536), ("M_TRIM_THRESHOLD", 128 * 1024)):  # its defaults
            library.mallopt(_MALLOPT[parameter], value)
        library.malloc_trim(0)


def activated_norm(norm: nn.Module, x: Tensor, bounds: Bounds) -> Tensor:
    """The batch norm of maps, or `x` itself for an identity, then max(low, min(high, ·)).

    Args:
        norm: a batch norm, in training or not, or an identity.
        x: N x C x H x W; it may be changed.
        bounds: low and high.
    """
    is_large = x.dtype == torch.bfloat16 and x.numel() >= _LARGE_ENOUGH
    if is_large and isinstance(norm, nn.BatchNorm2d) and norm.training and is_used():
        return _norm(norm, x, bounds)
    return activate(norm(x), bounds)


def activate(x: Tensor, bounds: Bounds) -> Tensor:
    """max(low, min(high, x)), in place."""
    if bounds == NO_BOUNDS:
        return x
    if bounds == RELU:
        return F.relu(x, inplace=True)
    return F.relu6(x, inplace=True) if bounds == RELU6 else F.hardtanh(x, *bounds, inplace=True)


def takes_depthwise(weight: Tensor, stride: int) -> bool:
    """Whether `depthwise` is for a convolution with this weight, C x 1 x k x k."""
    return (
        weight.shape[1] == 1
        and weight.shape[2] == weight.shape[3]
        and weight.shape[2] in _KERNELS
        and stride in _STRIDES
    )


def depthwise(x: Tensor, weight: Tensor, stride: int, padding: Padding) -> Tensor:
    """`F.conv2d(F.pad(x, padding), weight, stride=stride, groups=C)` in bfloat16.

    Args:
        x: N x C x H x W.
        weight: C x 1 x k x k, as `takes_depthwise` says.
        stride: 1 or 2.
        padding: zeros around x.
    """
    result: Tensor = _Depthwise.apply(x.to(torch.bfloat16), weight, stride, padding)  # type: ignore[no-untyped-call]
    return result


def _norm(norm: nn.BatchNorm2d, x: Tensor, bounds: Bounds) -> Tensor:
    result, mean, variance = _Norm.apply(x, norm.weight, norm.bias, norm.eps, bounds)  # type: ignore[no-untyped-call]
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        count = x.numel() // x.shape[1]
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
    return result  # type: ignore[no-any-return]


class _Norm(torch.autograd.Function):
    """Batch norm (Ioffe and Szegedy 2015) by the statistics of the batch, then the activation."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, bounds: Bounds
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        count = x.numel() // x.shape[1]
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
        total, squares = _sums("lpsnet_norm_sums", x, x)
        mean = total / count
        variance = (squares / count - mean * mean).clamp_(min=0)
        inverse = (variance + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight.double()
        shift = -mean * scale if bias is None else bias.double() - mean * scale
        factors = _for_groups(x, scale), _for_groups(x, shift)
        result = torch.empty_like(x)
        _over_pixels("lpsnet_norm", x, (x, *factors), bounds, result)
        ctx.save_for_backward(x, weight, bias, mean, inverse, scale, *factors)
        ctx.bounds = bounds
        statistics = mean.float(), variance.float()
        ctx.mark_non_differentiable(*statistics)
        return result, *statistics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse, scale, *factors = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        gradient = gradient.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        given = (x, gradient, *factors)
        of_bias, products = _sums("lpsnet_norm_gradient_sums", x, *given, bounds=ctx.bounds)
        of_weight = (products - mean * of_bias) * inverse
        of_input = None
        if ctx.needs_input_grad[0]:
            slope = scale * inverse * of_weight / count
            constant = scale * of_bias / count - slope * mean
            of_input = torch.empty_like(x)
            more = _for_groups(x, constant), _for_groups(x, slope)
            _over_pixels("lpsnet_norm_gradient", x, (*given, *more), ctx.bounds, of_input)
        return (
            of_input,
            None if weight is None else of_weight.to(weight.dtype),
            None if bias is None else of_bias.to(bias.dtype),
            None,
            None,
        )


def _group(x: Tensor) -> int:
    """How many pixels of maps are taken for one with as many times the channels: short loops are slow."""
    channels, size = x.shape[1], 1
    while size * channels < _LONG_ENOUGH and x.numel() // channels % (2 * size) == 0:
        size *= 2
    return size


def _for_groups(x: Tensor, factors: Tensor) -> Tensor:
    """Float32 factors of the channels, for all pixels of a group."""
    return factors.float().repeat(_group(x))


def _sums(name: str, x: Tensor, *given: Tensor, bounds: Bounds | tuple[()] = ()) -> tuple[Tensor, Tensor]:
    """Two sums for every channel of `x`, C float64 numbers each."""
    group = _group(x)
    channels = group * x.shape[1]

    def make() -> tuple[Tensor, Tensor]:
        return torch.zeros(2, channels, dtype=torch.float64), torch.empty(2, channels)

    arguments = (*_addresses(given), *bounds, channels)
    total, other = _added(name, arguments, x.numel() // channels, make).reshape(2, group, -1).sum(1)
    return total, other


def _over_pixels(name: str, x: Tensor, given: tuple[Tensor, ...], bounds: Bounds, result: Tensor) -> None:
    """Fill the result, as large as `x`."""
    channels = _group(x) * x.shape[1]
    _fill(name, (*_addresses(given), *bounds, channels), x.numel() // channels, result)


def _addresses(tensors: Iterable[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _fill(name: str, arguments: Sequence[Any], count: int, result: Tensor) -> None:
    """Call a function for pixels or rows, `count` of them; every thread fills its part of the result."""
    function = getattr(find_library(), name)

    def fill(begin: int, end: int) -> None:
        function(*arguments, begin, end, result.data_ptr())

    in_bands(fill, count, torch.get_num_threads())


def _added(name: str, arguments: Sequence[Any], count: int, make: Callable[[], tuple[Tensor, ...]]) -> Tensor:
    """The sum over pixels or rows, `count` of them; every thread adds up its part, in what `make` gives it first.

    The parts are added in their order, so that the sum does not depend on which thread is the first.
    """
    function, parts = getattr(find_library(), name), dict[int, Tensor]()

    def add(begin: int, end: int) -> None:
        made = make()
        parts[begin] = made[0]
        function(*arguments, begin, end, *_addresses(made))

    in_bands(add, count, torch.get_num_threads())
    return torch.stack([parts[begin] for begin in sorted(parts)]).sum(0)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: Padding) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        (num_images, channels, height, width), kernel = x.shape, weight.shape[-1]
        left, right, top, bottom = padding
        result_height = (height + top + bottom - kernel) // stride + 1
        result_width = (width + left + right - kernel) // stride + 1
        sizes = (height, width, result_height, result_width, channels, kernel, stride, top, left)
        ctx.shape = (_INT * len(sizes))(*sizes)
        taps = weight.detach().to(torch.bfloat16).float().reshape(channels, -1).T.contiguous()  # k * k x C
        ctx.save_for_backward(x, weight, taps)
        result = torch.empty(
            (num_images, channels, result_height, result_width), dtype=x.dtype, memory_format=torch.channels_last
        )
        arguments = (*_addresses((x, taps)), ctypes.addressof(ctx.shape))
        _fill("lpsnet_depthwise", arguments, num_images * result_height, result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, taps = ctx.saved_tensors
        gradient = gradient.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input, arguments = torch.empty_like(x), (*_addresses((gradient, taps)), ctypes.addressof(ctx.shape))
            _fill("lpsnet_depthwise_input_gradient", arguments, x.shape[0] * x.shape[2], of_input)
        if ctx.needs_input_grad[1]:
            arguments, count = (*_addresses((x, gradient)), ctypes.addressof(ctx.shape)), len(x) * gradient.shape[2]
            total = _added("lpsnet_depthwise_weight_gradient", arguments, count, lambda: (torch.zeros_like(taps),))
            of_weight = total.T.reshape(weight.shape).to(weight.dtype)
        return of_input, of_weight, None, None
