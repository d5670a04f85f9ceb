"""Blocks that say nothing, too little or something wrong in their rows: never an exception, never a false promise."""

import dataclasses

import pytest
import torch
from test_inheritance import LARGE, SMALL, difference, grown, images, largest, trained  # noqa: F401
from torch import Tensor, nn

from lpsnet.architecture import Architecture
from lpsnet.models.blocks import BLOCKS, BlockType, ConvNorm, relu
from lpsnet.search.inheritance import Inheritance

DEEPER = Architecture(LARGE.blocks, SMALL.widths, SMALL.ratios)
WIDER = Architecture(SMALL.blocks, LARGE.widths, SMALL.ratios)
MORE_PATHS = Architecture(SMALL.blocks, SMALL.widths, (*SMALL.ratios, "1/4"))
OTHER_RATIO = Architecture(SMALL.blocks, SMALL.widths, ("5/4", "1/2"))


class Gated(nn.Module):
    """3x3 convolution and a gate from a plain convolution, which no unit of a row can describe."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, form: str) -> None:
        super().__init__()
        self.unit = ConvNorm(in_channels, out_channels, kernel=3, stride=stride, deployed=form == "deployed")
        self.gate = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.unit(x)
        return relu(x * torch.sigmoid(self.gate(x)))


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch):
    """Puts a row named "mine" into the table for one test."""

    def put(**rules: object) -> None:
        monkeypatch.setitem(BLOCKS, "mine", BlockType(Gated, "Mine", **rules))

    return put


def is_fresh(child: nn.Module, parent: nn.Module) -> bool:
    """Whether no tensor of more than one number is the parent's."""
    pairs = zip(child.parameters(), parent.parameters(), strict=True)
    return not any(own.shape == given.shape and own.std() > 0 and torch.equal(own, given) for own, given in pairs)


def test_a_row_that_says_nothing_keeps_what_needs_no_rule(row, images: Tensor) -> None:  # noqa: F811
    row()
    parent = trained(SMALL, block="mine")
    same, report = grown(parent, SMALL, images)
    assert report.preserving == "exact"
    assert largest(difference(same, parent, images)) == 0
    _, report = grown(parent, OTHER_RATIO, images)
    assert report.reasons == ("a path sees the image at 5/4 instead of 1",)
    assert not report.new


def check_reason(report: Inheritance, lacks: str) -> None:
    assert report.preserving == "no"
    (reason,) = report.reasons
    assert reason.startswith("block 'mine' does not define ")
    assert f"`{lacks}`" in reason


def test_depth_without_a_rule(row, images: Tensor) -> None:  # noqa: F811
    row()
    parent = trained(SMALL, block="mine")
    child, report = grown(parent, DEEPER, images)
    check_reason(report, "identity")
    own, given = child.paths[0].stages[2], parent.paths[0].stages[2]
    assert all(torch.equal(a, b) for a, b in zip(own[0].parameters(), given[0].parameters(), strict=True))
    assert "paths.0.stages.2.1.unit.conv.weight" not in report.copied
    assert torch.isfinite(child(images)).all()
    assert own[1].unit.norm.running_var.std() > 0, "statistics of new blocks are measured"


def test_width_without_a_rule(row, images: Tensor) -> None:  # noqa: F811
    row()
    parent = trained(SMALL, block="mine")
    child, report = grown(parent, WIDER, images)
    check_reason(report, "channels")
    for stage in range(5):  # each reads or writes another width
        assert is_fresh(child.paths[0].stages[stage][0], parent.paths[0].stages[stage][0])
    own, given = child.paths[0].stages[1][1], parent.paths[0].stages[1][1]
    assert torch.equal(own.gate.weight, given.gate.weight), "a block of the old width is the parent's"


def test_new_path_without_a_rule(row, images: Tensor) -> None:  # noqa: F811
    row()
    parent = trained(SMALL, block="mine")
    child, report = grown(parent, MORE_PATHS, images)
    check_reason(report, "outputs")
    assert is_fresh(child.paths[2], parent.paths[1])
    alone = trained(SMALL, block="mine", interaction="none")
    child, report = grown(alone, MORE_PATHS, images)
    assert report.preserving == "exact", "paths that do not meet need no rule"
    assert largest(difference(child, alone, images)) < 1e-5


CONV = {"unit": ("input", "output")}


@pytest.mark.parametrize(
    ("rules", "after", "says"),
    [
        ({"channels": CONV}, WIDER, "does not define which channels 'gate.weight' reads and writes"),
        ({"channels": CONV | {"gate": ("output", "output")}}, WIDER, "has in 'gate' what its row's `channels`"),
        ({"identity": {"unit": "pass"}}, DEEPER, "the logits differ by"),
        ({"identity": {}}, DEEPER, "the logits differ by"),
        ({"identity": {"unit": "repeat"}}, Architecture((1, 2, 2, 2, 2), SMALL.widths, SMALL.ratios), "has in 'unit'"),
        ({"outputs": ()}, MORE_PATHS, "is not made small"),
        ({"outputs": ("unti",)}, MORE_PATHS, "is not made small"),
    ],
)
@pytest.mark.parametrize("measured", [True, False])
def test_a_wrong_row_is_found(row, rules, after, says: str, measured: bool, images: Tensor) -> None:  # noqa: F811
    row(**rules)
    _, report = grown(trained(SMALL, block="mine"), after, images if measured else None)
    assert report.preserving == "no"
    assert says in " ".join(report.reasons)
    assert "block 'mine'" in report.reasons[0]


@pytest.mark.parametrize(
    "rules",
    [
        {"channels": {"reduce": ("inner", "inner"), "spatial": ("output", "inner"), "expand": ("inner", "output")}},
        {"parts": lambda width: (width // 2, width // 2)},
        {"parts": lambda width: (1,) * width},
        {"identity": {"reduce": "pass"}},
        {"channels": None, "identity": None},
    ],
)
def test_a_builtin_class_with_a_wrong_row(rules, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setitem(BLOCKS, "bottleneck", dataclasses.replace(BLOCKS["bottleneck"], **rules))
    parent = trained(SMALL, block="bottleneck")
    child, report = grown(parent, LARGE, images)
    if report.preserving == "exact":
        assert largest(difference(child, parent, images)) < 1e-5
    else:
        assert report.preserving == "no"


def test_shufflenet_is_a_row_that_does_not_say_how_it_grows(images: Tensor) -> None:  # noqa: F811
    parent = trained(SMALL, block="shufflenet")
    for after, lacks in ((DEEPER, ["identity"]), (WIDER, ["channels"]), (LARGE, ["channels", "identity"])):
        _, report = grown(parent, after, images)
        assert report.preserving == "no"
        assert len(report.reasons) == len(lacks)
        for reason, name in zip(report.reasons, lacks, strict=True):
            assert reason.startswith("block 'shufflenet' does not define how ")
            assert f"`{name}`" in reason
