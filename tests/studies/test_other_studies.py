"""Studies that are not in the paper, run on very little: what they measure is tested where it is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("matplotlib")

from lpsnet.benchmark.timing import TimingProtocol
from lpsnet.errors import RunError
from lpsnet.studies import end_to_end as end_to_end_study
from lpsnet.studies import inheritance as inheritance_study
from lpsnet.studies import training_speed
from lpsnet.studies.running import run_study
from lpsnet.studies.study import Settings
from lpsnet.studies.training_speed import TrainingSpeed

SHORT = TimingProtocol(warm_up_s=0, duration_s=0.005, turn_s=0.001)


def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_to_end_study, "PROTOCOLS", {"quick": SHORT})
    (row,) = run_study(end_to_end_study.STUDY, Settings(size=(64, 96), num_threads=1), tmp_path).report.rows
    assert (row["engine"], row["size"]) == ("onnxruntime f32", "64x96")
    assert row["network_ms"] > 0
    assert row["naive_over_network"] > 0
    assert row["agreement_percent"] > 99


def test_label_map(tmp_path: Path) -> None:
    result = run_study(end_to_end_study.LABEL_MAP, Settings(size=(64, 96)), tmp_path)
    assert [row["scores"] for row in result.report.rows] == ["regions", "blobs", "noise"]
    assert all(row["ratio"] == row["torch_ms"] / row["label_map_ms"] for row in result.report.rows)
    assert all(row["num_pixels"] == 64 * 96 for row in result.report.rows)


def test_training_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def compare_speed(*words: Any, **options: Any) -> TrainingSpeed:
        asked.append((words, options))
        return TrainingSpeed((4.0, 6.0, 5.0), (2.0, 2.0, 2.0), 8, {})

    monkeypatch.setattr(training_speed, "compare_speed", compare_speed)
    result = run_study(training_speed.STUDY, Settings(data=("scenes",)), tmp_path)
    assert [row["pictures_per_second"] for row in result.report.rows] == [8 / 5, 4]
    assert result.report.findings == ("The trainer processes 2.50 times as many images a second, 2.00 to 3.00.",)
    assert asked == [(("scenes", "lpsnet_s", "camvid_small"), {"repeats": 5})]


def test_inheritance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance_study, "PARENT", "B=1,1,1,1,1;C=2,2,4,4,4;R=1")
    monkeypatch.setattr(inheritance_study, "CHANGES", (("depth=0,0,0,1,1", 1),))
    monkeypatch.setattr(inheritance_study, "SCRATCH_SHARES", (1.0,))
    monkeypatch.setattr(inheritance_study, "INHERITED_SHARES", (1.0,))
    settings = Settings(data=("scenes:size=48x64,num_train=4,num_val=2",), epochs=4.0)
    (row,) = run_study(inheritance_study.STUDY, settings, tmp_path).report.rows
    assert (row["operation"], row["iterations"]) == ("depth=0,0,0,1,1 x 1", 1)
    assert all(0 <= row[name] <= 100 for name in ("parent_miou", "at_start_miou", "scratch_miou", "inherited_miou"))
    assert run_study(inheritance_study.STUDY, settings, tmp_path).num_kept == 1


def test_inheritance_until_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance_study, "FLAT_PARENT", "B=1,1,1,1,1;C=2,2,4,4,4;R=1")
    monkeypatch.setattr(inheritance_study, "FLAT_CHANGES", (("depth=0,0,0,1,1", 1),))
    monkeypatch.setattr(inheritance_study, "FIRST_ITERATIONS", 1)
    monkeypatch.setattr(inheritance_study, "MOST_ITERATIONS", 2)
    monkeypatch.setattr(inheritance_study, "FLAT_SHARES", (1.0,))
    settings = Settings(data=("scenes:size=48x64,num_train=4,num_val=2",), num_threads=1)
    result = run_study(inheritance_study.UNTIL_FLAT, settings, tmp_path)
    rows = [(row["iterations"], row["scratch_miou"] is not None) for row in result.report.rows]
    assert rows == [(1, True), (2, True)]
    (finding,) = result.report.findings
    assert finding.startswith("depth=0,0,0,1,1 x 1: ")
    with pytest.raises(RunError, match="trains on one data set"):
        run_study(inheritance_study.UNTIL_FLAT, replace(settings, data=("scenes", "scenes")), tmp_path)
    assert run_study(inheritance_study.UNTIL_FLAT, settings, tmp_path).num_kept == 1
