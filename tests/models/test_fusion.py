"""The deployed form has the logits of the training form, for every network, with arbitrary batch-norm statistics."""

import pytest
import torch
from torch import nn

from lpsnet.errors import LpsnetError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse


def check_equal(net: Network, fused: Network, size: tuple[int, int] = (64, 96)) -> None:
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected, actual = net(image), fused(image)
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("step", range(15))
def test_every_step_of_table_4(step: int, randomised) -> None:
    net = randomised(create_model(f"step_{step}"))
    check_equal(net, fuse(net))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("ratios", ["3/4", "1,1/2", "1,1/2,1/4"])
def test_every_block_interaction_and_number_of_paths(block: str, interaction: str, ratios: str, randomised) -> None:
    arch = f"B=1,1,1,1,2;C=3,4,5,6,7;R={ratios}"
    net = randomised(create_model(arch, num_classes=2, block=block, interaction=interaction))
    fused = fuse(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    check_equal(net, fused)


@pytest.mark.parametrize("form", ["reparameterised", "plain", "deployed"])
def test_the_result_is_a_copy_and_the_original_untouched(form, randomised) -> None:
    net = randomised(create_model("tiny", form=form)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random_state = torch.get_rng_state()
    fused = fuse(net)
    assert net.training
    assert net.form == form
    assert (fused.form, fused.training) == ("deployed", False)
    assert torch.equal(torch.get_rng_state(), random_state)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.fill_(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_trained_step_later_still_equal() -> None:
    net = create_model("B=1,1,2,2,2;C=4,8,8,8,8;R=1,1/4", num_classes=3)
    for _ in range(3):
        net(torch.randn(4, 3, 64, 64)).square().mean().backward()
    check_equal(net.eval(), fuse(net))


def test_attributes_go_along() -> None:
    net = create_model("tiny", num_classes=5, block="ghost", interaction="direct_a", align_corners=False)
    fused = fuse(net)
    for name in ("architecture", "num_classes", "block", "interaction", "align_corners"):
        assert getattr(fused, name) == getattr(net, name)


def test_double_precision_stays(randomised) -> None:
    net = randomised(create_model("tiny")).double()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(fuse(net)(image), net(image), rtol=1e-12, atol=1e-12)


def test_the_fused_network_refuses_wrong_input_as_any_other() -> None:
    with pytest.raises(LpsnetError):
        fuse(create_model("tiny"))(torch.zeros(1, 3, 8, 8))
