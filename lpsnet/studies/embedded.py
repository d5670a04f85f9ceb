"""Table 8: LPS-Net-S at 1024x2048 in FP32, one file on the device at hand, whatever that is.

The file is made once and can be taken to other devices: a device that has no PyTorch measures it with
`--models FILE`. `docs/how-to/embedded.md` says how on Jetson, Raspberry Pi and plain x86.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lpsnet.benchmark.benchmark import Candidate, benchmark
from lpsnet.benchmark.machine import describe_machine
from lpsnet.benchmark.timing import PROTOCOLS
from lpsnet.errors import RunError
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import TIMING, Timed, candidates, fingerprint, measured, model_files, times_of
from lpsnet.studies.published import TABLE_8, Published
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study, device_name, power_mode

NAME, SIZE = "lpsnet_s", (1024, 2048)  # Table 8


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run: the file by every engine."""
    files = model_files(settings.models)
    if len(files) > 1:
        raise RunError(f"this study measures one file; got {len(files)} in {settings.models}")
    key = {
        "timed": NAME,
        "file": fingerprint(files[0]) if files else None,
        "size": list(settings.size or SIZE),
        "runtimes": list(settings.runtimes),
        "precision": settings.precision,
        "num_threads": settings.num_threads,
        "protocol": asdict(PROTOCOLS[TIMING[settings.scale]]),
    }
    return [Run(key, partial(_time, settings), seconds=60.0 * len(settings.runtimes))]


def _time(settings: Settings, place: Place) -> dict[str, Json]:
    size = settings.size or SIZE
    found = benchmark(
        candidates(settings, size) or _made(settings, size, place.folder),
        size=size,
        num_threads=settings.num_threads,
        protocol=TIMING[settings.scale],
        end_to_end=False,
        memory=False,
        progress=place.progress,
    )
    machine = describe_machine()
    return {**measured(found), "device": device_name(machine), "power_mode": power_mode(machine)}


def _made(settings: Settings, size: tuple[int, int], folder: Path) -> list[Candidate]:
    """LPS-Net-S with random weights, left in the run's folder to be taken elsewhere."""
    from lpsnet.architecture import get_architecture
    from lpsnet.export.export import untrained_for_runtime

    made = []
    for runtime in settings.runtimes:
        (folder / runtime).mkdir(parents=True, exist_ok=True)
        file = untrained_for_runtime(get_architecture(NAME), folder / runtime, NAME, runtime=runtime, size=size)
        made.append(Candidate(NAME, file, runtime, settings.precision))
    return made


def report(outcomes: Sequence[Outcome]) -> Report:
    """The rows of Table 8 and one for every engine."""
    (timed,) = outcomes
    here = [_here(time, timed.result, timed.key) for time in times_of(timed)]
    rows = [*map(_published, TABLE_8), *here]
    findings = [
        f"{row['method']} on {row['device']}, {row['engine']}, threads: {row['threads']}, power mode: "
        f"{row['power_mode']}: {row['median_ms']:.1f} ms, {row['fps']:.1f} images a second at {row['resolution']}."
        for row in here
    ]
    findings += [f"{name} by {runtime}: {text}." for name, runtime, text in timed.result["problems"]]
    return Report(tuple(rows), tuple(findings), partial(_draw, rows), (9.0, 4.8))


def _published(method: Published) -> Row:
    return {
        "source": "paper, Table 8",
        "method": method.method,
        "resolution": f"{method.size[0]}x{method.size[1]}" if method.size else None,
        "miou_val": method.miou_val,
        "miou_test": method.miou_test,
        "fps": method.fps,
        "median_ms": None,
        "device": method.device,
        "engine": method.accelerator,
        "threads": None,
        "power_mode": None,
    }


def _here(time: Timed, result: Mapping[str, Json], key: Mapping[str, Json]) -> Row:
    return {
        "source": "measured here",
        "method": time.name,
        "resolution": "x".join(map(str, key["size"])),
        "miou_val": None,
        "miou_test": None,
        "fps": 1000 / time.median_ms,
        "median_ms": time.median_ms,
        "device": result["device"],
        "engine": f"{time.engine} {time.precision}",
        "threads": time.num_threads,
        "power_mode": result["power_mode"],
    }


def _draw(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    axes.grid(visible=False, axis="y")
    shown = sorted(rows, key=lambda row: row["fps"])
    colours = [COLOURS[0] if row["source"] == "measured here" else GREY for row in shown]
    bars = axes.barh(range(len(shown)), [row["fps"] for row in shown], color=colours, height=0.7)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize="x-small")
    names = [", ".join(filter(None, (r["method"], r["resolution"], r["device"], r["engine"]))) for r in shown]
    axes.set_yticks(range(len(shown)), names, fontsize="x-small")
    axes.margins(x=0.1)
    axes.set_xlabel("images a second (grey: paper, blue: here)")
    axes.set_title("Table 8: embedded devices", fontsize="medium")


STUDY = Study(
    name="embedded",
    title="LPS-Net-S on the device at hand",
    reference="The paper's Table 8: 10.0 images a second on a Jetson Nano and 25.6 on a Jetson TX2, at 1024x2048 in "
    "FP32, with TensorRT.",
    differences=(
        "The device and the engine are those named; the paper's networks ran with TensorRT (Section 4.2).",
        "The network has random weights unless a file was given; how fast it is does not depend on them.",
        "The network alone, one image at a time, the median of calls; the paper's is the mean of 20 s.",
    ),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "models"}),
)
