"""Parts of an optimiser step: normalising, the loss averaged over all processes, frozen batch norm."""

import functools

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lpsnet.record import Normalisation


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """N, H, W, 3 uint8 to N, 3, H, W float32 as the network takes it; its memory is channels-last without a copy."""
    mean, std = (
        _constant(values, images.device).repeat(images.shape[2])  # rows, not pixels: 4 times as fast
        for values in (normalisation.mean, normalisation.std)
    )
    rows = images.float().flatten(2).sub_(mean).div_(std)
    return rows.view(images.shape).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)  # sent to a device once
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device) * 255


def global_mean(total: Tensor, weight: Tensor, accelerator: Accelerator) -> Tensor:
    """The loss whose gradient, averaged over the processes, is that of the mean over the pixels of all of them.

    `weight` of all processes together divides the sum, so the result does not depend on how the pixels are spread; 0 if
    there is no labelled pixel at all.
    """
    everyone: Tensor = accelerator.reduce(weight.detach(), "sum")
    mean: Tensor = total * accelerator.num_processes / everyone.clamp(min=torch.finfo(torch.float32).tiny)
    return mean


def set_training_mode(model: nn.Module, *, freeze_batch_norm: bool) -> None:
    """Training mode; with frozen batch norm its layers keep to the statistics they have."""
    model.train()
    if freeze_batch_norm:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
