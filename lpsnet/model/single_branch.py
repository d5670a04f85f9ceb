"""From any form to the plain training form: one convolution and batch norm a block, to go on training at half the cost.

A deployed network has no batch norms to train with, and one with parallel branches (RepVGG) takes twice as long in a
step. Here the folded convolutions get batch norms whose statistics are those of some pictures, and whose scale and
shift undo the normalising: in evaluation mode the scores stay what they were, in training mode nearly so.
"""

import torch
from torch import Tensor, nn

from lpsnet.model.building import empty_network, fill
from lpsnet.model.convolution import ConvNorm
from lpsnet.model.fusion import fuse
from lpsnet.model.network import Network


def to_single_branch(net: Network, images: Tensor) -> Network:
    """A copy of `net` in the form "plain", in evaluation mode, with the same scores.

    Args:
        net: of any form.
        images: N x 3 x H x W, normalised; what the batch norms' statistics are measured on.
    """
    deployed = fuse(net)
    plain = empty_network(net.architecture, **net.traits, form="plain")
    moments = _measure(deployed, images)
    state = {name: value for name, value in deployed.state_dict().items() if name in plain.state_dict()}
    for name, module in plain.named_modules():
        if isinstance(module, ConvNorm):
            assert isinstance(module.norm, nn.BatchNorm2d)
            bias = deployed.state_dict()[f"{name}.conv.bias"]
            state.update(_norm_state(f"{name}.norm", bias, *moments[name], eps=module.norm.eps))
    return fill(plain, state)


def _norm_state(name: str, bias: Tensor, mean: Tensor, variance: Tensor, *, eps: float) -> dict[str, Tensor]:
    """A batch norm that adds `bias`, where `mean` and `variance` are those of what has the bias already."""
    return {
        f"{name}.weight": torch.sqrt(variance + eps),
        f"{name}.bias": mean.clone(),
        f"{name}.running_mean": mean - bias,
        f"{name}.running_var": variance,
        f"{name}.num_batches_tracked": torch.zeros((), dtype=torch.long),
    }


@torch.no_grad()
def _measure(deployed: Network, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel of each convolution's output, by the name of its unit."""
    moments: dict[str, tuple[Tensor, Tensor]] = {}

    def hook_for(name: str) -> object:
        def hook(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            variance, mean = torch.var_mean(output.float(), dim=(0, 2, 3), correction=0)
            moments[name] = mean, variance

        return hook

    units = {name: module for name, module in deployed.named_modules() if isinstance(module, ConvNorm)}
    hooks = [unit.conv.register_forward_hook(hook_for(name)) for name, unit in units.items()]  # type: ignore[arg-type]
    try:
        deployed(images)
    finally:
        for hook in hooks:
            hook.remove()
    return moments
