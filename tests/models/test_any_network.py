"""Networks of other code. The oracle is the module itself, called directly, and torch's own bilinear resizing."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import any_networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from trained_networks import expected_labels, trained

import lpsnet
from lpsnet import plugins
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import ModelFileError, NetworkError
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.any_network import AnyNetwork, load_network
from lpsnet.models.checkpoint import initialise_from, load_checkpoint, save_checkpoint
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord

GOOD = ("plain", "stride_32", "dropping", "full_size", "transformer", "unet", "padding", "tied", "ours")
FOLDED = ("plain", "stride_32", "dropping", "full_size", "transformer", "unet")  # those that torch.fx can follow
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=GOOD)
def net(request: pytest.FixtureRequest) -> AnyNetwork:
    return trained(request.param)


@torch.no_grad()
def test_the_logits_are_the_modules_own_in_any_memory_layout(net: AnyNetwork) -> None:
    image = torch.randn(2, 3, 64, 96)
    expected = net.module(image)
    assert torch.equal(net(image), expected)
    channels_last = net.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"groups": 4}, {"stride": 2}])
def test_convolutions_that_crash_channels_last_are_given_nchw(options: dict[str, int]) -> None:
    """Torch 2.13 corrupts memory in their backward pass on a CPU."""
    layouts = []
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, **options))
    module[1].register_forward_hook(lambda _, inputs, __: layouts.append(inputs[0].is_contiguous()))
    net = AnyNetwork(module, num_classes=4).to("cpu", memory_format=torch.channels_last)
    assert all(parameter.is_contiguous() for parameter in net.parameters())
    net(torch.zeros(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert layouts == [True]


@torch.no_grad()
def test_fused_networks_have_the_same_logits(net: AnyNetwork) -> None:
    image, before = torch.randn(2, 3, 64, 96), net.state_dict()["module." + next(iter(net.module.state_dict()))].clone()
    fused = fuse(net)
    assert fused.form == "deployed"
    assert net.form == "plain"
    torch.testing.assert_close(fused(image), net.module(image), rtol=1e-4, atol=1e-5)
    assert torch.equal(before, next(iter(net.module.state_dict().values())))


def test_batch_norms_are_folded_where_the_module_can_be_followed(net: AnyNetwork) -> None:
    name = net.network.partition(":")[2]
    left = sum(isinstance(module, nn.BatchNorm2d) for module in fuse(net).modules())
    assert (left == 0) == (name in FOLDED)


@torch.no_grad()
def test_a_convolution_that_is_used_twice_keeps_its_batch_norm() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.other = nn.Conv2d(3, 3, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            maps = self.norm(self.conv(image))
            return self.other(maps) + self.conv(maps) + F.conv2d(image, self.other.weight)

    net = AnyNetwork(Twice(), num_classes=3).eval()
    nn.init.normal_(net.module.norm.running_mean)
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(fuse(net)(image), net.module(image))


def test_a_checkpoint_gives_the_network_back_in_both_forms(net: AnyNetwork, tmp_path: Path) -> None:
    image = torch.randn(1, 3, 64, 64)
    for number, saved in enumerate((net, fuse(net))):
        path = tmp_path / f"{number}.safetensors"
        save_checkpoint(saved, path)
        state = torch.get_rng_state()
        loaded = load_checkpoint(path, num_classes=5)
        assert torch.equal(torch.get_rng_state(), state)
        assert loaded.form == saved.form
        with torch.no_grad():
            assert torch.equal(loaded(image), saved(image))


def test_the_record_names_the_code_and_what_the_module_says(tmp_path: Path) -> None:
    path = tmp_path / "full.safetensors"
    save_checkpoint(trained("full_size"), path)
    record = read_record(path)
    assert (record.network, record.architecture, record.block) == ("any_networks.py:full_size", None, "")
    assert len(record.network_digest) == 8
    assert record.align_corners
    assert record.normalisation.mean == (0.5, 0.5, 0.5)
    assert record.normalisation.std == (0.25, 0.25, 0.25)
    assert str(tmp_path) not in record.to_json()
    assert not trained("plain").align_corners


def test_records_of_our_networks_say_nothing_of_other_code() -> None:
    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(2))
    assert "network" not in record.to_json()
    assert ModelRecord.from_json(record.to_json()) == record


def test_code_runs_only_if_it_was_named(tmp_path: Path) -> None:
    """In another process: the record alone is not enough; the environment variable is."""
    marker, code, path = tmp_path / "ran", tmp_path / "mine.py", tmp_path / "mine.safetensors"
    code.write_text(f"import any_networks\nopen({str(marker)!r}, 'w')\nbuild = any_networks.plain\n")
    save_checkpoint(load_network(f"{code}:build", num_classes=3), path)
    marker.unlink()
    program = (
        "import sys, lpsnet\ntry:\n    print(lpsnet.load_checkpoint(sys.argv[1]).num_classes)\n"
        "except lpsnet.LpsnetError as error:\n    print(error)"
    )

    def load(named: str) -> str:
        places = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        environment = os.environ | {plugins.NETWORKS: named, "PYTHONPATH": places}
        words = [sys.executable, "-c", program, str(path)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    refused = load("")
    assert "--network PATH/mine.py:build" in refused
    assert "\n" not in refused
    assert not marker.exists()
    assert load(f"{code}:build") == "3"
    assert marker.exists()


def test_changed_code_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code, path = tmp_path / "mine.py", tmp_path / "mine.safetensors"
    code.write_text("from any_networks import plain as build\n")
    save_checkpoint(load_network(f"{code}:build", num_classes=3), path)
    load_checkpoint(path)
    assert not caplog.records
    code.write_text("from any_networks import plain as build  # better\n")
    load_checkpoint(path)
    assert "is not as it was" in caplog.text
    code.write_text("from any_networks import stride_32 as build\n")
    with pytest.raises(ModelFileError, match="do not fit the network"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "cannot be built: KeyError: 'no such"),
        ("leaves", "cannot be built: SystemExit: 3"),
        ("nothing", "is to be a torch.nn.Module; got NoneType"),
        ("lazy", "is no tensor with a shape"),
        ("masked", "mask in its state dict holds infinities"),
        ("badly_normalised", "normalisation is a mean and a deviation"),
        ("missing", "unknown function in .*missing"),
        ("failing", r"fails on an image of 64x96: RuntimeError: Given groups=1"),
        ("a_tuple", r"one tensor N x 5 x h x w of logits; for 64x96 it gave a tuple of 2: return the logits alone"),
        ("a_dict", r"it gave a dict with out, aux: return the logits alone"),
        ("flat", r"it gave a tensor 1x5x384"),
        ("one_more", r"it gave a tensor 1x6x16x24"),
        ("labels", r"returns torch.int64 numbers"),
    ],
)
def test_networks_that_cannot_be_used_give_one_line(name: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message) as caught:
        load_network(any_networks.spec(name), num_classes=5).eval()(torch.zeros(1, 3, 64, 96))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py:build", "there is no file"),
        ("build", "FILE.py:FUNCTION"),
        ("any_networks.py:", "FILE.py:FUNCTION"),
        ("no_such_package.module:build", "no installed module 'no_such_package.module'"),
        ("..:build", "no installed module"),
    ],
)
def test_networks_that_are_not_there_give_one_line(spec: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(spec, num_classes=5)


def test_a_function_of_an_installed_module_is_taken() -> None:
    assert load_network("any_networks:plain", num_classes=4).network == "any_networks:plain"


def test_what_the_code_prints_does_not_come_between_json() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        load_network(any_networks.spec("printing"), num_classes=5)
    assert printed.getvalue() == ""


def test_initial_weights_fit_by_name_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "source.safetensors"
    source, net = trained("plain"), load_network(any_networks.spec("plain"), num_classes=3)
    save_checkpoint(source, path)
    done = initialise_from(net, path)
    assert done.skipped == {
        "module.2.weight": "5x12x1x1 in the checkpoint, 3x12x1x1 here",
        "module.2.bias": "5 in the checkpoint, 3 here",
    }
    assert torch.equal(net.module[1][0].weight, source.module[1][0].weight)


def test_our_networks_and_others_do_not_take_each_others_weights(tmp_path: Path) -> None:
    ours, other = lpsnet.create_model("tiny", num_classes=5), trained("plain")
    for name, net in (("ours", ours), ("other", other)):
        save_checkpoint(net, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelFileError, match="holds a network of this package"):
        initialise_from(other, tmp_path / "ours.safetensors")
    with pytest.raises(ModelFileError, match=r"holds the network any_networks\.py:plain"):
        initialise_from(ours, tmp_path / "other.safetensors")


def test_a_module_without_code_is_not_saved(tmp_path: Path) -> None:
    net = AnyNetwork(any_networks.plain(4), num_classes=4)
    with pytest.raises(ModelFileError, match=r"lpsnet\.load_network"):
        save_checkpoint(net, tmp_path / "net.safetensors")


def test_operations_are_counted_by_hand() -> None:
    """At 32x64: 16x32 positions of 8 x 27 weights, 8x16 of 12 x 72, 8x16 of 5 x 12; folded, with biases."""
    cost = lpsnet.complexity(trained("plain"), size=(32, 64))
    assert cost.macs == 512 * 8 * 27 + 128 * 12 * 72 + 128 * 5 * 12
    assert cost.parameters == 8 * 28 + 12 * 73 + 5 * 13
    assert [row.part for row in cost.rows] == ["network"]
    assert json.loads(json.dumps(cost.to_dict()))["network"] == "any_networks.py:plain"


def test_linear_layers_and_transposed_convolutions_are_counted_by_hand() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1, stride=4), nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2))
    cost = lpsnet.complexity(AnyNetwork(module, num_classes=6), size=(32, 32))
    assert cost.macs == 64 * 12 + 64 * 4 * (3 * 4)  # each of 4 input channels goes to 3 channels of 2x2
    attention = lpsnet.complexity(trained("transformer"), size=(32, 64))
    tokens = 4 * 8
    convolutions = 8 * 16 * 8 * 27 + tokens * 16 * 72 + tokens * 5 * 16
    assert attention.macs == convolutions + tokens * (16 * 48 + 16 * 16)


def test_labels_are_the_largest_of_the_resized_logits(net: AnyNetwork, tmp_path: Path) -> None:
    """The whole way, with the checkpoint, against torch."""
    path, image = tmp_path / "net.safetensors", np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    save_checkpoint(net, path)
    labels = np.asarray(Segmenter(path)(image))
    assert (labels == expected_labels(net, image)).mean() > 0.999
