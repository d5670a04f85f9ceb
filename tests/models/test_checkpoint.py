"""Saved and loaded again; refused where file, record and weights do not belong together; taken over where they fit."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lpsnet.data.labels import CAMVID, LabelSpace
from lpsnet.errors import LpsnetError, ModelFileError
from lpsnet.inference.model_file import read_record
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.checkpoint import default_record, initialise_from, load_checkpoint, save_checkpoint
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import FORMS, Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import RECORD_KEY

CASES = [*((block, "none") for block in BLOCKS), *(("conv3x3", interaction) for interaction in INTERACTIONS)]
ARCH = "B=1,2,1,1,2;C=3,4,5,6,7;R=1,1/4"


def small(arch: str = ARCH, **options) -> Network:
    return create_model(arch, **{"num_classes": 3, **options})


def state_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rewrite(path: Path, change) -> None:
    """Change the tensors of a checkpoint in place, keeping its header's texts."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def rewrite_record(path: Path, **fields: object) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    record = json.loads(metadata[RECORD_KEY]) | fields
    save_file(load_file(path), path, metadata={**metadata, RECORD_KEY: json.dumps(record)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("block", "interaction"), CASES)
def test_a_network_comes_back(block: str, interaction: str, form, path: Path, randomised) -> None:
    net = randomised(small(block=block, interaction=interaction, form=form, align_corners=False))
    save_checkpoint(net, path)
    random_state = torch.get_rng_state()
    loaded = load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert state_equal(loaded.state_dict(), net.state_dict())
    for name in ("architecture", "num_classes", "block", "interaction", "form", "align_corners"):
        assert getattr(loaded, name) == getattr(net, name)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    image = torch.randn(1, 3, 40, 50)
    assert torch.equal(loaded(image), net(image))


def test_the_default_record(path: Path) -> None:
    net = small()
    save_checkpoint(net, path)
    record = read_record(path)
    assert record == default_record(net)
    assert record.architecture == net.architecture
    assert (record.block, record.interaction, record.form) == ("conv3x3", "bilateral_b", "reparameterised")
    assert record.label_space == LabelSpace.numbered(3)
    assert record.lpsnet_version


def test_a_given_record_is_kept(path: Path) -> None:
    net = small(num_classes=CAMVID.num_classes)
    record = default_record(net, label_space=CAMVID).model_copy(update={"input_size": (360, 480), "licence": "ours"})
    save_checkpoint(net, path, record=record)
    assert read_record(path) == record


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", create_model("tiny").architecture),
        ("block", "ghost"),
        ("interaction", "none"),
        ("form", "plain"),
        ("align_corners", False),
        ("label_space", LabelSpace.numbered(4)),
    ],
)
def test_a_record_of_another_network_is_refused(field: str, value: object, path: Path) -> None:
    net = small()
    with pytest.raises(ModelFileError, match=field.replace("_", ".")) as caught:
        save_checkpoint(net, path, record=default_record(net).model_copy(update={field: value}))
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_half_precision_in_the_file_and_float32_again(path: Path) -> None:
    net = small()
    save_checkpoint(net, path, dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16, torch.int64}
    expected = {name: t.half().float() if t.is_floating_point() else t for name, t in net.state_dict().items()}
    assert state_equal(load_checkpoint(path).state_dict(), expected)
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), None), (1e6, torch.float16)])
def test_useless_weights_are_not_saved(value: float, dtype, path: Path) -> None:
    net = small()
    torch.nn.init.constant_(net.head.bias, value)
    with pytest.raises(ModelFileError, match=r"head\.bias"):
        save_checkpoint(net, path, dtype=dtype)
    assert not path.exists()


def test_channels_last_weights_are_saved(path: Path) -> None:
    net = small().to(memory_format=torch.channels_last)
    save_checkpoint(net, path)
    assert state_equal(load_checkpoint(path).state_dict(), net.state_dict())


