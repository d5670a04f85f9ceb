"""Context, details and the layer before the logits, against the network written out with torch's functions."""

import pytest
import torch
import torch.nn.functional as F

from lpsnet.architecture import Architecture, logits_size
from lpsnet.errors import LpsnetError
from lpsnet.models.network import CONTEXTS, create_model
from lpsnet.models.profile import complexity
from lpsnet.models.reparameterise import fuse

PLAIN = "B=1,1,1,1,1;C=4,6,8,10,12;R=1,1/2"
SIZES = [(64, 96), (33, 47)]


def randomised_parts(net):
    torch.manual_seed(0)
    for part in (net.context, net.details, net.head):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def resized(x, like, align_corners=True):
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("context", [name for name in CONTEXTS if name != "none"])
@pytest.mark.parametrize("detail", [8, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_new_parts_change_nothing_at_first_but_the_size_of_the_logits(context: str, detail: int, size) -> None:
    torch.manual_seed(0)
    plain = create_model(PLAIN, num_classes=3).eval()
    net = create_model(f"{PLAIN};D={detail};X={context}", num_classes=3).eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randn(2, 3, *size)
    logits = net(image)
    assert logits.shape[-2:] == logits_size(size, net.architecture) == tuple(-(-length // detail) for length in size)
    expected = plain(image)
    for stride in (8, 4):
        if stride >= detail:
            expected = F.interpolate(expected, [-(-n // stride) for n in size], mode="bilinear", align_corners=True)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_details_add_logits_of_the_largest_paths_stages_3_and_2(size) -> None:
    net = randomised_parts(create_model(f"{PLAIN};D=4", num_classes=3, interaction="none"))
    image, maps = torch.randn(1, 3, *size), {}
    x = image
    for stage in range(5):
        x = maps[stage] = net.paths[0](x, stage)
    logits = net.head(net.features(image))
    for detail, stage in zip(net.details, (2, 1), strict=True):
        own = F.conv2d(maps[stage], detail.weight)
        logits = resized(logits, own) + own
    torch.testing.assert_close(net(image), logits)


def test_the_gate_scales_features_by_what_the_whole_image_holds() -> None:
    net = randomised_parts(create_model(f"{PLAIN};X=gate", num_classes=3))
    x = torch.randn(2, 24, 5, 7)
    means = x.flatten(2).mean(2)
    gate = 2 / (1 + torch.exp(-(means @ net.context.gate.weight[:, :, 0, 0].T + net.context.gate.bias)))
    torch.testing.assert_close(net.context(x), x * gate[:, :, None, None])


def test_the_pyramid_adds_averages_over_three_sizes() -> None:
    net = randomised_parts(create_model(f"{PLAIN};X=pyramid", num_classes=3))
    x = torch.randn(1, 24, 9, 13)
    total = x
    for number, (kernel, stride) in enumerate(((5, 2), (9, 4), (None, None))):
        average = x.mean((2, 3), keepdim=True) if kernel is None else F.avg_pool2d(x, kernel, stride, kernel // 2)
        reduce = net.context.reduce[number]
        part = resized(F.relu(F.conv2d(average, reduce.weight, reduce.bias)), x, align_corners=False)
        total = total + F.conv2d(part, net.context.gate.weight[:, number * 6 : number * 6 + 6])
    torch.testing.assert_close(net.context(x), total + net.context.gate.bias[:, None, None], rtol=1e-4, atol=1e-5)


def test_a_layer_before_the_logits() -> None:
    net = create_model(f"{PLAIN};H=16", num_classes=3).eval()
    image = torch.randn(1, 3, 64, 64)
    assert net.features(image).shape == (1, 16, 4, 4)
    assert (net.features(image) >= 0).all()
    names = [name for name in net.state_dict() if name.startswith(("mixing", "head"))]
    assert names[:2] == ["head.weight", "head.bias"]
    assert "mixing.conv.weight" in names


@pytest.mark.parametrize("additions", ["D=8", "D=4;X=gate;H=16", "X=pyramid"])
def test_the_deployed_form_gives_the_same_logits(additions: str, randomised) -> None:
    net = randomised_parts(randomised(create_model(f"{PLAIN};{additions}", num_classes=3)))
    image = torch.randn(2, 3, 70, 90)
    torch.testing.assert_close(fuse(net)(image), net(image), rtol=1e-4, atol=1e-4)


def test_what_the_additions_cost_is_counted() -> None:
    plain, more = (complexity(text, size=(64, 64), num_classes=3) for text in (PLAIN, f"{PLAIN};D=8;X=gate"))
    assert more.parameters - plain.parameters == 8 * 3 + 24 * 24 + 24
    assert more.macs - plain.macs == 8 * 3 * 8 * 8 + 24 * 24


def test_an_unknown_context_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LpsnetError, match="context"):
        create_model(f"{PLAIN};X=gat")


@pytest.mark.parametrize("text", [f"{PLAIN};D=8;X=gate;H=128", f"{PLAIN};H=8", f"{PLAIN};X=pyramid", PLAIN])
def test_text_and_json_hold_the_additions_that_are_there(text: str) -> None:
    architecture = Architecture.parse(text)
    assert str(architecture) == text
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert ("detail" in architecture.to_dict()) == ("D=" in text)


@pytest.mark.parametrize("wrong", ["D=2", "D=8,8", "X=", "X=Gate!", "H=-1", "H=70000", "Z=1", "D=8;D=8"])
def test_wrong_additions_are_refused(wrong: str) -> None:
    with pytest.raises(LpsnetError):
        Architecture.parse(f"{PLAIN};{wrong}")
