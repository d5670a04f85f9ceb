"""The Lovász-softmax loss: a convex surrogate of 1 - IoU, averaged over the classes that occur (Berman et al. 2018).

Cross-entropy counts pixels, mIoU counts classes. For each class the errors of all pixels are sorted, and each is
weighted by what a pixel at its place adds to the Jaccard loss of the set of errors before it (Algorithm 1 there).
"""

import torch
from torch import Tensor

from lpsnet.data.labels import IGNORE_INDEX


def lovasz_softmax(scores: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch taken as one set of pixels, in 0 to 1; 0 without a labelled pixel.

    Args:
        scores: N, K, H, W floating point, logits.
        labels: N, H, W integer class ids, `IGNORE_INDEX` where there is no label.
    """
    num_classes = scores.shape[1]
    labelled = (labels != IGNORE_INDEX).reshape(1, -1)
    probabilities = scores.softmax(1).transpose(0, 1).reshape(num_classes, -1)
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    members = (labels.reshape(1, -1) == classes).to(scores.dtype)
    errors = (members - probabilities).abs() * labelled  # without a label an error of 0, at the end of the order
    errors, order = errors.sort(dim=1, descending=True)
    losses = (errors * _jaccard_steps(members.gather(1, order))).sum(1)
    present = members.sum(1) > 0
    return (losses * present).sum() / present.sum().clamp(min=1)


def _jaccard_steps(members: Tensor) -> Tensor:
    """What each pixel adds to the Jaccard loss of those before it: K, P for members K, P (1 or 0) in their order."""
    total = members.sum(1, keepdim=True)
    intersection = total - members.cumsum(1)
    union = total + (1 - members).cumsum(1)
    jaccard = 1 - intersection / union
    return torch.cat((jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]), 1)
