"""Tables 5 to 8 and Figure 2: published figures of other methods, and model files of the user beside ours, timed here.

Published figures were measured by their authors on GPUs of their own: they are compared with each other in the paper's
chart, never with milliseconds of this device. `embedded` (Table 8) measures LPS-Net-S alone, at 1024x2048 in FP32; the
file it writes can be taken to a device without PyTorch and measured there with `--models FILE`
(`docs/how-to/embedded.md`).

The paper's tables are rows here (Zhang et al. 2022, Tables 2 to 8): latency in ms, mIoU in percent, FLOPs in 10^9
MACs. In the tables of other methods, unknown values are None: for example accelerators that Table 5 leaves empty or
shares between rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.benchmark import Candidate, benchmark
from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError, RunError
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies import network_latency as latency
from lpsnet.studies.network_latency import PAPER_SIZE, candidates, fingerprint, input_size
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study, of_kind


class Table2Row(NamedTuple):
    """Table 2: a block, on Cityscapes val, GTX 1070 Ti; MACs are in `BLOCKS`."""

    miou: float
    latency_ms: float
    gmacs_per_ms: float


TABLE_2: dict[str, Table2Row] = {
    "shufflenet": Table2Row(50.8, 5.11, 0.15),
    "inverted_residual": Table2Row(59.2, 5.12, 0.39),
    "ghost": Table2Row(58.3, 5.25, 0.47),
    "residual": Table2Row(66.1, 5.24, 3.08),
    "bottleneck": Table2Row(55.7, 5.65, 0.39),
    "sepconv3x3": Table2Row(53.9, 5.10, 0.21),
    "conv3x3": Table2Row(66.2, 5.08, 3.63),
}


class Table3Row(NamedTuple):
    """Table 3: an interaction, on Cityscapes val, GTX 1070 Ti; `extra_ms` as printed there."""

    title: str
    miou: float
    latency_ms: float
    extra_ms: float


TABLE_3: dict[str, Table3Row] = {
    "none": Table3Row("Baseline", 66.9, 5.68, 0.0),
    "direct_a": Table3Row("Direct-A", 67.9, 6.42, 0.75),
    "direct_b": Table3Row("Direct-B", 68.1, 6.49, 0.82),
    "attention_a": Table3Row("Attention-A", 68.2, 6.42, 0.75),
    "attention_b": Table3Row("Attention-B", 68.6, 6.99, 1.31),
    "bilateral_a": Table3Row("Bilateral-A", 69.6, 6.48, 0.80),
    "bilateral_b": Table3Row("Bilateral-B", 69.9, 5.97, 0.29),
}


class Table4Row(NamedTuple):
    """Table 4: a step, on Cityscapes val, GTX 1070 Ti; the networks are `step_0` to `step_14`."""

    latency_ms: float
    miou: float
    dimension: str
    name: str = ""


TABLE_4: tuple[Table4Row, ...] = (
    Table4Row(0.38, 24.1, ""),
    Table4Row(0.49, 41.4, "depth"),
    Table4Row(0.63, 53.4, "width"),
    Table4Row(0.98, 57.8, "width"),
    Table4Row(1.25, 60.1, "resolution"),
    Table4Row(1.80, 62.3, "depth"),
    Table4Row(2.53, 64.6, "resolution"),
    Table4Row(3.37, 66.1, "resolution", "LPS-Net-S"),
    Table4Row(5.17, 69.5, "resolution", "LPS-Net-M"),
    Table4Row(7.07, 70.8, "width"),
    Table4Row(9.52, 71.4, "width", "LPS-Net-L"),
    Table4Row(12.38, 72.0, "resolution"),
    Table4Row(17.81, 73.0, "resolution"),
    Table4Row(25.14, 74.2, "width"),
    Table4Row(31.18, 74.8, "width"),
)


@dataclass(frozen=True, slots=True)
class Published:
    """A method in Tables 5 to 8.

    Attributes:
        table: its number.
        method: as printed.
        size: (height, width) of the image; None where the table does not say.
        miou_val, miou_test: percent; None where there is a dash or no such column. Table 7 is val, Table 6 is test.
        fps: images a second.
        device: as printed.
        accelerator: as printed; in Table 6 the two daggers' 'TensorRT or TVM'.
    """

    table: int
    method: str
    size: tuple[int, int] | None
    miou_val: float | None
    miou_test: float | None
    fps: float
    device: str
    accelerator: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is one of the paper's own networks."""
        return self.method.startswith("LPS-Net")


