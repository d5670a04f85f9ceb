"""Model repositories for servers: what their configuration says is parsed, and the file is run by exactly that."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnxruntime
import torch
from export_networks import SIZE, images, network, record_of
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from numpy.typing import NDArray

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import ModelFileError
from lpsnet.export.export import MAX_BATCH, SERVERS, export, export_for_server
from lpsnet.export.quantise import Quantisation
from lpsnet.inference.model_file import read_record
from lpsnet.inference.preprocess import sample_image
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record, load_checkpoint
from lpsnet.models.network import create_model
from lpsnet.record import ModelRecord, Normalisation

# The fields that are written, with name, number and type as in Triton's model_config.proto; any other is an error
_SCHEMA: dict[str, list[tuple[str, int, str, bool]]] = {
    "ModelConfig": [
        ("name", 1, "string", False),
        ("max_batch_size", 4, "int32", False),
        ("input", 5, "ModelInput", True),
        ("output", 6, "ModelOutput", True),
        ("dynamic_batching", 11, "ModelDynamicBatching", False),
        ("parameters", 14, "Entry", True),
        ("backend", 17, "string", False),
    ],
    "ModelInput": [("name", 1, "string", False), ("data_type", 2, "DataType", False), ("dims", 4, "int64", True)],
    "ModelOutput": [
        ("name", 1, "string", False),
        ("data_type", 2, "DataType", False),
        ("dims", 3, "int64", True),
        ("label_filename", 4, "string", False),
    ],
    "ModelDynamicBatching": [("default_queue_policy", 6, "ModelQueuePolicy", False)],
    "ModelQueuePolicy": [("max_queue_size", 4, "uint32", False)],
    "Entry": [("key", 1, "string", False), ("value", 2, "ModelParameter", False)],
    "ModelParameter": [("string_value", 1, "string", False)],
}
_TYPES = {"TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_FP32": 11}
_NUMPY = {2: np.uint8, 3: np.uint16}


def _model_config() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    plain = {"string": field.TYPE_STRING, "int32": field.TYPE_INT32, "int64": field.TYPE_INT64}
    plain["uint32"] = field.TYPE_UINT32
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="t", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for name, number in {"TYPE_INVALID": 0, **_TYPES}.items():
        kinds.value.add(name=name, number=number)
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for own, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = message.field.add(name=own, number=number, label=label)
            added.type = plain.get(kind, field.TYPE_ENUM if kind == "DataType" else field.TYPE_MESSAGE)
            if kind not in plain:
                added.type_name = f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelConfig"))()


def read_config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), _model_config())


def run_as_configured(folder: Path, batch: NDArray[Any]) -> NDArray[Any]:
    """What a server does that knows no more than `config.pbtxt`."""
    config = read_config(folder)
    (image,), (labels,) = config.input, config.output
    assert len(batch) <= config.max_batch_size
    assert batch.dtype == _NUMPY[image.data_type]
    assert all(want in (-1, length) for want, length in zip(image.dims, batch.shape[1:], strict=True))
    session = onnxruntime.InferenceSession(folder / "1/model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run([labels.name], {image.name: batch})
    assert found.dtype == _NUMPY[labels.data_type]
    assert len(found) == len(batch)
    assert all(want in (-1, length) for want, length in zip(labels.dims, found.shape[1:], strict=True))
    return np.asarray(found)


def written(folder: Path, net: Any, record: ModelRecord, **options: Any) -> tuple[Path, Segmenter]:
    """The model's folder, and a segmenter of the same network in a file of its own."""
    report = export_for_server(net, folder / "models/street", server="triton", record=record, **options)
    assert report.path == folder / "models/street/1/model.onnx"
    own = record.model_copy(update={"input_size": report.size})
    options.pop("size", None)
    export(net, folder / "plain.onnx", to="onnx", record=own, **options)
    return folder / "models/street", Segmenter(folder / "plain.onnx")


def agreement(found: NDArray[Any], segment: Segmenter, batch: NDArray[Any]) -> float:
    return 100 * float(np.mean(found == np.stack([segment(image).labels for image in batch])))


@pytest.mark.parametrize("align_corners", [True, False])
def test_triton_gives_the_segmenters_labels(tmp_path: Path, align_corners: bool) -> None:
    net = network(align_corners=align_corners)
    folder, segment = written(tmp_path, net, record_of(net), size=SIZE)
    config = read_config(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("street", "onnxruntime", MAX_BATCH)
    assert list(config.input[0].dims) == [*SIZE, 3]
    assert list(config.output[0].dims) == [*SIZE]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 64
    batch = np.stack(images(4))
    assert agreement(run_as_configured(folder, batch), segment, batch) > 99.9
    classes = (folder / config.output[0].label_filename).read_text().splitlines()
    assert classes == list(segment.label_space.names)
    assert read_record(folder / "1/model.onnx").input_size == SIZE


def test_any_size_where_the_record_has_none(tmp_path: Path) -> None:
    net = network()
    folder, segment = written(tmp_path, net, record_of(net))
    assert list(read_config(folder).input[0].dims) == [-1, -1, 3]
    for size in ((33, 47), (64, 120)):
        batch = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
        assert agreement(run_as_configured(folder, batch), segment, batch) > 99.9


def test_other_channels_of_16_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = create_model("B=1,1,1,1,1;C=4,8,8,8,8;R=1", num_classes=3, in_channels=5).eval()
    torch.nn.init.normal_(net.head.weight)
    names = ("red", "green", "blue", "near infrared", 'so "called" \\ ä')
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.1, 0.2, 0.1)
    normalisation = Normalisation(mean=mean, std=std, max_value=65535)
    record = default_record(net, label_space=LabelSpace.from_names("s", ('a "b"', "ß \\n", "路")))
    record = record.model_copy(update={"channels": names, "normalisation": normalisation})
    folder, segment = written(tmp_path, net, record, size=SIZE)
    config = read_config(folder)
    facts = {each.key: each.value.string_value for each in config.parameters}
    assert json.loads(facts["classes"]) == ['a "b"', "ß \\n", "路"]
    assert json.loads(facts["channels"]) == list(names)
    assert [tuple(rgb) for rgb in json.loads(facts["colours"])] == list(record.label_space.colours)
    batch = np.stack([sample_image(record, SIZE, seed=seed) for seed in range(2)])
    assert batch.dtype == np.uint16
    assert agreement(run_as_configured(folder, batch), segment, batch) > 99.9


