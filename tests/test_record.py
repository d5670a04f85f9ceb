"""The record: what a model file carries survives the trip, and what is no record is refused in one line."""

import json

import pytest

from lpsnet.data.channels import Channels
from lpsnet.data.labels import CAMVID, CITYSCAPES, LabelSpace
from lpsnet.errors import DataError, ModelFileError
from lpsnet.record import ModelRecord, Normalisation

RECORD = ModelRecord(
    architecture="lpsnet_s",
    label_space=CAMVID,
    input_size=(360, 480),
    training={"recipe": {"name": "x"}, "data": "camvid:…"},
    scores={"val": {"miou": 61.5}},
    licence="research only",
)


def changed(**values: object) -> str:
    return json.dumps({**json.loads(RECORD.to_json()), **values})


def test_round_trip() -> None:
    assert ModelRecord.from_json(RECORD.to_json()) == RECORD
    assert json.loads(RECORD.to_json())["architecture"] == "B=1,3,3,10,10;C=8,24,48,96,96;R=3/4,1/4"
    foreign = RECORD.model_copy(update={"architecture": None})
    assert ModelRecord.from_json(foreign.to_json()).architecture is None


def test_fields_of_later_versions_are_passed_over() -> None:
    assert ModelRecord.from_json(changed(something_new=1)) == RECORD


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        changed(architecture="B=1"),
        changed(architecture=3),
        changed(format=2),
        changed(input_size=[0, 10]),
        changed(input_size=[1, 2, 3]),
        changed(form="molten"),
        changed(label_space={"name": "x", "names": ["a", "a"], "colours": [[0, 0, 0]] * 2}),
        changed(label_space={"name": "x", "names": ["a"], "colours": [[0, 0, 256]]}),
        changed(normalisation={"mean": [0, 0, 0], "std": [1, 0, 1]}),
        changed(normalisation={"mean": [0, 0, float("nan")], "std": [1, 1, 1]}),
    ],
)
def test_what_is_no_record_gets_one_line(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"the record in x.onnx") as caught:
        ModelRecord.from_json(text, source="x.onnx")
    assert "\n" not in str(caught.value)


def test_label_spaces() -> None:
    assert (CITYSCAPES.num_classes, CAMVID.num_classes) == (19, 11)
    assert CITYSCAPES.names[13] == "car"
    camvid = "sky building pole road pavement tree sign fence car pedestrian bicyclist"
    assert CAMVID.names == tuple(camvid.split())
    many = LabelSpace.numbered(255)
    assert len(set(many.colours)) > 200
    for arguments in (
        ("x", (), ()),
        ("x", ("a",) * 2, ((0, 0, 0),) * 2),
        ("x", ("a",), ()),
        ("x", ("a",), ((0, 0, 300),)),
    ):
        with pytest.raises(DataError, match="label space 'x'"):
            LabelSpace(*arguments)
    with pytest.raises(DataError, match="256 classes"):
        LabelSpace.numbered(256)


def test_normalisation_is_imagenets() -> None:
    assert Normalisation().mean == (0.485, 0.456, 0.406)
    assert Normalisation().std == (0.229, 0.224, 0.225)


def test_records_of_rgb_are_written_as_before() -> None:
    """The bytes of a record before there were other channels, and such a record read again."""
    record = ModelRecord(
        architecture=None, label_space=LabelSpace.from_names("two", ("a", "b"), [(1, 2, 3), (4, 5, 6)])
    )
    text = record.to_json()
    assert text == (
        '{"format":1,"architecture":null,"block":"conv3x3","interaction":"bilateral_b","form":"deployed",'
        '"label_space":{"name":"two","names":["a","b"],"colours":[[1,2,3],[4,5,6]]},"normalisation":'
        '{"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]},"input_size":null,"align_corners":true,"training":{},'
        '"scores":{},"licence":"","lpsnet_version":""}'
    )
    assert ModelRecord.from_json(text) == record
    assert record.image_channels == Channels()


def test_records_hold_other_channels() -> None:
    norm = Normalisation(mean=(0.1, 0.2), std=(0.3, 0.4), max_value=65535)
    record = ModelRecord(
        architecture=None, label_space=LabelSpace.numbered(2), channels=("nir", "heat"), normalisation=norm
    )
    again = ModelRecord.from_json(record.to_json())
    assert again == record
    assert again.image_channels == Channels(("nir", "heat"), 16)
    for wrong, message in (
        ({"channels": ("nir",)}, "each channel has a mean"),
        ({"channels": ("nir", "nir")}, "of its own"),
        ({"normalisation": {"mean": [0.1, 0.2], "std": [1.0]}}, "2 means and 1 deviations"),
        ({"normalisation": {"mean": [], "std": []}}, "each channel"),
        ({"normalisation": {"mean": [0.1, 0.2], "std": [1, 1], "max_value": 4095}}, "max_value"),
    ):
        with pytest.raises(ModelFileError, match=message):
            ModelRecord.from_json(json.dumps({**json.loads(record.to_json()), **wrong}))
