"""The table of exporters."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from lpsnet.data.labels import LabelSpace
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import ModelFileError
from lpsnet.export.export import EXPORTERS, export
from lpsnet.export.verify import Format
from lpsnet.inference.model_file import read_record
from lpsnet.models.network import create_model
from lpsnet.record import ModelRecord

RECORD = ModelRecord(architecture="tiny", label_space=LabelSpace.numbered(3))


def test_the_format_says_who_exports(tmp_path: Path) -> None:
    report = export(create_model("tiny", num_classes=3), tmp_path / "m.onnx", to="onnx", record=RECORD, size=(32, 48))
    assert report.format == "onnx"
    assert read_record(report.path).input_size == (32, 48)


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="unknown export format 'onx'; did you mean 'onnx'"):
        export(create_model("tiny", num_classes=3), tmp_path / "m.onx", to="onx", record=RECORD)


def test_every_format_has_an_exporter() -> None:
    for name, place in EXPORTERS.items():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        assert name in {it.name for it in vars(importlib.import_module(module)).values() if isinstance(it, Format)}


def test_what_is_compared_is_passed_on(tmp_path: Path) -> None:
    net = create_model("tiny", num_classes=8)
    scenes = SceneSplit(size=(48, 64), count=2, seed=0, name="val")
    record = RECORD.model_copy(update={"label_space": scenes.label_space})
    images = [scenes.image(0)]
    report = export(net, tmp_path / "m.onnx", to="onnx", record=record, images=images, labelled=scenes)
    assert {check.image for check in report.checks} == {"noise", "smooth", "image 1"}
    assert report.miou is not None
    assert (report.miou.split, report.miou.num_pictures) == ("val", 2)
    assert report.miou.before == pytest.approx(report.miou.after, abs=0.05)
    with pytest.raises(ModelFileError, match="points lost, at most -200 are allowed"):
        export(net, tmp_path / "n.onnx", to="onnx", record=record, labelled=scenes, max_miou_loss=-200)
    assert not (tmp_path / "n.onnx").exists()
