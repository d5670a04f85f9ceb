"""Networks of other code: any `torch.nn.Module` that maps N x 3 x H x W to N x K x h x w.

`AnyNetwork` gives such a module the facts that training, export and measurement read of a `Network`, and checks what it
returns. Its code is named by `--network FILE.py:FUNCTION` (`plugins.py`); the record of a checkpoint only names it.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from lpsnet import plugins
from lpsnet.errors import LpsnetError, NetworkError
from lpsnet.models.network import Network, check_input
from lpsnet.record import Form, Normalisation, plain_normalisation


class AnyNetwork(nn.Module):
    """A module of other code as a network of this package.

    Args:
        module: maps N x 3 x H x W float, RGB, normalised, to logits N x K x h x w of any h and w. It may have the
            attributes `align_corners`, the convention in which its logits are resized to the image's size (False
            without it), and `normalisation`, a pair of mean and deviation with three numbers each for RGB in 0 .. 1
            (ImageNet's without it).
        num_classes: K.
        network: the name that records have for its code; "" for a module that no checkpoint can name.
        digest: of that code; see `NetworkSource`.
        in_channels: C of the images it takes, 3 for RGB.

    Attributes:
        module: as given; names in the state dict begin with `module.`.
        form: "plain", or "deployed" after `fuse`.
        architecture, block, interaction: None and "", since it has none.

    Raises:
        NetworkError: it is no module, or its attributes or its state dict cannot be used.
    """

    architecture = None
    block = interaction = ""

    def __init__(
        self, module: nn.Module, *, num_classes: int, network: str = "", digest: str = "", in_channels: int = 3
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.network, self.digest, self.num_classes = network, digest, num_classes
        self.form: Form = "plain"
        self._fails_channels_last = False  # known once it did
        if not isinstance(module, nn.Module):
            raise NetworkError(f"{self.title} is to be a torch.nn.Module; got {type(module).__name__}")
        self.module = module
        self.align_corners = self._align_corners()
        self.normalisation = self._normalisation()
        self._check_state()

    @property
    def title(self) -> str:
        """For messages."""
        return f"network {self.network}" if self.network else "the network"

    def forward(self, image: Tensor) -> Tensor:
        """Logits N x K x h x w of `image`, N x 3 x H x W floating point with H and W at least 32.

        Raises:
            LpsnetError: the image has another shape, the module fails, or it returns something else. Not checked
                while tracing or compiling.
        """
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
            return self.module(image)  # type: ignore[no-any-return]
        check_input(image, self.in_channels)
        try:
            logits = self._run(image)
        except (LpsnetError, MemoryError):
            raise
        except Exception as error:
            where = f"{self.title} fails on an image of {_size(image)}{' in training' * self.training}"
            raise NetworkError(f"{where}: {plugins.reason(error)}") from error
        self._check_logits(logits, image)
        return logits  # type: ignore[no-any-return]

    def _is_planar(self, device: torch.device) -> bool:
        """Whether images lie as NCHW in memory there; channels-last is the faster way where it works."""
        return self._fails_channels_last or (device.type == "cpu" and any(map(_is_risky, self.modules())))

    def _run(self, image: Tensor) -> Any:
        if self._is_planar(image.device):
            return self.module(image.contiguous())
        try:
            return self.module(image)
        except RuntimeError:
            if self.training:
                raise
        with torch.inference_mode(False):  # `view` fails on maps that lie channels-last in memory
            super().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        logits = self.module(image.contiguous())
        self._fails_channels_last = True
        return logits

    def to(self, *args: Any, **options: Any) -> "AnyNetwork":
        """As `nn.Module.to`, but a module that takes NCHW in memory only is not brought into another layout."""
        layout = options.pop("memory_format", None)
        super().to(*args, **options)
        device = next((parameter.device for parameter in self.parameters()), torch.device("cpu"))
        if layout is not None and not self._is_planar(device):
            super().to(memory_format=layout)  # type: ignore[call-overload]
        return self

    def _check_logits(self, logits: object, image: Tensor) -> None:
        expected = (len(image), self.num_classes)
        if isinstance(logits, Tensor) and logits.dim() == 4 and logits.shape[:2] == expected and min(logits.shape) > 0:
            if not logits.is_floating_point():
                raise NetworkError(f"{self.title} returns {logits.dtype} numbers; logits are floating point")
            return
        raise NetworkError(
            f"{self.title} is to return one tensor N x {self.num_classes} x h x w of logits"
            f"{' in training' * self.training}; for {_size(image)} it gave {_described(logits)}"
        )

    def _align_corners(self) -> bool:
        value = getattr(self.module, "align_corners", False)
        if not isinstance(value, bool):
            raise NetworkError(f"{self.title}: align_corners is True or False; got {str(value)[:80]}")
        return value

    def _normalisation(self) -> Normalisation:
        given: Any = getattr(self.module, "normalisation", None)
        if given is None and self.in_channels != 3:
            return plain_normalisation(self.in_channels)
        if given is None or isinstance(given, Normalisation):
            return given or Normalisation()
        try:
            mean, std = (tuple(map(float, values)) for values in given)
            if len(mean) != 3:
                raise ValueError
            return Normalisation(mean=mean, std=std)
        except (TypeError, ValueError):
            raise NetworkError(
                f"{self.title}: normalisation is a mean and a deviation of three numbers each, the deviations greater "
                f"than 0; got {str(given)[:80]}"
            ) from None

    def _check_state(self) -> None:
        for name, value in self.state_dict().items():
            name = name.removeprefix("module.")
            if not isinstance(value, Tensor) or nn.parameter.is_lazy(value):
                raise NetworkError(f"{self.title}: {name} in its state dict is no tensor with a shape")
            if not bool(torch.isfinite(value).all()):
                raise NetworkError(
                    f"{self.title}: {name} in its state dict holds infinities or NaNs; a constant such as a mask is "
                    "kept out of it by register_buffer(..., persistent=False)"
                )


def _is_risky(module: nn.Module) -> bool:
    """Whether torch 2.13 may crash in the backward pass of this convolution on a CPU, channels-last.

    Seen with 1x1 convolutions of stride 2 and with grouped ones; it corrupts memory, so nothing can be caught.
    """
    return isinstance(module, nn.Conv2d) and (module.groups > 1 or (max(module.kernel_size) == 1 < max(module.stride)))


Model: TypeAlias = Network | AnyNetwork
AnyModel = TypeVar("AnyModel", bound=Network | AnyNetwork)


def load_network(spec: str | plugins.NetworkSource, *, num_classes: int, in_channels: int = 3) -> AnyNetwork:
    """A network of other code, with the weights that its function gives it, in training mode.

    Args:
        spec: `FILE.py:FUNCTION`, or `package.module:function` of an installed package. The file runs with your rights;
            `function(num_classes=K)` returns a `torch.nn.Module`.
        num_classes: K, 1 to 255.
        in_channels: C of the images it is to take; a number other than 3 is given to the function, too.

    Raises:
        NetworkError: there is no such file or function, it fails, or it returns something else.
    """
    source = plugins.use_network(spec) if isinstance(spec, str) else spec
    with torch.random.fork_rng(devices=[]):  # a file's first run draws no numbers of the caller's
        build = source.load()
    with source.importing():
        module = build(num_classes=num_classes, **({} if in_channels == 3 else {"in_channels": in_channels}))
    facts: dict[str, Any] = {"network": source.name, "digest": source.digest, "in_channels": in_channels}
    return AnyNetwork(module, num_classes=num_classes, **facts)


def copy_network(net: AnyNetwork) -> AnyNetwork:
    """A copy in evaluation mode.

    Raises:
        NetworkError: the module cannot be copied.
    """
    try:
        return copy.deepcopy(net).eval()
    except Exception as error:
        hint = "a module may not keep results of its forward pass, nor open files"
        raise NetworkError(f"{net.title} cannot be copied: {plugins.reason(error)}; {hint}") from error


def with_weights(net: AnyNetwork, tensors: Mapping[str, Tensor]) -> AnyNetwork:
    """A copy of `net` in evaluation mode with these weights, copied; they fit."""
    filled = copy_network(net)
    filled.load_state_dict(tensors)
    return filled


def fuse_any(net: AnyNetwork) -> AnyNetwork:
    """The deployed form: a copy in evaluation mode whose batch norms are part of the convolutions before them.

    Only where torch.fx can follow the module's forward pass, and there only where a convolution is used once and by its
    batch norm alone; elsewhere batch norms stay.
    """
    deployed = copy_network(net)
    if net.form != "deployed":
        deployed.form = "deployed"
        for conv, norm in _foldable(deployed.module):
            _replace(deployed.module, conv, _folded(deployed.module, conv, norm))
            _replace(deployed.module, norm, nn.Identity())
    return deployed


def _foldable(module: nn.Module) -> list[tuple[str, str]]:
    """Names of the convolutions and batch norms that can become one convolution each."""
    try:
        graph = torch.fx.symbolic_trace(module).graph
    except Exception:  # its forward pass depends on values or sizes in Python
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    number_of_calls = Counter(node.target for node in calls)
    read = tuple(str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr")
    modules = dict(module.named_modules(remove_duplicate=False))
    number_of_names = Counter(map(id, modules.values()))
    found = []
    for norm in calls:
        conv = norm.args[0] if len(norm.args) == 1 else None
        if not isinstance(conv, torch.fx.Node) or conv.op != "call_module" or len(conv.users) != 1:
            continue
        names, pair = (str(conv.target), str(norm.target)), (modules[str(conv.target)], modules[str(norm.target)])
        once = all(number_of_calls[name] == 1 and name not in read for name in names)
        if once and _is_pair(*pair) and not any(number_of_names[id(it)] > 1 or _has_hooks(it) for it in pair):
            found.append(names)
    return found


def _is_pair(conv: nn.Module, norm: nn.Module) -> bool:
    return type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _folded(module: nn.Module, conv: str, norm: str) -> nn.Module:
    """One convolution, computed in float64."""
    pair: list[Any] = [copy.deepcopy(module.get_submodule(name)) for name in (conv, norm)]
    dtype = pair[0].weight.dtype
    folded: nn.Module = fusion.fuse_conv_bn_eval(pair[0].double(), pair[1].double()).to(dtype)
    return folded


def _replace(module: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, replacement)


def initialise_by_name(net: AnyNetwork, tensors: Mapping[str, Tensor]) -> tuple[list[str], dict[str, str]]:
    """Give `net` those tensors that fit it by name and shape; names taken, and the others' with the reason."""
    taken, skipped = [], {}
    with torch.no_grad():
        for name, own in net.state_dict().items():
            value = tensors.get(name)
            if value is None:
                skipped[name] = "not in the checkpoint"
            elif value.shape != own.shape:
                skipped[name] = f"{_shape(value.shape)} in the checkpoint, {_shape(own.shape)} here"
            else:
                own.copy_(value)  # tensors of a state dict share the network's memory
                taken.append(name)
    return taken, skipped


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, none in the memory of another: safetensors refuses files of tied weights."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        tensor = tensor.contiguous()
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return result


def _size(image: Tensor) -> str:
    return _shape(image.shape[-2:])


def _shape(lengths: Iterable[int]) -> str:
    return "x".join(map(str, lengths)) or "a number"


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {_shape(value.shape)}"
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, value))[:80]
        return f"a {type(value).__name__} with {keys}: return the logits alone"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: return the logits alone"
    return type(value).__name__
