"""Tables 5 to 8 and Figure 2: published figures of other methods, and model files of the user beside ours, timed here.

Published figures were measured by their authors on GPUs of their own: they are compared with each other in the paper's
chart, never with milliseconds of this device. `embedded` (Table 8) measures LPS-Net-S alone, at 1024x2048 in FP32; the
file it writes can be taken to a device without PyTorch and measured there with `--models FILE`
(`docs/how-to/embedded.md`).

`front`, not in the paper: networks of this package and of other code (`--peer`), trained alike and timed here, with one
thread and with two. Each is trained at three learning rates; the best is repeated with other seeds.

The paper's tables are rows here (Zhang et al. 2022, Tables 2 to 4) or in `published.csv` (Tables 5 to 8): latency in
ms, mIoU in percent, FLOPs in 10^9 MACs. In the tables of other methods, unknown values are empty: for example
accelerators that Table 5 leaves empty or shares between rows.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lpsnet.architecture import default_block, get_architecture
from lpsnet.benchmark.benchmark import Candidate, benchmark
from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError, RunError
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies import network_latency as latency
from lpsnet.studies.network_latency import PAPER_SIZE, candidates, fingerprint, input_size
from lpsnet.studies.study import (
    Json,
    Known,
    Outcome,
    Place,
    Report,
    Row,
    Run,
    Settings,
    Study,
    of_kind,
    score_columns,
)


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


def _size(text: str) -> tuple[int, int] | None:
    height, _, width = text.partition("x")
    return (int(height), int(width)) if text else None


def _published_figures() -> tuple[Published, ...]:
    """The rows of `published.csv`, in the order of the tables."""
    text = resources.files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            table=int(row["table"]),
            method=row["method"],
            size=_size(row["size"]),
            miou_val=float(row["miou_val"]) if row["miou_val"] else None,
            miou_test=float(row["miou_test"]) if row["miou_test"] else None,
            fps=float(row["fps"]),
            device=row["device"],
            accelerator=row["accelerator"] or None,
        )
        for row in csv.DictReader(text.splitlines())
    )


ALL_METHODS = _published_figures()
TABLE_5, TABLE_6, TABLE_7, TABLE_8 = (tuple(row for row in ALL_METHODS if row.table == n) for n in (5, 6, 7, 8))

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


# `front`: ours by default, from small to large, and the learning rates that every network is trained at
FRONT_NETWORKS = (
    "B=1,2,2,2,2;C=8,24,48,96,96;R=5/8",
    "B=1,2,2,2,2;C=8,24,48,96,96;R=9/8,1/2",
    "B=1,2,2,2,2;C=8,24,48,96,96;R=9/8,1/2;D=8;X=gate",
    "lpsnet_s",
    "lite0",
)
LEARNING_RATES = (0.0005, 0.001, 0.002)
FRONT_SEEDS = 2
FRONT_THREADS = (1, 2)
SAME_TIME = 1.05  # a network is as quick as another up to this ratio of their latencies
# In place of the study's recipe, which is the paper's: what networks of today are trained with
_FRONT_RECIPE: Mapping[str, Json] = {
    "optimiser": "adamw",
    "schedule": "cosine",
    "weight_decay": 0.01,
    "decay_norm": False,
    "batch_size": 8,
    "warmup_iterations": 50,
    "ema_decay": 0.998,
    "scale": (0.5, 2.0),
}


def front_networks(settings: Settings) -> list[latency.StudyNetwork | latency.Peer]:
    """Ours (`archs`), then those of other code (`peers`).

    Raises:
        LpsnetError: a name or a text is no architecture, or a peer's code is not there.
    """
    ours = [
        latency.StudyNetwork(name, get_architecture(name), default_block(name))
        for name in settings.archs or FRONT_NETWORKS
    ]
    return [*ours, *map(latency.Peer, settings.peers)]


def plan_front(settings: Settings, known: Known) -> list[Run]:
    """Latencies; every network at every learning rate; then the best rate of each with the other seeds."""
    from lpsnet.studies import network_training as training

    networks, threads = front_networks(settings), settings.num_threads
    schedule = training.schedule_of(settings, training.data_of(settings), halved=False)
    schedule = replace(schedule, recipe=schedule.recipe.with_overrides(_FRONT_RECIPE))
    each = [replace(settings, num_threads=count) for count in ((threads,) if threads else FRONT_THREADS)]
    timings = [training.latencies(networks, timed) for timed in each]
    trials = {network: [schedule.at(rate).training(network) for rate in LEARNING_RATES] for network in networks}
    first = training.training_runs([run for runs in trials.values() for run in runs], known, threads)
    runs, repeated = [*timings, *first], []
    for network, own in trials.items():
        results = [known(training.training_run(run, known, num_threads=threads)) for run in own]
        best = max(range(len(own)), key=lambda index: (results[index] or {}).get("miou", -1.0))
        more = [schedule.at(LEARNING_RATES[best]).training(network, seed=seed) for seed in _more_seeds(settings)]
        is_known = all(result is not None for result in results)
        repeated += [replace(training.training_run(run, known, num_threads=threads), apart=is_known) for run in more]
    return [*runs, *repeated]


def _more_seeds(settings: Settings) -> range:
    return range(1, settings.num_seeds or FRONT_SEEDS)


def report_front(outcomes: Sequence[Outcome]) -> Report:
    """A row a network; for every peer, whether one of ours is better at its latency."""
    from lpsnet.studies import network_training as training

    timings, trained = of_kind(outcomes, "timed"), of_kind(outcomes, "trained")
    times: dict[str, dict[str, latency.Timed]] = {}
    for timed in timings:
        for time in latency.times_of(timed):
            times.setdefault(f"{time.runtime}, threads: {time.num_threads}", {})[time.name] = time
    rows = [_front_row(name, network, trained, times) for name, network in timings[0].key["timed"].items()]
    findings = [finding for column in times for finding in _beside_peers(rows, f"{column}: ms")]
    problems = [text for timed in timings for text in latency.problems_of(timed)]
    differences = (training.describe_training(trained[0].key["trained"]), latency.describe_latency(timings[0]))
    size = (5.6 * len(times), 4.8)
    return Report(tuple(rows), (*findings, *problems), partial(_draw_front, rows, list(times)), size, differences)


def _front_row(
    name: str, network: Mapping[str, Json], trained: Sequence[Outcome], times: Mapping[str, Mapping[str, latency.Timed]]
) -> Row:
    """The scores of the learning rate whose first seed is the best."""
    by_rate: dict[float, dict[int, float]] = {}
    for outcome in trained:
        settings = outcome.key["trained"]
        if network.items() <= settings.items() and "miou" in outcome.result:
            recipe = settings["recipe"]
            by_rate.setdefault(recipe["learning_rate"], {})[recipe["seed"]] = outcome.result["miou"]
    rate = max(by_rate, key=lambda each: by_rate[each].get(0, -1.0), default=None)
    scores = [] if rate is None else [by_rate[rate][seed] for seed in sorted(by_rate[rate])]
    return {
        "network": name,
        "ours": "architecture" in network,
        "learning_rate": rate,
        "seeds": len(scores),
        **score_columns(scores),
        **{f"{column}: ms": None if name not in own else own[name].median_ms for column, own in times.items()},
    }


def _beside_peers(rows: Sequence[Row], column: str) -> Iterator[str]:
    """A sentence for every peer that was scored and timed: the best of ours at its latency."""
    scored = [row for row in rows if row["miou"] is not None and row[column] is not None]
    for peer in (row for row in scored if not row["ours"]):
        own = [row for row in scored if row["ours"] and row[column] <= SAME_TIME * peer[column]]
        start = f"{column[:-4]}: {peer['network']} takes {peer[column]:.1f} ms and has {peer['miou']:.2f} mIoU; "
        if not own:
            yield f"{start}none of ours is as quick."
            continue
        best = max(own, key=lambda row: row["miou"])
        gain = best["miou"] - peer["miou"]
        yield f"{start}{best['network']}, {best[column]:.1f} ms, has {abs(gain):.2f} {'more' if gain > 0 else 'less'}."


def _draw_front(rows: Sequence[Row], columns: Sequence[str], figure: Any) -> None:
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        tidy(axes)
        for is_ours, style, colour in ((False, "o", GREY), (True, "*", COLOURS[1])):
            own = [row for row in rows if row["ours"] == is_ours and None not in (row["miou"], row[f"{column}: ms"])]
            points = [[row[f"{column}: ms"] for row in own], [row["miou"] for row in own]]
            deviations = [row["miou_deviation"] or 0.0 for row in own]
            axes.errorbar(*points, yerr=deviations, fmt=style, color=colour, markersize=10 if is_ours else 6, capsize=2)
            for row, ms, miou in zip(own, *points, strict=True):
                axes.annotate(row["network"], (ms, miou), xytext=(5, 4), textcoords="offset points", fontsize=6)
        axes.set(xlabel="ms, network alone", ylabel="mIoU on val (%)")
        axes.set_title(column, fontsize="small", color="0.35")
        axes.margins(x=0.2, y=0.12)
    figure.suptitle("Accuracy by latency, trained alike", fontsize="medium")


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
FRONT = Study(
    name="front",
    title="The front of accuracy and latency",
    reference="Not in the paper: networks of this package and of other code, trained alike and timed on this device.",
    differences=(
        "AdamW and a cosine schedule in place of the paper's recipe, each network at the best of three learning rates.",
        "All start from random weights.",
    ),
    plan=plan_front,
    report=report_front,
    options=frozenset(
        {"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs", "archs", "peers"}
    ),
)
