"""Small networks and images for tests of exports."""

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.data.labels import LabelSpace
from lpsnet.models.checkpoint import default_record
from lpsnet.models.network import Network, create_model
from lpsnet.record import ModelRecord

SIZE = (48, 80)
ARCHITECTURE = "B=1,1,1,1,1;C=4,8,8,8,8;R=3/4,1/4"


def network(**options: object) -> Network:
    """Seeded, with batch norms that do something and logits of a useful range."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model(ARCHITECTURE, num_classes=4, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            net(torch.randn(2, 3, 64, 64))
        torch.nn.init.normal_(net.head.weight)
    return net.eval()


def record_of(net: Network) -> ModelRecord:
    return default_record(net, label_space=LabelSpace.numbered(4))


def images(count: int = 4, *, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Noise, H x W x 3."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]
