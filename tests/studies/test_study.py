"""The frame of studies, with a study whose runs are sums: what is kept, made again, written, and refused."""

import csv
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from study_work import double

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from lpsnet.errors import MissingDependencyError, RunError
from lpsnet.studies import running as module
from lpsnet.studies.running import STUDIES, TimeLeft, find_study, in_words, run_study
from lpsnet.studies.study import Known, Outcome, Place, Report, Run, Settings, Study, markdown_table


class Sums:
    """A study of 1 + 1 and 2 + 2, whose runs are counted."""

    def __init__(self, *, fails_at: int | None = None, portable: Sequence[int] = ()) -> None:
        self.made: list[int] = []
        self.fails_at = fails_at
        self.portable = portable
        self.study = Study(
            name="sums",
            title="Sums",
            reference="Table 0.",
            differences=("None.",),
            plan=self.plan,
            report=self.report,
        )

    def plan(self, settings: Settings, known: Known) -> Sequence[Run]:
        def work(number: int) -> Any:
            def do(place: Place) -> dict[str, Any]:
                if number == self.fails_at:
                    raise RunError("no")
                self.made.append(number)
                place.on_progress("adding", 1.0)
                return {"sum": number + number}

            return do

        return [Run({"number": n, "scale": settings.scale}, work(n), portable=n in self.portable) for n in (1, 2)]

    def report(self, outcomes: Sequence[Outcome]) -> Report:
        rows = tuple(
            {"number": o.key["number"], "sum": o.result["sum"], "half_ms": 1 / 3, "note": None} for o in outcomes
        )
        return Report(rows, ("Two and two are four.",), lambda figure: figure.subplots().plot([1, 2]))


