"""Networks of `any_networks.py` with weights that do something, and their labels by torch alone."""

import any_networks
import numpy as np
import torch
import torch.nn.functional as F
from random_networks import randomise

from lpsnet.models.any_network import AnyNetwork, load_network
from lpsnet.models.checkpoint import default_record


def trained(name: str, num_classes: int = 5) -> AnyNetwork:
    """With batch norms that do something."""
    torch.manual_seed(1)
    net = load_network(any_networks.spec(name), num_classes=num_classes)
    return randomise(net)


def expected_labels(net: AnyNetwork, image: np.ndarray) -> np.ndarray:
    """Torch's own way, in the network's conventions."""
    normalisation = default_record(net).normalisation
    mean, std = (torch.tensor(values) for values in (normalisation.mean, normalisation.std))
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = net.module(pixels)
    size = image.shape[:2]
    whole = F.interpolate(logits, size=size, mode="bilinear", align_corners=net.align_corners)
    return whole.argmax(1)[0].numpy()
