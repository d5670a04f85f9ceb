"""Tables 5 to 8 and Figure 2: what other methods publish, and any model file of the user's beside ours on this device.

Published figures are rows (`published.py`); each was measured by its authors on a GPU of their own, so that they are
compared with each other in the paper's chart and never with milliseconds of this device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.benchmark import Candidate, benchmark
from lpsnet.benchmark.machine import describe_machine
from lpsnet.benchmark.timing import PROTOCOLS
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError, RunError
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import (
    TIMING,
    Timed,
    candidates,
    fingerprint,
    input_size,
    measured,
    model_files,
    times_of,
)
from lpsnet.studies.network_training import PAPER_SIZE
from lpsnet.studies.published import ALL_METHODS, OURS, TABLE_5, Published
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study, device_name, of_kind


def plan(settings: Settings, known: Known) -> list[Run]:
    """S, M and L with random weights and all files of the user's in turn; then each of those files is scored."""
    if len(settings.data) > 1:
        raise RunError(f"this study scores on one data set; got {', '.join(settings.data)}")
    files = model_files(settings.models) if settings.data else []
    return [_timing_run(settings), *(_scoring_run(file, settings) for file in files)]


def _timing_run(settings: Settings) -> Run:
    usual, files = settings.size or PAPER_SIZE, model_files(settings.models)
    key = {
        "timed": list(OURS),
        "files": [[*fingerprint(file), *input_size(file, usual)] for file in files],
        "size": list(usual),
        "runtimes": list(settings.runtimes),
        "precision": settings.precision,
        "num_threads": settings.num_threads,
        "protocol": asdict(PROTOCOLS[TIMING[settings.scale]]),
    }
    count = (len(OURS) + len(files)) * len(settings.runtimes)
    return Run(key, partial(_time, settings, usual), seconds=30.0 * count)


def _time(settings: Settings, usual: tuple[int, int], place: Place) -> dict[str, Json]:
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        found = benchmark(
            [*candidates(settings, usual), *_ours(Path(folder), settings, usual)],
            size=usual,
            num_threads=settings.num_threads,
            protocol=TIMING[settings.scale],
            end_to_end=False,
            memory=False,
            progress=place.progress,
        )
    values = measured(found)
    for row, result in zip(values["results"], found.results, strict=True):
        row["size"] = list(result.size or usual)
    return {**values, "device": device_name(describe_machine())}


def _ours(folder: Path, settings: Settings, size: tuple[int, int]) -> list[Candidate]:
    from lpsnet.export.export import untrained_for_runtime

    return [
        Candidate(
            title,
            untrained_for_runtime(get_architecture(name), folder, f"{name}_{runtime}", runtime=runtime, size=size),
            runtime,
            settings.precision,
        )
        for title, name in OURS.items()
        for runtime in settings.runtimes
    ]


