"""Each interaction against Section 3.3 written out for two and three paths."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lpsnet.models.interactions import INTERACTIONS, Interaction
from lpsnet.models.profile import complexity

C = 5
SIZES = [(9, 14), (6, 7), (3, 2)]


def maps_of(num_paths: int) -> list[Tensor]:
    return [torch.randn(2, C, *size) for size in SIZES[:num_paths]]


def build(name: str, num_paths: int, randomised) -> tuple[Interaction, "Raw"]:
    module = Interaction(INTERACTIONS[name], num_paths, C, deployed=False, align_corners=True)
    return randomised(module), Raw(module.state_dict())


class Raw:
    """F, Att, U and D of Section 3.3 on the raw tensors of an interaction."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def f(self, pair: str, name: str, x: Tensor) -> Tensor:
        own = {key: self.state[f"pairs.{pair}.{name}.norm.{key}"] for key in ("running_mean", "running_var")}
        affine = {key: self.state[f"pairs.{pair}.{name}.norm.{key}"] for key in ("weight", "bias")}
        return F.batch_norm(F.conv2d(x, self.state[f"pairs.{pair}.{name}.conv.weight"]), **own, **affine)

    def att(self, pair: str, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.state[f"pairs.{pair}.{name}.conv.{key}"] for key in ("weight", "bias"))
        return torch.sigmoid(F.conv2d(x, weight, bias))


