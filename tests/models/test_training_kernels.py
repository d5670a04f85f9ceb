"""The loops of trainings in bfloat16, against torch in float64 and float32."""

import contextlib
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lpsnet import create_model
from lpsnet.models import training_kernels as loops
from lpsnet.models.blocks import BLOCKS


@pytest.fixture(autouse=True)
def _small_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_LARGE_ENOUGH", 0)


needs_loops = pytest.mark.skipif(loops.find_library() is None, reason="python build_kernels.py compiles the loops")


@contextlib.contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bf16_autocast():
    return torch.autocast("cpu", torch.bfloat16)


DEPTHWISE = [  # channels, kernel, stride, height, width, padding
    (8, 3, 2, 13, 18, (0, 2, 0, 2)),
    (8, 3, 2, 14, 17, (1, 1, 1, 1)),
    (16, 3, 1, 7, 9, (1, 1, 1, 1)),
    (37, 3, 1, 5, 6, (1, 1, 1, 1)),
    (6, 5, 2, 15, 20, (1, 3, 1, 3)),
    (33, 5, 2, 9, 8, (2, 2, 2, 2)),
    (32, 5, 1, 9, 9, (2, 2, 2, 2)),
    (1, 5, 2, 1, 2, (1, 3, 1, 3)),
    (16, 5, 1, 3, 2, (2, 2, 2, 2)),
]


@needs_loops
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_a_depthwise_convolution_is_that_of_float32_but_for_rounding(case, num_threads: int) -> None:
    channels, kernel, stride, height, width, padding = case
    generator = torch.Generator().manual_seed(0)
    # values that bfloat16 holds, so that only results are rounded
    x = torch.randint(-4, 5, (2, channels, height, width), generator=generator).float().requires_grad_()
    weight = torch.randint(-4, 5, (channels, 1, kernel, kernel), generator=generator).float().requires_grad_()
    assert loops.takes_depthwise(weight, stride)
    expected = F.conv2d(F.pad(x, padding), weight, stride=stride, groups=channels)
    given = torch.randint(-2, 3, expected.shape, generator=generator).float()
    wanted = torch.autograd.grad(expected, (x, weight), given)
    with threads(num_threads):
        result = loops.depthwise(x, weight, stride, padding)
        found = torch.autograd.grad(result, (x, weight), given.bfloat16())
    for mine, theirs in zip((result, *found), (expected, *wanted), strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine.float(), theirs, rtol=2**-7, atol=1e-3)


def norm_of(channels: int, **options) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, **options)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 3)
    return norm


@needs_loops
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("bounds", [loops.NO_BOUNDS, loops.RELU, loops.RELU6], ids=["none", "relu", "relu6"])
@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (3, 37, 12, 11), (1, 1, 1, 2)], ids=str)
def test_a_batch_norm_with_its_activation_is_that_of_float64(shape, bounds, num_threads: int) -> None:
    torch.manual_seed(0)
    norm = norm_of(shape[1])
    exact = norm_of(shape[1]).double()
    exact.load_state_dict(norm.state_dict())
    x = (3 * torch.randn(shape) + 5).bfloat16().requires_grad_()
    other = x.detach().double().requires_grad_()
    given = torch.randn(shape).bfloat16()
    expected = loops.activate(exact(other), bounds)
    expected.backward(given.double())
    with threads(num_threads), bf16_autocast():
        assert loops.is_used()
        result = loops.activated_norm(norm, x, bounds)
    assert result.grad_fn.name().startswith("_Norm")
    result.backward(given)
    assert result.dtype == x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), expected, rtol=2**-8, atol=2**-8)
    torch.testing.assert_close(x.grad.double(), other.grad, rtol=2**-7, atol=2**-7)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(norm, name).grad.double(), getattr(exact, name).grad, rtol=1e-4, atol=1e-4)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value, exact.state_dict()[name].to(value.dtype), rtol=1e-4, atol=1e-4)


