"""Tables 5 to 8 and Figure 2: published figures of other methods, and model files of the user beside ours, timed here.

Published figures were measured by their authors on GPUs of their own: they are compared with each other in the paper's
chart, never with milliseconds of this device. `embedded` (Table 8) measures LPS-Net-S alone, at 1024x2048 in FP32; the
file it writes can be taken to a device without PyTorch and measured there with `--models FILE`
(`docs/how-to/embedded.md`).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.benchmark import Candidate, benchmark
from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError, RunError
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies import network_latency as latency
from lpsnet.studies.network_latency import PAPER_SIZE, candidates, fingerprint, input_size
from lpsnet.studies.published import ALL_METHODS, OURS, TABLE_5, TABLE_8, Published
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study, of_kind

EMBEDDED_NAME = "lpsnet_s"  # Table 8


def plan(settings: Settings, known: Known) -> list[Run]:
    """S, M and L with random weights and the user's files, interleaved; then each of those files is scored."""
    if len(settings.data) > 1:
        raise RunError(f"this study scores on one data set; got {', '.join(settings.data)}")
    files = latency.model_files(settings.models) if settings.data else []
    return [_timing_run(settings), *(_scoring_run(file, settings) for file in files)]


def _timing_run(settings: Settings) -> Run:
    usual, files = settings.size or PAPER_SIZE, latency.model_files(settings.models)
    key = {
        "timed": list(OURS),
        "files": [[*fingerprint(file), *input_size(file, usual)] for file in files],
        "size": list(usual),
        **latency.engine_key(settings),
    }
    count = (len(OURS) + len(files)) * len(settings.runtimes)
    return Run(key, partial(_time, settings, usual), seconds=latency.SECONDS * count)


def _time(settings: Settings, usual: latency.Size, place: Place) -> dict[str, Json]:
    ours = [latency.StudyNetwork(title, get_architecture(name)) for title, name in OURS.items()]
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        own = latency.untrained_candidates(ours, Path(folder), usual, settings, on_progress=place.on_progress)
        cells = [*candidates(settings, usual), *own]
        found = latency.time_candidates(cells, usual, settings, place.on_progress)
    values = latency.measured(found)
    for row, result in zip(values["results"], found.results, strict=True):
        row["size"] = list(result.size or usual)
    return {**values, "device": _device_name()}


def _device_name() -> str:
    """The GPU's, the board's or the processor's name, whichever is the most specific."""
    machine = describe_machine()
    return machine.gpus[0] if machine.gpus else machine.board or machine.cpu


def _scoring_run(file: Path, settings: Settings) -> Run:
    """A run that scores a file on val: `miou`, or None and `problems`. Its times are not used."""
    (data,) = settings.data
    size = input_size(file, settings.size or PAPER_SIZE)
    own = candidates(Settings(models=file), size)[0]

    def work(place: Place) -> dict[str, Json]:
        labelled = open_dataset(data).split("val")
        options: dict[str, Any] = {"labelled": labelled, "on_progress": place.on_progress}
        try:
            found = benchmark([own], size=size, protocol="quick", end_to_end=False, memory=False, **options)
        except LpsnetError as error:  # one file that no engine can run at this size does not stop the study
            return {"miou": None, "problems": [str(error)]}
        return {"miou": found.results[0].miou, "problems": [each.problem for each in found.problems]}

    return Run({"scored": fingerprint(file), "name": file.stem, "data": data, "size": list(size)}, work, portable=True)


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for each published figure, and for everything measured here."""
    (timed,) = of_kind(outcomes, "timed")
    scores = {outcome.key["name"]: outcome.result["miou"] for outcome in of_kind(outcomes, "scored")}
    measured = zip(latency.times_of(timed), timed.result["results"], strict=True)
    here = [_here(time, timed, values["size"], accelerator=_engine(time)) for time, values in measured]
    for row in here:
        row["miou_val"] = scores.get(row["method"])
        row["method"] += ", random weights" if row["method"] in OURS else ""
    rows = [*(_published(method, accelerator=method.accelerator) for method in ALL_METHODS), *here]
    problems = latency.problems_of(timed)
    problems += [f"{o.key['name']}: {text}." for o in of_kind(outcomes, "scored") for text in o.result["problems"]]
    return Report(tuple(rows), (_fastest(here), *problems), partial(_draw, here), (10.5, 4.8))


def _published(method: Published, **more: Json) -> Row:
    return {
        "source": f"paper, Table {method.table}",
        "method": method.method,
        "resolution": None if method.size is None else "x".join(map(str, method.size)),
        "miou_val": method.miou_val,
        "miou_test": method.miou_test,
        "fps": method.fps,
        "median_ms": None,
        "device": method.device,
        **more,
    }


def _here(time: latency.Timed, timed: Outcome, size: Sequence[int], **more: Json) -> dict[str, Json]:
    return {
        "source": "measured here",
        "method": time.name,
        "resolution": "x".join(map(str, size)),
        "miou_val": None,
        "miou_test": None,
        "fps": 1000 / time.median_ms,
        "median_ms": time.median_ms,
        "device": timed.result["device"],
        **more,
    }


def _engine(time: latency.Timed) -> str:
    return f"{time.engine} {time.precision}"


def _fastest(here: Sequence[Row]) -> str:
    each = ", ".join(f"{row['method']} {row['fps']:.1f} at {row['resolution']} ({row['accelerator']})" for row in here)
    return f"Images a second on this device, networks alone, interleaved: {each}."


def _draw(here: Sequence[Row], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    _scatter(left, [(m.fps, m.miou_val, m.method, m.is_ours) for m in TABLE_5 if m.miou_val is not None])
    left.set_title("paper, Table 5: authors' GPUs and resolutions", fontsize="small", color="0.35")
    if scored := [row for row in here if row["miou_val"] is not None]:
        _scatter(right, [(row["fps"], row["miou_val"], row["method"], False) for row in scored])
    else:
        names = [f"{row['method']}\n{row['resolution']}, {row['accelerator']}" for row in here]
        _bars(right, names, here, height=0.6, margin=0.12)
        right.invert_yaxis()
        right.set_xlabel("images a second; no file was scored")
    right.set_title("this device", fontsize="small", color="0.35")
    figure.suptitle("Figure 2: accuracy and speed", fontsize="medium")


def _scatter(axes: Any, points: Sequence[tuple[float, float, str, bool]]) -> None:
    """Points of (images a second, mIoU, name, whether it is one of the paper's networks), these with a line."""
    tidy(axes)
    for is_ours, style, colour, markersize in ((False, "o", GREY, 5), (True, "*-", COLOURS[1], 10)):
        own = [point for point in points if point[3] == is_ours]
        axes.plot([fps for fps, *_ in own], [miou for _, miou, *_ in own], style, color=colour, markersize=markersize)
    for fps, miou, name, is_ours in points:
        size = "small" if is_ours else 6
        axes.annotate(name, (fps, miou), xytext=(4, 3), textcoords="offset points", fontsize=size)
    axes.set(xlabel="images a second", ylabel="mIoU on val (%)")
    axes.margins(x=0.22, y=0.08)


def _bars(axes: Any, names: Sequence[str], rows: Sequence[Row], *, height: float, margin: float) -> None:
    """Images a second; grey for those of the paper."""
    tidy(axes)
    colours = [COLOURS[0] if row["source"] == "measured here" else GREY for row in rows]
    bars = axes.barh(range(len(rows)), [row["fps"] for row in rows], color=colours, height=height)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize="x-small")
    axes.set_yticks(range(len(rows)), names, fontsize="x-small")
    axes.margins(x=margin)


