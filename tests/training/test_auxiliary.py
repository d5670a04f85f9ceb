"""A second head in training: its loss, and that the model delivered does not have it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_run import RUN

from lpsnet.inference.model_file import read_record
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.models.network import WithAuxiliaryHead, create_model
from lpsnet.training.loop import Loop, make_accelerator, normalise
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation, train

CPU = torch.device("cpu")


def with_head(**settings):
    return replace(RUN, recipe=RUN.recipe.with_overrides({"iterations": 4, "aux_weight": 0.4, **settings}))


@pytest.mark.parametrize("detail", ["", ";D=8", ";D=4"])
def test_the_networks_logits_stay_and_the_head_sees_stage_4_of_the_largest_path(detail: str) -> None:
    torch.manual_seed(0)
    network = create_model(f"B=1,1,1,1,1;C=4,4,8,12,8;R=1,1/2{detail}", num_classes=3).eval()
    both = WithAuxiliaryHead(network).eval()
    seen = []
    network.interactions[1].register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    image = torch.randn(2, 3, 48, 64)
    logits, auxiliary = both(image)
    assert torch.equal(logits, network(image))
    expected = torch.einsum("kc,nchw->nkhw", both.auxiliary.weight[:, :, 0, 0], seen[0])
    assert torch.allclose(auxiliary, expected + both.auxiliary.bias[:, None, None], atol=1e-6)
    assert auxiliary.shape == (2, 3, 3, 4)


def test_the_loss_is_that_of_both_heads(tmp_path: Path) -> None:
    run = with_head()
    task, other = Segmentation.of(run, CPU), Segmentation.of(run, CPU)
    loop = Loop(task, make_accelerator(), folder=RunFolder(tmp_path))
    images, labels = next(loop._batches())
    logits, auxiliary = other.model.train()(normalise(images, other.normalisation))
    first, second = (total / weight for total, weight in (other.criterion(it, labels) for it in (logits, auxiliary)))
    assert next(loop.steps())[0].item() == pytest.approx((first + 0.4 * second).item(), rel=1e-5)
    assert abs(first - second).item() > 1e-6


@pytest.mark.parametrize("keep_best", [False, True])
def test_the_model_is_delivered_without_it(tmp_path: Path, keep_best: bool) -> None:
    settings = {"evaluate_every": 1, "keep_best": keep_best, "iterations": 6}
    train(with_head(**settings), tmp_path / "with", tensorboard=False)
    train(with_head(**settings, aux_weight=0), tmp_path / "without", tensorboard=False)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert {name: it.shape for name, it in ours.items()} == {name: it.shape for name, it in theirs.items()}
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items()), "it teaches the network"
    assert load_checkpoint(tmp_path / "with" / "model.safetensors").architecture == RUN.architecture
    records = [read_record(tmp_path / name / "model.safetensors").model_dump() for name in ("with", "without")]
    for record in records:
        assert record["training"]["recipe"].pop("aux_weight", 0) in (0, 0.4)
        record["scores"] = {}
        for key in ("finished", "iterations"):  # keep_best
            record["training"].pop(key)
    assert records[0] == records[1]
