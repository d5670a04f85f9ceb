"""Parts that an architecture may have beside the paper's network: context of the whole image, and logits in detail.

All of them are built so that they change nothing at first (`zero_init`): a network that gets one computes the function
it had, and learns from there. So `expand` can add them to a trained network.

Context works on the features of all paths together: the global gate of LR-ASPP (Howard et al. 2019, MobileNetV3), and a
pyramid of averages (Zhao et al. 2017, PSPNet; Hong et al. 2021, DDRNet). Detail is the sum of logits at a finer stride
(Long et al. 2015, FCN).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.models.interactions import resize_like


def detail_stages(detail: int) -> tuple[int, ...]:
    """The stages (counted from 0) with logits of their own for logits at stride `detail`: none, 3, or 3 and 2."""
    return {16: (), 8: (2,), 4: (2, 1)}[detail]


class GlobalGate(nn.Module):
    """x times 2 sigmoid(1x1 convolution of x's mean over the image): N x C x h x w to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))


_POOLS = ((5, 2), (9, 4))  # kernel and stride of the averages, besides the whole image (DDRNet's first two)


class Pyramid(nn.Module):
    """x plus a 1x1 convolution of averages of x over 5x5, 9x9 and the whole image, each reduced to C / 4 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.reduce = nn.ModuleList(nn.Conv2d(channels, inner, 1) for _ in range(len(_POOLS) + 1))
        self.gate = nn.Conv2d(inner * (len(_POOLS) + 1), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        averages = [F.avg_pool2d(x, kernel, stride, kernel // 2, ceil_mode=False) for kernel, stride in _POOLS]
        averages.append(x.mean((2, 3), keepdim=True))
        maps = [F.relu(reduce(average)) for reduce, average in zip(self.reduce, averages, strict=True)]
        resized = [resize_like(each, x, align_corners=False) for each in maps]
        return x + self.gate(torch.cat(resized, dim=1))  # type: ignore[no-any-return]


# name -> channels -> the module on the concatenated last features of all paths
CONTEXTS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "gate": GlobalGate,
    "pyramid": Pyramid,
}


def zero_init(part: nn.Module) -> None:
    """Make a part that was just built without effect: weights (and biases) of what adds or gates are zero."""
    last = getattr(part, "gate", part)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
