"""Inheritance, held against the parent's own scores in evaluation mode."""

import copy
import functools
import json
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import randomise
from torch import Tensor, nn

from lpsnet.architecture import Architecture, get_architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.network import Network, create_model
from lpsnet.search.inheritance import Inheritance, inherit, nearest_path
from lpsnet.search.operations import Operation, SearchNetwork, table_1
from lpsnet.search.transfer import NEW_PATH_SCALE

NUM_CLASSES = 5
EXACT = 1e-5  # of the spread of the scores, for every one of them
NEARLY = 0.05  # likewise, root mean square


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Two street scenes, 2 x 3 x 64 x 96, normalised."""
    split = open_dataset("scenes:size=64x96,num_train=2,num_val=1").split("train")
    batch = torch.stack([torch.from_numpy(split.image(index)) for index in range(2)]).permute(0, 3, 1, 2).float()
    return (batch / 255 - 0.45) / 0.225


def trained(arch: Architecture, **kinds: object) -> Network:
    """A network with arbitrary batch norms and a head that lets the features through, in evaluation mode."""
    torch.manual_seed(1)
    net = randomise(create_model(arch, num_classes=NUM_CLASSES, **kinds))
    nn.init.normal_(net.head.weight)
    nn.init.normal_(net.head.bias)
    return net


def grown(parent: Network, arch: Architecture, images: Tensor | None, **options: object) -> tuple[Network, Inheritance]:
    """A child of `parent`, in evaluation mode, and the report."""
    torch.manual_seed(2)
    child = create_model(
        arch,
        num_classes=parent.num_classes,
        block=parent.block,
        interaction=parent.interaction,
        form=parent.form,
    )
    report = inherit(child, parent, images=images, **options)
    return child.eval(), report


@torch.no_grad()
def difference(child: Network, parent: Network, images: Tensor) -> Tensor:
    """Of all scores, relative to the spread of the parent's scores of a class over the images."""
    expected = parent(images)
    spread = expected.std(dim=(0, 2, 3), keepdim=True)
    assert spread.min() > 0.01, "scores that do not depend on the image prove nothing"
    return (child(images) - expected) / spread


def largest(differences: Tensor) -> float:
    return float(differences.abs().max())


def typical(differences: Tensor) -> float:
    return float(differences.square().mean().sqrt())


STARTS = {
    "step_0": SearchNetwork.start("step_0"),
    "step_1": SearchNetwork(get_architecture("step_1").blocks, (4, 4, 6, 8, 8), ("1/2", 0, 0)),
    "step_6": SearchNetwork(get_architecture("step_6").blocks, (3, 4, 6, 8, 8), ("5/8", "1/4", 0)),
}
CASES = [
    (start, operation, step_size)
    for start, step_sizes, operations in (
        ("step_0", (1, 2, 3), table_1()),
        ("step_1", (2,), table_1()[::3]),
        ("step_6", (1,), table_1()[::4]),
    )
    for operation in operations
    for step_size in step_sizes
]


@functools.cache
def start_parent(start: str) -> Network:
    return trained(STARTS[start].design.architecture)


@pytest.mark.parametrize(("start", "operation", "step_size"), CASES, ids=lambda value: str(value))
def test_every_operation_of_table_1(start: str, operation: Operation, step_size: int, images: Tensor) -> None:
    network = STARTS[start]
    after = operation.apply(network, step_size)
    parent = start_parent(start)
    child, report = grown(parent, after.design.architecture, images)
    assert torch.isfinite(child(images)).all()
    slot = next((number for number, value in enumerate(operation.delta) if value), 0)
    if operation.dimension != "resolution":
        assert (report.changes, report.preserving, report.reasons) == ((operation.dimension,), "exact", ())
        assert largest(difference(child, parent, images)) < EXACT
    elif network.ratio_slots[slot]:
        assert (report.changes, report.preserving) == (("resolution",), "no")
    elif after.ratio_slots[slot] > max(network.ratio_slots):
        assert (report.changes, report.preserving) == (("paths",), "no")
    else:
        assert (report.changes, report.preserving) == (("paths",), "nearly")
        assert 0 < typical(difference(child, parent, images)) < NEARLY


