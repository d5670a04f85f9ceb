"""From the plain form to the one with parallel branches (RepVGG), to go on training with them.

The 3x3 branch takes the convolution and its batch norm. The other branches begin with a scale of zero, so that the
scores stay what they were in either mode; they learn, as the gradient of a scale is not zero.
"""

import torch

from lpsnet.model.building import fill
from lpsnet.model.convolution import RepConvNorm
from lpsnet.model.network import Network, create_model


def to_parallel_branches(net: Network) -> Network:
    """A copy of `net`, which is in the form "plain", in the form "reparameterised", with the same scores."""
    with torch.random.fork_rng(devices=[]):  # whoever calls has chosen what its random numbers are for
        torch.manual_seed(0)
        branched = create_model(net.architecture, **net.traits, form="reparameterised")
    plain = net.state_dict()
    state = {name: plain.get(name, value) for name, value in branched.state_dict().items()}
    for name, module in branched.named_modules():
        if isinstance(module, RepConvNorm):
            state.update({f"{name}.conv3x3.{rest}": plain[f"{name}.{rest}"] for rest in module.conv3x3.state_dict()})
            for branch in ("conv1x1.norm", "identity"):
                if (scale := state.get(f"{name}.{branch}.weight")) is not None:
                    state[f"{name}.{branch}.weight"] = torch.zeros_like(scale)
    return fill(branched, state)
