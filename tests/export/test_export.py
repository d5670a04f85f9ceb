"""The table of exporters."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from lpsnet.data.labels import LabelSpace
from lpsnet.deployment.model_file import read_record
from lpsnet.errors import ModelFileError
from lpsnet.export.export import export
from lpsnet.model.network import create_model
from lpsnet.record import ModelRecord

RECORD = ModelRecord(architecture="tiny", label_space=LabelSpace.numbered(3))


def test_the_format_says_who_exports(tmp_path: Path) -> None:
    report = export(create_model("tiny", num_classes=3), tmp_path / "m.onnx", to="onnx", record=RECORD, size=(32, 48))
    assert report.format == "onnx"
    assert read_record(report.path).input_size == (32, 48)


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="unknown export format 'onx'; did you mean 'onnx'"):
        export(create_model("tiny", num_classes=3), tmp_path / "m.onx", to="onx", record=RECORD)
