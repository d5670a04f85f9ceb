"""An optimiser step's forward and backward pass as one CUDA graph.

A step of a small network is some thousand short operations, and starting them one by one takes a GPU longer than
computing them. A graph starts them all at once. What it computes is the same; only shapes and addresses are fixed.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

_WARM_UP = 3  # passes before a capture, in which libraries choose their algorithms and take their memory


class GraphedStep:
    """Pictures and targets in, the loss out; the gradients lie in the model's `grad`, overwritten by every call.

    Args:
        compute: from a batch to its loss, a scalar; it must not read results back from the device.
        model: whose gradients are taken. What the warm-up does to its buffers is undone.
        images, targets: a batch of the size of all that follow.
    """

    def __init__(
        self, compute: Callable[[Tensor, Tensor], Tensor], model: nn.Module, images: Tensor, targets: Tensor
    ) -> None:
        self._images, self._targets = images.clone(), targets.clone()
        buffers = [buffer.clone() for buffer in model.buffers()]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                model.zero_grad(set_to_none=True)
                compute(self._images, self._targets).backward()  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().wait_stream(stream)
        model.zero_grad(set_to_none=True)  # so that the capture takes memory of its own for them
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = compute(self._images, self._targets)
            self._loss.backward()  # type: ignore[no-untyped-call]
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, a scalar of its own."""
        self._images.copy_(images)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._loss.detach().clone()