def plan_embedded(settings: Settings, known: Known) -> list[Run]:
    """One run: the file with every engine."""
    files = latency.model_files(settings.models)
    if len(files) > 1:
        raise RunError(f"this study measures one file; got {len(files)} in {settings.models}")
    key = {
        "timed": EMBEDDED_NAME,
        "file": fingerprint(files[0]) if files else None,
        "size": list(settings.size or PAPER_SIZE),
        **latency.engine_key(settings),
    }
    return [Run(key, partial(_time_embedded, settings), seconds=60.0 * len(settings.runtimes))]


def _time_embedded(settings: Settings, place: Place) -> dict[str, Json]:
    size = settings.size or PAPER_SIZE
    cells = candidates(settings, size) or _written(settings, size, place.folder)
    found = latency.time_candidates(cells, size, settings, place.on_progress)
    mode = describe_machine().power_mode or "unknown"
    return {**latency.measured(found), "device": _device_name(), "power_mode": mode}


def _written(settings: Settings, size: latency.Size, folder: Path) -> list[Candidate]:
    """LPS-Net-S with random weights; the files stay in the run's folder to be taken to other devices."""
    from lpsnet.export.export import untrained_for_runtime

    found, architecture = [], get_architecture(EMBEDDED_NAME)
    for runtime in settings.runtimes:
        (folder / runtime).mkdir(parents=True, exist_ok=True)
        file = untrained_for_runtime(architecture, folder / runtime, EMBEDDED_NAME, runtime=runtime, size=size)
        found.append(Candidate(EMBEDDED_NAME, file, runtime, settings.precision))
    return found


def report_embedded(outcomes: Sequence[Outcome]) -> Report:
    """The rows of Table 8 and one for every engine."""
    (timed,) = outcomes
    size, mode = timed.key["size"], timed.result["power_mode"]
    here = [
        _here(time, timed, size, engine=_engine(time), threads=time.num_threads, power_mode=mode)
        for time in latency.times_of(timed)
    ]
    paper = [_published(method, engine=method.accelerator, threads=None, power_mode=None) for method in TABLE_8]
    findings = [
        f"{row['method']} on {row['device']}, {row['engine']}, threads: {row['threads']}, power mode: "
        f"{row['power_mode']}: {row['median_ms']:.1f} ms, {row['fps']:.1f} images a second at {row['resolution']}."
        for row in here
    ]
    rows: tuple[Row, ...] = (*paper, *here)
    return Report(rows, (*findings, *latency.problems_of(timed)), partial(_draw_embedded, rows), (9.0, 4.8))


def _draw_embedded(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    shown = sorted(rows, key=lambda row: row["fps"])
    names = [", ".join(filter(None, (r["method"], r["resolution"], r["device"], r["engine"]))) for r in shown]
    _bars(axes, names, shown, height=0.7, margin=0.1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("images a second (grey: paper, blue: here)")
    axes.set_title("Table 8: embedded devices", fontsize="medium")


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
EMBEDDED = Study(
    name="embedded",
    title="LPS-Net-S on the device at hand",
    reference="The paper's Table 8: 10.0 images a second on a Jetson Nano and 25.6 on a Jetson TX2, at 1024x2048 in "
    "FP32, with TensorRT.",
    differences=(
        "The device and the engine are those named; the paper's networks ran with TensorRT (Section 4.2).",
        "The network has random weights unless a file was given; how fast it is does not depend on them.",
        "The network alone, one image at a time, the median of calls; the paper's is the mean of 20 s.",
    ),
    plan=plan_embedded,
    report=report_embedded,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "models"}),
)
