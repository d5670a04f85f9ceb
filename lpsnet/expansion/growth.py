"""A network while it is filled from a smaller one: where every number comes from, and the batch norms to measure.

A batch norm in evaluation mode is a scale and a shift a channel; in training mode its scale depends on the batch. Two
kinds of channels of the child's batch norms have statistics that no parent can give: those of new features, and those
that must pass on what they get. Both are measured on pictures, in one pass through the finished child in which every
batch norm takes its statistics from its input just before it is used, so later ones see what earlier ones really give.
"""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn

from lpsnet.models.network import Network

Index = Tensor | tuple[Tensor, Tensor] | EllipsisType
_NEW, _COPIED, _ZEROED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Origin:
    """How many numbers of a parameter come from where.

    Attributes:
        copied: from the parent.
        zeroed: zero on purpose, so that something new is not read, or not heard, at the start.
        new: everything else: random, or set so that the function stays.
    """

    copied: int
    zeroed: int
    new: int


@dataclass(frozen=True, slots=True)
class _Unmeasured:
    """Channels of a batch norm whose statistics are to be measured.

    Attributes:
        norm: the batch norm.
        channels: their numbers.
        keeps_function: whether scale and shift follow the statistics, so that the function in evaluation mode stays.
    """

    norm: nn.BatchNorm2d
    channels: Tensor
    keeps_function: bool


class Growth:
    """The child, and what has been done to it. Its weights are fresh at the beginning; use it under `torch.no_grad`.

    Attributes:
        child: the network that is filled.
        losses: why the child does not compute what its parent does, one line each.
    """

    def __init__(self, child: Network) -> None:
        self.child = child
        self.losses: list[str] = []
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in child.named_parameters()}
        self._sources = {name: torch.zeros(p.shape, dtype=torch.uint8) for name, p in child.named_parameters()}
        self._unmeasured: list[_Unmeasured] = []

    def copy(self, parameter: Tensor, index: Index, values: Tensor) -> None:
        """Set `parameter[index]` to the parent's `values`."""
        parameter[index] = values.to(parameter)
        self._sources[self._names[parameter]][index] = _COPIED

    def zero(self, parameter: Tensor, index: Index = ...) -> None:
        """Set `parameter[index]` to zero."""
        parameter[index] = 0
        self._sources[self._names[parameter]][index] = _ZEROED

    def copy_module(self, module: nn.Module, source: nn.Module) -> None:
        """Set all of `module` to what is in `source`, whose tensors have the same names and shapes."""
        for parameter, values in zip(module.parameters(), source.parameters(), strict=True):
            self.copy(parameter, ..., values)
        for own, given in zip(module.buffers(), source.buffers(), strict=True):
            if own.is_floating_point():  # not the number of batches: the child has seen none
                own.copy_(given)

    def measure_all(self, module: nn.Module, *, but: Collection[nn.Module] = ()) -> None:
        """Have the statistics of all batch norms in `module` measured but for those in the modules `but`."""
        left_out = {norm for part in but for norm in part.modules()}
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm not in left_out:
                self.measure(norm)

    def copy_norm(self, norm: nn.BatchNorm2d, source: nn.BatchNorm2d, places: Tensor) -> None:
        """Give the channels `places` of `norm` those of `source`; the statistics of the others will be measured."""
        self.copy(norm.weight, places, source.weight)
        self.copy(norm.bias, places, source.bias)
        for statistic, given in zip(statistics(norm), statistics(source), strict=True):
            statistic[places] = given.to(statistic)
        self.measure(norm, others(places, norm.num_features))

    def measure(self, norm: nn.BatchNorm2d, channels: Tensor | None = None, *, keeps_function: bool = False) -> None:
        """Have the statistics of `channels` (unless given, all) measured.

        Scale and shift stay, or with `keeps_function` follow, so that the function in evaluation mode stays.
        """
        channels = torch.arange(norm.num_features) if channels is None else channels
        if len(channels):
            self._unmeasured.append(_Unmeasured(norm, channels, keeps_function))

    def pass_on(self, norm: nn.BatchNorm2d, channels: Tensor | None = None, *, shift: Tensor | None = None) -> None:
        """Make `channels` (unless given, all) of `norm` add `shift` to their input and do nothing else.

        Exact in evaluation mode. Once the statistics are measured it is close in training mode too.
        """
        index: Index = ... if channels is None else channels
        mean, variance = statistics(norm)
        mean[index], variance[index] = 0, 1
        norm.weight[index] = (1 + norm.eps) ** 0.5
        norm.bias[index] = 0 if shift is None else shift.to(norm.bias)
        self.measure(norm, channels, keeps_function=True)

    def settle(self, images: Tensor) -> None:
        """Measure what is to be measured, on N x 3 x H x W normalised pictures."""
        if not self._unmeasured:
            return
        hooks = [task.norm.register_forward_pre_hook(_measuring(task)) for task in self._unmeasured]
        try:
            with evaluating(self.child):
                self.child.features(images.to(self.child.head.weight.device))
        finally:
            for hook in hooks:
                hook.remove()

    def origins(self) -> dict[str, Origin]:
        """Where the numbers of each of the child's parameters come from."""
        return {name: _counted(source) for name, source in self._sources.items()}


def others(places: Tensor, num_channels: int) -> Tensor:
    """The channels that are not in `places`."""
    is_other = torch.ones(num_channels, dtype=torch.bool)
    is_other[places] = False
    return is_other.nonzero().flatten()


def statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift a channel of `norm` in evaluation mode, float64."""
    mean, variance = statistics(norm)
    scale = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
    return scale, norm.bias.double() - mean.double() * scale


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _measuring(task: _Unmeasured) -> Any:
    """A hook that sets the statistics of a batch norm from what it is about to be given."""

    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        scale, shift = affine(norm)
        # Biased, as batch norm itself normalises in training: there the same pictures give the same result.
        variance, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3), correction=0)
        running_mean, running_variance = statistics(norm)
        running_mean[task.channels] = mean[task.channels].to(running_mean)
        running_variance[task.channels] = variance[task.channels].to(running_variance)
        if task.keeps_function:
            weight = scale * torch.sqrt(running_variance.double() + norm.eps)
            bias = shift + scale * running_mean.double()
            norm.weight[task.channels] = weight[task.channels].to(norm.weight)
            norm.bias[task.channels] = bias[task.channels].to(norm.bias)

    return hook


def _counted(source: Tensor) -> Origin:
    counts = torch.bincount(source.flatten(), minlength=3).tolist()
    return Origin(copied=counts[_COPIED], zeroed=counts[_ZEROED], new=counts[_NEW])
