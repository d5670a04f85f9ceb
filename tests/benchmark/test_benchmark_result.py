"""Figures of a benchmark from latencies made by hand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lpsnet.benchmark.benchmark import Benchmark, Result
from lpsnet.benchmark.machine import Load, describe_machine
from lpsnet.benchmark.timing import Latency

MACHINE = replace(describe_machine(), num_threads=4)
NOISE = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99, 1.005, 0.995]


def result(name: str, times: Sequence[float], *, runtime: str = "onnxruntime", **fields: object) -> Result:
    given: dict[str, Any] = {
        "engine": f"{runtime} 1.0",
        "precision": "f32",
        "num_threads": 2,
        "num_bytes": 1000,
        "macs": None,
        "network": Latency(tuple((time,) for time in times), run_id="run"),
    }
    return Result(model=name, path=f"{name}.onnx", runtime=runtime, **given | fields)


def benchmark(*results: Result, other_cores: float | None = 0.0, protocol: str = "quick") -> Benchmark:
    load = Load(10.0, 0.5, 1.5, other_cores)
    return Benchmark.of((360, 480), protocol, "an image", results, (), MACHINE, load)


def test_efficiency_is_work_by_time() -> None:
    """LPS-Net-S in Table 2's unit: 10.421 G in 3.37 ms; the paper's protocol takes the mean, others the median."""
    times = [3.0, 3.0, 4.11]  # mean 3.37
    row = result("s", times, macs=10_421_000_000)
    assert benchmark(row, protocol="paper").results[0].gmacs_per_ms == pytest.approx(10.421 / 3.37)
    assert benchmark(row).results[0].gmacs_per_ms == pytest.approx(10.421 / 3)
    unknown = result("foreign", times)
    assert benchmark(unknown).results[0].gmacs_per_ms is None


def test_names_hold_what_differs() -> None:
    a, b = result("m", NOISE), result("m", NOISE, runtime="ncnn")
    c = result("m", NOISE, precision="int8")
    assert benchmark(a).label(a) == "m"
    assert benchmark(a, b).label(b) == "m ncnn"
    assert benchmark(a, b, c).label(c) == "m onnxruntime int8"


def test_speed_up_is_taken_round_by_round() -> None:
    """The machine is five times slower in half of the rounds; the second network takes half the time throughout."""
    machine = [1.0, 5.0] * 6
    slow, fast = result("slow", [8 * state for state in machine]), result("fast", [4 * state for state in machine])
    first, second = benchmark(slow, fast).results
    assert second.times_as_fast_as_first == pytest.approx(2)
    assert first.times_as_fast_as_first is None


def test_models_that_differ_clearly_need_no_warning() -> None:
    rows = [result("a", [10 * x for x in NOISE]), result("b", [12 * x for x in NOISE])]
    assert benchmark(*rows).warnings == ()


def test_models_as_fast_as_each_other_are_not_blamed_on_the_machine() -> None:
    rows = [result("a", [10 * x for x in NOISE]), result("b", [10 * x for x in reversed(NOISE)])]
    (warning,) = benchmark(*rows).warnings
    assert "a and b cannot be told apart" in warning or "b and a cannot be told apart" in warning
    assert "of each other" in warning
    assert "noisy" not in warning


def test_a_noisy_machine_is_named() -> None:
    wild = [1.0, 3.0, 1.2, 2.5, 1.1, 2.8, 1.3, 2.9, 1.0, 3.1]
    rows = [result("a", wild), result("b", wild[1:] + wild[:1])]
    warnings = benchmark(*rows).warnings
    assert sum("the machine is too noisy" in warning for warning in warnings) == 1
    assert sum("are spread" in warning for warning in warnings) == 2


def test_other_work_is_named_if_it_is_much() -> None:
    row = result("a", NOISE)
    assert benchmark(row, other_cores=0.39).warnings == ()
    assert benchmark(row, other_cores=None).warnings == ()
    (warning,) = benchmark(row, other_cores=1.5).warnings
    assert warning == "the machine was not idle: other work kept 1.5 of its 4 processors busy"


def test_a_measurement_that_did_not_settle_says_so() -> None:
    row = result("a", NOISE)
    unsettled = result("a", NOISE, network=replace(row.network, target_reached=False))
    assert benchmark(unsettled).warnings == ("times of a did not settle to the precision asked for",)


def test_json_holds_every_sample_and_where_it_was_taken() -> None:
    rows = [result("a", NOISE, macs=10**9, miou=50.0), result("b", [2 * x for x in NOISE])]
    values = json.loads(json.dumps(benchmark(*rows).to_dict(), allow_nan=False))
    first, second = values["results"]
    assert first["network"]["turns_ms"] == [[x] for x in NOISE]
    assert first["network"]["median_ms"] == pytest.approx(1)
    assert (first["macs"], first["miou"], first["num_threads"], first["end_to_end"]) == (10**9, 50.0, 2, None)
    assert second["times_as_fast_as_first"] == pytest.approx(0.5)
    assert [(c["a"], c["b"], c["verdict"]) for c in values["comparisons"]] == [("a", "b", "A faster")]
    assert values["size"] == [360, 480]
    assert values["load"]["other_cores_busy"] == 0
    assert values["machine"]["identity"] == MACHINE.identity
    assert {"protocol", "picture", "warnings", "problems", "lpsnet_version", "date"} <= values.keys()