_FULL, _HALF, _THREE_QUARTERS = (1024, 2048), (512, 1024), (768, 1536)
_TRT = "TensorRT"

TABLE_5: tuple[Published, ...] = (
    Published(5, "BiSeNet", _THREE_QUARTERS, 69.0, 68.4, 105.8, "TitanXp", _TRT),
    Published(5, "BiSeNetV2", _HALF, 73.4, 72.6, 156.0, "1080Ti"),
    Published(5, "DABNet", _HALF, None, 70.1, 104.2, "1080Ti"),
    Published(5, "DDRNet23slim", _FULL, 77.8, 77.4, 101.6, "2080Ti", _TRT),
    Published(5, "DFANet A", (1024, 1024), None, 71.3, 100.0, "TitanX"),
    Published(5, "DFANet B", (1024, 1024), None, 67.1, 120.0, "TitanX"),
    Published(5, "DFANet A'", _HALF, None, 70.3, 160.0, "TitanX", _TRT),
    Published(5, "Fast-SCNN", (1024, 1024), 69.2, 68.0, 123.5, "TitanXp"),
    Published(5, "MSFNet", _HALF, None, 71.3, 117.0, "2080Ti"),
    Published(5, "SFNet(DF1)", _FULL, None, 74.5, 121.0, "1080Ti", _TRT),
    Published(5, "STDC1Seg-50", _HALF, 72.2, 71.9, 250.4, "1080Ti"),
    Published(5, "STDC2Seg-50", _HALF, 74.2, 73.4, 188.6, "1080Ti"),
    Published(5, "STDC1Seg-75", _THREE_QUARTERS, 74.5, 75.3, 126.7, "1080Ti", _TRT),
    Published(5, "CAS", _THREE_QUARTERS, 71.6, 70.5, 108.0, "TitanXp", _TRT),
    Published(5, "GAS", (769, 1537), 72.4, 71.8, 108.4, "TitanXp"),
    Published(5, "AutoRTNet-A", _THREE_QUARTERS, 72.9, 72.2, 110.0, "TitanXp"),
    Published(5, "DF1-Seg-d8", _FULL, 72.4, 71.4, 136.9, "1080Ti", _TRT),
    Published(5, "DF1-Seg", _FULL, 74.1, 73.0, 106.4, "1080Ti"),
    Published(5, "FasterSeg", _FULL, 73.1, 71.5, 163.9, "1080Ti"),
    Published(5, "TinyHMSeg", _THREE_QUARTERS, None, 71.4, 172.4, "1080Ti", "TVM"),
    Published(5, "LPS-Net-S", _FULL, 73.9, 73.4, 413.5, "1080Ti", _TRT),
    Published(5, "LPS-Net-M", _FULL, 76.5, 74.9, 269.7, "1080Ti", _TRT),
    Published(5, "LPS-Net-L", _FULL, 78.2, 77.3, 151.8, "1080Ti", _TRT),
)


def _camvid(method: str, miou: float, fps: float, device: str, accelerator: str | None = None) -> Published:
    return Published(6, method, None, None, miou, fps, device, accelerator)


_DAGGER, _DOUBLE_DAGGER = "TensorRT", "TVM"  # 'deep learning accelerators of TensorRT or TVM', in this order

