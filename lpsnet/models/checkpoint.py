"""Checkpoints: a safetensors file with a network's weights and its record; weights in our ONNX files; official files.

The record holds how the network is built; tensors have the names of its state dict. Loading runs no code of the file.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lpsnet import __version__
from lpsnet.architecture import NUM_STAGES, Architecture, Ratio
from lpsnet.data.channels import RGB_NAMES, Channels
from lpsnet.data.labels import MAX_CLASSES, LabelSpace, plain_name
from lpsnet.errors import LpsnetError, ModelFileError, NetworkError
from lpsnet.inference.model_file import check_model_file, open_whole, read_record
from lpsnet.inference.onnx_graph import read_weights
from lpsnet.io import atomic_path
from lpsnet.models import any_network
from lpsnet.models.any_network import AnyNetwork, Model
from lpsnet.models.blocks import BLOCKS, stage_blocks
from lpsnet.models.network import Network, create_model, empty_network, fill, fitting, not_finite, some
from lpsnet.models.reparameterise import to_parallel_branches, to_single_branch
from lpsnet.plugins import network_named
from lpsnet.record import RECORD_KEY, ModelRecord, Normalisation, plain_normalisation

_log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
ONNX_SUFFIX = ".onnx"  # files that `lpsnet export` wrote in f32 or f16 hold the deployed network's weights by name
_NUM_BLOCKS_UNCHECKED = 1_000  # a record naming more is held against the tensors before such a network is built


def default_record(net: Model, *, label_space: LabelSpace | None = None) -> ModelRecord:
    """A record of the network's own facts; without `label_space` its classes are numbered, as are other channels."""
    other: dict[str, Any] = {} if isinstance(net, Network) else {"network": net.network, "network_digest": net.digest}
    normalisation = Normalisation() if isinstance(net, Network) else net.normalisation
    if net.in_channels != 3:
        other["channels"] = Channels.numbered(net.in_channels).names
        normalisation = plain_normalisation(net.in_channels)
    return ModelRecord(
        architecture=net.architecture,
        **other,
        block=net.block,
        interaction=net.interaction,
        form=net.form,
        label_space=label_space or LabelSpace.numbered(net.num_classes),
        normalisation=normalisation,
        align_corners=net.align_corners,
        lpsnet_version=__version__,
    )


