"""Exported ONNX files, run by a bare ONNX Runtime, against the training form of the network in torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnxruntime  # noqa: E402
from random_networks import randomise  # noqa: E402

from lpsnet import __version__  # noqa: E402
from lpsnet.architecture import Architecture, logits_size  # noqa: E402
from lpsnet.data.labels import LabelSpace  # noqa: E402
from lpsnet.errors import MissingDependencyError, ModelFileError  # noqa: E402
from lpsnet.export import onnx as exporter  # noqa: E402
from lpsnet.export.onnx import export_onnx  # noqa: E402
from lpsnet.inference.model_file import read_record  # noqa: E402
from lpsnet.models.blocks import BLOCKS  # noqa: E402
from lpsnet.models.interactions import INTERACTIONS  # noqa: E402
from lpsnet.models.network import Network, create_model  # noqa: E402
from lpsnet.record import ModelRecord  # noqa: E402

SPACE = LabelSpace.from_names("five", "abcde")
ONE_PATH, TWO_PATHS, THREE_PATHS = (
    f"B=1,1,1,1,1;C=4,6,8,8,8;R={ratios}" for ratios in ("1/2", "1,1/4", "11/8,5/8,1/3")
)


def _network(arch: str = TWO_PATHS, **choices: Any) -> Network:
    """A network whose batch norms do something."""
    torch.manual_seed(1)
    return randomise(create_model(arch, num_classes=5, **choices))


def _record(net: Network, **fields: Any) -> ModelRecord:
    return ModelRecord(
        architecture=net.architecture,
        label_space=SPACE,
        form=net.form,
        input_size=(64, 96),
        align_corners=net.align_corners,
        **fields,
    )


def _assert_same(net: Network, path: Path, shape: tuple[int, ...]) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = torch.randn(shape)
    with torch.inference_mode():
        expected = net(image).numpy()
    logits = session.run(["logits"], {"image": image.numpy()})[0]
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < 1e-4 * np.ptp(expected)


@pytest.mark.parametrize(
    ("arch", "align_corners"), [(ONE_PATH, True), (TWO_PATHS, True), (THREE_PATHS, True), (THREE_PATHS, False)]
)
def test_a_free_size_file_takes_any_size(tmp_path: Path, arch: str, align_corners: bool) -> None:
    net = _network(arch, align_corners=align_corners)
    path = tmp_path / "m.onnx"
    report = export_onnx(net, path, record=_record(net))
    for shape in [(1, 3, 64, 96), (2, 3, 33, 47), (1, 3, 97, 61), (3, 3, 32, 200)]:
        _assert_same(net, path, shape)
    assert {check.size for check in report.checks} == {(64, 96), (33, 47), (333, 517)}
    assert report.num_bytes == path.stat().st_size


@pytest.mark.parametrize("arch", [ONE_PATH, TWO_PATHS, THREE_PATHS])
def test_a_fixed_size_file_holds_no_arithmetic_on_sizes(tmp_path: Path, arch: str) -> None:
    net = _network(arch)
    path = tmp_path / "m.onnx"
    report = export_onnx(net, path, record=_record(net), size=(40, 70))
    _assert_same(net, path, (1, 3, 40, 70))
    model = onnx.load(path)
    assert {node.op_type for node in model.graph.node} <= {"Conv", "Relu", "Resize", "Add", "Concat"}
    (image,), (logits,) = model.graph.input, model.graph.output
    lengths = [[length.dim_value for length in port.type.tensor_type.shape.dim] for port in (image, logits)]
    assert lengths == [[1, 3, 40, 70], [1, 5, *logits_size((40, 70), Architecture.parse(arch))]]
    assert report.size == (40, 70)


@pytest.mark.parametrize("block", sorted(set(BLOCKS) - {"conv3x3"}))
def test_every_block_is_exported(tmp_path: Path, block: str) -> None:
    net = _network(block=block)
    export_onnx(net, tmp_path / "m.onnx", record=_record(net))
    _assert_same(net, tmp_path / "m.onnx", (1, 3, 50, 75))


def test_a_file_in_f16_is_half_as_large_and_takes_float32(tmp_path: Path) -> None:
    net = _network()
    export_onnx(net, tmp_path / "full.onnx", record=_record(net), size=(40, 70))
    report = export_onnx(net, tmp_path / "half.onnx", record=_record(net), size=(40, 70), precision="f16")
    assert 1e-5 < report.score_difference < 1e-2
    model, full = onnx.load(tmp_path / "half.onnx"), onnx.load(tmp_path / "full.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert [port.type.tensor_type.elem_type for port in (*model.graph.input, *model.graph.output)] == [1, 1]  # FLOAT
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in full.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.name in weights and len(tensor.dims) == 4:
            np.testing.assert_array_equal(
                onnx.numpy_helper.to_array(tensor), weights[tensor.name].astype(np.float16), err_msg=tensor.name
            )
    export_onnx(net, tmp_path / "free.onnx", record=_record(net), precision="f16")


def test_a_weight_that_f16_cannot_hold_is_refused(tmp_path: Path) -> None:
    net = _network()
    net.head.weight.data[0, 0] = 1e5
    with pytest.raises(ModelFileError, match=r"a weight of 1e\+05, more than f16 can hold"):
        export_onnx(net, tmp_path / "m.onnx", record=_record(net), precision="f16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("interaction", sorted(set(INTERACTIONS) - {"bilateral_b"}))
def test_every_interaction_is_exported(tmp_path: Path, interaction: str) -> None:
    net = _network(interaction=interaction)
    export_onnx(net, tmp_path / "m.onnx", record=_record(net))
    _assert_same(net, tmp_path / "m.onnx", (1, 3, 50, 75))


def test_the_file_carries_its_record(tmp_path: Path) -> None:
    net = _network(block="sepconv3x3", interaction="none", form="plain")
    record = _record(net, licence="CC0-1.0", scores={"val": {"miou": 50.5}}).model_copy(update={"architecture": None})
    export_onnx(net, tmp_path / "free.onnx", record=record)
    export_onnx(net, tmp_path / "fixed.onnx", record=record, size=(32, 64))
    free, fixed = read_record(tmp_path / "free.onnx"), read_record(tmp_path / "fixed.onnx")
    assert free.architecture == net.architecture
    assert (free.block, free.interaction, free.form) == ("sepconv3x3", "none", "deployed")
    assert (free.licence, free.scores, free.lpsnet_version) == ("CC0-1.0", {"val": {"miou": 50.5}}, __version__)
    assert free.input_size == (64, 96)
    assert fixed == free.model_copy(update={"input_size": (32, 64)})


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    net = _network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export_onnx(net, tmp_path / "m.onnx", record=_record(net), size=(32, 32))
    assert net.training
    assert net.form == "reparameterised"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    net = _network()
    for name in ("a", "b"):
        export_onnx(net, tmp_path / f"{name}.onnx", record=_record(net))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_report_says_what_was_compared(tmp_path: Path) -> None:
    net = _network()
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    report = export_onnx(net, tmp_path / "m.onnx", record=_record(net), size=(40, 70), images=[image, image])
    assert [check.image for check in report.checks] == ["noise", "smooth", "image 1", "image 2"]
    values = json.loads(json.dumps(report.to_dict()))
    assert values["path"] == str(tmp_path / "m.onnx")
    assert values["engine"] == f"onnxruntime {onnxruntime.__version__}"
    assert values["score_difference"] == max(check["score_difference"] for check in values["checks"]) < 1e-4
    assert values["label_agreement"] == min(check["label_agreement"] for check in values["checks"]) > 99.9
    assert (values["format"], values["precision"], values["size"]) == ("onnx", "f32", [40, 70])


def test_a_file_that_is_not_the_network_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of the written graph is changed; what was at the path before is kept, and nothing else is left."""
    net = _network()
    right = exporter.to_onnx

    def wrong(*arguments: Any, **choices: Any) -> Any:
        model = right(*arguments, **choices)
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "head.bias")
        tensor.raw_data = (onnx.numpy_helper.to_array(tensor) + np.float32([0, 0, 9, 0, 0])).tobytes()
        return model

    monkeypatch.setattr(exporter, "to_onnx", wrong)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"an older file")
    with pytest.raises(ModelFileError, match=r"not the network: on noise at 64x96, onnxruntime .* differs by"):
        export_onnx(net, path, record=_record(net))
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_with_broken_weights_is_not_exported(tmp_path: Path) -> None:
    net = _network()
    net.head.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelFileError, match="logits are not finite"):
        export_onnx(net, tmp_path / "m.onnx", record=_record(net))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"path": "m.pt"}, "ends in .onnx"),
        ({"size": (31, 64)}, "from 32x32 up; got 31x64"),
        ({"precision": "bf16"}, "exported in f32, f16 or int8; got bf16"),
        ({"fields": {"label_space": LabelSpace.numbered(4)}}, "the record names 4 classes, the network 5"),
        ({"fields": {"align_corners": False}}, "align_corners=False, the network True"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, choices: dict[str, Any], message: str) -> None:
    net = _network()
    record = _record(net).model_copy(update=choices.pop("fields", {}))
    path = tmp_path / choices.pop("path", "m.onnx")
    with pytest.raises(ModelFileError, match=message):
        export_onnx(net, path, record=record, **choices)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxslim", None)
    net = _network()
    with pytest.raises(MissingDependencyError, match=r"onnxslim is not installed; .* pip install 'lpsnet\[export\]'"):
        export_onnx(net, tmp_path / "m.onnx", record=_record(net))
