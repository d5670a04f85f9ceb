"""Building a network around weights that are already there: from a file, or computed from another network's.

The network is made on torch's meta device, where weights have shapes but no memory, and then takes the given tensors.
Nothing is initialised, and the random numbers of a training that goes on around it are not touched.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lpsnet.architecture import Architecture
from lpsnet.errors import ModelFileError
from lpsnet.model.network import Network
from lpsnet.record import Form

_NUM_NAMED = 4  # at most as many tensors are named in a message


def empty_network(
    architecture: Architecture,
    *,
    num_classes: int,
    block: str = "conv3x3",
    interaction: str = "bilateral_b",
    form: Form = "deployed",
    align_corners: bool = True,
) -> Network:
    """The network on the meta device, in evaluation mode: shapes and names only."""
    with torch.device("meta"):
        net = Network(
            architecture,
            num_classes=num_classes,
            block=block,
            interaction=interaction,
            form=form,
            align_corners=align_corners,
        )
    return net.eval()


def fill(net: Network, tensors: Mapping[str, Tensor]) -> Network:
    """`net`, an empty network, with `tensors` as its weights (not copied). They fit: see `fitting`."""
    net.load_state_dict(tensors, assign=True)
    return net.requires_grad_(True)


def fitting(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: object) -> dict[str, Tensor]:
    """Copies of `tensors`, which come from the file `source`, floating-point ones as float32, if they are as expected.

    Raises:
        ModelFileError: naming a few of the tensors that are missing, unexpected, of another shape or kind of number
            than in `expected`, or that hold an infinity or a NaN.
    """
    faults = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "misshapen": [
            f"{name} {_described(tensors[name])} instead of {_described(own)}"
            for name, own in expected.items()
            if name in tensors and not _alike(tensors[name], own)
        ],
    }
    if any(faults.values()):
        parts = "; ".join(f"{fault}: {some(names)}" for fault, names in faults.items() if names)
        raise ModelFileError(f"the weights in {source} do not fit the network: {parts}")
    converted = {name: _copied(tensor) for name, tensor in tensors.items()}
    if broken := not_finite(converted):
        raise ModelFileError(f"the weights in {source} are of no use, infinities or NaNs are in: {some(broken)}")
    return converted


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those tensors that hold an infinity or a NaN."""
    return [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]


def some(names: Sequence[str]) -> str:
    """The first few of `names` for a message, and how many more there are."""
    rest = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _copied(tensor: Tensor) -> Tensor:
    """A tensor in memory of its own: what a reader gives may still lie in the file, and at any address."""
    return tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def _alike(tensor: Tensor, own: Tensor) -> bool:
    return tensor.shape == own.shape and tensor.is_floating_point() == own.is_floating_point()


def _described(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "a number"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"
