"""Encoders against the published network written out with torch's functions, from the package's own tensors."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from lpsnet.architecture import BLOCK_SETS, get_architecture
from lpsnet.errors import LpsnetError, ModelFileError
from lpsnet.models import encoders
from lpsnet.models.blocks import stage_blocks
from lpsnet.models.checkpoint import initialise_from
from lpsnet.models.network import create_model

NAMES = [name for name, row in encoders.ENCODERS.items() if row.package]
STRIDES = (2, 2, 2, 1)  # of Stages 2 to 5


def published(state, x, num_blocks):
    """EfficientNet-Lite up to its stride of 16, with TensorFlow's padding, from tensors in their order in the file."""
    weights = iter([key for key in state if key.endswith(".weight") and state[key].ndim == 4])
    norms = iter([key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")])

    def convolution(x, stride=1, active=True):
        weight, norm = state[next(weights)], next(norms)
        kernel, sizes = weight.shape[-1], x.shape[-2:]
        pads = [max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in reversed(sizes)]
        x = F.pad(x, [side for pad in pads for side in (pad // 2, pad - pad // 2)])
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        values = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *values, eps=1e-3)
        return x.clamp(0, 6) if active else x

    x = convolution(convolution(x, 2))
    x = convolution(x, active=False)
    for count, stride in zip(num_blocks[1:], STRIDES, strict=True):
        for number in range(count):
            inner = convolution(convolution(x), stride if number == 0 else 1)
            projected = convolution(inner, active=False)
            x = projected if number == 0 else x + projected
    return x


@pytest.mark.parametrize("name", NAMES)
def test_a_path_computes_the_published_features(name: str) -> None:
    pytest.importorskip(encoders.ENCODERS[name].package)
    net = encoders.encoder_network(name)
    state = encoders._read_package(encoders.find_encoder(name))
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    x = image
    with torch.no_grad():
        for stage in range(5):
            x = net.paths[0](x, stage)
        expected = published(state, image, net.architecture.blocks)
    assert x.shape == (1, net.architecture.widths[-1], 4, 6)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


def test_every_path_starts_with_the_encoder_and_the_head_stays(monkeypatch) -> None:
    source = create_model("B=1,2,2,3,3;C=16,24,40,80,112;R=1", num_classes=1, block="efficientnet_lite", form="plain")
    for parameter in source.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    net = create_model(get_architecture("lite0").replace(ratios=("1", "1/2")), num_classes=5, block="efficientnet_lite")
    head = net.head.weight.clone()
    report = initialise_from(net, source)
    assert all((parameter == 0.5).all() for parameter in net.paths.parameters())
    assert torch.equal(net.head.weight, head)
    assert {name.split(".")[0] for name in report.skipped} == {"head", "context", "mixing", "details"}


def test_weights_of_another_encoder_are_refused(monkeypatch) -> None:
    lite2 = {f"{index}.weight": torch.zeros(index + 1) for index in range(200)}
    monkeypatch.setattr(encoders, "_read_package", lambda encoder: lite2)
    monkeypatch.setattr(encoders, "_bundled", lambda name: encoders.Path("nowhere"))
    with pytest.raises(ModelFileError, match=r"not those of EfficientNet-Lite0.*0\.weight"):
        encoders.encoder_network("efficientnet_lite0")


def test_an_unknown_encoder_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ModelFileError, match="efficientnet_lite0"):
        encoders.find_encoder("efficientnet_lit0")


def test_other_blocks_share_no_weights_with_an_encoder() -> None:
    source = create_model("lite0", num_classes=1, form="plain")
    with pytest.raises(ModelFileError, match="efficientnet_lite"):
        initialise_from(create_model("lpsnet_s", form="plain"), source)


@pytest.mark.parametrize("name", BLOCK_SETS)
def test_a_set_of_blocks_and_its_five_names_are_the_same(name: str) -> None:
    assert stage_blocks(name) == stage_blocks(",".join(BLOCK_SETS[name])) == BLOCK_SETS[name]
    shapes = [
        {key: value.shape for key, value in create_model("tiny", block=block).state_dict().items()}
        for block in (name, ",".join(BLOCK_SETS[name]))
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("block", "word"), [("ghost,ghost", "5"), ("ghost,gost,ghost,ghost,ghost", "gost"), ("", "")])
def test_blocks_that_are_neither_one_nor_five_are_refused(block: str, word: str) -> None:
    with pytest.raises(LpsnetError, match=word):
        stage_blocks(block)


def test_mixed_blocks_stand_in_their_stages() -> None:
    blocks = ("conv3x3", "ghost", "bottleneck", "residual", "sepconv3x3")
    net = create_model("B=1,1,1,1,2;C=4,4,8,8,8;R=1", block=",".join(blocks))
    found = [type(stage[0]).__name__ for stage in net.paths[0].stages]
    assert found == ["Conv3x3", "GhostModule", "Bottleneck", "Residual", "SepConv3x3"]
    assert net(torch.randn(1, 3, 48, 64)).shape == (1, 19, 3, 4)
    assert len(set(itertools.chain(found))) == 5


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_come_with_the_package_are_the_encoders_own(name: str, monkeypatch) -> None:
    if not encoders._bundled(name).exists():
        pytest.skip("not bundled")
    pytest.importorskip(encoders.ENCODERS[name].package)
    bundled = encoders.encoder_network(name).state_dict()
    monkeypatch.setattr(encoders, "_bundled", lambda name: encoders.Path("nowhere"))
    from_package = encoders.encoder_network(name).state_dict()
    paths = [key for key in bundled if key.startswith("paths.")]
    assert all(torch.equal(bundled[key], from_package[key]) for key in paths)