@pytest.mark.parametrize("precision", ["f16", "int8"])
def test_other_precisions(tmp_path: Path, precision: str) -> None:
    net = network()
    flat = [np.full((*SIZE, 3), level, np.uint8) for level in (0, 128, 255)]  # for the ranges of smooth images
    calibrated = {"quantisation": Quantisation([*images(), *flat])} if precision == "int8" else {}
    folder, segment = written(tmp_path, net, record_of(net), size=SIZE, precision=precision, **calibrated)
    batch = np.stack(images(2))
    assert agreement(run_as_configured(folder, batch), segment, batch) > 99


def test_weights_are_still_found_by_name(tmp_path: Path) -> None:
    net = network()
    folder, _ = written(tmp_path, net, record_of(net), size=SIZE)
    again, whole = load_checkpoint(folder / "1/model.onnx").state_dict(), load_checkpoint(tmp_path / "plain.onnx")
    assert all(torch.equal(again[name], weight) for name, weight in whole.state_dict().items())


def test_openvino_model_server_lists_all_models(tmp_path: Path) -> None:
    net, models = network(), tmp_path / "models"
    models.mkdir()
    other = {"config": {"name": "other", "base_path": "/elsewhere", "nireq": 3}}
    (models / "config.json").write_text(json.dumps({"model_config_list": [other], "monitoring": {}}))
    for size in ((64, 64), SIZE):  # the second takes the place of the first
        export_for_server(net, models / "street", server="ovms", record=record_of(net), size=size)
    export_for_server(net, models / "any", server="ovms", record=record_of(net))
    content = json.loads((models / "config.json").read_text())
    assert content["monitoring"] == {}
    first, street, free = (each["config"] for each in content["model_config_list"])
    assert first == other["config"]
    assert (street["name"], free["name"]) == ("street", "any")
    assert (models / street["base_path"] / "1/model.onnx").is_file()
    assert street["shape"] == {"images": f"(-1,{SIZE[0]},{SIZE[1]},3)"}
    assert free["shape"] == {"images": "(-1,-1,-1,3)"}


def test_openvino_gives_the_segmenters_labels(tmp_path: Path) -> None:
    """As OpenVINO Model Server opens it: reshaped by `shape`, compiled with `plugin_config`."""
    openvino = pytest.importorskip("openvino")
    net = network()
    report = export_for_server(net, tmp_path / "models/street", server="ovms", record=record_of(net), size=SIZE)
    (listed,) = json.loads((tmp_path / "models/config.json").read_text())["model_config_list"]
    core, config = openvino.Core(), listed["config"]
    model = core.read_model(tmp_path / "models" / config["base_path"] / "1/model.onnx")
    shapes = {name: [int(each) for each in text.strip("()").split(",")] for name, text in config["shape"].items()}
    model.reshape({name: openvino.PartialShape(lengths) for name, lengths in shapes.items()})
    compiled = core.compile_model(model, "CPU", config["plugin_config"])
    batch = np.stack(images(3))
    found = compiled(batch)[0]
    assert found.dtype == np.uint8
    export(net, tmp_path / "plain.onnx", to="onnx", record=record_of(net))
    assert agreement(found, Segmenter(tmp_path / "plain.onnx"), batch) > 99.9
    assert report.engine_command[:2] == ("ovms", "--config_path")


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"model_config_list": [1]}', '{"model_config_list": [{"config": {}}]}']
)
def test_a_list_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelFileError, match="no list of models for OpenVINO Model Server"):
        export_for_server(network(), tmp_path / "m", server="ovms", record=record_of(network()), size=SIZE)
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize(
    ("name", "server", "message"),
    [
        ("m", "tritn", "unknown model server 'tritn'; did you mean 'triton'"),
        ("street.onnx", "triton", "writes a folder"),
        ("two words", "ovms", "not 'two words'"),
    ],
)
def test_senseless_wishes_are_refused(tmp_path: Path, name: str, server: str, message: str) -> None:
    net = network()
    with pytest.raises(ModelFileError, match=message):
        export_for_server(net, tmp_path / name, server=server, record=record_of(net))
    assert not list(tmp_path.iterdir())


def test_a_file_that_gives_other_labels_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(align_corners=False)
    wrong = Normalisation(mean=(0.9, 0.1, 0.5), std=(0.3, 0.05, 1.0))
    from lpsnet.export import export as module

    right = module.with_labels
    other = record_of(net).model_copy(update={"normalisation": wrong})
    monkeypatch.setattr(module, "with_labels", lambda model, record: right(model, other))
    with pytest.raises(ModelFileError, match=r"of noise's pixels, less than 99\.9 %"):
        export_for_server(net, tmp_path / "m", server="triton", record=record_of(net), size=SIZE)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert set(SERVERS) == {"triton", "ovms"}
