"""Studies of single blocks: work counted by formula, sweet spots of made-up times, and what the studies say of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("matplotlib")

from lpsnet.benchmark.timing import TimingProtocol
from lpsnet.errors import RunError
from lpsnet.studies import convolutions
from lpsnet.studies.convolutions import (
    NUM_STACKED,
    BlockTime,
    Case,
    SweetSpots,
    block_times,
    count_macs,
    in_words,
    sweet_spots,
    time_blocks,
)
from lpsnet.studies.running import run_study
from lpsnet.studies.study import Outcome, Settings

SHORT = TimingProtocol(warm_up_s=0, duration_s=0.005, turn_s=0.001)
ROUNDS = 20


def silent(what: str, part: float) -> None:
    pass


def measured(cases: Mapping[Case, Sequence[float]], *, precision: str = "f32") -> dict[str, Any]:
    """As `time_blocks` gives it, with these times of one block in ms, a turn each."""
    rows = [
        {
            "block": case.block,
            "width": case.width,
            "size": list(case.size),
            "macs": count_macs(case),
            "mean_ms": float(np.mean(times)),
            "turn_medians_ms": [NUM_STACKED * time for time in times],
            "run_id": "run",
        }
        for case, times in cases.items()
    ]
    return {"engine": "fake 1.0", "precision": precision, "num_threads": 1, "num_stacked": NUM_STACKED, "cases": rows}


def steady(milliseconds: float, *, noise: float = 0.01, seed: int = 0) -> list[float]:
    return (milliseconds * np.random.default_rng(seed).uniform(1 - noise, 1 + noise, ROUNDS)).tolist()


def outcome(result: Mapping[str, Any], **key: Any) -> Outcome:
    return Outcome({"runtime": "fake", **key}, result, "machine", {}, "2020-01-01")


@pytest.mark.parametrize("width", [1, 5, 32])
def test_work_is_counted_as_by_formula(width: int) -> None:
    pixels = 128 * 128
    assert count_macs(Case("conv3x3", width)) == width * width * 9 * pixels
    assert count_macs(Case("sepconv3x3", width)) == (9 * width + width * width) * pixels


def times(latencies: Mapping[int, Sequence[float]]) -> list[BlockTime]:
    return block_times(measured({Case("conv3x3", width): values for width, values in latencies.items()}))


def test_times_are_those_of_one_block() -> None:
    (time,) = times({32: [2.0, 1.0, 3.0]})
    assert time.median_ms == 2
    assert time.interval_ms == (1, 3)
    assert time.mean_ms == 2
    assert time.mmacs_per_ms == pytest.approx(32 * 32 * 9 * 128 * 128 / 1e6 / 2)


def test_a_device_of_eight_lanes_has_its_sweet_spots_at_eights() -> None:
    """Time grows in steps: channels in and out are computed eight at once."""
    latencies = {width: steady(0.1 * (-(-width // 8)) ** 2, seed=width) for width in range(1, 18)}
    assert sweet_spots(times(latencies)) == SweetSpots((8, 16))


def test_time_in_proportion_to_work_has_none() -> None:
    latencies = {width: steady(0.01 * width**2, seed=width) for width in range(8, 73, 8)}
    assert sweet_spots(times(latencies)) == SweetSpots(())


def test_what_noise_hides_is_not_named() -> None:
    """The middle one takes 4 ms in twelve rounds and 12 ms in eight: by its median it is better than both, but the 95 %
    interval of 20 rounds ends at the sixth value from above."""
    latencies = {16: steady(4), 24: [4.0] * 12 + [12.0] * 8, 32: steady(16)}
    assert sweet_spots(times(latencies)) == SweetSpots((), (24,))
    few = {width: latency[:3] for width, latency in {16: steady(4), 24: steady(4), 32: steady(16)}.items()}
    assert sweet_spots(times(few)) == SweetSpots((), (24,))  # three rounds decide nothing


def test_a_peak_among_the_worst_is_none() -> None:
    """Both 4 and 12 are better than their neighbours, but 4 does a tenth of the work that 16 does in the same time."""
    work = {width: count_macs(Case("conv3x3", width)) / 1e6 for width in (2, 4, 6, 10, 12, 14, 16)}
    efficiency = {2: 2, 4: 10, 6: 5, 10: 40, 12: 60, 14: 50, 16: 100}
    latencies = {width: steady(work[width] / efficiency[width]) for width in work}
    assert sweet_spots(times(latencies)) == SweetSpots((12,))


def test_the_ends_are_not_judged() -> None:
    assert sweet_spots(times({8: steady(1), 16: steady(9)})) == SweetSpots(())


def test_widths_in_words() -> None:
    assert [in_words(spots) for spots in ((), (8,), (8, 16), (8, 16, 24))] == ["none", "8", "8 and 16", "8, 16 and 24"]


def test_widths_reports_the_sweet_spots(tmp_path: Path) -> None:
    outcomes = [
        outcome(
            measured(
                {Case("conv3x3", w): steady((-(-w // lanes)) ** 2, seed=w) for w in convolutions.GROUPS[group]}
            ),
            measured=f"widths {group}",
        )
        for group, lanes in (("a", 8), ("b", 32))
    ]  # fmt: skip
    report = convolutions.report_widths(outcomes)
    (finding,) = report.findings
    assert finding.startswith("Sweet spots of fake f32 on this device: 8 and 16 among 1 to 17 (paper: 8 and 16); ")
    assert finding.endswith("; 32 and 64 among 8 to 72 (paper: 32 and 64).")
    assert len(report.rows) == 17 + 9
    assert [row["width"] for row in report.rows if row["sweet_spot"] == "yes"] == [8, 16, 32, 64]
    assert [row["width"] for row in report.rows if row["paper_sweet_spot"] == "yes"] == [8, 16, 32, 64]


def test_conv_types_reports_efficiency_and_time() -> None:
    """A device like the paper's: 3987 and 357 MFLOPs a millisecond."""
    standard, separable = Case("conv3x3", 32), Case("sepconv3x3", 32)
    papers = {
        case: steady(count_macs(case) / 1e6 / efficiency, noise=1e-6)
        for case, efficiency in ((standard, 3987), (separable, 357))
    }
    report = convolutions.report_types([outcome(measured(papers))])
    assert [row["mmacs_per_ms"] for row in report.rows] == pytest.approx([3987, 357], rel=1e-4)
    (finding,) = report.findings
    assert "11.2 times as many multiply-accumulates in a millisecond as the separable one (paper: 11.2)" in finding
    assert "It is faster too: the separable one takes 1.59 of the standard one's time" in finding
    assert finding.endswith("(paper: 1.59).")
    slower = measured({standard: steady(2), separable: steady(1)})
    assert "It is slower nevertheless" in convolutions.report_types([outcome(slower)]).findings[0]
    alike = measured({standard: steady(1), separable: steady(1)})
    assert "faster is undecided" in convolutions.report_types([outcome(alike)]).findings[0]


