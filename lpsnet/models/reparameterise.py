"""Conversions between the forms of a network: fused for deployment, plain, and with parallel branches (RepVGG).

RepVGG's algebra (Ding et al. 2021, used by the paper): in evaluation mode batch norm is a scale and a shift for each
channel, a 1x1 convolution is a 3x3 convolution that is zero except at its centre, the identity is a 1x1 convolution
with the unit matrix, and parallel convolutions add up. Computed in float64; exact but for rounding at the end.
"""

import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.models.any_network import AnyModel, AnyNetwork, fuse_any
from lpsnet.models.blocks import ConvNorm, RepConvNorm
from lpsnet.models.network import Network, create_model, empty_network, fill

Folded = tuple[Tensor, Tensor]  # weight and bias of a convolution, float64


def fuse(net: AnyModel) -> AnyModel:
    """The deployed form of `net`: a copy in evaluation mode with the logits of `net` in evaluation mode.

    Every convolution with batch norm becomes one convolution with bias, in blocks and interactions. `net` is not
    touched, nor are its training flag and torch's random state. A network that is deployed already is copied. In a
    network of other code, batch norms stay where they cannot surely be folded; see `any_network.fuse_any`.
    """
    if isinstance(net, AnyNetwork):
        return fuse_any(net)  # type: ignore[return-value]
    if net.form == "deployed":
        return copy.deepcopy(net).eval()
    fused = empty_network(net.architecture, **net.config, form="deployed")
    with torch.no_grad():
        return fill(fused, _fused_state(net, fused))  # type: ignore[return-value]


def with_strides(deployed: AnyModel) -> AnyModel:
    """A copy whose 1x1 convolutions step by themselves, instead of being given every second row and column.

    The same function, for engines without a layer for such a slice; see `blocks.ConvNorm`.
    """
    net = copy.deepcopy(deployed)
    for module in net.modules():
        if isinstance(module, ConvNorm) and module.subsampling > 1:
            module.conv.stride = (module.subsampling, module.subsampling)
            module.subsampling = 1
    return net


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
        weight, bias = _fold(unit.conv3x3)
        point_weight, point_bias = _fold(unit.conv1x1)
        if unit.identity is not None:
            eye = torch.eye(unit.identity.num_features, dtype=torch.float64, device=weight.device)
            identity_weight, identity_bias = _fold_norm(eye[:, :, None, None], unit.identity)
            point_weight, point_bias = point_weight + identity_weight, point_bias + identity_bias
        return weight + F.pad(point_weight, (1, 1, 1, 1)), bias + point_bias
    assert isinstance(unit, ConvNorm)
    assert isinstance(unit.norm, nn.BatchNorm2d)
    return _fold_norm(unit.conv.weight.double(), unit.norm)


def _fold_norm(weight: Tensor, norm: nn.BatchNorm2d) -> Folded:
    """A convolution without bias followed by `norm` in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return weight * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


def to_single_branch(net: Network, images: Tensor) -> Network:
    """A copy of `net` in the form "plain", in evaluation mode, with the same logits.

    A deployed network has no batch norms to train with, and a step with parallel branches takes twice as long. The
    folded convolutions get batch norms with the statistics of `images`, whose scale and shift undo the normalisation.

    Args:
        net: of any form.
        images: N x 3 x H x W, normalised; what the batch norms' statistics are measured on.
    """
    deployed = fuse(net)
    plain = empty_network(net.architecture, **net.config, form="plain")
    moments = _measure(deployed, images)
    state = {name: value for name, value in deployed.state_dict().items() if name in plain.state_dict()}
    for name, module in plain.named_modules():
        if isinstance(module, ConvNorm):
            assert isinstance(module.norm, nn.BatchNorm2d)
            mean, variance = moments[name]  # of outputs that have the bias already
            state[f"{name}.norm.weight"] = torch.sqrt(variance + module.norm.eps)
            state[f"{name}.norm.bias"] = mean.clone()
            state[f"{name}.norm.running_mean"] = mean - deployed.state_dict()[f"{name}.conv.bias"]
            state[f"{name}.norm.running_var"] = variance
            state[f"{name}.norm.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    return fill(plain, state)


@torch.no_grad()
def _measure(deployed: Network, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel of each convolution's output, by the name of its unit."""
    moments: dict[str, tuple[Tensor, Tensor]] = {}

    def measure(name: str, conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        variance, mean = torch.var_mean(output.float(), dim=(0, 2, 3), correction=0)
        moments[name] = mean, variance

    units = {name: module for name, module in deployed.named_modules() if isinstance(module, ConvNorm)}
    hooks = [unit.conv.register_forward_hook(functools.partial(measure, name)) for name, unit in units.items()]
    try:
        deployed(images)
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def to_parallel_branches(net: Network) -> Network:
    """A copy of `net`, which is in the form "plain", in the form "reparameterised", with the same logits.

    The 3x3 branch takes the convolution and its batch norm. The other branches start with a scale of zero, so that the
    logits stay the same in either mode; they learn, because the gradient of a scale is not zero.
    """
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(0)
        branched = create_model(net.architecture, **net.config, form="reparameterised")
    plain = net.state_dict()
    state = {name: plain.get(name, value) for name, value in branched.state_dict().items()}
    for name, module in branched.named_modules():
        if isinstance(module, RepConvNorm):
            state.update({f"{name}.conv3x3.{rest}": plain[f"{name}.{rest}"] for rest in module.conv3x3.state_dict()})
            for branch in ("conv1x1.norm", "identity"):
                if (scale := state.get(f"{name}.{branch}.weight")) is not None:
                    state[f"{name}.{branch}.weight"] = torch.zeros_like(scale)
    return fill(branched, state)
