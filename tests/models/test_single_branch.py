"""The plain training form of a trained network: the same logits, and nearly the same in training mode."""

from pathlib import Path

import pytest
import torch

from lpsnet.errors import ModelFileError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.checkpoint import initialise_from, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse, to_single_branch

ARCH = "B=1,2,1,2,1;C=4,6,8,8,8;R=1,1/2"


def trained(block: str = "conv3x3", interaction: str = "bilateral_b") -> Network:
    """A network whose batch norms have seen something."""
    torch.manual_seed(2)
    net = create_model(ARCH, num_classes=5, block=block, interaction=interaction)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(30):
            net(torch.randn(4, 3, 64, 96))
    return net.eval()


def images(seed: int) -> torch.Tensor:
    return torch.randn(6, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("interaction", ["bilateral_b", "attention_b"])
def test_scores_stay_what_they_were(block: str, interaction: str) -> None:
    net = trained(block, interaction)
    plain = to_single_branch(net, images(0))
    assert plain.form == "plain"
    with torch.no_grad():
        before, after = net(images(1)), plain(images(1))
    assert (before - after).abs().max() < 1e-4 * before.abs().max()


def test_in_training_mode_the_measured_images_get_the_same_scores() -> None:
    net = trained()
    plain = to_single_branch(net, images(0))
    with torch.no_grad():
        expected, shown = net(images(0)), plain.train()(images(0))  # the images that were measured
        assert (expected - shown).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("deployed", [False, True])
def test_a_plain_network_starts_from_any_form(tmp_path: Path, deployed: bool) -> None:
    net = trained()
    save_checkpoint(fuse(net) if deployed else net, tmp_path / "a.safetensors")
    plain = create_model(ARCH, num_classes=5, form="plain")
    initialisation = initialise_from(plain, tmp_path / "a.safetensors", images=images(0))
    assert not initialisation.skipped
    with torch.no_grad():
        assert torch.allclose(plain.eval()(images(1)), net(images(1)), atol=1e-4)
    fresh = create_model(ARCH, num_classes=7, form="plain")
    assert set(initialise_from(fresh, tmp_path / "a.safetensors", images=images(0)).skipped) == {
        "head.weight",
        "head.bias",
    }
    with pytest.raises(ModelFileError, match="form"):
        initialise_from(create_model(ARCH, num_classes=5, form="plain"), tmp_path / "a.safetensors")