def _scoring_run(file: Path, settings: Settings) -> Run:
    """A run that scores a file on val: `miou`, or None and `problems`. Its times are not used."""
    (data,) = settings.data
    size = input_size(file, settings.size or PAPER_SIZE)
    own = candidates(Settings(models=file), size)[0]

    def work(place: Place) -> dict[str, Json]:
        labelled = open_dataset(data).split("val")
        try:
            found = benchmark(
                [own], size=size, protocol="quick", end_to_end=False, memory=False, labelled=labelled,
                progress=place.progress,
            )  # fmt: skip
        except LpsnetError as error:  # one file that no engine takes at this size is no reason to stop
            return {"miou": None, "problems": [str(error)]}
        return {"miou": found.results[0].miou, "problems": [each.problem for each in found.problems]}

    return Run({"scored": fingerprint(file), "name": file.stem, "data": data, "size": list(size)}, work, portable=True)


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for what is published, and one for everything measured here."""
    (timed,) = of_kind(outcomes, "timed")
    scores = {outcome.key["name"]: outcome.result["miou"] for outcome in of_kind(outcomes, "scored")}
    here = [
        _here(time, values, timed, scores)
        for time, values in zip(times_of(timed), timed.result["results"], strict=True)
    ]  # fmt: skip
    rows = [*(_published(method) for method in ALL_METHODS), *here]
    problems = [f"{name} by {runtime}: {text}." for name, runtime, text in timed.result["problems"]]
    problems += [f"{o.key['name']}: {text}." for o in of_kind(outcomes, "scored") for text in o.result["problems"]]
    return Report(tuple(rows), (_fastest(here), *problems), partial(_draw, here), (10.5, 4.8))


def _published(method: Published) -> Row:
    return {
        "source": f"paper, Table {method.table}",
        "method": method.method,
        "resolution": None if method.size is None else "x".join(map(str, method.size)),
        "miou_val": method.miou_val,
        "miou_test": method.miou_test,
        "fps": method.fps,
        "median_ms": None,
        "device": method.device,
        "accelerator": method.accelerator,
    }


def _here(time: Timed, values: Mapping[str, Json], timed: Outcome, scores: Mapping[str, Json]) -> Row:
    return {
        "source": "measured here",
        "method": f"{time.name}, random weights" if time.name in OURS else time.name,
        "resolution": "x".join(map(str, values["size"])),
        "miou_val": scores.get(time.name),
        "miou_test": None,
        "fps": 1000 / time.median_ms,
        "median_ms": time.median_ms,
        "device": timed.result["device"],
        "accelerator": f"{time.engine} {time.precision}",
    }


def _fastest(here: Sequence[Row]) -> str:
    each = ", ".join(f"{row['method']} {row['fps']:.1f} at {row['resolution']} ({row['accelerator']})" for row in here)
    return f"Images a second on this device, networks alone, in turn: {each}."


def _draw(here: Sequence[Row], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    _scatter(left, [(m.fps, m.miou_val, m.method, m.is_ours) for m in TABLE_5 if m.miou_val is not None])
    left.set_title("paper, Table 5: authors' GPUs and resolutions", fontsize="small", color="0.35")
    scored = [row for row in here if row["miou_val"] is not None]
    if scored:
        _scatter(right, [(row["fps"], row["miou_val"], row["method"], False) for row in scored])
    else:
        _bars(right, here)
    right.set_title("this device", fontsize="small", color="0.35")
    figure.suptitle("Figure 2: accuracy and speed", fontsize="medium")


def _scatter(axes: Any, points: Sequence[tuple[float, float, str, bool]]) -> None:
    """Points of (images a second, mIoU, name, whether it is one of the paper's networks), these with a line."""
    tidy(axes)
    ours = [point for point in points if point[3]]
    others = [point for point in points if not point[3]]
    axes.plot([fps for fps, *_ in others], [miou for _, miou, *_ in others], "o", color=GREY, markersize=5)
    axes.plot([fps for fps, *_ in ours], [miou for _, miou, *_ in ours], "*-", color=COLOURS[1], markersize=10)
    for fps, miou, name, is_ours in points:
        size = "small" if is_ours else 6
        axes.annotate(name, (fps, miou), xytext=(4, 3), textcoords="offset points", fontsize=size)
    axes.set(xlabel="images a second", ylabel="mIoU on val (%)")
    axes.margins(x=0.22, y=0.08)


def _bars(axes: Any, here: Sequence[Row]) -> None:
    tidy(axes)
    names = [f"{row['method']}\n{row['resolution']}, {row['accelerator']}" for row in here]
    bars = axes.barh(range(len(here)), [row["fps"] for row in here], color=COLOURS[0], height=0.6)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize="x-small")
    axes.set_yticks(range(len(here)), names, fontsize="x-small")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images a second; no file was scored")


STUDY = Study(
    name="comparison",
    title="Beside other methods",
    reference="The paper's Tables 5 to 8 and Figure 2: on a GTX 1080 Ti with TensorRT, LPS-Net-S, M and L at 413.5, "
    "269.7 and 151.8 images a second and 73.9, 76.5 and 78.2 mIoU on Cityscapes val.",
    differences=(
        "What is published was measured by its authors, on GPUs, engines and sizes of their own.",
        "Where the text of Table 5 leaves the accelerator open, none is named here.",
        "S, M and L have random weights here: they are timed, not scored. Give trained files to have them scored.",
    ),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "models"}),
)
