"""Each block against its paper's unit written out with torch's functions, and against the FLOPs of Table 2."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpsnet.models.blocks import BLOCKS, ConvNorm
from lpsnet.models.profile import complexity

State = dict[str, Tensor]


def unit(state: State, name: str, x: Tensor, *, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution with the strided operator, and batch norm in evaluation mode, from raw tensors."""
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    return norm(state, f"{name}.norm", x)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def shortcut(state: State, x: Tensor, stride: int) -> Tensor:
    return unit(state, "shortcut", x, stride=stride) if "shortcut.conv.weight" in state else x


def conv3x3(state: State, x: Tensor, stride: int, width: int) -> Tensor:
    total = unit(state, "unit.conv3x3", x, stride=stride) + unit(state, "unit.conv1x1", x, stride=stride)
    return F.relu(total + norm(state, "unit.identity", x) if "unit.identity.weight" in state else total)


def sepconv3x3(state: State, x: Tensor, stride: int, width: int) -> Tensor:
    return F.relu(unit(state, "pointwise", F.relu(unit(state, "depthwise", x, stride=stride, groups=x.shape[1]))))


def bottleneck(state: State, x: Tensor, stride: int, width: int) -> Tensor:
    inner = F.relu(unit(state, "spatial", F.relu(unit(state, "reduce", x)), stride=stride))
    return F.relu(unit(state, "expand", inner) + shortcut(state, x, stride))


def residual(state: State, x: Tensor, stride: int, width: int) -> Tensor:
    inner = F.relu(unit(state, "first", x, stride=stride))
    return F.relu(unit(state, "second", inner) + shortcut(state, x, stride))


def shufflenet(state: State, x: Tensor, stride: int, width: int) -> Tensor:
    half = width // 2
    same = stride == 1 and x.shape[1] == width
    left, right = (x[:, :half], x[:, half:]) if same else (x, x)
    right = F.relu(unit(state, "first", right))
    right = F.relu(unit(state, "second", unit(state, "spatial", right, stride=stride, groups=right.shape[1])))
    if not same and half:
        left = unit(state, "other_branch.0", left, stride=stride, groups=left.shape[1])
        left = F.relu(unit(state, "other_branch.1", left))
    pairs = [half_of[:, channel] for channel in range(half) for half_of in (left, right)]
    return torch.stack([*pairs, *right[:, half:].unbind(1)], dim=1)


def inverted_residual(state: State, x: Tensor, stride: int, width: int) -> Tensor:
    inner = F.relu6(unit(state, "expand", x))
    inner = F.relu6(unit(state, "depthwise", inner, stride=stride, groups=inner.shape[1]))
    projected = unit(state, "project", inner)
    return x + projected if stride == 1 and x.shape[1] == width else projected


