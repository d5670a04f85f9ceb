"""Checkpoints of the authors' own implementation (design-notes, 'Official checkpoint layout'): names, and nothing else,
differ.

    one path    net.stages.{stage}.{block}.0.weight …
    two paths   netH.… and netL.…
    more        net1.…, net2.…, net3.…
    head        head.weight, head.bias

Deployed: `.0.weight` and `.0.bias` of each 3x3 convolution. Training: `.0.weight`, and `.1.*` of its batch norm. Blocks
are conv3x3 and the interaction is Bilateral-B, which has no weights. Shapes tell B, C and the number of classes.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lpsnet.architecture import NUM_STAGES, Architecture, Ratio
from lpsnet.data.labels import MAX_CLASSES
from lpsnet.deployment.model_file import check_model_file
from lpsnet.errors import LpsnetError, ModelFileError
from lpsnet.model.building import empty_network, fill, fitting, some
from lpsnet.model.network import Network

_OFFICIAL_NAME = re.compile(r"(net|netH|netL|net[1-9]\d?)\.stages\.([0-4])\.(\d{1,3})\.[01]\.\w+")
_OWN_NAME = re.compile(r"paths\.(\d+)\.stages\.(\d+)\.(\d+)\.unit\.(conv|norm)\.(\w+)")
_POSITIONS = {"conv": 0, "norm": 1}


def load_official_checkpoint(path: str | Path, *, ratios: Iterable[Ratio]) -> Network:
    """The network in a checkpoint of the official implementation, in evaluation mode, float32, on the CPU.

    Args:
        path: a file that `torch.save` wrote: a state dict, or one wrapped as {"state_dict": …}; a prefix `module.` is
            dropped. It is read without running code (`weights_only`).
        ratios: R, e.g. ("3/4", "1/4"), which shapes do not tell; zeros do not count.

    Returns:
        A conv3x3, bilateral_b network of form "deployed", or "plain" for a checkpoint with batch norms.

    Raises:
        ModelFileError: the file is not such a checkpoint (a few of the names that are missing, unexpected or misshapen
            are given), or has another number of paths than there are ratios.
        ArchitectureError: a ratio is no ratio.
    """
    tensors = _read(check_model_file(path))
    net = _network_of(tensors, ratios, path)
    own_state = net.state_dict()
    own_names = {_official_name(name, net.architecture.num_paths): name for name in own_state}
    expected = {official: own_state[name] for official, name in own_names.items()}
    fitted = fitting(tensors, expected, source=path)
    return fill(net, {own_names[official]: tensor for official, tensor in fitted.items()})


def official_state_dict(net: Network) -> dict[str, Tensor]:
    """The state dict that the official implementation reads, for `torch.save`; tensors share memory with `net`.

    Args:
        net: conv3x3, bilateral_b, `align_corners`, form "deployed" or "plain".

    Raises:
        LpsnetError: the official implementation has no such network.
    """
    if net.block != "conv3x3" or net.interaction != "bilateral_b" or not net.align_corners:
        raise LpsnetError(
            "the official implementation has conv3x3, bilateral_b and align_corners=True only; this network has "
            f"{net.block}, {net.interaction} and align_corners={net.align_corners}"
        )
    if net.form == "reparameterised":
        raise LpsnetError("the official implementation has no parallel branches; fuse the network first")
    return {_official_name(name, net.architecture.num_paths): tensor for name, tensor in net.state_dict().items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a damaged or hostile file
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelFileError(f"{path} cannot be read as a checkpoint of torch.save: {reason}") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelFileError(f"{path} holds no state dict: names with a tensor each")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _network_of(tensors: Mapping[str, Tensor], ratios: Iterable[Ratio], path: str | Path) -> Network:
    """The empty network that the tensors' names and shapes describe."""
    matches = [match for name in tensors if (match := _OFFICIAL_NAME.fullmatch(name))]
    prefixes = _prefixes({match[1] for match in matches})
    if not prefixes:
        raise ModelFileError(f"{path} is no official checkpoint: it has no net….stages.…; it has {some([*tensors])}")
    blocks = [
        1 + max((int(match[3]) for match in matches if (match[1], match[2]) == (prefixes[0], str(stage))), default=0)
        for stage in range(NUM_STAGES)
    ]
    widths = [_length(tensors, f"{prefixes[0]}.stages.{stage}.0.0.weight", path) for stage in range(NUM_STAGES)]
    architecture = Architecture(blocks, widths, ratios)
    if architecture.num_paths != len(prefixes):
        raise ModelFileError(
            f"{path} has {len(prefixes)} paths, so it needs as many ratios greater than 0; got "
            f"{', '.join(map(str, architecture.ratios))}"
        )
    num_classes = _length(tensors, "head.weight", path)
    if num_classes > MAX_CLASSES:
        raise ModelFileError(f"{path} scores {num_classes} classes; at most {MAX_CLASSES} are possible")
    has_norms = any(name.endswith(".1.running_mean") for name in tensors)
    return empty_network(architecture, num_classes=num_classes, form="plain" if has_norms else "deployed")


def _prefixes(found: set[str]) -> list[str]:
    """The names of all paths of a network of which these were found."""
    if "net" in found or not found:
        return sorted(found & {"net"})
    if found & {"netH", "netL"}:
        return ["netH", "netL"]
    return _path_names(max(3, *(int(prefix.removeprefix("net")) for prefix in found)))


def _path_names(num_paths: int) -> list[str]:
    few = {1: ["net"], 2: ["netH", "netL"]}
    return few.get(num_paths) or [f"net{number}" for number in range(1, num_paths + 1)]


def _length(tensors: Mapping[str, Tensor], name: str, path: str | Path) -> int:
    """The number of output channels of the convolution with this weight."""
    if name not in tensors:
        raise ModelFileError(f"the weights in {path} do not make a network: {name} is missing")
    if tensors[name].dim() != 4 or not len(tensors[name]):
        raise ModelFileError(f"{name} in {path} is no convolution's weight: its shape is {tuple(tensors[name].shape)}")
    return len(tensors[name])


def _official_name(name: str, num_paths: int) -> str:
    if name.startswith("head."):
        return name
    match = _OWN_NAME.fullmatch(name)
    assert match, name
    path, stage, block, module, parameter = match.groups()
    return f"{_path_names(num_paths)[int(path)]}.stages.{stage}.{block}.{_POSITIONS[module]}.{parameter}"
