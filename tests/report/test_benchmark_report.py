"""The report of a benchmark: its figures are those of the file, its charts hold every sample."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reading import Page, check_self_contained, read_page

from lpsnet.benchmark.benchmark import Benchmark, Problem, Result
from lpsnet.benchmark.machine import Load, describe_machine
from lpsnet.benchmark.timing import Latency
from lpsnet.errors import RunError
from lpsnet.report.report import write_report

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return measured()


def measured() -> dict[str, Any]:
    """The JSON of a benchmark of three models."""
    dice = np.random.default_rng(0)

    def latency(middle: float, run: str) -> Latency:
        turns = dice.normal(middle, 0.02 * middle, (12, 5))
        return Latency(tuple(map(tuple, turns.tolist())), run_id=run)

    def result(name: str, runtime: str, middle: float) -> Result:
        whole = latency(2 * middle, "whole")
        return Result(
            model=name,
            path=f"{name}.onnx",
            runtime=runtime,
            engine=f"{runtime} 1.0",
            precision="f32",
            num_threads=2,
            num_bytes=3 * 2**20,
            macs=2_000_000_000,
            network=latency(middle, "net"),
            end_to_end=whole,
            miou=middle,
        )

    results = (result("s", "onnxruntime", 10.0), result("m", "onnxruntime", 20.0), result(HOSTILE, "ncnn", 12.5))
    problems = [Problem(model="l", runtime="ncnn", precision="f32", problem="not measured: no such file")]
    load = Load(30.0, 0.5, 1.5, 0.2)
    found = Benchmark.of((360, 480), "quick", "an image", results, problems, describe_machine(), load)
    read: dict[str, Any] = json.loads(json.dumps(found.to_dict()))
    return read


def report(values: dict[str, Any], folder: Path) -> Page:
    path = folder / "benchmark.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    page = read_page(write_report(path).read_text(encoding="utf-8"))
    check_self_contained(page)
    return page


def test_the_table(values: dict[str, Any], tmp_path: Path) -> None:
    page = report(values, tmp_path)
    (table,) = [it for it in page.tables if it[0][0] == "Model"]
    rows = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    for row, expected in zip(rows, values["results"], strict=True):
        network = expected["network"]
        assert row["Model"] == expected["model"]
        assert row["Engine"] == f"{expected['engine']}, f32"
        assert float(row["Network, median (ms)"]) == pytest.approx(network["median_ms"], rel=5e-3)
        low, high = map(float, row["Interval (ms)"].split(" to "))
        assert (low, high) == pytest.approx(network["median_interval_ms"], rel=5e-3)
        assert float(row["p90 (ms)"]) == pytest.approx(network["p90_ms"], rel=5e-3)
        assert float(row["End to end (ms)".replace(" ", "\xa0", 2)]) == pytest.approx(
            expected["end_to_end"]["median_ms"], rel=5e-3
        )
        assert row["mIoU (%)"] == f"{expected['miou']:.2f}"
        assert row["File (MiB)"] == "3.00"
        assert row["G/ms"] == f"{expected['gmacs_per_ms']:.3f}"
    fast = [row["Times\xa0as fast"] for row in rows]
    assert fast == ["–", *(f"{it['times_as_fast_as_first']:.2f}" for it in values["results"][1:])]
    assert "Peak (MiB)" not in table[0], "columns that say nothing are left out"
    assert "l by ncnn in f32: not measured: no such file" in page.texts


def test_the_paper_s_protocol_counts_the_mean(values: dict[str, Any], tmp_path: Path) -> None:
    (table,) = [it for it in report({**values, "protocol": "paper"}, tmp_path).tables if it[0][0] == "Model"]
    place = table[0].index("Network, mean (ms)")
    for row, expected in zip(table[1:], values["results"], strict=True):
        assert float(row[place]) == pytest.approx(expected["network"]["mean_ms"], rel=5e-3)


def test_who_is_faster(values: dict[str, Any], tmp_path: Path) -> None:
    page = report(values, tmp_path)
    shown = page.table("A", "B")
    assert [(row[0], row[1], row[2], row[4]) for row in shown] == [
        (it["a"], it["b"], f"{it['ratio']:.3f}", it["verdict"]) for it in values["comparisons"]
    ]


def test_distributions_say_what_was_measured(values: dict[str, Any], tmp_path: Path) -> None:
    page = report(values, tmp_path)
    said = [
        re.match(r"(.+)\nmedian ([\d.]+) ms \(([\d.]+) to ([\d.]+)\)\n.* ([\d.]+) ms\n(\d+) samples", it)
        for it in page.tips
    ]
    found = [(it[1], *map(float, it.groups()[1:])) for it in said if it]
    expected = []
    for key in ("network", "end_to_end"):
        rows = [
            (
                f"{it['model']} {it['runtime']}",
                it[key]["median_ms"],
                *it[key]["median_interval_ms"],
                it[key]["p90_ms"],
                60,
            )
            for it in values["results"]
        ]
        expected += rows + rows  # for wide pages and for narrow ones
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert row[0] == wanted[0]
        assert row[1:] == pytest.approx(wanted[1:], rel=1e-3)


def test_machine_and_load(values: dict[str, Any], tmp_path: Path) -> None:
    page = report(values, tmp_path)
    assert page.fact("identity") == values["machine"]["identity"]
    assert page.fact("other cores busy") == "0.2"
    assert page.fact("date") == values["date"]
    assert values["command"] in page.texts


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"results": []}, "results"),
        ({"size": [1]}, "size"),
        ({"machine": "fast"}, "machine"),
    ],
)
def test_a_file_that_is_not_as_it_should_be(
    values: dict[str, Any], tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    with pytest.raises(RunError, match=where):
        report({**values, **change}, tmp_path)


@pytest.mark.parametrize("time", [0, -1, "x", 1e308])
def test_samples_are_times(values: dict[str, Any], tmp_path: Path, time: object) -> None:
    changed = json.loads(json.dumps(values))
    changed["results"][0]["network"]["turns_ms"][3][1] = time
    with pytest.raises(RunError, match=r"results\.0\.network\.turns_ms\.3\.1"):
        report(changed, tmp_path)