def ghost(state: State, x: Tensor, stride: int, width: int) -> Tensor:
    primary = F.relu(unit(state, "primary", x, stride=stride))
    if width == 1:
        return primary
    cheap = F.relu(unit(state, "cheap", primary[:, : width // 2], groups=width // 2))
    return torch.cat((primary, cheap), dim=1)


def tensorflow_unit(state: State, name: str, x: Tensor, *, stride: int = 1, groups: int = 1) -> Tensor:
    """With stride 2 as TensorFlow pads even sizes: one zero less before the image than after it; epsilon 1e-3."""
    weight = state[f"{name}.conv.weight"]
    before, size = weight.shape[-1] // 2 - (stride - 1), [-(-length // stride) for length in x.shape[-2:]]
    x = F.conv2d(F.pad(x, (before, 9, before, 9)), weight, stride=stride, groups=groups)[..., : size[0], : size[1]]
    mean, var, scale, shift = (state[f"{name}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)


def mobile(convolution: Callable[..., Tensor]) -> Callable[[State, Tensor, int, int], Tensor]:
    """MobileNetV2's inverted residual, or its first convolution and first block."""

    def block(state: State, x: Tensor, stride: int, width: int) -> Tensor:
        inner, left = x, stride
        if "stem.conv.weight" in state:
            inner, left = F.relu6(convolution(state, "stem", x, stride=2)), 1
        if "expand.conv.weight" in state:
            inner = F.relu6(convolution(state, "expand", x))
        inner = F.relu6(convolution(state, "depthwise", inner, stride=left, groups=inner.shape[1]))
        projected = convolution(state, "project", inner)
        return x + projected if stride == 1 and x.shape[1] == width else projected

    return block


ORACLES: dict[str, Callable[[State, Tensor, int, int], Tensor]] = {
    "conv3x3": conv3x3,
    "sepconv3x3": sepconv3x3,
    "bottleneck": bottleneck,
    "residual": residual,
    "shufflenet": shufflenet,
    "inverted_residual": inverted_residual,
    "ghost": ghost,
    **dict.fromkeys(("mobilenetv2_stem", "mobilenetv2_e6"), mobile(unit)),
    **dict.fromkeys(("lite_stem", "lite_e6k3", "lite_e6k5"), mobile(tensorflow_unit)),
}
SHAPES = [(3, 8, 2), (8, 8, 1), (8, 24, 2), (7, 7, 1), (7, 9, 1), (5, 5, 2), (1, 1, 1), (3, 1, 2), (1, 2, 1), (6, 3, 1)]


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_block_is_the_unit_of_its_paper(name: str, shape: tuple[int, int, int], randomised) -> None:
    in_channels, width, stride = shape
    block = randomised(BLOCKS[name].build(in_channels, width, stride, "reparameterised"))
    x = torch.randn(2, in_channels, 9, 12)
    expected = ORACLES[name](block.state_dict(), x.clone(), stride, width)
    assert block(x).shape == (2, width, -(-9 // stride), -(-12 // stride))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_leaves_its_input_alone(name: str) -> None:
    x = torch.randn(2, 6, 8, 8)
    before = x.clone()
    BLOCKS[name].build(6, 6, 1, "plain")(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_deployed_form_has_no_batch_norm(name: str) -> None:
    block = BLOCKS[name].build(6, 8, 2, "deployed")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())
    assert all(module.bias is not None for module in block.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("form", ["reparameterised", "plain", "deployed"])
def test_no_block_has_a_strided_1x1_convolution(name: str, form) -> None:
    for module in BLOCKS[name].build(8, 24, 2, form).modules():
        assert not (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1))


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (1, 2)])
def test_a_subsampled_1x1_convolution_equals_the_strided_one(size: tuple[int, int]) -> None:
    ours = ConvNorm(3, 8, kernel=1, stride=2, deployed=True).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    strided = F.conv2d(x, ours.conv.weight, ours.conv.bias, stride=2)
    torch.testing.assert_close(ours(x), strided, rtol=1e-13, atol=1e-13)


def test_shufflenet_shuffles_even_widths_as_torch_does(randomised) -> None:
    block = randomised(BLOCKS["shufflenet"].build(8, 8, 1, "plain"))
    x = torch.randn(1, 8, 4, 4)
    unshuffled = torch.cat((x[:, :4], block(x)[:, 1::2]), dim=1)
    assert torch.equal(block(x), F.channel_shuffle(unshuffled, 2))


@pytest.mark.parametrize("name", [name for name, row in BLOCKS.items() if row.table_2_c])
def test_table_2(name: str) -> None:
    c = BLOCKS[name].table_2_c
    arch = f"B=1,2,4,7,7;C={c},{2 * c},{4 * c},{8 * c},{8 * c};R=1,1/4,0"
    counted = complexity(arch, size=(1024, 2048), num_classes=19, block=name, interaction="none")
    assert counted.macs / 1e9 == pytest.approx(BLOCKS[name].table_2_gmacs, rel=0.1)


_STEP = """
import torch
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.network import create_model

for block in BLOCKS:
    net = create_model("B=1,2,1,1,1;C=8,24,16,24,24;R=1,1/4", block=block, interaction="attention_b", num_classes=4)
    net = net.to(memory_format=torch.channels_last)
    for bf16 in (False, True):
        image = torch.randn(2, 3, 96, 128).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = net(image)
        logits.float().square().mean().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in net.parameters())
print("done")
"""


def test_a_channels_last_training_step_does_not_crash() -> None:
    """In a process of its own: what is feared is a corrupted heap (see `convolution.py`), which ends the process."""
    run = subprocess.run([sys.executable, "-c", _STEP], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, "done"), run.stderr[-500:]
