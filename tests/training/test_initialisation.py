"""The line on a start from a checkpoint, for networks that differ from it in one thing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_run import RUN

from lpsnet.architecture import Architecture
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import RunError
from lpsnet.models.checkpoint import default_record, initialise_from, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.training.run import describe_initialisation
from lpsnet.training.segmentation import train

SOURCE = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))
WIDER = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 12), ("1", "1/2"))
DEEPER = Architecture((1, 1, 1, 1, 2), (4, 4, 8, 8, 8), ("1", "1/2"))
ONE_PATH = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1",))


@pytest.mark.parametrize(
    ("architecture", "num_classes", "skipped"),
    [
        (SOURCE, 3, "none"),
        (SOURCE, 5, "head (another class count)"),
        (ONE_PATH, 3, "head (another width or number of paths)"),
        (DEEPER, 3, "path 1 (not in the checkpoint: 17), path 2 (not in the checkpoint: 17)"),
        (WIDER, 3, "path 1 (another shape: 10), path 2 (another shape: 10), head (another width or number of paths)"),
    ],
)
def test_the_line(tmp_path: Path, architecture: Architecture, num_classes: int, skipped: str) -> None:
    path = tmp_path / "source.safetensors"
    save_checkpoint(create_model(SOURCE, num_classes=3), path)
    network = create_model(architecture, num_classes=num_classes)
    line = describe_initialisation(initialise_from(network, path), path)
    number, _, rest = line.partition(" tensors taken from ")
    assert rest == f"{path}, skipped: {skipped}"
    before = create_model(SOURCE, num_classes=3).state_dict()
    fitting = [n for n, v in network.state_dict().items() if n in before and before[n].shape == v.shape]
    assert int(number) == len(fitting)


def test_classes_of_the_same_names_take_the_heads_weights(tmp_path: Path) -> None:
    path = tmp_path / "source.safetensors"
    detailed = SOURCE.replace(detail=8)
    source = create_model(detailed, num_classes=3)
    torch.nn.init.normal_(source.details[0].weight)
    space = LabelSpace.from_names("mine", ["road", "Traffic sign", "car"])
    save_checkpoint(source, path, record=default_record(source, label_space=space))
    network = create_model(detailed, num_classes=4)
    fresh = network.head.weight.clone()
    report = initialise_from(network, path, classes=["car", "tree", "traffic_sign", "road"])
    assert not report.skipped
    for own, given in ((0, 2), (2, 1), (3, 0)):
        assert torch.equal(network.head.weight[own], source.head.weight[given])
        assert torch.equal(network.head.bias[own], source.head.bias[given])
        assert torch.equal(network.details[0].weight[own], source.details[0].weight[given])
    assert torch.equal(network.head.weight[1], fresh[1])
    turned = create_model(detailed, num_classes=3)
    initialise_from(turned, path, classes=["car", "road", "traffic sign"])
    assert torch.equal(turned.head.weight, source.head.weight[[2, 0, 1]])
    initialise_from(turned, path, classes=["road", "Traffic sign", "car"])
    assert torch.equal(turned.head.weight, source.head.weight)


def test_without_a_common_name_the_head_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "source.safetensors"
    save_checkpoint(create_model(SOURCE, num_classes=3), path)
    network = create_model(SOURCE, num_classes=5)
    assert "head.weight" in initialise_from(network, path, classes=["a", "b", "c", "d", "e"]).skipped


def test_as_many_other_classes_are_not_taken_for_the_same(tmp_path: Path) -> None:
    """Where both are numbers alone, names tell nothing, and the place decides."""
    path = tmp_path / "source.safetensors"
    source = create_model(SOURCE, num_classes=3)
    named, numbered = ["road", "car", "tree"], ["class_0", "class_1", "class_2"]
    for given, own, is_taken in (
        (named, ["cat", "dog", "cow"], False),
        (numbered, named, False),
        (named, numbered, False),
        (numbered, ["0", "1", "2"], True),
    ):
        save_checkpoint(source, path, record=default_record(source, label_space=LabelSpace.from_names("mine", given)))
        network = create_model(SOURCE, num_classes=3)
        fresh = network.head.weight.clone()
        report = initialise_from(network, path, classes=own)
        assert ("head.weight" in report.taken) is is_taken
        assert torch.equal(network.head.weight, source.head.weight if is_taken else fresh)
        assert describe_initialisation(report, path).endswith(
            "skipped: none" if is_taken else "skipped: head (not of the same classes)"
        )


@pytest.mark.parametrize("num_stages", [1, 3])
def test_frozen_stages_keep_weights_and_statistics_and_all_others_learn(tmp_path: Path, num_stages: int) -> None:
    start = tmp_path / "start.safetensors"
    network = create_model(RUN.architecture, num_classes=8, form="plain")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    save_checkpoint(network, start)
    settings = {"frozen_stages": num_stages, "iterations": 3, "form": "plain", "ema_decay": 0.9, "evaluate_every": 0}
    run = replace(RUN, init=start, recipe=RUN.recipe.with_overrides(settings))
    train(run, tmp_path / "run", tensorboard=False)
    before, after = load_file(start), load_file(tmp_path / "run/model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith("paths.") and int(name.split(".")[3]) < num_stages}
    assert frozen
    assert not changed & frozen
    assert {name for name in before if "weight" in name or "running" in name} - changed == {
        name for name in frozen if "weight" in name or "running" in name
    }


def test_stages_with_random_weights_are_not_frozen(tmp_path: Path) -> None:
    run = replace(RUN, recipe=RUN.recipe.with_overrides({"frozen_stages": 2}))
    with pytest.raises(RunError, match="frozen_stages=2 would keep random weights: give weights to start from, --init"):
        train(run, tmp_path / "run", tensorboard=False)