def test_a_run_is_named_by_all_it_depends_on() -> None:
    plan = convolutions.plan_widths(Settings(runtimes=("onnxruntime", "ncnn"), num_threads=2), lambda run: None)
    assert [(run.key["runtime"], run.key["measured"]) for run in plan] == [
        ("onnxruntime", "widths a"),
        ("onnxruntime", "widths b"),
        ("ncnn", "widths a"),
        ("ncnn", "widths b"),
    ]
    others = [Settings(scale="paper"), Settings(precision="bf16"), Settings(num_threads=2)]
    keys = [str(convolutions.plan_types(settings, lambda run: None)[0].key) for settings in (Settings(), *others)]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("runtime", ["openvino", pytest.param("ncnn", marks=pytest.mark.slow), "pytorch"])
def test_every_engine_times_blocks(runtime: str) -> None:
    for package in {"openvino": ["openvino"], "ncnn": ["ncnn", "pnnx"]}.get(runtime, []):
        pytest.importorskip(package)
    cases = [Case("conv3x3", 3, (16, 16)), Case("sepconv3x3", 4, (16, 16))]
    result = time_blocks(
        cases, runtime=runtime, precision="f32", num_threads=1, protocol=SHORT, on_progress=silent
    )  # fmt: skip
    found = block_times(result)
    assert [time.case for time in found] == cases
    assert all(time.median_ms > 0 for time in found)
    assert found[0].latency.run_id == found[1].latency.run_id
    assert runtime.removeprefix("py") in result["engine"]
    assert (result["precision"], result["num_threads"]) == ("f32", 1)


def test_the_stack_is_so_many_blocks_in_a_row() -> None:
    import torch

    case = Case("conv3x3", 2, (8, 8))
    stack = convolutions._stack(case)
    image = convolutions._input(case)
    expected = image
    with torch.inference_mode():
        for conv in [module for module in stack.modules() if isinstance(module, torch.nn.Conv2d)]:
            expected = torch.relu(torch.nn.functional.conv2d(expected, conv.weight, conv.bias, padding=1))
        assert len(list(stack.children())) == NUM_STACKED
        assert torch.allclose(stack(image.clone()), expected, atol=1e-5)


def test_senseless_wishes_are_refused() -> None:
    choices = {"precision": "f32", "num_threads": 1, "protocol": SHORT, "on_progress": silent}
    with pytest.raises(RunError, match="unknown runtime of a study of blocks 'trt'"):
        time_blocks([Case("conv3x3", 1)], runtime="trt", **choices)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="measured with pytorch in f32 or bf16; got int8"):
        time_blocks([Case("conv3x3", 1)], runtime="pytorch", **{**choices, "precision": "int8"})  # type: ignore[arg-type]


def test_a_study_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "TIMING", {"small": SHORT})
    monkeypatch.setattr(convolutions, "GROUPS", {"a": (1, 2, 3), "b": (8, 16)})
    monkeypatch.setattr(convolutions, "SIZE", (16, 16))
    result = run_study(convolutions.WIDTHS, Settings(num_threads=1), tmp_path)  # ONNX Runtime
    assert [row["width"] for row in result.report.rows] == [1, 2, 3, 8, 16]
    assert all(path.stat().st_size > 100 for path in result.files)
    result = run_study(convolutions.CONV_TYPES, Settings(num_threads=1), tmp_path)
    assert [row["convolution"] for row in result.report.rows] == ["standard", "separable"]
    assert "paper's Figure 4" in result.files[0].read_text()
