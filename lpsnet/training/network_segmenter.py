"""A network in training as a segmenter, so that it is scored exactly as its model file will be."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.inference.engines import Precision
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord


def network_segmenter(network: Network, record: ModelRecord, *, device: torch.device) -> Segmenter:
    """A segmenter that runs `network` as it is, in f32 and in eval mode, on `device`."""
    return Segmenter.from_session(_NetworkSession(network, device), record)


class _NetworkSession:
    """See `Session`."""

    runtime: Final = "pytorch"
    precision: Final[Precision] = "f32"

    def __init__(self, network: Network, device: torch.device) -> None:
        self._network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self.engine = f"torch {torch.__version__} on {device.type}"
        self.num_threads = torch.get_num_threads()

    @torch.inference_mode()
    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        (image,) = inputs
        batch = torch.from_numpy(image).to(self._device, memory_format=torch.channels_last)
        scores: NDArray[np.float32] = self._network(batch).float().cpu().numpy()
        return scores