@given(
    blocks=st.lists(st.integers(1, 2), min_size=5, max_size=5),
    more_blocks=st.lists(st.integers(0, 2), min_size=5, max_size=5),
    widths=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    more_widths=st.lists(st.integers(0, 5), min_size=5, max_size=5),
    num_paths=st.integers(1, 3),
    plain=st.booleans(),
    measured=st.booleans(),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_depth_and_width_together_are_exact(
    blocks: list[int],
    more_blocks: list[int],
    widths: list[int],
    more_widths: list[int],
    num_paths: int,
    plain: bool,
    measured: bool,
) -> None:
    """Stage 1 deeper, and Stages 4 and 5 of the same width in only one of the two networks, included."""
    ratios = ("1", "1/2", "1/4")[:num_paths]
    parent = trained(Architecture(blocks, widths, ratios), form="plain" if plain else "reparameterised").double()
    arch = Architecture(map(sum, zip(blocks, more_blocks)), map(sum, zip(widths, more_widths)), ratios)  # noqa: B905
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    child = create_model(arch, num_classes=NUM_CLASSES, form=parent.form).double()
    report = inherit(child, parent, images=images if measured else None)
    with torch.no_grad():
        torch.testing.assert_close(child.eval()(images), parent(images), rtol=1e-6, atol=1e-6)
    assert report.preserving == "exact"


SMALL = Architecture((1, 2, 1, 2, 2), (3, 4, 5, 7, 7), ("1", "1/2"))
LARGE = Architecture((2, 3, 3, 3, 4), (5, 4, 8, 12, 12), ("1", "1/2"))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != "shufflenet"])
@pytest.mark.parametrize("measured", [True, False])
def test_other_blocks_are_exact_too(block: str, measured: bool, images: Tensor) -> None:
    parent = trained(SMALL, block=block)
    child, report = grown(parent, LARGE, images if measured else None)
    assert report.preserving == "exact"
    assert largest(difference(child, parent, images)) < EXACT * _sensitivity(block)


def _sensitivity(block: str) -> int:
    """Expanding six times adds up six times as many numbers, each with its rounding and its share of a small change."""
    return 4 if "e6" in block else 1


@pytest.mark.parametrize("block", BLOCKS)
def test_new_path_is_nearly_preserving_with_every_block(block: str, images: Tensor) -> None:
    parent = trained(SMALL, block=block)
    child, report = grown(parent, Architecture(SMALL.blocks, SMALL.widths, ("1", "1/2", "1/4")), images)
    assert report.preserving == "nearly"
    assert 0 < typical(difference(child, parent, images)) < NEARLY * _sensitivity(block)


@pytest.mark.parametrize("interaction", ["none", "direct_a", "direct_b", "attention_a", "attention_b", "bilateral_a"])
def test_other_interactions(interaction: str, images: Tensor) -> None:
    parent = trained(SMALL, interaction=interaction)
    child, report = grown(parent, LARGE, images)
    assert report.preserving == "exact"
    assert largest(difference(child, parent, images)) < EXACT
    child, report = grown(parent, Architecture(LARGE.blocks, LARGE.widths, ("1", "1/2", "1/4")), images)
    expected = {"none": "exact", "direct_a": "nearly", "bilateral_a": "nearly"}
    assert report.preserving == expected.get(interaction, "no")
    bound = {"none": EXACT, "direct_a": NEARLY, "bilateral_a": NEARLY}
    assert typical(difference(child, parent, images)) < bound.get(interaction, float("inf"))


@pytest.mark.parametrize("block", ["bottleneck", "residual", "inverted_residual"])
def test_a_shortcut_that_comes_is_said_to_change_the_function(block: str, images: Tensor) -> None:
    unequal = Architecture((1, 1, 1, 1, 1), (3, 4, 5, 6, 8), ("1",))
    equal = Architecture((1, 1, 1, 1, 1), (3, 4, 5, 8, 8), ("1",))
    _, report = grown(trained(unequal, block=block), equal, images)
    assert (report.preserving, report.reasons) == ("no", ("the first block of Stage 5 gets a shortcut",))


