"""The quick bfloat16 gradients against torch's own in float32."""

import pytest
import torch
import torch.nn.functional as F

from lpsnet.models.blocks import BLOCKS, depthwise_bf16

CASES = [  # channels, kernel, stride, height, width, padding
    (8, 3, 2, 13, 18, (0, 2, 0, 2)),
    (8, 3, 2, 14, 17, (1, 1, 1, 1)),
    (6, 5, 2, 15, 20, (1, 3, 1, 3)),
    (6, 5, 2, 9, 8, (2, 2, 2, 2)),
    (6, 5, 1, 9, 9, (2, 2, 2, 2)),
    (1, 5, 2, 1, 2, (1, 3, 1, 3)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_float32_but_for_rounding(case) -> None:
    channels, kernel, stride, height, width, padding = case
    generator = torch.Generator().manual_seed(0)
    # values that bfloat16 holds, so that only results are rounded
    x = torch.randint(-4, 5, (2, channels, height, width), generator=generator).float().requires_grad_()
    weight = torch.randint(-4, 5, (channels, 1, kernel, kernel), generator=generator).float().requires_grad_()
    expected = F.conv2d(F.pad(x, padding), weight, stride=stride, groups=channels)
    given = torch.randint(-2, 3, expected.shape, generator=generator).float()
    wanted = torch.autograd.grad(expected, (x, weight), given)
    result = depthwise_bf16(x, weight, stride, padding)
    found = torch.autograd.grad(result, (x, weight), given.bfloat16())
    for mine, theirs in zip((result, *found), (expected, *wanted), strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine.float(), theirs, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("block", ["lite_e6k5", "lite_e6k3", "lite_stem"])
def test_a_block_under_autocast_learns_what_it_learns_in_float32(block: str) -> None:
    torch.manual_seed(0)
    net = BLOCKS[block].build(8, 16, 2, "plain")
    x = torch.randn(4, 8, 24, 32)
    gradients = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = net(x)
        (y.float() * torch.linspace(-1, 1, 16)[:, None, None]).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() / p.grad.norm() for p in net.parameters() if p.ndim > 1]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.98  # as torch itself in bfloat16
