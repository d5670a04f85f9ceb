"""A network in training, as a segmenter: picture in, label map out, the way a deployed model does it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.deployment.label_map import label_map
from lpsnet.model.network import Network
from lpsnet.record import ModelRecord
from lpsnet.training.step import normalise


class NetworkSegmenter:
    """Segments pictures with a torch network in f32, at the pictures' own size."""

    def __init__(self, network: Network, record: ModelRecord, *, device: torch.device) -> None:
        self._network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._record = record
        self._device = device

    @property
    def protocol(self) -> dict[str, Any]:
        """How scores measured with this segmenter were got."""
        return {"runtime": "pytorch", "precision": "f32", "input_size": None}

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """H x W x 3 uint8 RGB to H x W uint8 class ids."""
        batch = torch.from_numpy(image)[None].to(self._device)
        logits = self._network(normalise(batch, self._record.normalisation))[0].float().cpu().numpy()
        height, width = image.shape[:2]
        return label_map(logits, (height, width), align_corners=self._record.align_corners)