def test_saving_replaces_in_one_step_and_leaves_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(small(), path)
    old = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(LpsnetError, match="No space left"):
        save_checkpoint(small(), path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def check_refused(path: Path, *words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    for word in (path.name, *words):
        assert word in text, text


def test_a_missing_file(path: Path) -> None:
    check_refused(path)


@pytest.mark.parametrize("content", [b"", b"hello", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"{}"])
def test_another_file(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    check_refused(path)


def test_a_file_cut_short(path: Path) -> None:
    save_checkpoint(small(), path)
    path.write_bytes(path.read_bytes()[:-100])
    check_refused(path, "copy or save it again")


def test_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"ends in \.safetensors"):
        save_checkpoint(small(), tmp_path / "net.pth")
    with pytest.raises(ModelFileError, match=r"ends in \.safetensors"):
        load_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize(("block", "interaction"), CASES)
@pytest.mark.parametrize("weights", ["f32", "f16"])
def test_an_exported_onnx_file_is_the_deployed_network(
    block: str, interaction: str, weights, tmp_path: Path, randomised
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxslim")
    from lpsnet.export.onnx import export_onnx

    deployed = fuse(randomised(small(block=block, interaction=interaction)))
    exact = deployed.half().float() if weights == "f16" else deployed
    size = (48, 64) if block == "shufflenet" else None
    export_onnx(exact, tmp_path / "net.onnx", record=default_record(exact), weights=weights, size=size)
    loaded = load_checkpoint(tmp_path / "net.onnx")
    assert loaded.form == "deployed"
    assert state_equal(loaded.state_dict(), exact.state_dict())


@pytest.mark.parametrize("form", ["plain", "reparameterised"])
def test_a_training_starts_from_a_deployed_checkpoint_where_images_are_given(form, path: Path, randomised) -> None:
    deployed, images = fuse(randomised(small())), torch.randn(2, 3, 48, 64)
    save_checkpoint(deployed, path)
    net = small(form=form)
    assert not initialise_from(net, path, images=images).skipped
    with torch.no_grad():
        logits, expected = net.eval()(images), deployed(images)
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_no_record(path: Path) -> None:
    save_file(small().state_dict(), path)
    check_refused(path, "record")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"block": "conv4x4"}, "conv4x4"),
        ({"interaction": "telepathy"}, "telepathy"),
        ({"architecture": None}, "no architecture"),
        ({"architecture": "B=1000,1000,1000,1000,1000;C=3,4,5,6,7;R=1,1/4"}, "too few for the 10000 blocks"),
        ({"form": "deployed"}, "missing: paths.0.stages.0.0.unit.conv.weight"),
        ({"architecture": "B=1,2,1,1,2;C=3,4,5,6,8;R=1,1/4"}, "misshapen: paths.0.stages.4.0.unit"),
    ],
)
def test_a_record_that_is_not_the_weights(fields: dict[str, object], word: str, path: Path) -> None:
    save_checkpoint(small(), path)
    rewrite_record(path, **fields)
    check_refused(path, word)


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["head.bias"]


def _add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["tail.bias"] = torch.zeros(1)


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head.weight"] = torch.zeros(3, 14, 3, 3)


def _integers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head.bias"] = torch.zeros(3, dtype=torch.int32)


def _infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head.bias"][1] = float("inf")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop, ("missing: head.bias",)),
        (_add, ("unexpected: tail.bias",)),
        (_reshape, ("misshapen: head.weight 3x14x3x3 instead of 3x14x1x1",)),
        (_integers, ("misshapen: head.bias 3 of int32 instead of 3",)),
        (_infinite, ("infinities or NaNs", "head.bias")),
        (dict.clear, ("missing: ", " more")),
    ],
)
def test_weights_that_do_not_fit(change, words: tuple[str, ...], path: Path) -> None:
    save_checkpoint(small(), path)
    rewrite(path, change)
    check_refused(path, *words)


def test_the_number_of_classes_can_be_asked_for(path: Path) -> None:
    save_checkpoint(small(), path)
    assert load_checkpoint(path, num_classes=3).num_classes == 3
    with pytest.raises(ModelFileError, match=r"3 classes.*not 19"):
        load_checkpoint(path, num_classes=19)


def test_initialising_the_same_network_takes_everything(path: Path, randomised) -> None:
    source = randomised(small())
    save_checkpoint(source, path)
    net = small()
    done = initialise_from(net, path)
    assert state_equal(net.state_dict(), source.state_dict())
    assert set(done.taken) == set(net.state_dict())
    assert done.skipped == {}
    assert net.training