def save_checkpoint(
    net: Model, path: str | Path, *, record: ModelRecord | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write the network's weights and its record to `path` (….safetensors), in one step: whole or not at all.

    Args:
        net: a network in any form.
        record: `default_record(net)` unless given.
        dtype: floating-point type of the weights in the file, e.g. `torch.float16` for half the size; unchanged unless
            given. They are float32 again when loaded.

    Raises:
        ModelFileError: the record is not this network's, the suffix is another, a weight is infinite or NaN, in
            `dtype` too, or a network of other code has no name to be loaded by (see `load_network`).
        RunError: the file cannot be written.
    """
    path = _with_suffix(path)
    record = record or default_record(net)
    _check_record(record, net)
    if isinstance(net, AnyNetwork) and not net.network:
        raise ModelFileError(
            f"not saved to {path}: no code is named for this network; make it with lpsnet.load_network"
        )
    state = net.state_dict().items()
    # unshared makes them contiguous, too: a channels-last network's weights are not
    tensors = any_network.unshared(
        {name: t.detach().cpu().to(dtype if t.is_floating_point() else None) for name, t in state}
    )
    if broken := not_finite(tensors):
        as_type = f" as {str(dtype).removeprefix('torch.')}" if dtype else ""
        raise ModelFileError(f"not saved to {path}: weights{as_type} hold infinities or NaNs: {some(broken)}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={RECORD_KEY: record.to_json(), "format": "pt"}))


def load_checkpoint(path: str | Path, *, num_classes: int | None = None) -> Model:
    """The network in a checkpoint, in the form it was saved in, in evaluation mode, with float32 weights on the CPU.

    Its record: `lpsnet.inference.model_file.read_record(path)`. Where that names other code, the code runs only if it
    was given to this process before, by `--network`, `load_network` or `plugins.use_network`.

    Args:
        path: a file that `save_checkpoint` or `export_onnx` (not in int8) wrote.
        num_classes: the number of classes it must have, if that matters.

    Raises:
        ModelFileError: there is no such file, it is not a checkpoint, its weights are not those of the network that its
            record describes (a few are named), hold infinities or NaNs, or it has another number of classes.
        NetworkError: its record names other code that was not given, or that code fails.
    """
    record = _read_record(path)
    space = record.label_space
    if num_classes not in (None, space.num_classes):
        raise ModelFileError(
            f"{path} scores {space.num_classes} classes ({space.name}), not {num_classes}; "
            "to train it for others use it as initial weights"
        )
    if record.network:
        return _load_any(Path(path), record)
    net, tensors = _read(path)
    return fill(net, tensors)


def _load_any(path: Path, record: ModelRecord) -> AnyNetwork:
    source = network_named(record.network, record.network_digest)
    if source is None:
        raise NetworkError(f"{path} is a checkpoint of other code: give it with --network PATH/{record.network}")
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelFileError(f"{path} holds no weights by name; give the checkpoint that it was exported from")
    if source.digest != record.network_digest:
        _log.warning(f"warning: {source.spec} is not as it was when {path} was made; its results may differ")
    with torch.random.fork_rng(devices=[]):
        counts = {"num_classes": record.label_space.num_classes, "in_channels": len(record.channels)}
        net = any_network.load_network(source, **counts)
    if net.align_corners != record.align_corners:
        raise ModelFileError(f"{path} has align_corners={record.align_corners}, {source.spec} {net.align_corners}")
    net = any_network.fuse_any(net) if record.form == "deployed" else net
    return any_network.with_weights(net, fitting(_read_tensors(path), net.state_dict(), source=path))


@dataclass(frozen=True, slots=True)
class Initialisation:
    """What `initialise_from` did.

    Attributes:
        taken: names of the network's tensors that have the checkpoint's values now.
        skipped: the other tensors' names, which kept their values, each with the reason.
    """

    taken: tuple[str, ...]
    skipped: dict[str, str]


def initialise_from(
    net: Model,
    path: str | Path | Network,
    *,
    images: Tensor | None = None,
    classes: Sequence[str] | None = None,
    channels: Sequence[str] = RGB_NAMES,
) -> Initialisation:
    """Give `net` those weights of a checkpoint that fit it by name and shape; the rest of `net` keeps its own.

    The checkpoint may have other ratios, blocks, widths, interaction, classes or number of paths: the head is skipped
    with another number of paths, and with another number of classes unless the `classes` of `net` are given: then it
    takes those of the same names, and is skipped where there is none. Where the checkpoint has fewer paths than `net`,
    its last path serves for all those it has not.

    A network of other code takes from a checkpoint of such a network, whose code need not be known.

    Args:
        net: the network.
        path: of the checkpoint, as for `load_checkpoint`; or a network, such as `encoders.encoder_network` gives.
        images: N x C x H x W, normalised; what batch norms are measured on where the checkpoint has none. With them a
            `net` in any training form takes from a deployed checkpoint, and one in the form "plain" from a checkpoint
            with parallel branches. A `net` with parallel branches takes from a plain checkpoint without any.
        classes: the names of the classes of `net`, in their order.
        channels: the names of the channels of `net`; filters for other channels are made of the checkpoint's
            (`with_channels`).

    Raises:
        ModelFileError: the file is not a usable checkpoint, or has another block or form than `net`, so that its
            weights mean something else.
    """
    if isinstance(net, AnyNetwork):
        return Initialisation(*_taken_by_any(net, path))
    pairs: list[tuple[int, int]] | None = None
    given: Sequence[str] = RGB_NAMES
    if isinstance(path, Network):
        source, tensors, path = path, dict(path.state_dict()), "the given network"
    else:
        source, tensors = _read(path)
        source, given = fill(source, tensors), _read_record(path).channels
        pairs = None if classes is None else _same_classes(classes, _read_record(path).label_space.names)
    if tuple(channels) != tuple(given) and len(channels) == net.in_channels:
        source = with_channels(source, given, channels)
        tensors = dict(source.state_dict())
    if source.form != net.form and stage_blocks(source.block) == stage_blocks(net.block):
        if images is not None and (net.form == "plain" or source.form == "deployed"):
            source = to_single_branch(source.eval(), images)
        if (source.form, net.form) == ("plain", "reparameterised"):
            source = to_parallel_branches(source)
        tensors = source.state_dict()
    _check_compatible(net, source, path)
    taken, skipped = [], {}
    for name, own in net.state_dict().items():
        value = tensors.get(_name_in(source.architecture, name))
        if value is None:
            skipped[name] = "not in the checkpoint"
        elif pairs and name.startswith(_OF_CLASSES) and value.shape[1:] == own.shape[1:]:
            for mine, theirs in pairs:
                own[mine] = value[theirs]
            taken.append(name)
        elif value.shape != own.shape:
            skipped[name] = f"{_shape(value)} in the checkpoint, {_shape(own)} here"
        elif pairs == [] and name.startswith(_OF_CLASSES):
            skipped[name] = "not of the same classes"
        else:
            own.copy_(value)  # tensors of a state dict share the network's memory
            taken.append(name)
    return Initialisation(tuple(taken), skipped)


@torch.no_grad()
def with_channels(net: Network, given: Sequence[str], wanted: Sequence[str]) -> Network:
    """A copy of `net` that takes images of other channels, known by their names.

    In a layer that reads the image, a channel that both have keeps its filter times len(given) / len(wanted), and all
    others get equal shares of what is then missing in the filters' sum. So the response to an image whose channels are
    equal stays what it was, wherever there is another channel, or all are kept. A network for one grey channel gets the
    sum over RGB; one for red, green, blue and others 3 / C of the filters for RGB, and 3 / C of their mean for each of
    the others. Where a layer computes channel by channel, a channel that `net` does not have gets the mean of the
    others' numbers, unscaled.

    Args:
        net: in any form.
        given: the names of its channels.
        wanted: of the new ones.
    """
    config = {**net.config, "in_channels": len(wanted)}
    changed = empty_network(net.architecture, **config, form=net.form)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        fresh = create_model(net.architecture, **config, form="plain" if net.form == "deployed" else net.form)
    places = [given.index(name) if name in given else None for name in wanted]
    state, others = dict(net.state_dict()), fresh.state_dict()
    for name, axis in _image_axes(net).items():
        if axis is None:  # of a width that follows from the number of channels
            state[name] = others.get(name, torch.zeros(changed.state_dict()[name].shape))
        else:
            state[name] = (_each, _shared)[axis](state[name], places)
    return fill(changed, state).train(net.training)


_TRIED = (17, 19)  # numbers of channels that no width follows from by chance


def _image_axes(net: Network) -> dict[str, int | None]:
    """The tensors whose shape follows from the number of channels: by name the axis, 0 or 1, that has this number."""
    shapes = [
        {
            name: tuple(value.shape)
            for name, value in empty_network(net.architecture, **config, form=net.form).state_dict().items()
        }
        for config in ({**net.config, "in_channels": count} for count in _TRIED)
    ]
    changing = [name for name in shapes[0] if shapes[0][name] != shapes[1][name]]
    pairs = {name: list(zip(shapes[0][name], shapes[1][name], strict=True)) for name in changing}
    others = {name: {pair for pair in of if pair[0] != pair[1]} for name, of in pairs.items()}
    return {name: of.index(_TRIED) if others[name] == {_TRIED} else None for name, of in pairs.items()}


def _each(values: Tensor, places: Sequence[int | None]) -> Tensor:
    mean = values.float().mean(0).to(values.dtype)
    return torch.stack([mean if place is None else values[place] for place in places])


def _shared(weight: Tensor, places: Sequence[int | None]) -> Tensor:
    """A convolution's weight, O x C x k x k, for other channels; see `with_channels`."""
    factor = weight.shape[1] / len(places)
    kept = sum((factor * weight[:, place] for place in places if place is not None), torch.zeros_like(weight[:, 0]))
    share = (weight.sum(1) - kept) / max(1, places.count(None))
    return torch.stack([share if place is None else factor * weight[:, place] for place in places], dim=1)


_OF_CLASSES = ("head.", "details.")  # tensors with a row for every class
_NUMBERED = re.compile(r"(class|category|label|id)?\d+")  # a plain name that does not say what the class is


def _same_classes(own: Sequence[str], given: Sequence[str]) -> list[tuple[int, int]] | None:
    """The places of the classes of `own` and of `given` with the same name.

    None where both have the same classes, or names of neither tell: they are numbers, and none is in both.
    """
    if list(own) == list(given):
        return None
    places = {plain_name(name): place for place, name in enumerate(given)}
    pairs = [(place, places[plain_name(name)]) for place, name in enumerate(own) if plain_name(name) in places]
    tells = any(_NUMBERED.fullmatch(plain_name(name)) is None for name in (*own, *given))
    return pairs if pairs or tells else None


def _taken_by_any(net: AnyNetwork, path: str | Path | Network) -> tuple[tuple[str, ...], dict[str, str]]:
    record = None if isinstance(path, Network) else _read_record(path)
    if record is None or isinstance(path, Network) or not record.network:
        raise ModelFileError(f"{path} holds a network of this package; {net.title} has no such weights")
    if record.form != net.form:
        raise ModelFileError(
            f"{path} has the form {record.form!r}, {net.title} the form {net.form!r}: batch norms differ"
        )
    tensors = _read_tensors(Path(path))
    if broken := not_finite(tensors):
        raise ModelFileError(f"the weights in {path} are of no use, infinities or NaNs are in: {some(broken)}")
    taken, skipped = any_network.initialise_by_name(net, tensors)
    return tuple(taken), skipped


def _with_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ModelFileError(f"a checkpoint's name ends in {SUFFIX}; got {path}")
    return path


def _check_record(record: ModelRecord, net: Model) -> None:
    own = default_record(net)
    for field in ("architecture", "network", "block", "interaction", "form", "align_corners"):
        recorded, true = getattr(record, field), getattr(own, field)
        if recorded != true:
            raise ModelFileError(
                f"the record has {field} {recorded}, the network has {true}; give the network's record"
            )
    if record.label_space.num_classes != net.num_classes:
        raise ModelFileError(
            f"the record's label space {record.label_space.name!r} has {record.label_space.num_classes} classes, "
            f"the network {net.num_classes}; give the label space it was trained for"
        )
    if len(record.channels) != net.in_channels:
        raise ModelFileError(
            f"the record has {record.image_channels}, the network takes {net.in_channels}; give the network's record"
        )


def _read_record(path: str | Path) -> ModelRecord:
    path = Path(path)
    return read_record(path if path.suffix.lower() == ONNX_SUFFIX else _with_suffix(path))


def _read(path: str | Path) -> tuple[Network, dict[str, Tensor]]:
    """Empty network and weights of a checkpoint of this package's own, fitting together."""
    path, record = Path(path), _read_record(path)
    if record.network:
        raise ModelFileError(f"{path} holds the network {record.network}, whose weights fit none of this package")
    if record.architecture is None:
        raise ModelFileError(f"{path} is a model of another kind: its record names no architecture")
    tensors = _read_tensors(path)
    num_blocks = record.architecture.num_paths * sum(record.architecture.blocks)
    if num_blocks > max(len(tensors), _NUM_BLOCKS_UNCHECKED):
        raise ModelFileError(f"{path} has {len(tensors)} tensors, too few for the {num_blocks} blocks its record names")
    options: dict[str, Any] = {
        name: getattr(record, name) for name in ("block", "interaction", "form", "align_corners")
    }
    options |= {"num_classes": record.label_space.num_classes, "in_channels": len(record.channels)}
    try:
        net = empty_network(record.architecture, **options)
    except LpsnetError as error:
        raise ModelFileError(f"the record in {path} describes no network: {error}") from None
    if path.suffix.lower() == ONNX_SUFFIX:  # which has constants of its own besides the weights
        tensors = {name: tensors[name] for name in net.state_dict() if name in tensors}
        if not tensors:
            raise ModelFileError(f"{path} holds no weights of its network by name; take a file in f32 or f16")
    return net, fitting(tensors, net.state_dict(), source=path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix.lower() == ONNX_SUFFIX:  # `read_record` skipped the weights
        with open_whole(path) as file:
            return {name: torch.from_numpy(values) for name, values in read_weights(file).items()}
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} is not a whole {path.suffix[1:]} file: {error}; copy or save it again") from None


def _check_compatible(net: Network, source: Network, path: str | Path) -> None:
    if stage_blocks(source.block) != stage_blocks(net.block):
        raise ModelFileError(
            f"{path} is made of {source.block} blocks, the network of {net.block}: they share no weights"
        )
    has_branches = any(BLOCKS[block].has_branches for block in stage_blocks(net.block))
    trained_alike = "deployed" not in (source.form, net.form) and not has_branches
    if source.form == net.form or trained_alike:
        return
    hint = f"build the network with form={source.form!r}"
    if source.form == "deployed":
        hint = "it has no batch norms to train on; train in the form 'plain', or start from what it was fused from"
    raise ModelFileError(f"{path} has the form {source.form!r}, the network the form {net.form!r}: {hint}")


def _name_in(architecture: Architecture, name: str) -> str:
    """The tensor of a checkpoint of `architecture` that serves for the network's tensor `name`."""
    first, path, *rest = name.split(".")
    if first != "paths":
        return name
    return ".".join((first, str(min(int(path), architecture.num_paths - 1)), *rest))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


_OFFICIAL_NAME = re.compile(r"(net|netH|netL|net[1-9]\d?)\.stages\.([0-4])\.(\d{1,3})\.[01]\.\w+")
_OWN_NAME = re.compile(r"paths\.(\d+)\.stages\.(\d+)\.(\d+)\.unit\.(conv|norm)\.(\w+)")
_POSITIONS = {"conv": 0, "norm": 1}


def load_official_checkpoint(path: str | Path, *, ratios: Iterable[Ratio]) -> Network:
    """The network in a checkpoint of the official implementation, in evaluation mode, float32, on the CPU.

    Their tensors have other names (design-notes, 'Official checkpoint layout'): `net.stages.{stage}.{block}.0.weight`
    for one path, `netH.…` and `netL.…` for two, `net1.…`, `net2.…`, `net3.…` for more; `head.weight`, `head.bias`.
    Deployed: `.0.weight` and `.0.bias` of each 3x3 convolution; training: `.0.weight`, and `.1.*` of its batch norm.
    Blocks are conv3x3, the interaction is Bilateral-B. B, C and the number of classes follow from shapes.

    Args:
        path: a file that `torch.save` wrote: a state dict, or one wrapped as {"state_dict": …}; a prefix `module.` is
            dropped. It is read without running code (`weights_only`).
        ratios: R, e.g. ("3/4", "1/4"), which do not follow from shapes; zeros do not count.

    Returns:
        A conv3x3, bilateral_b network of form "deployed", or "plain" for a checkpoint with batch norms.

    Raises:
        ModelFileError: the file is not such a checkpoint (a few of the names that are missing, unexpected or misshapen
            are given), or has another number of paths than there are ratios.
        ArchitectureError: a ratio is no ratio.
    """
    tensors = _read_official(check_model_file(path))
    net = _network_of(tensors, ratios, path)
    own_state = net.state_dict()
    own_names = {_official_name(name, net.architecture.num_paths): name for name in own_state}
    expected = {official: own_state[name] for official, name in own_names.items()}
    fitted = fitting(tensors, expected, source=path)
    return fill(net, {own_names[official]: tensor for official, tensor in fitted.items()})


def official_state_dict(net: Network) -> dict[str, Tensor]:
    """The state dict that the official implementation reads, for `torch.save`; tensors share memory with `net`.

    Args:
        net: conv3x3, bilateral_b, `align_corners`, form "deployed" or "plain".

    Raises:
        LpsnetError: the official implementation has no such network.
    """
    if net.block != "conv3x3" or net.interaction != "bilateral_b" or not net.align_corners:
        raise LpsnetError(
            "the official implementation has conv3x3, bilateral_b and align_corners=True only; this network has "
            f"{net.block}, {net.interaction} and align_corners={net.align_corners}"
        )
    if net.form == "reparameterised":
        raise LpsnetError("the official implementation has no parallel branches; fuse the network first")
    return {_official_name(name, net.architecture.num_paths): tensor for name, tensor in net.state_dict().items()}


def _read_official(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a damaged or hostile file
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelFileError(f"{path} cannot be read as a checkpoint of torch.save: {reason}") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelFileError(f"{path} holds no state dict: names with a tensor each")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _network_of(tensors: Mapping[str, Tensor], ratios: Iterable[Ratio], path: str | Path) -> Network:
    """The empty network that the tensors' names and shapes describe."""
    matches = [match for name in tensors if (match := _OFFICIAL_NAME.fullmatch(name))]
    prefixes = _prefixes({match[1] for match in matches})
    if not prefixes:
        raise ModelFileError(f"{path} is no official checkpoint: it has no net….stages.…; it has {some([*tensors])}")
    blocks = [
        1 + max((int(match[3]) for match in matches if (match[1], match[2]) == (prefixes[0], str(stage))), default=0)
        for stage in range(NUM_STAGES)
    ]
    widths = [_length(tensors, f"{prefixes[0]}.stages.{stage}.0.0.weight", path) for stage in range(NUM_STAGES)]
    architecture = Architecture(blocks, widths, ratios)
    if architecture.num_paths != len(prefixes):
        raise ModelFileError(
            f"{path} has {len(prefixes)} paths, so it needs as many ratios greater than 0; got "
            f"{', '.join(map(str, architecture.ratios))}"
        )
    num_classes = _length(tensors, "head.weight", path)
    if num_classes > MAX_CLASSES:
        raise ModelFileError(f"{path} has {num_classes} classes; at most {MAX_CLASSES} are possible")
    has_norms = any(name.endswith(".1.running_mean") for name in tensors)
    return empty_network(architecture, num_classes=num_classes, form="plain" if has_norms else "deployed")


def _prefixes(found: set[str]) -> list[str]:
    """The names of all paths of a network, from those that were found."""
    if not found:
        return []
    numbers = (int(prefix.removeprefix("net")) for prefix in found - {"net", "netH", "netL"})
    return _path_names(1 if "net" in found else 2 if found & {"netH", "netL"} else max(3, *numbers))


def _path_names(num_paths: int) -> list[str]:
    few = {1: ["net"], 2: ["netH", "netL"]}
    return few.get(num_paths) or [f"net{number}" for number in range(1, num_paths + 1)]


def _length(tensors: Mapping[str, Tensor], name: str, path: str | Path) -> int:
    """The number of output channels of the convolution with this weight."""
    if name not in tensors:
        raise ModelFileError(f"the weights in {path} do not make a network: {name} is missing")
    if tensors[name].dim() != 4 or not len(tensors[name]):
        raise ModelFileError(f"{name} in {path} is no convolution's weight: its shape is {tuple(tensors[name].shape)}")
    return len(tensors[name])


def _official_name(name: str, num_paths: int) -> str:
    if name.startswith("head."):
        return name
    match = _OWN_NAME.fullmatch(name)
    assert match, name
    path, stage, block, module, parameter = match.groups()
    return f"{_path_names(num_paths)[int(path)]}.stages.{stage}.{block}.{_POSITIONS[module]}.{parameter}"
