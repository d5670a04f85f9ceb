"""How long the label map takes, beside torch's way: interpolate the scores to the image's size, then argmax.

Not a figure of the paper, which leaves this step out of its latency. A user waits for it all the same.

Scores to labels beside torch's way, as a study; not a figure of the paper.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.architecture import get_architecture, score_size
from lpsnet.benchmark.timing import measuring_alone
from lpsnet.data.images import read_image
from lpsnet.errors import LpsnetError, RunError, unknown_name
from lpsnet.inference.label_map import Logits, label_map
from lpsnet.inference.segmenter import Segmenter
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import PAPER_SIZE, fingerprint, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Scale, Settings, Study

Labels = NDArray[np.uint8]
Kind = Literal["regions", "blobs", "noise"]

_BLOB_DEVIATION = 2.0  # of the Gaussian that smooths the blobs, in scores: about half the cells have a border in them


@dataclass(frozen=True, slots=True)
class Comparison:
    """Times of both ways on the same scores, measured in turn.

    Attributes:
        torch_ms, label_map_ms: one time a repeat, in order.
        num_different: pixels that differ; torch computes in float32 and errs at ties as well.
        num_pixels: pixels of the label map.
        torch_threads: threads both used; without its compiled loops `label_map` uses one.
    """

    torch_ms: tuple[float, ...]
    label_map_ms: tuple[float, ...]
    num_different: int
    num_pixels: int
    torch_threads: int

    @property
    def median_torch_ms(self) -> float:
        """Median time of interpolate and argmax."""
        return statistics.median(self.torch_ms)

    @property
    def median_label_map_ms(self) -> float:
        """Median time of `label_map`."""
        return statistics.median(self.label_map_ms)

    @property
    def ratio(self) -> float:
        """How many times as long torch takes, of the medians."""
        return self.median_torch_ms / self.median_label_map_ms


def compare(
    scores: Logits, size: tuple[int, int] = (1024, 2048), *, align_corners: bool = True, repeats: int = 9
) -> Comparison:
    """Time `label_map` and torch by turns (A B A B ...), after one round that is not counted.

    Args:
        scores: K x h x w float32.
        size: (H, W) of the label map.
        align_corners: the resize convention, as in `label_map`.
        repeats: rounds that are counted, at least 1.

    Raises:
        LpsnetError: no repeats, or scores or a size that `label_map` refuses.
    """
    if repeats < 1:
        raise LpsnetError(f"a comparison needs at least 1 repeat; got {repeats}")
    ours, theirs = [], []
    for _ in range(repeats + 1):
        labels, label_map_ms = _timed(
            lambda: label_map(scores, size, align_corners=align_corners, num_threads=torch.get_num_threads())
        )
        reference, torch_ms = _timed(lambda: _torch_label_map(scores, size, align_corners))
        ours.append(label_map_ms)
        theirs.append(torch_ms)
    num_different = int((labels != reference).sum())
    return Comparison(tuple(theirs[1:]), tuple(ours[1:]), num_different, labels.size, torch.get_num_threads())


def example_scores(
    kind: Kind, *, num_classes: int = 19, size: tuple[int, int] = (48, 96), seed: int = 0
) -> NDArray[np.float32]:
    """Made-up scores, K x h x w float32, the same for the same seed.

    `regions` are like a trained network's on a street: large regions, borders in one cell of five or six. `blobs` are
    smooth noise with borders in half of the cells. `noise` is white, the worst case: every cell has several classes.

    Raises:
        LpsnetError: no kind has that name.
    """
    if kind not in get_args(Kind):
        raise LpsnetError(unknown_name("kind of scores", kind, get_args(Kind)))
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((num_classes, *size), np.float32)
    if kind == "noise":
        return scores
    blobs = _smooth(scores, _BLOB_DEVIATION if kind == "blobs" else 4 * _BLOB_DEVIATION)
    blobs *= 3 / blobs.std()
    blobs += np.float32(0.1) * rng.standard_normal(blobs.shape, np.float32)
    return blobs


def _smooth(scores: Logits, deviation: float) -> Logits:
    return np.stack([cv2.GaussianBlur(plane, (0, 0), deviation) for plane in scores])


def _torch_label_map(scores: Logits, size: tuple[int, int], align_corners: bool) -> Labels:
    batch = torch.from_numpy(scores)[None]
    resized = torch.nn.functional.interpolate(batch, size, mode="bilinear", align_corners=align_corners)
    labels: Labels = resized.argmax(1)[0].numpy()
    return labels


def _timed(function: Callable[[], Labels]) -> tuple[Labels, float]:
    start = time.perf_counter()
    labels = function()
    return labels, 1e3 * (time.perf_counter() - start)


REPEATS: dict[Scale, int] = {"small": 9, "paper": 25}
KINDS: tuple[Kind, ...] = get_args(Kind)


def plan(settings: Settings, known: Known) -> list[Run]:
    """A run for each kind of scores, and with a model for its scores of each image."""
    size, repeats = settings.size or PAPER_SIZE, REPEATS[settings.scale]
    files = model_files(settings.models)
    if bool(files) != bool(settings.pictures) or len(files) > 1:
        raise RunError("study label-map takes real scores from one model, --models FILE, and images, --image FILE")

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


def _scores(file: Path, image: str, size: tuple[int, int]) -> Logits:
    return Segmenter(file, input_size=size).scores(read_image(Path(image)))


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
