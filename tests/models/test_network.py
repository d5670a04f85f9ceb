"""Shapes, names, errors, gradients, and that the network can be traced."""

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from lpsnet.architecture import Architecture, logits_size
from lpsnet.errors import ArchitectureError, LpsnetError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import create_model

RATIOS = {1: "1/2", 2: "3/4,1/4", 3: "1,1/2,1/4", 4: "5/4,1,2/3,1/8"}
SIZES = [(33, 47), (32, 32), (333, 517), (64, 96), (100, 35)]


def tiny(num_paths: int = 2, **options):
    options = {"num_classes": 3, **options}
    return create_model(f"B=1,1,1,1,2;C=3,4,5,6,7;R={RATIOS[num_paths]}", **options)


@pytest.mark.parametrize("num_paths", RATIOS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_scores_have_the_size_that_the_architecture_says(num_paths: int, size: tuple[int, int]) -> None:
    net = tiny(num_paths, form="plain").eval()
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        features, logits = net.features(image), net(image)
    height, width = logits_size(size, net.architecture)
    assert features.shape == (1, num_paths * 7, height, width)
    assert logits.shape == (1, 3, height, width)
    assert torch.equal(logits, F.conv2d(features, net.head.weight, net.head.bias))


@pytest.mark.parametrize("num_classes", [1, 2, 255])
def test_class_counts(num_classes: int) -> None:
    assert tiny(num_classes=num_classes).eval()(torch.randn(2, 3, 32, 32)).shape[:2] == (2, num_classes)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_gradients_reach_every_parameter(block: str, interaction: str) -> None:
    net = tiny(3, block=block, interaction=interaction)
    net(torch.randn(2, 3, 48, 64)).square().mean().backward()
    assert not [name for name, parameter in net.named_parameters() if parameter.grad is None]


def test_attributes_and_defaults() -> None:
    net = create_model("tiny")
    assert (net.num_classes, net.block, net.interaction, net.form) == (19, "conv3x3", "bilateral_b", "reparameterised")
    assert net.architecture == Architecture((1, 1, 1, 1, 1), (4, 8, 16, 32, 32), ("1/2",))
    assert net.align_corners
    assert net.training


def test_names_in_the_state_dict() -> None:
    names = set(tiny(form="deployed").state_dict())
    assert {"paths.0.stages.0.0.unit.conv.weight", "paths.1.stages.4.1.unit.conv.bias", "head.weight"} <= names
    assert len(names) == 2 * 2 * 6 + 2


def test_weights_are_initialised_as_documented() -> None:
    net = create_model("lpsnet_s", form="plain")
    weight = net.paths[0].stages[4][3].unit.conv.weight
    assert weight.std().item() == pytest.approx((2 / (96 * 9)) ** 0.5, rel=0.02)
    assert net.head.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not net.head.bias.any()


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_convention_of_resizing_holds_from_image_to_head(align_corners: bool) -> None:
    net = tiny(2, interaction="none", form="plain", align_corners=align_corners).eval()
    image = torch.randn(1, 3, 70, 90)
    x = [F.interpolate(image, size, mode="bilinear", align_corners=align_corners) for size in ((52, 67), (17, 22))]
    for stage in range(5):
        x = [net.paths[path].stages[stage](x[path]) for path in range(2)]
    second = F.interpolate(x[1], x[0].shape[2:], mode="bilinear", align_corners=align_corners)
    assert torch.equal(net.features(image), torch.cat((x[0], second), 1))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"block": "conv3x4"}, "did you mean 'conv3x3'"),
        ({"interaction": "bilateral"}, "bilateral_a"),
        ({"form": "folded"}, "deployed"),
        ({"num_classes": 0}, "from 1 to 255"),
        ({"num_classes": 256}, "from 1 to 255"),
        ({"num_classes": True}, "from 1 to 255"),
        ({"num_classes": 2.0}, "from 1 to 255"),
    ],
)
def test_wrong_choices(options: dict[str, object], word: str) -> None:
    with pytest.raises(LpsnetError, match=word) as caught:
        create_model("tiny", **options)
    assert "\n" not in str(caught.value)


def test_unknown_architecture() -> None:
    with pytest.raises(ArchitectureError, match="lpsnet_s"):
        create_model("lpsnet_x")


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (torch.zeros(3, 64, 64), "N x 3 x H x W"),
        (torch.zeros(1, 1, 64, 64), "N x 3 x H x W"),
        (torch.zeros(1, 64, 64, 3), "N x 3 x H x W"),
        (torch.zeros(1, 3, 31, 64), "32x32.*31x64"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "floating-point"),
    ],
)
def test_wrong_inputs(image: torch.Tensor, word: str) -> None:
    with pytest.raises(LpsnetError, match=word):
        create_model("tiny")(image)


CASES = [
    *((block, "bilateral_b", "deployed") for block in BLOCKS),
    *(("conv3x3", interaction, "plain") for interaction in INTERACTIONS if interaction != "bilateral_b"),
    ("conv3x3", "bilateral_b", "reparameterised"),
]


@pytest.mark.parametrize(("block", "interaction", "form"), CASES)
def test_a_traced_network_takes_any_size(block: str, interaction: str, form) -> None:
    """Through ONNX Runtime; a ratio of 1/50 makes a path's input 1x1, where the size is clamped."""
    arch = "B=1,1,1,1,1;C=3,4,5,6,6;R=5/4,1/50"
    net = create_model(arch, num_classes=3, block=block, interaction=interaction, form=form).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        axes = {"image": {0: "n", 2: "h", 3: "w"}}
        image = torch.randn(1, 3, 64, 64)
        torch.onnx.export(net, (image,), file, dynamo=False, input_names=["image"], dynamic_axes=axes, opset_version=17)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 64, 64), (2, 33, 47), (1, 32, 32), (1, 131, 77)):
        image = torch.randn(batch, 3, height, width)
        expected = net(image).detach().numpy()
        (actual,) = session.run(None, {"image": image.numpy()})
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
