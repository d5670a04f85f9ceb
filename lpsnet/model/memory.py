"""Memory that a deployed network needs for one picture: its weights, and the feature maps that are alive at once.

Counted on torch's meta device, as `complexity` counts operations: the network runs once, and every tensor is followed
from its making to its end. It is what the network itself asks for. An engine needs more (its own program, work space of
its convolutions) or less (it may reuse a map in place); how much a process takes is what `lpsnet benchmark` measures.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lpsnet.architecture import Architecture
from lpsnet.model.building import empty_network

MIB = 2**20


def inference_memory_mib(
    architecture: Architecture,
    *,
    size: tuple[int, int],
    num_classes: int,
    block: str = "conv3x3",
    interaction: str = "bilateral_b",
    bytes_per_number: int = 4,
) -> float:
    """Weights and the most feature maps alive at once, in MiB, the picture included.

    Args:
        architecture, num_classes, block, interaction: as in `create_model`.
        size: (height, width) in pixels of the picture.
        bytes_per_number: 4 for f32, 2 for bf16 and f16.

    Raises:
        LpsnetError: `create_model` would not take the arguments, or the size is too small.
    """
    net = empty_network(architecture, num_classes=num_classes, block=block, interaction=interaction)
    weights = sum(parameter.numel() for parameter in net.parameters())
    with torch.no_grad(), _LiveNumbers() as live:
        net(torch.empty(1, 3, *size, device="meta"))
    return float((weights + live.peak) * bytes_per_number / MIB)


class _LiveNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers in tensors made while it is active; `peak` is the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._follow(tensor)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, count = storage._cdata, storage.nbytes() // tensor.element_size()
        if key in self._seen:  # a view, or an operation in place
            return
        self._seen.add(key)
        self._now += count
        self.peak = max(self.peak, self._now)
        weakref.finalize(tensor, self._forget, key, count)

    def _forget(self, key: int, count: int) -> None:
        self._seen.discard(key)
        self._now -= count
