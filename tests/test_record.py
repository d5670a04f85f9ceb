"""The record: what a model file carries survives the trip, and what is no record is refused in one line."""

import json

import pytest

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
