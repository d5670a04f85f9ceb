"""From the training form to the deployed one: batch norms and parallel branches folded into convolutions with bias.

RepVGG's algebra (Ding et al. 2021, which the paper trains with): in evaluation mode batch norm is a scale and a shift a
channel, a 1x1 convolution is a 3x3 one that is zero but at its centre, the identity is a 1x1 convolution with the unit
matrix, and parallel convolutions add up. Computed in float64; exact but for rounding to the weights' type at the end.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.model.building import empty_network, fill
from lpsnet.model.convolution import ConvNorm, RepConvNorm
from lpsnet.model.network import Network

Folded = tuple[Tensor, Tensor]  # weight and bias of a convolution, float64


def fuse(net: Network) -> Network:
    """The deployed form of `net`: a copy in evaluation mode whose scores are those of `net` in evaluation mode.

    Every convolution with batch norm becomes one convolution with bias, in blocks and interactions. `net` is not
    touched, nor are its training flag and torch's random state. A network that is deployed already is copied.
    """
    if net.form == "deployed":
        return copy.deepcopy(net).eval()
    fused = empty_network(net.architecture, **net.traits, form="deployed")
    with torch.no_grad():
        return fill(fused, _fused_state(net, fused))


def _fused_state(net: Network, fused: Network) -> dict[str, Tensor]:
    """Tensors for all of `fused`: folded for units, copied for what has no batch norm (the head, attention)."""
    state = {}
    for name, module in fused.named_modules():
        if isinstance(module, ConvNorm):
            weight, bias = _fold(net.get_submodule(name))
            state[f"{name}.conv.weight"] = weight.to(net.head.weight.dtype)
            state[f"{name}.conv.bias"] = bias.to(net.head.weight.dtype)
    own = net.state_dict()
    return {name: state[name] if name in state else own[name].clone() for name in fused.state_dict()}


def _fold(unit: nn.Module) -> Folded:
    if isinstance(unit, RepConvNorm):
        return _fold_branches(unit)
    assert isinstance(unit, ConvNorm)
    assert isinstance(unit.norm, nn.BatchNorm2d)
    return _fold_norm(unit.conv.weight.double(), unit.norm)


def _fold_norm(weight: Tensor, norm: nn.BatchNorm2d) -> Folded:
    """A convolution without bias followed by `norm` in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return weight * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


def _fold_branches(unit: RepConvNorm) -> Folded:
    weight, bias = _fold(unit.conv3x3)
    point_weight, point_bias = _fold(unit.conv1x1)
    if unit.identity is not None:
        eye = torch.eye(unit.identity.num_features, dtype=torch.float64, device=weight.device)
        identity_weight, identity_bias = _fold_norm(eye[:, :, None, None], unit.identity)
        point_weight, point_bias = point_weight + identity_weight, point_bias + identity_bias
    return weight + F.pad(point_weight, (1, 1, 1, 1)), bias + point_bias
