"""Filters for other channels, made of those for RGB: by arithmetic, and by images whose channels are equal."""

from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import randomise

from lpsnet.models.blocks import BLOCKS
from lpsnet.models.checkpoint import default_record, initialise_from, load_checkpoint, save_checkpoint, with_channels
from lpsnet.models.encoders import encoder_network
from lpsnet.models.network import Network, create_model
from lpsnet.models.profile import complexity
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord, Normalisation

ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
RGB = ("red", "green", "blue")
SIX = ("blue", "green", "red", "edge", "nir", "swir")


def network(form: str = "plain", *, block: str = "conv3x3", in_channels: int = 3) -> Network:
    torch.manual_seed(0)
    trained = "reparameterised" if form == "reparameterised" else "plain"
    net = create_model(ARCH, num_classes=4, block=block, form=trained, in_channels=in_channels)
    net = randomise(net).eval()
    return fuse(net) if form == "deployed" else net


def first_weight(net: Network) -> np.ndarray:
    return net.state_dict()["paths.0.stages.0.0.unit.conv.weight"].numpy()


def test_the_rule_by_hand() -> None:
    weight = first_weight(network())
    red, green, blue = weight[:, 0], weight[:, 1], weight[:, 2]
    one = first_weight(with_channels(network(), RGB, ("heat",)))
    assert np.allclose(one[:, 0], red + green + blue)
    six = first_weight(with_channels(network(), RGB, SIX))
    mean = (red + green + blue) / 3
    for channel, expected in enumerate((blue, green, red, mean, mean, mean)):
        assert np.allclose(six[:, channel], expected / 2, atol=1e-7)
    infrared = first_weight(with_channels(network(), RGB, ("nir", "red", "green")))
    for channel, expected in enumerate((blue, red, green)):  # what is missing in the sum is blue's
        assert np.allclose(infrared[:, channel], expected, atol=1e-7)


@pytest.mark.parametrize("form", ["reparameterised", "plain", "deployed"])
@pytest.mark.parametrize("names", [("heat",), ("a", "b"), ("nir", "red", "green"), SIX, tuple("abcdefghijklmnop")])
def test_an_image_of_equal_channels_gives_the_same_logits(form: str, names: tuple[str, ...]) -> None:
    net = network(form)
    other = with_channels(net, RGB, names)
    assert other.in_channels == len(names)
    assert other.form == form
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected, found = (each(grey.expand(1, each.in_channels, 64, 64)) for each in (net, other))
    assert torch.allclose(expected, found, atol=1e-5 * float(expected.abs().max()))
    assert (net(torch.randn(1, 3, 64, 64)) - expected).abs().max() > 0.01, "the network looks at its image"


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("form", ["plain", "deployed"])
def test_every_block_takes_other_channels(block: str, form: str) -> None:
    net = network(form, block=block)
    for names in (("heat",), SIX):
        other = with_channels(net, RGB, names)
        assert other(torch.randn(1, len(names), 64, 64)).shape == (1, 4, 4, 4)
        same = [name for name, value in net.state_dict().items() if torch.equal(value, other.state_dict()[name])]
        assert len(same) > 0.7 * len(net.state_dict())


def test_channels_are_known_by_their_names() -> None:
    net = network(in_channels=6)
    swapped = with_channels(net, SIX, SIX[::-1])
    image = torch.randn(1, 6, 64, 64)
    assert torch.allclose(net(image), swapped(image.flip(1)), atol=1e-4)


def test_inner_widths_of_the_same_number_are_left_alone() -> None:
    """A bottleneck of width 12 computes in 3 channels of its own."""
    torch.manual_seed(0)
    net = create_model("B=1,1,1,1,1;C=12,12,8,8,8;R=1", num_classes=4, block="bottleneck", form="plain").eval()
    inner = "paths.0.stages.0.0.spatial.conv.weight"
    assert net.state_dict()[inner].shape == (3, 3, 3, 3)
    other = with_channels(net, RGB, ("nir", "red", "green"))
    assert torch.equal(net.state_dict()[inner], other.state_dict()[inner])


def record_of(net: Network, names: tuple[str, ...]) -> ModelRecord:
    norm = Normalisation(mean=(0.1,) * len(names), std=(0.2,) * len(names), max_value=65535)
    return default_record(net).model_copy(update={"channels": names, "normalisation": norm})


def test_checkpoints_keep_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    net = network(in_channels=6)
    save_checkpoint(net, path, record=record_of(net, SIX))
    loaded = load_checkpoint(path)
    assert loaded.in_channels == 6
    image = torch.randn(1, 6, 64, 64)
    assert torch.equal(net(image), loaded.eval()(image))
    with pytest.raises(ValueError, match="takes 6"):
        save_checkpoint(net, path, record=default_record(network()))
    with pytest.raises(ValueError, match="N x 6 x H x W"):
        loaded(torch.randn(1, 3, 64, 64))
    other = network(in_channels=1)
    taken = initialise_from(other, path, channels=("nir",))
    assert not [name for name in taken.skipped if "stages.0.0" in name]
    assert np.allclose(first_weight(other)[:, 0], 6 * first_weight(net)[:, SIX.index("nir")], atol=1e-5)


def test_imagenet_weights_are_inflated() -> None:
    net = create_model("lite0", num_classes=4, block="efficientnet_lite", form="plain", in_channels=6)
    done = initialise_from(net, encoder_network("efficientnet_lite0"), channels=SIX)
    stem = next(name for name, value in net.state_dict().items() if value.dim() == 4 and value.shape[1] == 6)
    assert stem in done.taken
    own = encoder_network("efficientnet_lite0").state_dict()[stem]
    assert torch.allclose(net.state_dict()[stem].sum(1), own.sum(1), atol=1e-5)
    assert torch.allclose(net.state_dict()[stem][:, 2], own[:, 0] / 2)


def test_operations_count_the_first_layer_by_its_channels() -> None:
    size = (64, 96)
    three, six = (complexity(network("deployed", in_channels=count), size=size) for count in (3, 6))
    paths = [(32 * 48, 4), (16 * 24, 4)]  # the first 3x3 convolution of each path: positions and filters
    assert six.macs - three.macs == sum(positions * filters * 9 * 3 for positions, filters in paths)