def to(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def check(actual: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_none_leaves_every_path_alone(randomised) -> None:
    module, _ = build("none", 3, randomised)
    maps = maps_of(3)
    assert all(one is other for one, other in zip(module(maps), maps, strict=True))


@pytest.mark.parametrize("name", INTERACTIONS)
def test_one_path_is_left_alone(name: str, randomised) -> None:
    module, _ = build(name, 1, randomised)
    (x,) = maps_of(1)
    assert torch.equal(module([x])[0], x)
    assert not list(module.parameters())


def test_direct_a(randomised) -> None:
    module, raw = build("direct_a", 2, randomised)
    h, low = maps_of(2)
    check(module([h, low]), [h + to(raw.f("0_1", "transform_low", low), h), low])


def test_direct_b(randomised) -> None:
    module, raw = build("direct_b", 2, randomised)
    h, low = maps_of(2)
    check(module([h, low]), [raw.f("0_1", "transform", torch.cat((h, to(low, h)), 1)), low])


def test_attention_a_is_equation_1(randomised) -> None:
    module, raw = build("attention_a", 2, randomised)
    h, low = maps_of(2)
    att, f_low = raw.att("0_1", "attention_low", low), raw.f("0_1", "transform_low", low)
    f_h = raw.f("0_1", "transform_high", h)
    check(module([h, low]), [to(f_low * att, h) + f_h * to(1 - att, h), f_low * att])


def test_attention_b(randomised) -> None:
    module, raw = build("attention_b", 2, randomised)
    h, low = maps_of(2)
    att_low, f_low = raw.att("0_1", "attention_low", low), raw.f("0_1", "transform_low", low)
    att_h, f_h = raw.att("0_1", "attention_high", h), raw.f("0_1", "transform_high", h)
    expected = [to(f_low * att_low, h) + f_h * to(1 - att_low, h), to(f_h * att_h, low) + f_low * to(1 - att_h, low)]
    check(module([h, low]), expected)


def test_bilateral_a(randomised) -> None:
    module, raw = build("bilateral_a", 2, randomised)
    h, low = maps_of(2)
    expected = [
        h + to(raw.f("0_1", "transform_low", low), h),
        low + to(raw.f("0_1", "transform_high", h), low),
    ]
    check(module([h, low]), expected)


def test_bilateral_b_is_equation_2(randomised) -> None:
    module, _ = build("bilateral_b", 2, randomised)
    h, low = maps_of(2)
    check(module([h, low]), [h + to(low, h), low + to(h, low)])


def test_bilateral_b_with_three_paths_reads_the_inputs_of_all(randomised) -> None:
    module, _ = build("bilateral_b", 3, randomised)
    a, b, c = maps_of(3)
    check(module([a, b, c]), [a + to(b, a) + to(c, a), b + to(a, b) + to(c, b), c + to(a, c) + to(b, c)])


def test_bilateral_a_with_three_paths_has_weights_of_its_own_for_every_pair(randomised) -> None:
    module, raw = build("bilateral_a", 3, randomised)
    a, b, c = maps_of(3)
    expected = [
        a + to(raw.f("0_1", "transform_low", b), a) + to(raw.f("0_2", "transform_low", c), a),
        b + to(raw.f("0_1", "transform_high", a), b) + to(raw.f("1_2", "transform_low", c), b),
        c + to(raw.f("0_2", "transform_high", a), c) + to(raw.f("1_2", "transform_high", b), c),
    ]
    check(module([a, b, c]), expected)


def test_direct_b_with_three_paths_sums_its_pairs(randomised) -> None:
    module, raw = build("direct_b", 3, randomised)
    a, b, c = maps_of(3)

    def pair(name: str, high: Tensor, low: Tensor) -> Tensor:
        return raw.f(name, "transform", torch.cat((high, to(low, high)), 1))

    check(module([a, b, c]), [pair("0_1", a, b) + pair("0_2", a, c), pair("1_2", b, c), c])


def test_attention_a_with_three_paths_sums_its_pairs(randomised) -> None:
    module, raw = build("attention_a", 3, randomised)
    a, b, c = maps_of(3)

    def pair(name: str, h: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        att, f_low = raw.att(name, "attention_low", low), raw.f(name, "transform_low", low)
        return to(f_low * att, h) + raw.f(name, "transform_high", h) * to(1 - att, h), f_low * att

    (ab, ba), (ac, ca), (bc, cb) = pair("0_1", a, b), pair("0_2", a, c), pair("1_2", b, c)
    check(module([a, b, c]), [ab + ac, ba + bc, ca + cb])


@pytest.mark.parametrize("name", INTERACTIONS)
@pytest.mark.parametrize("num_paths", [2, 3, 4])
def test_shapes_stay(name: str, num_paths: int, randomised) -> None:
    module, _ = build(name, num_paths, randomised)
    maps = [torch.randn(1, C, 8 - path, 9 - path) for path in range(num_paths)]
    assert [out.shape for out in module(maps)] == [x.shape for x in maps]


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_convention_of_resizing_is_passed_on(align_corners: bool) -> None:
    module = Interaction(INTERACTIONS["bilateral_b"], 2, C, deployed=False, align_corners=align_corners)
    h, low = maps_of(2)
    resized = F.interpolate(low, size=h.shape[2:], mode="bilinear", align_corners=align_corners)
    assert torch.equal(module([h, low])[0], h + resized)


def test_what_each_adds_to_table_3s_network_in_multiply_accumulates() -> None:
    """B={1,2,4,7,7}, c=16, R={1,1/4,0} at 1024x2048; Stages 3 and 4 have 64 and 128 channels at 1/8 and 1/16."""

    def macs(name: str) -> int:
        return complexity("B=1,2,4,7,7;C=16,32,64,128,128;R=1,1/4", interaction=name).macs

    extra = {name: macs(name) - macs("none") for name in INTERACTIONS}
    high = [(64, 128 * 256), (128, 64 * 128)]
    ratio = Fraction(1, 16)  # of the pixels of the two paths
    assert extra["bilateral_b"] == extra["none"] == 0
    assert extra["direct_a"] == sum(c * c * pixels * ratio for c, pixels in high)
    assert extra["direct_b"] == sum(2 * c * c * pixels for c, pixels in high)
    assert extra["bilateral_a"] == sum(c * c * pixels * (1 + ratio) for c, pixels in high)
    assert extra["attention_a"] == extra["bilateral_a"] + sum(c * pixels * ratio for c, pixels in high)
    assert extra["attention_b"] == extra["bilateral_a"] + sum(c * pixels * (1 + ratio) for c, pixels in high)