def test_shortcut_that_goes(images: Tensor) -> None:
    """A residual block's becomes a 1x1 convolution with the unit matrix; an inverted residual has nothing like it."""
    wider = Architecture(SMALL.blocks, (*SMALL.widths[:4], 9), SMALL.ratios)
    for block in ("residual", "bottleneck"):
        parent = trained(SMALL, block=block)
        child, report = grown(parent, wider, images)
        assert report.preserving == "exact"
        assert largest(difference(child, parent, images)) < EXACT
    _, report = grown(trained(SMALL, block="inverted_residual"), wider, images)
    assert report.reasons == ("the first block of Stage 5 loses a shortcut",)


def test_another_ratio_keeps_every_weight(images: Tensor) -> None:
    parent = trained(SMALL)
    child, report = grown(parent, Architecture(SMALL.blocks, SMALL.widths, ("5/4", "1/2")), images)
    assert report.reasons == ("a path sees the image at 5/4 instead of 1",)
    assert report.relative_difference is None  # the scores have another size
    for name, value in parent.state_dict().items():
        assert torch.equal(child.state_dict()[name], value), name
    assert not report.new
    assert not report.zeroed


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("1/2",), ("1/2", "1/8"), (0, None)),
        (("1/2",), ("5/8",), (0,)),
        (("1/2", "3/8"), ("5/8", "1/2"), (1, 0)),  # the second slot overtakes the first
        (("1/2", "3/8"), ("1/2", "1/2"), (0, 1)),
        (("1/2", "1/2"), ("5/8", "1/2"), (1, 0)),  # two equal paths: either serves
        (("1", "1/4"), ("1", "1/2", "1/4"), (0, None, 1)),
        (("3/4", "1/4"), ("1", "1/4", "1/8"), (0, 1, None)),
        (("1/2",), ("1", "1/2"), (None, 0)),
        (("1", "1/2"), ("9/8", "5/8"), (0, 1)),
    ],
)
def test_paths_find_their_own(
    before: tuple[str, ...], after: tuple[str, ...], expected: tuple[int | None, ...], images: Tensor
) -> None:
    triple = ((1, 1, 1, 1, 1), (2, 3, 4, 5, 6))
    parent = trained(Architecture(*triple, before))
    child, report = grown(parent, Architecture(*triple, after), None)
    assert report.paths == expected
    for number, source in enumerate(expected):
        if source is not None:
            own, given = child.paths[number].state_dict(), parent.paths[source].state_dict()
            assert all(torch.equal(own[name], given[name]) for name in given)
            own_columns = child.head.weight[:, 6 * number : 6 * number + 6]
            assert torch.equal(own_columns, parent.head.weight[:, 6 * source : 6 * source + 6])
        else:
            assert not child.head.weight[:, 6 * number : 6 * number + 6].any()


def test_path_map_decides(images: Tensor) -> None:
    parent = trained(SMALL)
    arch = Architecture(SMALL.blocks, SMALL.widths, ("1", "1/2", "1/2"))
    child, report = grown(parent, arch, images, path_map=(0, None, 1))
    assert report.paths == (0, None, 1)
    assert typical(difference(child, parent, images)) < NEARLY
    for path_map in ((0, 1), (0, 1, 1), (None, None, 0), (0, 1, 2)):
        with pytest.raises(LpsnetError, match="path_map has one entry for each of the child's 3 paths"):
            grown(parent, arch, images, path_map=path_map)


def test_new_path_copies_the_nearest_one() -> None:
    assert nearest_path(Fraction(1, 8), (Fraction(1), Fraction(1, 4))) == 1
    assert nearest_path(Fraction(3, 4), (Fraction(1), Fraction(1, 4))) == 0
    assert nearest_path(Fraction(1, 2), (Fraction(1), Fraction(1, 4))) == 1  # both by a factor of 2: the smaller


def test_new_path_is_quiet_and_not_silent(images: Tensor) -> None:
    """What it gives after Stage 3 is its source's output times NEW_PATH_SCALE; before that it is its source."""
    parent = trained(SMALL)
    child, _ = grown(parent, Architecture(SMALL.blocks, SMALL.widths, ("1", "1/2", "1/2")), images)
    maps = images
    for stage in range(3):
        given, maps = parent.paths[1](maps, stage), child.paths[2](maps, stage)
        torch.testing.assert_close(maps, given * (NEW_PATH_SCALE if stage == 2 else 1), rtol=1e-4, atol=1e-6)
    assert maps.abs().max() > 0


