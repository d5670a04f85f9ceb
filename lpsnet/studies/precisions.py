"""What arithmetics gain and cost: one trained network in every precision its engines have, as a study.

Not in the paper, whose latencies are FP32. All files are made from one, timed in turn, and scored on the same images.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lpsnet.benchmark.benchmark import Benchmark, Candidate, Result, benchmark
from lpsnet.benchmark.timing import compare
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Images, select
from lpsnet.errors import RunError
from lpsnet.export.export import QUANTISERS, checkpoint_for_runtime, quantise_file
from lpsnet.export.quantise import Quantisation
from lpsnet.inference.engines import PRECISIONS
from lpsnet.inference.model_file import read_record
from lpsnet.report.figures import COLOURS, tidy
from lpsnet.studies.network_latency import fingerprint, input_size, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study

NUM_CALIBRATED = 100
PROTOCOL = "adaptive"
USUAL_SIZE = (360, 480)  # of a model whose record names none


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run: everything in turn."""
    files = model_files(settings.models)
    if len(files) != 1 or len(settings.data) != 1:
        raise RunError("study precisions takes one trained model, --models FILE, and its data set, --data D")
    if missing := [runtime for runtime in settings.runtimes if runtime not in QUANTISERS]:
        raise RunError(f"study precisions runs {' and '.join(QUANTISERS)}; got {missing[0]}")
    size = settings.size or input_size(files[0], USUAL_SIZE)
    key = {
        "precisions": fingerprint(files[0]),
        "data": settings.data[0],
        "size": list(size),
        "runtimes": list(settings.runtimes),
        "num_threads": settings.num_threads,
        "num_calibrated": NUM_CALIBRATED,
    }
    return [Run(key, partial(_measure, settings, files[0], size), seconds=120.0 * len(settings.runtimes))]


def _measure(settings: Settings, file: Path, size: tuple[int, int], place: Place) -> dict[str, Json]:
    data = open_dataset(settings.data[0])
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        whole = file
        if file.suffix.lower() != ".onnx":
            whole = checkpoint_for_runtime(file, Path(folder), "f32", runtime="onnxruntime", size=size)
        place.progress("quantising", 0.0)
        quantisation = Quantisation(Images(select(data.split("train"), NUM_CALIBRATED)))
        found = benchmark(
            _candidates(settings, whole, quantisation, size, Path(folder)),
            size=size,
            num_threads=settings.num_threads,
            protocol=PROTOCOL,
            memory=False,
            image=data.split("val").image(0),
            image_name="the first of val",
            labelled=data.split("val"),
            progress=place.progress,
        )
    rows = [_measured(found, result) for result in found.results]
    problems = [f"{each.runtime}, {each.precision}: {each.problem}" for each in found.problems]
    return {"rows": rows, "num_scored": len(data.split("val")), "problems": problems}


def _candidates(
    settings: Settings, whole: Path, quantisation: Quantisation, size: tuple[int, int], folder: Path
) -> list[Candidate]:
    """By engine: the file in f32 and half precisions, which `benchmark` refuses where there are none; and in int8."""
    record, found = read_record(whole), list[Candidate]()
    for runtime in settings.runtimes:
        found += [Candidate("model", whole, runtime, precision) for precision in PRECISIONS if precision != "int8"]
        quantised = quantise_file(
            whole, runtime=runtime, quantisation=quantisation, record=record, size=size, folder=folder
        )
        found.append(Candidate("model", quantised, runtime, "int8"))
    return found


def _measured(found: Benchmark, result: Result) -> dict[str, Json]:
    same = [other for other in found.results if other.runtime == result.runtime]
    whole = next((other for other in same if other.precision == "f32"), None)
    if whole is None:
        raise RunError(f"{result.engine} does not compute the model in f32, which the others are compared with")
    assert result.end_to_end is not None
    return {
        "engine": result.engine,
        "precision": result.precision,
        "file_mib": result.num_bytes / 2**20,
        "network_ms": result.network.median_ms,
        "end_to_end_ms": result.end_to_end.median_ms,
        "times_as_fast_as_f32": compare(whole.network, result.network).ratio,
        "miou": result.miou,
        "miou_lost": None if result.miou is None or whole.miou is None else whole.miou - result.miou,
        "num_threads": result.num_threads,
    }


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for each engine and precision."""
    (outcome,) = outcomes
    rows = tuple(outcome.result["rows"])
    findings = [_finding(row) for row in rows if row["precision"] != "f32"]
    return Report(rows, (*findings, *outcome.result.get("problems", ())), partial(_draw, rows), (7.0, 4.0))


def _finding(row: Row) -> str:
    lost = "not scored" if row["miou_lost"] is None else f"{row['miou_lost']:.2f} points of mIoU lost"
    return f"{row['engine']}, {row['precision']}: {row['times_as_fast_as_f32']:.2f} times as fast as f32, {lost}."


def _draw(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    for row in (row for row in rows if row["miou"] is not None):
        axes.scatter(row["network_ms"], row["miou"], color=COLOURS[engines.index(row["engine"])])
        axes.annotate(row["precision"], (row["network_ms"], row["miou"]), xytext=(4, 4), textcoords="offset points")
    for colour, engine in zip(COLOURS, engines, strict=False):
        axes.scatter([], [], color=colour, label=engine)
    axes.set_xlabel("network, ms")
    axes.set_ylabel("mIoU, %")
    axes.margins(0.15)
    axes.legend(frameon=False)


STUDY = Study(
    name="precisions",
    title="What other arithmetics gain and cost",
    reference="Not in the paper, whose latencies are FP32.",
    differences=(f"int8 is calibrated on {NUM_CALIBRATED} training images; mIoU on all of val.",),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "num_threads", "size", "data", "models"}),
)