def test_initialising_for_other_classes_and_ratios_skips_the_head(path: Path) -> None:
    save_checkpoint(small(), path)
    net = small("B=1,2,1,1,2;C=3,4,5,6,7;R=3/4,1/2", num_classes=11)
    head = net.head.weight.clone()
    done = initialise_from(net, path)
    assert done.skipped == {
        "head.weight": "3x14x1x1 in the checkpoint, 11x14x1x1 here",
        "head.bias": "3 in the checkpoint, 11 here",
    }
    assert torch.equal(net.head.weight, head)
    assert torch.equal(net.paths[1].stages[4][1].unit.conv1x1.conv.weight, load_file(path)[done_name(1)])


def done_name(path: int) -> str:
    return f"paths.{path}.stages.4.1.unit.conv1x1.conv.weight"


@pytest.mark.parametrize(("in_file", "here"), [(1, 2), (2, 4), (3, 2)])
def test_the_last_path_serves_for_paths_the_checkpoint_has_not(in_file: int, here: int, path: Path) -> None:
    ratios = ["1", "1/2", "1/4", "1/8"]
    arch = "B=1,1,1,1,2;C=3,4,5,6,7;R="
    save_checkpoint(small(arch + ",".join(ratios[:in_file]), interaction="bilateral_a"), path)
    tensors = load_file(path)
    net = small(arch + ",".join(ratios[:here]), interaction="bilateral_a")
    done = initialise_from(net, path)
    for number in range(here):
        assert torch.equal(net.state_dict()[done_name(number)], tensors[done_name(min(number, in_file - 1))])
    assert "head.weight" in done.skipped
    for name in net.state_dict():
        if name.startswith("interactions."):
            assert (name in done.taken) == (name in tensors)
            assert done.skipped.get(name) == (None if name in tensors else "not in the checkpoint")


def test_more_blocks_and_wider_stages_keep_their_own_weights(path: Path) -> None:
    save_checkpoint(small(), path)
    net = small("B=1,2,1,1,3;C=3,4,5,6,9;R=1,1/4")
    done = initialise_from(net, path)
    weights = {name for name in done.taken if name.endswith("conv.weight")}
    assert weights == {name for name in load_file(path) if name.endswith("conv.weight") and ".stages.4." not in name}
    assert done.skipped["paths.0.stages.4.2.unit.identity.weight"] == "not in the checkpoint"
    assert done.skipped["paths.0.stages.4.0.unit.conv1x1.conv.weight"] == "7x6x1x1 in the checkpoint, 9x6x1x1 here"


@pytest.mark.parametrize(
    ("source", "target", "word"),
    [
        ({}, {"form": "deployed"}, "form='reparameterised'"),
        ({"block": "residual"}, {}, "residual"),
    ],
)
def test_initialising_from_another_kind_is_refused(source: dict, target: dict, word: str, path: Path) -> None:
    save_checkpoint(small(**source), path)
    net = small(**target)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ModelFileError, match=word):
        initialise_from(net, path)
    assert state_equal(net.state_dict(), before)


def test_initialising_training_from_a_deployed_checkpoint_is_refused(path: Path) -> None:
    save_checkpoint(fuse(small()), path)
    with pytest.raises(ModelFileError, match="no batch norms to train on"):
        initialise_from(small(), path)


@pytest.mark.parametrize("training", [False, True])
def test_parallel_branches_begin_with_the_scores_of_a_plain_network(path: Path, randomised, training: bool) -> None:
    plain = randomised(small(form="plain")).train(training)
    save_checkpoint(plain, path)
    net, random_state = small(), torch.get_rng_state()
    assert not initialise_from(net, path).skipped
    assert torch.equal(torch.get_rng_state(), random_state)
    image = torch.randn(2, 3, 64, 96)
    given, expected = net.train(training)(image), plain(image)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    given.square().sum().backward()
    scales = [value.grad for name, value in net.named_parameters() if name.endswith("conv1x1.norm.weight")]
    assert scales
    assert all(gradient.abs().max() > 0 for gradient in scales), "the other branches learn"


def test_blocks_without_branches_do_not_mind_which_training_form(path: Path) -> None:
    save_checkpoint(small(block="ghost", form="plain"), path)
    assert not initialise_from(small(block="ghost"), path).skipped