def test_new_largest_path_changes_the_size_of_the_scores(images: Tensor) -> None:
    _, report = grown(trained(SMALL), Architecture(SMALL.blocks, SMALL.widths, ("2", "1", "1/2")), images)
    assert report.preserving == "no"
    assert report.reasons[0] == "the logits have the size of the largest path's features, now 2"
    assert report.relative_difference is None


def test_another_number_of_classes_keeps_the_features(images: Tensor) -> None:
    parent = trained(SMALL)
    child = create_model(SMALL, num_classes=NUM_CLASSES + 2)
    report = inherit(child, parent, images=images)
    assert report.changes == ("classes",)
    assert report.reasons == ("the head is new: 7 classes instead of 5",)
    assert torch.equal(child.eval().features(images), parent.features(images))
    assert float(child.head.weight.detach().std()) == pytest.approx(0.01, rel=0.3)  # as create_model makes it


def test_new_channels_stand_at_the_same_places_in_every_path(images: Tensor) -> None:
    """GhostNet's are not the last ones: its output is two parts."""
    for block, places in (("conv3x3", [0, 1, 2, 3, 4]), ("ghost", [0, 1, 2, 4, 5])):
        parent = trained(Architecture((1, 1, 1, 1, 1), (3, 4, 5, 5, 5), ("1", "1/2")), block=block)
        child, _ = grown(parent, Architecture((1, 1, 1, 1, 1), (3, 4, 8, 8, 8), ("1", "1/2")), images)
        for number in range(2):
            own, given = images, images
            for stage in range(3):
                own, given = child.paths[number](own, stage), parent.paths[number](given, stage)
            torch.testing.assert_close(own[:, places], given, rtol=1e-4, atol=1e-5)
            others = [channel for channel in range(8) if channel not in places]
            assert own[:, others].std() > 0.01, "new channels compute something"


def test_nothing_old_reads_anything_new(images: Tensor) -> None:
    """Whatever new channels hold, the scores are the same: their producers are overwritten here."""
    parent = trained(SMALL)
    child, report = grown(parent, LARGE, images)
    for path in child.paths:
        for block in path.stages[3][:2]:
            for unit in (block.unit.conv3x3, block.unit.conv1x1):
                nn.init.normal_(unit.conv.weight[SMALL.widths[3] :].detach(), std=5)
    assert report.preserving == "exact"
    assert largest(difference(child, parent, images)) < EXACT


