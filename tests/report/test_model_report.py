"""The report of a model file: all that its record says, and no more than the file is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
from page_reading import check_self_contained, read_page

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import ModelFileError
from lpsnet.record import RECORD_KEY, ModelRecord
from lpsnet.report.report import write_report

NAMES = ("road", "<script>alert(1)</script>", "car & tree")


def model_file(path: Path, **values: Any) -> Path:
    """A safetensors file without tensors: its header's length, its header."""
    record = ModelRecord(architecture="lpsnet_s", label_space=LabelSpace.from_names("mine", NAMES), **values)
    header = json.dumps({"__metadata__": {RECORD_KEY: record.to_json()}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_scores_classes_and_record(tmp_path: Path) -> None:
    scores = {
        "val": {"miou": 61.234, "ious": {NAMES[0]: 90.05, NAMES[1]: None, NAMES[2]: 4.0}, "protocol": {"flip": False}}
    }
    training = {"recipe": {"name": "camvid_small", "epochs": 60}, "command": "lpsnet train --out x"}
    file = model_file(tmp_path / "m.safetensors", scores=scores, training=training, licence="for research")
    page = read_page(write_report(file).read_text(encoding="utf-8"))
    check_self_contained(page)
    assert page.fact("mIoU on val") == "61.23 %"
    assert page.table("Id", "Class", "IoU on val (%)") == [
        ["0", NAMES[0], "90.0"], ["1", NAMES[1], "–"], ["2", NAMES[2], "4.0"],
    ]  # fmt: skip
    assert page.fact("licence") == "for research"
    assert page.fact("recipe: name") == "camvid_small"
    assert page.fact("val: flip") == "no"
    assert page.fact("bytes") == f"{file.stat().st_size:,}"
    assert training["command"] in page.texts


@pytest.mark.parametrize(
    "scores", [{}, {"val": 3}, {"val": {"miou": "x", "ious": 3}}, {"val": {"ious": {"road": 10**400}}}]
)
def test_whatever_else_the_record_holds_there_is_a_page(tmp_path: Path, scores: dict[str, Any]) -> None:
    page = read_page(write_report(model_file(tmp_path / "m.safetensors", scores=scores)).read_text(encoding="utf-8"))
    assert [row[1] for row in page.table("Id", "Class")] == list(NAMES)


def test_a_file_without_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError):
        write_report(tmp_path / "m.onnx")
