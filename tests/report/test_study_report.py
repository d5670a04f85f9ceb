"""The report of a study: its rows and findings, and the figure beside it."""

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from page_reading import check_self_contained, read_page

from lpsnet.errors import RunError
from lpsnet.report.report import write_report

VALUES: dict[str, Any] = {
    "study": "widths",
    "title": "The <b>width</b> of convolutions",
    "reference": "Figure 5.",
    "differences": ["Another device."],
    "settings": {"scale": "small", "runtimes": ["onnxruntime"]},
    "machine": {"identity": "a machine", "num_cores": 2},
    "findings": ["Sweet spots: 8 & 16.", "<script>alert(1)</script>"],
    "rows": [
        {"engine": "onnxruntime f32", "width": 8, "median_ms": 0.123456, "sweet_spot": "yes", "paper": None},
        {"engine": "onnxruntime f32", "width": 12, "median_ms": 1.5, "sweet_spot": "", "paper": 2.0},
    ],
    "runs": [{"date": "2026-11-02"}, {"date": "2026-11-01"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "widths.json").write_text(json.dumps(VALUES), encoding="utf-8")
    return tmp_path


def test_rows_and_findings(folder: Path) -> None:
    assert write_report(folder) == folder / "report.html"
    page = read_page((folder / "report.html").read_text(encoding="utf-8"))
    check_self_contained(page)
    assert page.table("engine", "width", "median ms") == [
        ["onnxruntime f32", "8", "0.1235", "yes", "–"],
        ["onnxruntime f32", "12", "1.5", "", "2"],
    ]
    for text in (*VALUES["findings"], *VALUES["differences"], VALUES["title"]):
        assert text in page.texts
    assert (page.fact("first run"), page.fact("last run")) == ("2026-11-01", "2026-11-02")


def test_the_figure_is_in_the_page(folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "widths.png"), image)
    (source,) = read_page(write_report(folder).read_text(encoding="utf-8")).images()
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == (folder / "widths.png").read_bytes()


def test_what_is_no_image_is_left_out(folder: Path) -> None:
    (folder / "widths.png").write_text("<svg onload='alert(1)'>")
    assert read_page(write_report(folder).read_text(encoding="utf-8")).images() == []


def test_rows_of_different_keys_are_refused(folder: Path) -> None:
    rows = [*VALUES["rows"], {"engine": "x"}]
    (folder / "widths.json").write_text(json.dumps({**VALUES, "rows": rows}), encoding="utf-8")
    with pytest.raises(RunError, match="the same keys"):
        write_report(folder / "widths.json")


def test_a_study_without_rows_has_a_page(folder: Path) -> None:
    (folder / "widths.json").write_text(json.dumps({**VALUES, "rows": []}), encoding="utf-8")
    assert read_page(write_report(folder).read_text(encoding="utf-8")).tables == []
