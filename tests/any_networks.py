"""Networks of other code, as users may have them: functions for `--network any_networks.py:NAME`."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lpsnet

FILE = Path(__file__)
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"


def spec(function: str) -> str:
    """As `--network` takes it."""
    return f"{FILE}:{function}"


def _unit(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def plain(num_classes: int) -> nn.Module:
    """Logits at stride 4."""
    return nn.Sequential(_unit(3, 8, 2), _unit(8, 12, 2), nn.Conv2d(12, num_classes, 1))


def stride_32(num_classes: int) -> nn.Module:
    """Logits at stride 32."""
    return nn.Sequential(*(_unit(3 if n == 0 else 6, 6, 2) for n in range(5)), nn.Conv2d(6, num_classes, 1))


def dropping(num_classes: int) -> nn.Module:
    """With random numbers in training."""
    return nn.Sequential(_unit(3, 8, 2), nn.Dropout(0.5), nn.Conv2d(8, num_classes, 1))


class FullSize(nn.Module):
    """Logits at the image's size, resized in the network, with a normalisation and a convention of its own."""

    align_corners = True
    normalisation = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = _unit(3, 8, 4)
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.head(self.body(image)), size=image.shape[-2:], mode="bilinear", align_corners=True)


class Transformer(nn.Module):
    """Attention over the positions of stride 8, by `view`, which takes NCHW in memory only."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_unit(3, 8, 4), _unit(8, 16, 2))
        self.norm, self.queries, self.mix = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.body(image)
        batch, width, rows, columns = maps.shape
        tokens = maps.view(batch, width, rows * columns).transpose(1, 2)
        query, key, value = self.queries(self.norm(tokens)).chunk(3, dim=-1)
        attention = torch.softmax(query @ key.transpose(1, 2) / 4, dim=-1)
        tokens = tokens + self.mix(attention @ value)
        return self.head(tokens.transpose(1, 2).reshape(batch, width, rows, columns))


class UNet(nn.Module):
    """Joins maps of neighbouring strides, so that it takes sizes divisible by 32 only."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_unit(3 if n == 0 else 4, 4, 2) for n in range(5))
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = [image]
        for unit in self.down:
            maps.append(unit(maps[-1]))
        up = F.interpolate(maps[5], scale_factor=8, mode="nearest")
        return self.head(torch.cat((up, maps[2]), dim=1))


class Padding(nn.Module):
    """Resizes the image to a multiple of 32 first."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = UNet(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        height, width = ((length + 31) // 32 * 32 for length in image.shape[-2:])
        return self.net(F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False))


class Frozen(nn.Module):
    """Computes a size in Python, which a traced file keeps."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = plain(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.net(image), size=[int(length) for length in image.shape[-2:]], mode="nearest")


class Tied(nn.Module):
    """One convolution in two places under two names; the batch norm behind it only in one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem, self.first = _unit(3, 8, 4), nn.Conv2d(8, 8, 3, padding=1)
        self.second, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second.weight = self.first.weight
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.first(self.stem(image))))
        return self.head(maps + self.second(maps) + self.norm(maps))


def ours(num_classes: int) -> nn.Module:
    """A network of this package as if it were of other code."""
    return lpsnet.create_model(ARCH, num_classes=num_classes, form="plain")


class OursAligned(nn.Module):
    """The same, with the attribute that names its convention."""

    align_corners = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = ours(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


def auxiliary(num_classes: int) -> nn.Module:
    """A second output in training."""
    net = Returning(num_classes, lambda logits: (logits, logits) if net.training else logits)
    return net


def raises(num_classes: int) -> nn.Module:
    raise KeyError("no such\nweights")


def leaves(num_classes: int) -> nn.Module:
    sys.exit(3)


def nothing(num_classes: int) -> None:
    """Forgets to return the network."""


def printing(num_classes: int) -> nn.Module:
    print("{not JSON")
    return plain(num_classes)


class Returning(nn.Module):
    """Returns what `change` makes of good logits."""

    def __init__(self, num_classes: int, change: object) -> None:
        super().__init__()
        self.net, self.change = plain(num_classes), change

    def forward(self, image: Tensor) -> object:
        return self.change(self.net(image))  # type: ignore[operator]


def failing(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, num_classes, 1))


def a_tuple(num_classes: int) -> nn.Module:
    return Returning(num_classes, lambda logits: (logits, logits))


def a_dict(num_classes: int) -> nn.Module:
    return Returning(num_classes, lambda logits: {"out": logits, "aux": logits})


def flat(num_classes: int) -> nn.Module:
    return Returning(num_classes, lambda logits: logits.flatten(2))


def one_more(num_classes: int) -> nn.Module:
    return plain(num_classes + 1)


def labels(num_classes: int) -> nn.Module:
    return Returning(num_classes, lambda logits: logits.argmax(1, keepdim=True).expand(-1, num_classes, -1, -1))


def inverting(num_classes: int) -> nn.Module:
    """With an operation that ONNX does not have."""
    return Returning(num_classes, lambda logits: logits + torch.linalg.eigvalsh(logits[:, :, :4, :4]).mean())


def lazy(num_classes: int) -> nn.Module:
    return nn.LazyConv2d(num_classes, 1)


def masked(num_classes: int) -> nn.Module:
    net = plain(num_classes)
    net.register_buffer("mask", torch.full((2,), -float("inf")))
    return net


def badly_normalised(num_classes: int) -> nn.Module:
    net = plain(num_classes)
    net.normalisation = ((0.5, 0.5, 0.5), (0.0, 1.0, 1.0))  # type: ignore[assignment]
    return net


frozen, full_size, ours_aligned = Frozen, FullSize, OursAligned
padding, tied, transformer, unet = Padding, Tied, Transformer, UNet
