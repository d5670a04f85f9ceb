"""Parameters, multiply-accumulates (the 'FLOPs' of Tables 2 and 4) and memory of a network in its deployed form.

Measured, not derived: the deployed network runs once on torch's meta device, which computes shapes only, and every
convolution and tensor is recorded. A new block or interaction therefore needs no formula. Only convolutions count
(design-notes, 'Parameters and MACs'): one multiply-accumulate for each weight at each output position; biases are
parameters but no operations; resizing, sums and activations are left out.
"""

import re
import weakref
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lpsnet.architecture import Architecture, default_block, get_architecture
from lpsnet.errors import LpsnetError
from lpsnet.models.any_network import AnyNetwork, Model, fuse_any
from lpsnet.models.network import INTERACTING_STAGES, MIN_INPUT, Network, empty_network


@dataclass(frozen=True, slots=True)
class ComplexityRow:
    """One part of a network.

    Attributes:
        part: "stage_1" to "stage_5", "interaction_3" and "interaction_4" (after that stage), or "head"; "network" for
            all of a network of other code.
        path: the number of the path, counted from 1, for a stage; else None.
        parameters: weights and biases of its convolutions.
        macs: multiply-accumulates for one image.
    """

    part: str
    path: int | None
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True)
class Complexity:
    """What a network costs for one image of `size` (height, width) in pixels, in total and by part (`rows`).

    The architecture is None for a network of other code, which `network` names.
    """

    architecture: Architecture | None
    num_classes: int
    block: str
    interaction: str
    size: tuple[int, int]
    parameters: int
    macs: int
    rows: tuple[ComplexityRow, ...]
    network: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the architecture as text, the size as [height, width]."""
        values = asdict(self)
        if not self.network:
            del values["network"]
        architecture = None if self.architecture is None else str(self.architecture)
        return {**values, "architecture": architecture, "size": list(self.size), "rows": [*values["rows"]]}


def complexity(
    arch_or_network: str | Architecture | Model,
    *,
    size: tuple[int, int] = (1024, 2048),
    num_classes: int = 19,
    block: str | None = None,
    interaction: str = "bilateral_b",
    in_channels: int = 3,
) -> Complexity:
    """Count the deployed form of a network for one image of `size` (height, width); takes well under a second.

    Args:
        arch_or_network: a name, the triple written out, an `Architecture`, or a network in any form. A network's own
            classes, block and interaction are used, and the arguments of that name are not. Of a network of other code,
            convolutions and linear layers count as operations, and all its parameters.
        size: height and width in pixels, each at least 32.
        num_classes, block, interaction, in_channels: as in `create_model`.

    Raises:
        LpsnetError: `create_model` would not take the arguments, or the size is too small.
    """
    if min(size) < MIN_INPUT:
        raise LpsnetError(f"a network takes images from {MIN_INPUT}x{MIN_INPUT} pixels up; got {size[0]}x{size[1]}")
    if isinstance(arch_or_network, AnyNetwork):
        return _complexity_of_any(arch_or_network, size)
    if isinstance(arch_or_network, Network):
        net = empty_network(arch_or_network.architecture, **arch_or_network.config)
    else:
        architecture = get_architecture(arch_or_network)
        block = block or default_block(arch_or_network)
        built: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
        net = empty_network(architecture, block=block, interaction=interaction, **built)
    rows = _count(net, size)
    parameters, macs = sum(row.parameters for row in rows), sum(row.macs for row in rows)
    height, width = size
    return Complexity(
        net.architecture, net.num_classes, net.block, net.interaction, (height, width), parameters, macs, rows
    )


def _complexity_of_any(net: AnyNetwork, size: tuple[int, int]) -> Complexity:
    deployed = fuse_any(net).to("cpu")
    parameters, macs = sum(parameter.numel() for parameter in deployed.parameters()), 0

    def count(layer: Any, inputs: Any, output: Tensor) -> None:
        nonlocal macs
        weight, is_transposed = layer.weight, isinstance(layer, _TRANSPOSED)
        # a transposed convolution uses every weight of an input channel at each position of its input
        places = inputs[0].numel() if is_transposed else output.numel()
        macs += places * weight[0].numel()

    for module in deployed.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            module.register_forward_hook(count)
    with torch.no_grad():
        deployed(torch.zeros(1, net.in_channels, *size))
    rows = (ComplexityRow("network", None, parameters, macs),)
    return Complexity(None, net.num_classes, "", "", (size[0], size[1]), parameters, macs, rows, net.network)


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _count(net: Network, size: tuple[int, int]) -> tuple[ComplexityRow, ...]:
    """Parameters and multiply-accumulates of the convolutions of every part, in the order of the forward pass."""
    totals: dict[tuple[str, int | None], list[int]] = {}

    def count(name: str, conv: nn.Conv2d, _: Any, output: Tensor) -> None:
        total = totals.setdefault(_part(name), [0, 0])
        total[0] += sum(parameter.numel() for parameter in conv.parameters())
        total[1] += output.numel() * conv.weight[0].numel()

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(partial(count, name))
    with torch.no_grad():
        net(torch.empty(1, net.in_channels, *size, device="meta"))
    return tuple(ComplexityRow(*part, *total) for part, total in totals.items())


def _part(name: str) -> tuple[str, int | None]:
    """The part of the network that a convolution of this name belongs to."""
    if match := re.match(r"paths\.(\d+)\.stages\.(\d+)\.", name):
        return f"stage_{int(match[2]) + 1}", int(match[1]) + 1
    if match := re.match(r"interactions\.(\d+)\.", name):
        return f"interaction_{INTERACTING_STAGES[int(match[1])] + 1}", None
    return "head", None  # with what stands before it: context, mixing and details


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
    """Weights and the most feature maps alive at once, in MiB, the image included.

    Args:
        architecture, num_classes, block, interaction: as in `create_model`.
        size: (height, width) in pixels of the image.
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
