"""Scores to labels beside torch's way, as a study; not a figure of the paper."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lpsnet.architecture import get_architecture, score_size
from lpsnet.benchmark.timing import measuring_alone
from lpsnet.data.images import read_image
from lpsnet.errors import RunError
from lpsnet.inference.label_map import Logits
from lpsnet.inference.segmenter import Segmenter
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.label_map import Kind, compare, example_scores
from lpsnet.studies.schedule import PAPER_SIZE
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Scale, Settings, Study
from lpsnet.studies.user_models import fingerprint, model_files

REPEATS: dict[Scale, int] = {"small": 9, "paper": 25}
KINDS: tuple[Kind, ...] = get_args(Kind)


def plan(settings: Settings, known: Known) -> list[Run]:
    """A run for each kind of scores, and with a model for its scores of each picture."""
    size, repeats = settings.size or PAPER_SIZE, REPEATS[settings.scale]
    files = model_files(settings.models)
    if bool(files) != bool(settings.pictures) or len(files) > 1:
        raise RunError("study label-map takes real scores from one model, --models FILE, and pictures, --picture FILE")

    def run(kind: str, make: Callable[[], Logits], *of: Json) -> Run:
        def work(place: Place) -> dict[str, Json]:
            place.progress(f"scores like {kind}", 0.0)
            with measuring_alone():
                found = compare(make(), size, repeats=repeats)
            return {
                "torch_ms": list(found.torch_ms),
                "label_map_ms": list(found.label_map_ms),
                "num_different": found.num_different,
                "num_pixels": found.num_pixels,
                "torch_threads": found.torch_threads,
            }

        return Run({"labelled": kind, "of": list(of), "size": list(size), "repeats": repeats}, work, seconds=10.0)

    made_size = score_size(size, get_architecture("lpsnet_s"))
    made_up = [run(kind, partial(example_scores, kind, size=made_size)) for kind in KINDS]
    real = [
        run(f"{file.name} on {Path(name).name}", partial(_scores, file, name, size), fingerprint(file), name)
        for file in files
        for name in settings.pictures
    ]
    return [*real, *made_up]


def _scores(file: Path, picture: str, size: tuple[int, int]) -> Logits:
    return Segmenter(file, input_size=size).scores(read_image(Path(picture)))


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for each kind of scores."""
    rows = [_row(outcome) for outcome in outcomes]
    findings = tuple(
        f"Scores like {row['scores']}: torch takes {row['ratio']:.1f} times as long; {row['num_different']} pixels of "
        f"{row['num_pixels']:,} differ."
        for row in rows
    )
    return Report(tuple(rows), findings, partial(_draw, rows), (7.0, 4.0))


def _row(outcome: Outcome) -> Row:
    result = outcome.result
    torch_ms, own_ms = float(np.median(result["torch_ms"])), float(np.median(result["label_map_ms"]))
    return {
        "scores": outcome.key["labelled"],
        "size": "x".join(map(str, outcome.key["size"])),
        "label_map_ms": own_ms,
        "torch_ms": torch_ms,
        "ratio": torch_ms / own_ms,
        "num_different": result["num_different"],
        "num_pixels": result["num_pixels"],
        "torch_threads": result["torch_threads"],
    }


def _draw(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    for key, shift, colour, title in (("label_map_ms", -0.2, COLOURS[0], "here"), ("torch_ms", 0.2, GREY, "torch")):
        places = [number + shift for number in range(len(rows))]
        bars = axes.bar(places, [row[key] for row in rows], width=0.36, color=colour, label=title)
        axes.bar_label(bars, fmt="%.0f", fontsize="small")
    axes.set_xticks(range(len(rows)), [row["scores"] for row in rows])
    axes.set_ylabel("ms")
    axes.legend(frameon=False)


STUDY = Study(
    name="label-map",
    title="From scores to labels",
    reference="Not in the paper, which leaves this step out of its latency.",
    differences=(
        "Scores made up for LPS-Net-S and 19 classes, besides a model's; torch upsamples and takes the argmax.",
    ),
    plan=plan,
    report=report,
    options=frozenset({"size", "models", "pictures"}),
)