TABLE_6: tuple[Published, ...] = (
    _camvid("BiSeNet", 65.6, 175.0, "TitanXp"),
    _camvid("BiSeNet(Res18)", 68.7, 116.3, "TitanXp"),
    _camvid("BiSeNetV2", 72.4, 124.5, "1080Ti", _DAGGER),
    _camvid("BiSeNetV2-L", 73.2, 32.7, "1080Ti", _DAGGER),
    _camvid("DDRNet23slim", 74.7, 230.0, "2080Ti"),
    _camvid("DDRNet23", 76.3, 94.0, "2080Ti"),
    _camvid("DFANet A", 64.7, 120.0, "TitanX"),
    _camvid("DFANet B", 59.3, 160.0, "TitanX"),
    _camvid("ICNet", 67.1, 27.8, "TitanX"),
    _camvid("MSFNet", 72.7, 160.0, "2080Ti"),
    _camvid("MSFNet", 75.4, 91.0, "2080Ti"),
    _camvid("SFNet(DF2)", 70.4, 134.1, "1080Ti", _DAGGER),
    _camvid("SFNet(Res18)", 73.8, 35.5, "1080Ti", _DAGGER),
    _camvid("STDC1Seg-50", 73.0, 197.6, "1080Ti", _DAGGER),
    _camvid("STDC2Seg-50", 73.9, 152.2, "1080Ti", _DAGGER),
    _camvid("CAS", 71.2, 169.0, "TitanXp"),
    _camvid("GAS", 72.8, 153.1, "TitanXp"),
    _camvid("AutoRTNet-A", 73.5, 140.0, "TitanXp"),
    _camvid("FasterSeg", 71.1, 398.1, "1080Ti", _DAGGER),
    _camvid("HMSeg", 75.1, 130.8, "1080Ti", _DOUBLE_DAGGER),
    _camvid("TinyHMSeg", 71.8, 278.5, "1080Ti", _DOUBLE_DAGGER),
    _camvid("LPS-Net-S", 73.6, 432.4, "1080Ti", _DAGGER),
    _camvid("LPS-Net-M", 75.1, 317.3, "1080Ti", _DAGGER),
    _camvid("LPS-Net-L", 76.5, 169.3, "1080Ti", _DAGGER),
)


def _bdd100k(method: str, miou: float, fps: float) -> Published:
    return Published(7, method, None, miou, None, fps, "1080Ti", _TRT)


TABLE_7: tuple[Published, ...] = (
    _bdd100k("DRN-D-38", 55.2, 12.9),
    _bdd100k("DRN-D-22", 53.2, 21.0),
    _bdd100k("FasterSeg", 55.1, 318.0),
    _bdd100k("LPS-Net-S", 55.9, 634.7),
    _bdd100k("LPS-Net-M", 58.1, 495.0),
    _bdd100k("LPS-Net-L", 59.3, 283.3),
)


def _embedded(
    method: str, size: tuple[int, int], val: float, test: float, nano: float, tx2: float
) -> tuple[Published, Published]:
    engine = _TRT if method.startswith("LPS-Net") else None  # Section 4.2, for the authors' own measurements
    return (
        Published(8, method, size, val, test, nano, "Jetson Nano", engine),
        Published(8, method, size, val, test, tx2, "Jetson TX2", engine),
    )


TABLE_8: tuple[Published, ...] = (
    *_embedded("DF1-Seg-d8", _FULL, 72.4, 71.4, 3.2, 7.7),
    *_embedded("FasterSeg", _FULL, 73.1, 71.5, 4.0, 10.1),
    *_embedded("BiSeNetV2", _HALF, 73.4, 72.6, 4.3, 10.3),
    *_embedded("STDC1Seg-50", _HALF, 72.2, 71.9, 7.1, 17.1),
    *_embedded("LPS-Net-S", _FULL, 73.9, 73.4, 10.0, 25.6),
)

ALL_METHODS: tuple[Published, ...] = (*TABLE_5, *TABLE_6, *TABLE_7, *TABLE_8)

# The paper's networks in its tables -> their architecture's name here
OURS: dict[str, str] = {"LPS-Net-S": "lpsnet_s", "LPS-Net-M": "lpsnet_m", "LPS-Net-L": "lpsnet_l"}


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
