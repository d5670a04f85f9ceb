"""Depthwise convolution in bfloat16 on a CPU, with a quick backward pass; for training under autocast.

torch 2.13 (oneDNN) has no fast code for two gradients of a depthwise convolution in bfloat16: that of the input with
stride 2, and that of a 5x5 weight. On one core of a Zen 4 they took 86 and 150 ms of 1.5 s a step of EfficientNet-Lite0
(8 images of 256x512), where the forward pass of the same layer takes 4 ms. Both are written here by what is fast:

- The gradient of the input with stride 2 is four convolutions of the output's gradient with stride 1, one each for the
  pixels of even and odd rows and columns, with every second weight (87 ms to 17, 34 to 6).
- A 5x5 weight is four overlapping 3x3 ones, each with a fast gradient over shifted inputs (116 ms to 18, 79 to 6).

The values are those of `F.conv2d` but for rounding in bfloat16.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, int, int, int]  # left, right, top, bottom, as for `F.pad`


def is_slow_in_bf16(weight: Tensor, stride: int) -> bool:
    """Whether `depthwise_bf16` gains anything for this weight, C x 1 x k x k."""
    return weight.shape[1] == 1 and (stride == 2 or weight.shape[-1] == 5)


def trains_in_bf16(x: Tensor) -> bool:
    """Whether a convolution of `x` would be computed in bfloat16 on a CPU, with gradients."""
    autocast = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return autocast and torch.is_grad_enabled() and torch.get_autocast_dtype("cpu") == torch.bfloat16


def depthwise_bf16(x: Tensor, weight: Tensor, stride: int, padding: Padding) -> Tensor:
    """`F.conv2d(F.pad(x, padding), weight, stride=stride, groups=C)` in bfloat16.

    Args:
        x: N x C x H x W.
        weight: C x 1 x k x k, k 3 or 5.
        stride: 1 or 2.
        padding: zeros around x.
    """
    padded = F.pad(x.to(torch.bfloat16), padding)
    result: Tensor = _Depthwise.apply(padded, weight.to(torch.bfloat16), stride)  # type: ignore[no-untyped-call]
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x, weight, stride=stride, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):
            of_input = _of_input(gradient, x, weight, ctx.stride) if ctx.needs_input_grad[0] else None
            of_weight = _of_weight(gradient, x, weight, ctx.stride) if ctx.needs_input_grad[1] else None
        return of_input, of_weight, None


def _of_input(gradient: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return _backward(gradient, x, weight, stride, of_input=True)
    result = torch.empty_like(x)
    height, width = gradient.shape[-2:]
    for row in (0, 1):
        for column in (0, 1):  # pixel 2 m + row gets weight row + 2 t from gradient m - t
            taps = weight[:, :, row::2, column::2].flip(2, 3)
            part = result[:, :, row::2, column::2]
            (rows, columns), (tall, wide) = part.shape[-2:], taps.shape[-2:]
            around = (wide - 1, max(0, columns - width), tall - 1, max(0, rows - height))
            part.copy_(F.conv2d(F.pad(gradient, around), taps, groups=len(weight))[:, :, :rows, :columns])
    return result


def _of_weight(gradient: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    if weight.shape[-1] != 5:
        return _backward(gradient, x, weight, stride, of_input=False)
    result = torch.empty_like(weight)
    height, width = ((length - 1) * stride + 3 for length in gradient.shape[-2:])
    for top in (0, 2):
        for left in (0, 2):
            shifted = x[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            part = (slice(None), slice(None), slice(top, top + 3), slice(left, left + 3))
            result[part] = _backward(gradient, shifted, weight[part].contiguous(), stride, of_input=False)
    return result


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, *, of_input: bool) -> Tensor:
    """torch's own gradient, of a convolution without padding."""
    wanted = [of_input, not of_input, False]
    strides, zeros, ones = [stride] * 2, [0, 0], [1, 1]
    results = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, strides, zeros, ones, False, zeros, len(weight), wanted
    )
    result: Tensor = results[0 if of_input else 1]
    return result