def test_statistics_are_those_of_the_features(images: Tensor) -> None:
    """The identity branch of a new block in Stage 1, against the parent's features there."""
    parent = trained(SMALL)
    child, report = grown(parent, Architecture((2, *SMALL.blocks[1:]), SMALL.widths, SMALL.ratios), images)
    with torch.no_grad():
        features = parent.paths[0](images, 0).transpose(0, 1).flatten(1)
    norm = child.paths[0].stages[0][1].unit.identity
    torch.testing.assert_close(norm.running_mean, features.mean(1))
    torch.testing.assert_close(norm.running_var, features.var(1, correction=0))
    torch.testing.assert_close(norm.weight.data, torch.sqrt(norm.running_var + norm.eps))
    torch.testing.assert_close(norm.bias.data, norm.running_mean)
    convolved = child.paths[0].stages[0][1].unit.conv3x3
    with torch.no_grad():
        branch = convolved.conv(parent.paths[0](images, 0)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(convolved.norm.running_var, branch.var(1, correction=0))
    assert report.measured


def test_statistics_of_new_channels_are_measured_and_old_ones_kept(images: Tensor) -> None:
    parent = trained(SMALL)
    child, _ = grown(parent, Architecture(SMALL.blocks, (5, *SMALL.widths[1:]), SMALL.ratios), images)
    own, given = child.paths[0].stages[0][0].unit.conv3x3, parent.paths[0].stages[0][0].unit.conv3x3
    with torch.no_grad():
        convolved = own.conv(images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(own.norm.running_mean[3:], convolved.mean(1)[3:])
    torch.testing.assert_close(own.norm.running_var[3:], convolved.var(1, correction=0)[3:])
    assert torch.equal(own.norm.running_mean[:3], given.norm.running_mean)
    assert torch.equal(own.norm.running_var[:3], given.norm.running_var)
    assert torch.equal(own.norm.weight[3:], torch.ones(2))


def test_dead_and_constant_channels_pass(images: Tensor) -> None:
    """A channel that no image moves has no variance; other images may still put values there."""
    parent = trained(SMALL)
    norms = parent.paths[0].stages[0][0].unit
    for channel, value in ((0, -50.0), (1, 2.0)):  # dead after the ReLU, and constant
        for norm in (norms.conv3x3.norm, norms.conv1x1.norm):
            norm.weight.data[channel], norm.bias.data[channel] = 0, value
    child, _ = grown(parent, Architecture((3, *SMALL.blocks[1:]), SMALL.widths, SMALL.ratios), images)
    assert largest(difference(child, parent, images)) < EXACT
    for net in (parent, child):
        net.paths[0].stages[0][0].unit.conv3x3.norm.bias.data[:2] = torch.tensor([60.0, 1.0])
    assert largest(difference(child, parent, images)) < EXACT


@pytest.mark.parametrize("block", ["conv3x3", "sepconv3x3", "ghost"])
def test_training_mode_nearly_stays_with_measured_statistics(block: str, images: Tensor) -> None:
    """On the images measured, for a parent whose own statistics are those of these images."""
    images = nn.functional.interpolate(images, (256, 384))  # so that n - 1 in the running variance is about n
    parent = trained(SMALL, block=block)
    for module in parent.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        for _ in range(2):
            expected = parent.train()(images)
    deeper = Architecture((2, 3, 3, 4, 4), SMALL.widths, SMALL.ratios)
    relative = []
    for measured in (images, None):
        child, _ = grown(parent, deeper, measured)
        with torch.no_grad():
            scores = child.train()(images)
        relative.append(float((scores - expected).norm() / (expected - expected.mean()).norm()))
    measured, unmeasured = relative
    assert measured < 0.02
    assert unmeasured > 0.2, "this is what the images are for"


GROWTHS: dict[str, Callable[[Architecture], Architecture]] = {
    "depth": lambda arch: Architecture(LARGE.blocks, arch.widths, arch.ratios),
    "width": lambda arch: Architecture(arch.blocks, LARGE.widths, arch.ratios),
    "paths": lambda arch: Architecture(arch.blocks, arch.widths, (*arch.ratios, "1/4")),
    "everything": lambda arch: Architecture(LARGE.blocks, LARGE.widths, ("5/4", "1/2", "1/4")),
}


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("form", ["reparameterised", "plain"])
def test_every_parameter_learns_within_two_steps(growth: str, form: str, images: Tensor) -> None:
    images = nn.functional.interpolate(images, (192, 256))  # the last map of the smallest path has an inner pixel
    parent = trained(SMALL, form=form)
    child, report = grown(parent, GROWTHS[growth](SMALL), images)
    optimiser = torch.optim.SGD(child.parameters(), lr=0.01)
    labels = torch.randint(NUM_CLASSES, child(images).argmax(1).shape, generator=torch.Generator().manual_seed(0))
    learnt = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in child.named_parameters()}
    for _ in range(3 if growth == "everything" else 2):  # blocks that are silent in a path that is not read: one more
        optimiser.zero_grad()
        nn.functional.cross_entropy(child.train()(images), labels).backward()
        for name, value in child.named_parameters():
            assert value.grad is not None, name
            assert torch.isfinite(value.grad).all(), name
            learnt[name] |= value.grad != 0
        optimiser.step()
    still = {name: int((~moved).sum()) for name, moved in learnt.items() if not moved.all()}
    total = sum(moved.numel() for moved in learnt.values())
    # A channel that is dead on both images learns nothing in any network; few may be.
    assert sum(still.values()) < 0.02 * total, still
    assert all(moved.any() for moved in learnt.values())
    assert report.measured


def test_report_counts_every_number(images: Tensor) -> None:
    parent = trained(SMALL)
    child, report = grown(parent, LARGE, images)
    for name, value in child.named_parameters():
        origin = report.origins[name]
        assert origin.copied + origin.zeroed + origin.new == value.numel()
    num_copied = sum(origin.copied for origin in report.origins.values())
    assert num_copied == sum(value.numel() for value in parent.parameters())
    assert report.origins["head.weight"].zeroed == NUM_CLASSES * 2 * (12 - 7)
    # Stage 3's first block reads 4 old channels of 4 and writes 5 old ones of 8.
    first = report.origins["paths.0.stages.2.0.unit.conv3x3.conv.weight"]
    assert (first.copied, first.zeroed, first.new) == (9 * 5 * 4, 0, 9 * 3 * 4)
    # Stage 4's reads 5 old of 8, writes 7 old of 12.
    first = report.origins["paths.0.stages.3.0.unit.conv1x1.conv.weight"]
    assert (first.copied, first.zeroed, first.new) == (7 * 5, 7 * 3, 5 * 8)
    added = "paths.1.stages.4.3.unit."
    assert report.origins[f"{added}conv3x3.norm.weight"].zeroed == 7
    assert f"{added}identity.weight" in report.new
    assert f"{added}identity.weight" not in report.copied
    assert "head.bias" in report.copied
    assert "head.bias" not in (*report.new, *report.zeroed)


def test_report_as_json(images: Tensor) -> None:
    child, report = grown(trained(SMALL), Architecture(SMALL.blocks, SMALL.widths, ("1", "1/2", "1/4")), images)
    num_copied = sum(value.numel() for value in child.parameters()) - NUM_CLASSES * 7  # but for the head's new columns
    assert report.relative_difference is not None
    assert 0 < report.relative_difference < NEARLY
    assert json.loads(json.dumps(report.to_dict())) == {
        "changes": ["paths"],
        "paths": [0, 1, None],
        "preserving": "nearly",
        "reasons": ["a new path adds a little to the features of the others"],
        "parameters": {"copied": num_copied, "zeroed": NUM_CLASSES * 7, "new": 0},
        "measured": True,
        "relative_difference": report.relative_difference,
    }


def test_the_same_network_is_copied(images: Tensor) -> None:
    parent = trained(SMALL)
    child, report = grown(parent, SMALL, images)
    assert (report.changes, report.preserving, report.relative_difference) == ((), "exact", 0.0)
    assert all(torch.equal(value, parent.state_dict()[name]) for name, value in child.state_dict().items())


def test_only_the_child_changes(images: Tensor) -> None:
    """Nor does what the child held matter, and its training mode stays, frozen parts too."""
    parent = trained(SMALL)
    parent.paths[0].train()
    before, state = copy.deepcopy(parent.state_dict()), torch.random.get_rng_state()
    children = [create_model(LARGE, num_classes=NUM_CLASSES) for _ in range(3)]
    torch.random.set_rng_state(state)
    children[0].paths[1].eval()
    for child, seed in zip(children, (0, 0, 1), strict=True):
        inherit(child, parent, images=images, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in parent.state_dict().items())
    assert parent.paths[0].training
    assert not parent.training
    assert children[0].training
    assert not children[0].paths[1].training
    assert all(value.requires_grad for value in children[0].parameters())
    states = [child.state_dict() for child in children]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


def _net(arch: Architecture = SMALL, **kinds: object) -> Network:
    return create_model(arch, num_classes=NUM_CLASSES, **kinds)


@pytest.mark.parametrize(
    ("child", "parent", "message"),
    [
        (_net(), _net(LARGE), "at least as deep as its parent"),
        (_net(), _net(Architecture(SMALL.blocks, LARGE.widths, SMALL.ratios)), "at least as wide as its parent"),
        (_net(Architecture(SMALL.blocks, SMALL.widths, ("1",))), _net(), "at least as rich in paths as its parent"),
        (_net(block="ghost"), _net(), "its parent's block: the parent has conv3x3, the child ghost"),
        (_net(interaction="none"), _net(), "its parent's interaction: the parent has bilateral_b, the child none"),
        (_net(form="plain"), _net(), "its parent's form: the parent has reparameterised, the child plain"),
        (_net(align_corners=False), _net(), "its parent's align_corners"),
        (_net(form="deployed"), _net(form="deployed"), "deployed networks have no batch norms"),
        (_net(), _net(form="deployed"), "deployed networks have no batch norms"),
    ],
)
def test_refusals(child: Network, parent: Network, message: str) -> None:
    before = copy.deepcopy(child.state_dict())
    with pytest.raises(LpsnetError, match=message):
        inherit(child, parent)
    assert all(torch.equal(value, before[name]) for name, value in child.state_dict().items())


def test_forms_of_other_blocks_are_one(images: Tensor) -> None:
    parent = trained(SMALL, block="ghost", form="plain")
    child = create_model(LARGE, num_classes=NUM_CLASSES, block="ghost", form="reparameterised").eval()
    assert inherit(child, parent, images=images).preserving == "exact"
    assert largest(difference(child, parent, images)) < EXACT


def test_refuses_itself_and_wrong_images(images: Tensor) -> None:
    net = _net()
    with pytest.raises(LpsnetError, match="cannot inherit from itself"):
        inherit(net, net)
    child = _net(LARGE)
    before = copy.deepcopy(child.state_dict())
    for wrong in (images[0], images.to(torch.uint8), images[:, :, :8]):
        with pytest.raises(LpsnetError, match="a network takes"):
            inherit(child, net, images=wrong)
    assert all(torch.equal(value, before[name]) for name, value in child.state_dict().items())


ENCODER = "B=1,2,2,2,2;C=4,6,8,10,12;R=1,1/2;D=8;X=gate;H=16"
LARGER = "B=2,3,2,3,4;C=6,6,9,12,15;R=1,1/2;D=8;X=gate;H=20"
MIXED = "conv3x3,ghost,bottleneck,residual,sepconv3x3"


def with_effect(net):
    """A trained network whose additions have an effect, as after training."""
    for part in (net.context, net.details):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("block", ["efficientnet_lite", "mobilenetv2", MIXED])
@pytest.mark.parametrize("context", ["gate", "pyramid"])
def test_additions_grow_with_the_network_exactly(block: str, context: str, images: Tensor) -> None:
    parent = with_effect(trained(Architecture.parse(ENCODER.replace("gate", context)), block=block))
    child, report = grown(parent, Architecture.parse(LARGER.replace("gate", context)), images)
    assert (report.preserving, report.reasons) == ("exact", ())
    assert report.changes == ("depth", "width", "additions")
    assert largest(difference(child, parent, images)) < EXACT


@pytest.mark.parametrize("addition", ["X=gate", "X=pyramid"])
def test_context_that_comes_changes_nothing(addition: str, images: Tensor) -> None:
    child, report = grown(parent := trained(SMALL), Architecture.parse(f"{SMALL};{addition}"), images)
    assert report.preserving == "exact"
    assert largest(difference(child, parent, images)) < EXACT


def test_details_that_come_resize_the_same_logits(images: Tensor) -> None:
    child, report = grown(parent := trained(SMALL), Architecture.parse(f"{SMALL};D=8"), images)
    assert report.preserving == "nearly"
    logits = parent(images)
    expected = torch.nn.functional.interpolate(logits, child(images).shape[-2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(child(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("own", "given", "reason"),
    [
        ("H=9", "", "another number of layers, and is new: 9 channels cannot hold 5 logits, 10 can"),
        ("", "H=16", "has no channels instead of 16"),
        ("H=12", "H=16", "has 12 channels instead of 16"),
        ("X=gate", "X=pyramid", "the context is gate"),
        ("", "D=8", "left out"),
    ],
)
def test_additions_that_cannot_be_inherited_are_said(own: str, given: str, reason: str, images: Tensor) -> None:
    parent = trained(Architecture.parse(f"{SMALL};{given}"))
    _, report = grown(parent, Architecture.parse(f"{SMALL};{own}"), images)
    assert report.preserving == "no"
    assert any(reason in it for it in report.reasons)


def test_a_new_path_beside_context(images: Tensor) -> None:
    parent = with_effect(trained(Architecture.parse(f"{SMALL};D=8;X=gate;H=16")))
    larger = Architecture(SMALL.blocks, SMALL.widths, ("1", "1/2", "1/4"), 8, "gate", 16)
    child, report = grown(parent, larger, images)
    assert report.preserving == "nearly"
    assert 0 < typical(difference(child, parent, images)) < NEARLY


@pytest.mark.parametrize("width", [10, 11, 32])
@pytest.mark.parametrize("block", ["conv3x3", "efficientnet_lite"])
@pytest.mark.parametrize("given", ["", ";X=pyramid", ";D=4"])
def test_a_layer_before_the_logits_that_comes_changes_nothing(
    width: int, block: str, given: str, images: Tensor
) -> None:
    """Ten channels hold the positive and negative parts of five logits; features may be negative (lite, pyramid)."""
    parent = with_effect(trained(Architecture.parse(f"{SMALL}{given}"), block=block))
    for measured_on in (images, None):
        child, report = grown(parent, Architecture.parse(f"{SMALL}{given};H={width}"), measured_on)
        assert (report.changes, report.preserving, report.reasons) == (("additions",), "exact", ())
        assert largest(difference(child, parent, images)) < EXACT
    assert "mixing.conv.weight" in report.copied


def test_all_additions_at_once_in_a_larger_network(images: Tensor) -> None:
    parent = trained(Architecture((1, 1, 1, 1, 1), (3, 4, 6, 8, 8), ("1", "1/2")))
    larger = Architecture((1, 2, 1, 1, 3), (3, 4, 8, 9, 11), ("1", "1/2"), 8, "gate", 12)
    child, report = grown(parent, larger, images)
    assert report.preserving == "nearly"
    logits = parent(images)
    expected = torch.nn.functional.interpolate(logits, child(images).shape[-2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(child(images), expected, rtol=1e-4, atol=1e-4)


def exchanged(parent: Network, block: str, images: Tensor | None) -> tuple[Network, Inheritance]:
    """A child with the same architecture and another `block`."""
    child = create_model(parent.architecture, num_classes=NUM_CLASSES, block=block, form=parent.form)
    report = inherit(child, parent, images=images)
    return child.eval(), report


def test_a_stage_of_another_block_starts_fresh_and_the_others_do_not(images: Tensor) -> None:
    parent = trained(Architecture((1, 1, 2, 1, 2), (3, 4, 6, 8, 8), ("1", "1/2")))
    child, report = exchanged(parent, "conv3x3,conv3x3,conv3x3,conv3x3,residual", images)
    assert (report.changes, report.preserving) == (("block",), "no")
    assert report.reasons == ("Stage 5 has block 'residual' instead of 'conv3x3', and starts fresh",)
    fresh = {name for name in dict(child.named_parameters()) if ".stages.4." in name}
    assert fresh
    assert not fresh & {*report.copied, *report.zeroed}
    kept = parent.state_dict()
    for name, value in child.state_dict().items():
        if ".stages.4." not in name and not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, kept[name], rtol=0, atol=0)


@pytest.mark.parametrize("old", ["lite_e6k3", "inverted_residual"])
@pytest.mark.parametrize("wider", [0, 3])
def test_a_block_that_grows_out_of_another_changes_nothing(old: str, wider: int, images: Tensor) -> None:
    """3x3 kernels in the middle of 5x5 ones; three times as many inner channels beside twice as many."""
    new = {"lite_e6k3": "lite_e6k5", "inverted_residual": "mobilenetv2_e6"}[old]
    assert old in BLOCKS[new].grows_from
    parent = trained(Architecture((1, 1, 2, 1, 2), (3, 4, 6, 8, 8), ("1", "1/2")), block=old)
    larger = Architecture((1, 1, 2, 1, 3), (3, 4, 6 + wider, 8 + wider, 8 + wider), ("1", "1/2"))
    child = create_model(larger, num_classes=NUM_CLASSES, block=f"{old},{old},{new},{new},{new}")
    report = inherit(child, parent, images=images)
    assert (report.preserving, report.reasons) == ("exact", ())
    assert largest(difference(child.eval(), parent, images)) < EXACT
    back = create_model(larger, num_classes=NUM_CLASSES, block=f"{old},{old},{old},{old},{new}")
    assert inherit(back, child, images=images).preserving == "no", "a larger kernel does not fit into a smaller one"


def test_blocks_that_are_others_in_all_stages_are_refused() -> None:
    parent, child = (create_model("tiny", num_classes=2, block=block) for block in ("residual", "ghost"))
    with pytest.raises(LpsnetError, match="a child has its parent's block"):
        inherit(child, parent)
