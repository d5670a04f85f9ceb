"""The time a user waits beside that of the network alone, as a study; not a figure of the paper."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.timing import PROTOCOLS
from lpsnet.data.images import read_image
from lpsnet.errors import ModelFileError
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.preprocess import Picture
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.end_to_end import Engine, measure_end_to_end
from lpsnet.studies.schedule import PAPER_SIZE
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study
from lpsnet.studies.user_models import fingerprint, model_files

WAYS = ("network", "network_by_path", "fast", "naive")
TITLES = ("network alone", "network, resized before", "Segmenter", "usual way")


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run: all ways by all engines in turn."""
    files = model_files(settings.models)[:1]
    key = {
        "waited": "lpsnet_s",
        "file": [fingerprint(file) for file in files],
        "picture": settings.pictures[0] if settings.pictures else None,
        "size": list(settings.size or PAPER_SIZE),
        "runtimes": list(settings.runtimes),
        "precision": settings.precision,
        "num_threads": settings.num_threads,
    }
    return [Run(key, partial(_measure, settings), seconds=20.0 * len(settings.runtimes))]


def _measure(settings: Settings, place: Place) -> dict[str, Json]:
    from lpsnet.export.export import untrained_for_runtime

    size = settings.size or PAPER_SIZE
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        files = model_files(settings.models) or [
            untrained_for_runtime(get_architecture("lpsnet_s"), Path(folder), "s", runtime="onnxruntime", size=size)
        ]
        found = measure_end_to_end(
            files[0],
            _picture(settings, size),
            engines=_engines(settings, files[0]),
            input_size=size,
            num_threads=settings.num_threads,
            protocol=PROTOCOLS["quick" if settings.scale == "small" else "paper"],
            progress=lambda part: place.progress("measuring all ways in turn", part),
        )
    return {"ways": [each.to_dict() for each in found]}


def _picture(settings: Settings, size: tuple[int, int]) -> Picture:
    from lpsnet.data.synthetic import SceneSplit

    for name in settings.pictures:
        return read_image(Path(name))
    return SceneSplit(size=size, count=1, seed=0, name="study").image(0)


def _engines(settings: Settings, file: Path) -> list[Engine]:
    """Those asked for; beside f32 in bf16 too, where engine and machine have that."""
    found = []
    for runtime in settings.runtimes:
        found.append(Engine(runtime, settings.precision))
        if settings.precision == "f32":
            try:
                open_session(runtime, SessionOptions(file, "bf16", settings.num_threads))
            except ModelFileError:
                continue
            found.append(Engine(runtime, "bf16"))
    return found


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row an engine."""
    (outcome,) = outcomes
    rows = [_row(each, outcome.key["size"]) for each in outcome.result["ways"]]
    findings = tuple(
        f"{row['engine']}: the Segmenter takes {row['fast_over_network']:.2f} times the network's time, the usual way "
        f"{row['naive_over_network']:.2f} times; {row['agreement_percent']:.3f} % of the pixels have the same label."
        for row in rows
    )
    return Report(tuple(rows), findings, partial(_draw, rows))


def _row(each: Json, size: Sequence[int]) -> Row:
    return {
        "engine": f"{each['runtime']} {each['precision']}",
        "size": "x".join(map(str, size)),
        **{f"{way}_ms": None if each[way] is None else each[way]["median_ms"] for way in WAYS},
        "fast_over_network": each["overhead"]["ratio"],
        "naive_over_network": each["naive_overhead"]["ratio"],
        "agreement_percent": each["agreement_percent"],
    }


def _draw(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    axes.grid(visible=False, axis="x")
    for number, (way, title) in enumerate(zip(WAYS, TITLES, strict=True)):
        places = [place + 0.2 * (number - 1.5) for place in range(len(rows))]
        colour = GREY if way == "naive" else COLOURS[number]
        bars = axes.bar(places, [row[f"{way}_ms"] or 0.0 for row in rows], width=0.18, color=colour, label=title)
        axes.bar_label(bars, fmt="%.0f", fontsize="x-small")
    axes.set_xticks(range(len(rows)), [row["engine"] for row in rows])
    axes.set_ylabel("ms from the picture's bytes to its label map")
    axes.legend(frameon=False, fontsize="small")


STUDY = Study(
    name="end-to-end",
    title="From a picture's bytes to its label map",
    reference="Not in the paper, which times the network up to its scores.",
    differences=("LPS-Net-S with random weights and a generated scene, unless a file and a picture were given.",),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "models", "pictures"}),
)