@needs_loops
def test_options_of_a_batch_norm() -> None:
    """Without weights, with an average of all batches, without statistics."""
    for options in ({"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"momentum": 0.5}):
        norm, other = norm_of(8, **options), norm_of(8, **options)
        other.load_state_dict(norm.state_dict())
        for _ in range(2):
            x = torch.randn(2, 8, 6, 5).bfloat16().requires_grad_()
            with bf16_autocast():
                result = loops.activated_norm(norm, x, loops.RELU)
            torch.testing.assert_close(result.float(), F.relu(other(x.float())), rtol=2**-7, atol=2**-7)
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-3, atol=1e-3)


@needs_loops
def test_what_is_not_a_number_stays_so() -> None:
    """A training that diverges must be seen to."""
    x = torch.randn(2, 4, 3, 3)
    x[0, 1, 2, 2] = torch.nan
    with bf16_autocast():
        result = loops.activated_norm(norm_of(4), x.bfloat16().requires_grad_(), loops.RELU6)
        convolved = loops.depthwise(x.requires_grad_(), torch.ones(4, 1, 3, 3), 1, (1, 1, 1, 1))
    assert result[:, 1].isnan().all()
    assert not result[:, [0, 2, 3]].isnan().any()
    assert convolved[0, 1].isnan().sum() == 4


@needs_loops
def test_one_number_a_channel_is_refused_as_by_torch() -> None:
    x = torch.zeros(1, 4, 1, 1, dtype=torch.bfloat16).requires_grad_()
    for run in (nn.BatchNorm2d(4), lambda x: loops.activated_norm(nn.BatchNorm2d(4), x, loops.RELU)):
        with bf16_autocast(), pytest.raises(ValueError, match="more than 1 value per channel"):
            run(x)


def test_elsewhere_it_is_torch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation, with frozen statistics, in float32, without gradients, and without the library."""
    norm, x = norm_of(8), torch.randn(2, 8, 6, 5)
    frozen = norm_of(8).eval()
    with bf16_autocast():
        assert torch.equal(loops.activated_norm(frozen, x.bfloat16(), loops.RELU), F.relu(frozen(x.bfloat16())))
        with torch.no_grad():
            assert not loops.is_used()
    assert not loops.is_used()
    assert loops.activated_norm(norm, x, loops.RELU6).grad_fn.name().startswith("Hardtanh")
    monkeypatch.setattr(loops, "find_library", lambda: None)
    with bf16_autocast():
        assert loops.activated_norm(norm, x.bfloat16(), loops.RELU).grad_fn.name().startswith("Relu")


@needs_loops
@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_a_block_under_autocast_learns_what_it_learns_in_float32(block: str) -> None:
    torch.manual_seed(0)
    net = BLOCKS[block].build(8, 16, 2, "plain")
    x, given = torch.randn(4, 8, 24, 32), torch.randn(4, 16, 12, 16)
    gradients = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = net(x)
        y.backward(given.to(y.dtype))
        gradients.append(torch.cat([p.grad.flatten() / p.grad.norm() for p in net.parameters() if p.ndim > 1]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.994  # as torch itself in bfloat16


@needs_loops
@pytest.mark.parametrize("arch", ["lite0", "B=1,2,1,1,1;C=8,16,16,16,24;R=1,1/2"])
def test_networks_step_for_step_as_with_torch(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps with and without the loops: the losses, and the statistics that are kept."""
    x = torch.randn(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 5, (2, 64, 96))
    losses, statistics = [], []
    for library in (loops.find_library(), None):
        monkeypatch.setattr(loops, "find_library", lambda library=library: library)
        torch.manual_seed(0)
        net = create_model(arch, num_classes=5, form="plain").train().to(memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
        losses.append([])
        for _ in range(3):
            with bf16_autocast():
                logits = net(x)
            loss = F.cross_entropy(F.interpolate(logits.float(), size=(64, 96)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.item())
        kept = [value for name, value in net.state_dict().items() if name.endswith("running_var")]
        statistics.append(torch.cat([value / value.mean() for value in kept]))
        assert net.paths[0].stages[0][0].state_dict()  # the names are those of batch norms and convolutions
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    assert losses[0][2] < losses[0][0]
    assert F.cosine_similarity(*statistics, dim=0) > 0.999


def test_memory_is_kept_for_the_next_tensors_and_given_back() -> None:
    """Resident memory, read from the system, in a process of its own."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    code = """
import ctypes, torch
from lpsnet.models.training_kernels import kept_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before = resident()
with kept_memory():
    for _ in range(20):
        tensor = torch.ones(64 * 2**18)  # 64 MiB
        del tensor
    inside = resident() - before
print(round(inside), round(resident() - before), hasattr(ctypes.CDLL(None), "mallopt"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    inside, after, is_glibc = done.stdout.split()
    assert int(after) < 32
    assert is_glibc == "False" or 56 <= int(inside) <= 400, "kept, and taken again: not 1280"