def test_results_of_other_data_by_the_same_name_are_not_mixed_in(tmp_path: Path) -> None:
    data, out = tmp_path / "data.yaml", tmp_path / "out"
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (tmp_path / kind / split).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / kind / split / "a.png"), np.zeros((32, 32), np.uint8))
    data.write_text("names: [a, b]\n", encoding="utf-8")
    sums, settings = Sums(), Settings(data=(str(data),))
    study = replace(sums.study, options=frozenset({"data"}))
    run_study(study, settings, out)
    run_study(study, settings, out)
    assert sums.made == [1, 2]
    data.write_text("names: [b, a]\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"of other data by the name .*: classes: .*: a, b then, .*: b, a now"):
        run_study(study, settings, out)
    data.write_text("names: [a, b]\n", encoding="utf-8")
    cv2.imwrite(str(tmp_path / "masks" / "val" / "a.png"), np.eye(32, dtype=np.uint8))
    with pytest.raises(RunError, match=r"val: 1 pictures \(\w+\) then, 1 pictures"):
        run_study(study, settings, out)
    (out / "inputs.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"inputs.json is damaged"):
        run_study(study, settings, out)


def test_what_was_found_is_written(tmp_path: Path) -> None:
    reported: list[tuple[str, float]] = []
    result = run_study(Sums().study, Settings(), tmp_path / "out", on_progress=lambda *what: reported.append(what))
    assert [path.name for path in result.files] == ["sums.md", "sums.png", "sums.csv", "sums.json"]
    page, figure, table, values = result.files
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"number": "2", "sum": "4", "half_ms": str(1 / 3), "note": ""}
    found = json.loads(values.read_text())
    assert found["rows"][1] == {"number": 2, "sum": 4, "half_ms": 1 / 3, "note": None}
    assert found["settings"]["runtimes"] == ["onnxruntime"]
    assert [run["result"] for run in found["runs"]] == [{"sum": 2}, {"sum": 4}]
    text = page.read_text()
    for part in ("# Sums", "Table 0.", "- Two and two are four.", "- None.", "| 2 | 4 | 0.3333 | – |", "sums.png"):
        assert part in text
    assert "lpsnet study sums --scale small --runtime onnxruntime --out sums" in text
    assert cv2.imread(str(figure)).shape == (675, 1350, 3)
    assert reported == [("adding", 1.0)] * 2


def test_finished_runs_are_not_made_again(tmp_path: Path) -> None:
    broken, whole = Sums(fails_at=2), Sums()
    with pytest.raises(RunError, match="no"):
        run_study(broken.study, Settings(), tmp_path)
    assert broken.made == [1]
    result = run_study(whole.study, Settings(), tmp_path)
    assert (whole.made, result.num_kept) == ([2], 1)
    assert run_study(whole.study, Settings(), tmp_path).num_kept == 2
    assert whole.made == [2]


def test_other_settings_and_other_machines_are_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = Sums()
    run_study(sums.study, Settings(), tmp_path)
    run_study(sums.study, Settings(scale="paper"), tmp_path)
    assert sums.made == [1, 2, 1, 2]
    other = module.describe_machine()
    monkeypatch.setattr(type(other), "identity", property(lambda self: "another"))
    assert run_study(sums.study, Settings(), tmp_path).num_kept == 0
    assert "Here: another;" in (tmp_path / "sums.md").read_text()


def test_a_result_that_holds_anywhere_is_taken_from_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(Sums().study, Settings(), tmp_path)
    monkeypatch.setattr(type(module.describe_machine()), "identity", property(lambda self: "another"))
    sums = Sums(portable=(1,))
    assert run_study(sums.study, Settings(), tmp_path).num_kept == 1
    assert sums.made == [2]
    assert "another; " in (tmp_path / "sums.md").read_text()


def test_a_plan_is_made_anew_after_every_run(tmp_path: Path) -> None:
    """The third run is the double of the second's result; until that is known, one that is not made stands for it."""
    made: list[int] = []

    def run(number: int) -> Run:
        def work(place: Place) -> dict[str, int]:
            made.append(number)
            return {"sum": 2 * number}

        return Run({"number": number}, work)

    def plan(settings: Settings, known: Known) -> list[Run]:
        second = known(run(2))
        return [run(1), run(2), run(99) if second is None else run(second["sum"])]

    sums = Sums()
    study = replace(sums.study, plan=plan)
    result = run_study(study, Settings(), tmp_path)
    assert made == [1, 2, 4]
    assert [row["number"] for row in result.report.rows] == [1, 2, 4]


def test_runs_that_may_be_made_apart_are_made_by_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """But for those before and after them, and what stands for a run that is not known yet is not made at all."""

    def run(number: int, *, apart: bool = True) -> Run:
        return Run({"number": number}, partial(double, number), apart=apart, name=f"number {number}")

    def plan(settings: Settings, known: Known) -> list[Run]:
        third = known(run(3))
        stands_for_it = run(99, apart=False)
        return [run(1, apart=False), run(2), run(3), run(4), stands_for_it if third is None else run(third["sum"])]

    caplog.set_level(logging.INFO, "lpsnet")
    study, parts = replace(Sums().study, plan=plan), []
    result = run_study(study, Settings(), tmp_path, num_workers=2, on_progress=lambda what, part: parts.append(part))
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    processes = {row["key"]["number"]: row["result"]["process"] for row in rows}
    assert sorted(processes) == [1, 2, 3, 4, 6]
    assert [number for number, process in processes.items() if process == os.getpid()] == [1, 6]
    assert len(set(processes.values())) == 4
    alone = [row["key"]["number"] for row in rows if row["load"]["other_cores_busy"] is not None]
    assert set(alone) <= {1, 6}, "the work of other workers is not other work"
    assert [row["sum"] for row in result.report.rows] == [2, 4, 6, 8, 12]
    assert parts == [0.5, *(pytest.approx(part) for part in (1 / 3, 2 / 3, 1)), 0.5]
    assert caplog.messages[1:4] == [f"training {n} of 3: number {n + 1}" for n in (1, 2, 3)]
    assert run_study(study, Settings(), tmp_path, num_workers=2).num_kept == 5


def test_what_workers_have_finished_is_kept_when_one_fails(tmp_path: Path) -> None:
    runs = [Run({"number": n}, partial(double, n), apart=True) for n in (1, 13, 2)]
    study = replace(Sums().study, plan=lambda settings, known: runs)
    with pytest.raises(RunError, match="13 is not added"):
        run_study(study, Settings(), tmp_path, num_workers=2)
    results = tmp_path / "results.jsonl"  # there is none where the one that fails is the first to end
    lines = results.read_text().splitlines() if results.exists() else []
    kept = [json.loads(line)["key"]["number"] for line in lines]
    assert 13 not in kept
    others = replace(study, plan=lambda settings, known: [run for run in runs if run.key["number"] != 13])
    assert run_study(others, Settings(), tmp_path, num_workers=2).num_kept == len(kept)


def test_a_run_has_a_folder_named_after_all_its_settings(tmp_path: Path) -> None:
    def work(place: Place) -> dict[str, str]:
        place.folder.mkdir(parents=True)
        (place.folder / "left").write_text("x")
        return {"sum": 0}

    keys = [{"number": 1, "more": {"a": [1, 2]}}, {"number": 1, "more": {"a": [1, 3]}}]
    runs = [Run(key, work) for key in keys]
    assert runs[0].slug == Run({"more": {"a": (1, 2)}, "number": 1}, work).slug != runs[1].slug
    seen: list[Outcome] = []

    def report(outcomes: Sequence[Outcome]) -> Report:
        seen.extend(outcomes)
        return Sums().report(outcomes)

    run_study(replace(Sums().study, plan=lambda settings, known: runs, report=report), Settings(), tmp_path)
    assert [outcome.folder for outcome in seen] == [tmp_path / "runs" / run.slug for run in runs]
    assert all((outcome.folder / "left").exists() for outcome in seen)


def test_what_a_study_does_not_use_is_refused(tmp_path: Path) -> None:
    for settings, option in ((Settings(epochs=2), "--epochs"), (Settings(data=("scenes",)), "--data")):
        with pytest.raises(RunError, match=f"study sums does not use {option}; leave it out"):
            run_study(Sums().study, settings, tmp_path)


def test_time_left_is_set_right_by_what_runs_took() -> None:
    """Three runs of 100 s each; the first, which was half done, takes 100 s for its second half: twice the time."""
    now = 0.0
    left = TimeLeft(clock=lambda: now)
    runs = [Run({"n": n}, work=lambda place: {}, seconds=100.0) for n in range(3)]
    assert left.seconds(runs) == 300
    left.begin(runs[0])
    left.update(0.5)
    assert left.seconds(runs) == 250
    now = 100.0
    left.update(1.0)
    left.end()
    assert left.seconds(runs[1:]) == 400
    assert left.seconds([*runs, Run({}, work=lambda place: {})]) is None


def test_time_left_is_set_right_by_runs_of_the_same_kind_alone() -> None:
    """A measurement that takes a tenth of what was expected makes no training any shorter."""
    now = 0.0
    left = TimeLeft(clock=lambda: now)
    measured = Run({"timed": 1}, work=lambda place: {}, seconds=100.0)
    trained = [Run({"trained": n}, work=lambda place: {}, seconds=100.0) for n in range(2)]
    left.begin(measured)
    now = 10.0
    left.end()
    assert left.seconds(trained) == 200
    assert left.seconds([replace(run, apart=True) for run in trained], num_workers=4) == 50
    left.took(trained[0], 300.0)
    assert left.seconds(trained) == 600
    assert left.seconds([replace(measured, key={"timed": 2})]) == 10


def test_time_in_words() -> None:
    assert [in_words(s) for s in (20, 100, 7260)] == ["less than a minute", "2 min", "2 h 1 min"]


def test_the_time_left_is_logged_before_every_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def work(place: Place) -> dict[str, int]:
        place.on_progress("adding", 0.5)
        return {"sum": 0}

    runs = [Run({"number": n}, work, seconds=3600.0) for n in (1, 2)]
    shown: list[str] = []
    caplog.set_level(logging.INFO, "lpsnet")
    study = replace(Sums().study, plan=lambda settings, known: runs)
    run_study(study, Settings(), tmp_path, on_progress=lambda what, part: shown.append(what))
    # Nothing more: the first took no time, so the second is expected to
    assert caplog.messages == ["sums: 2 runs to make, about 2 h 0 min"]
    assert shown[0] == "adding; 1 h 30 min left in all"
    caplog.clear()
    unknown = [replace(run, key={"number": n}, seconds=None) for n, run in enumerate(runs)]
    run_study(replace(study, plan=lambda settings, known: unknown), Settings(), tmp_path)
    assert caplog.messages == ["sums: 1 run to make so far; how long all take is known once a few steps were timed"]


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    run_study(Sums().study, Settings(), tmp_path)
    kept = tmp_path / "results.jsonl"
    kept.write_bytes(kept.read_bytes()[:-20])
    sums = Sums()
    run_study(sums.study, Settings(), tmp_path)
    assert sums.made == [2]
    assert [json.loads(line)["result"]["sum"] for line in kept.read_text().splitlines()] == [2, 4]


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(RunError, match=r"results.jsonl is damaged: .*; remove it"):
        run_study(Sums().study, Settings(), tmp_path)


def test_settings_are_checked() -> None:
    with pytest.raises(RunError, match="unknown scale 'papr'; did you mean 'paper'"):
        Settings(scale="papr")  # type: ignore[arg-type]
    for wrong in ({"num_seeds": 0}, {"epochs": 0.0}):
        with pytest.raises(RunError, match=r"at least 1 seed|a number above 0"):
            Settings(**wrong)  # type: ignore[arg-type]
    for runtimes in ((), ("ncnn", "ncnn")):
        with pytest.raises(RunError, match="one engine or several different ones"):
            Settings(runtimes=runtimes)


def test_studies_are_found_by_name() -> None:
    for name in STUDIES:
        assert find_study(name).name == name
    with pytest.raises(RunError, match="unknown study 'width'; did you mean 'widths'"):
        find_study("width")


def test_without_matplotlib_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    sums = Sums()
    with pytest.raises(MissingDependencyError, match=r"matplotlib is not installed.*lpsnet\[report\]"):
        run_study(sums.study, Settings(), tmp_path)
    assert sums.made == []


def test_a_table_in_markdown() -> None:
    assert markdown_table([{"name": "a", "time_ms": 0.123456}, {"name": "b", "time_ms": None}]).splitlines() == [
        "| name | time ms |",
        "| --- | ---: |",
        "| a | 0.1235 |",
        "| b | – |",
    ]
