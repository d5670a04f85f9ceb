"""The time from logits to the label map, beside torch's way: interpolate to the image's size, then argmax.

Not in the paper, which leaves this step out of its latency.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.architecture import get_architecture, logits_size
from lpsnet.benchmark.timing import measuring_alone
from lpsnet.data.images import read_image
from lpsnet.errors import LpsnetError, RunError, unknown_name
from lpsnet.inference.label_map import Logits, label_map
from lpsnet.inference.segmenter import Segmenter
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import PAPER_SIZE, fingerprint, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Scale, Settings, Study

Labels = NDArray[np.uint8]
Kind = Literal["regions", "blobs", "noise"]

_BLOB_DEVIATION = 2.0  # of the Gaussian that smooths the blobs, in cells: about half of them contain a border
REPEATS: dict[Scale, int] = {"small": 9, "paper": 25}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Times of both ways on the same logits, measured interleaved.

    Attributes:
        torch_ms, label_map_ms: one time per repetition.
        num_different: pixels that differ; torch computes in float32 and errs at ties as well.
        num_pixels: of the label map.
        torch_threads: of both; without its compiled loops `label_map` uses one.
    """

    torch_ms: tuple[float, ...]
    label_map_ms: tuple[float, ...]
    num_different: int
    num_pixels: int
    torch_threads: int

    @property
    def median_torch_ms(self) -> float:
        return statistics.median(self.torch_ms)

    @property
    def median_label_map_ms(self) -> float:
        return statistics.median(self.label_map_ms)

    @property
    def ratio(self) -> float:
        """Torch's median time over that of `label_map`."""
        return self.median_torch_ms / self.median_label_map_ms


def compare(
    logits: Logits, size: tuple[int, int] = (1024, 2048), *, align_corners: bool = True, repeats: int = 9
) -> Comparison:
    """Time `label_map` and torch, interleaved (A B A B …), after one round that is not counted.

    Args:
        logits: K x h x w float32.
        size: (H, W) of the label map in pixels.
        align_corners: the resize convention, as in `label_map`.
        repeats: counted repetitions, at least 1.

    Raises:
        LpsnetError: no repetitions, or logits or a size that `label_map` refuses.
    """
    if repeats < 1:
        raise LpsnetError(f"a comparison needs at least 1 repeat; got {repeats}")
    num_threads, times = torch.get_num_threads(), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        labels = label_map(logits, size, align_corners=align_corners, num_threads=num_threads)
        middle = time.perf_counter()
        reference = _torch_label_map(logits, size, align_corners)
        times.append((1e3 * (time.perf_counter() - middle), 1e3 * (middle - start)))
    torch_ms, label_map_ms = zip(*times[1:], strict=True)
    return Comparison(torch_ms, label_map_ms, int((labels != reference).sum()), labels.size, num_threads)


def example_scores(
    kind: Kind, *, num_classes: int = 19, size: tuple[int, int] = (48, 96), seed: int = 0
) -> NDArray[np.float32]:
    """Synthetic logits, K x h x w float32, the same for the same seed.

    `regions` resemble a trained network's on a street: large regions, borders in one cell of five or six. `blobs` are
    smooth noise with borders in half of the cells. `noise` is white, the worst case: every cell has several classes.

    Raises:
        LpsnetError: there is no such kind.
    """
    if kind not in get_args(Kind):
        raise LpsnetError(unknown_name("kind of logits", kind, get_args(Kind)))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_classes, *size), np.float32)
    if kind == "noise":
        return noise
    deviation = _BLOB_DEVIATION if kind == "blobs" else 4 * _BLOB_DEVIATION
    blobs = np.stack([cv2.GaussianBlur(channel, (0, 0), deviation) for channel in noise])
    blobs *= 3 / blobs.std()
    blobs += np.float32(0.1) * rng.standard_normal(blobs.shape, np.float32)
    return blobs


def _torch_label_map(logits: Logits, size: tuple[int, int], align_corners: bool) -> Labels:
    batch = torch.from_numpy(logits)[None]
    resized = torch.nn.functional.interpolate(batch, size, mode="bilinear", align_corners=align_corners)
    labels: Labels = resized.argmax(1)[0].numpy()
    return labels


def plan(settings: Settings, known: Known) -> list[Run]:
    """A run for each kind of synthetic logits, and for the logits of a model on each image."""
    size, repeats = settings.size or PAPER_SIZE, REPEATS[settings.scale]
    files = model_files(settings.models)
    if bool(files) != bool(settings.pictures) or len(files) > 1:
        raise RunError("study label-map takes real logits from one model, --models FILE, and images, --picture FILE")

    def run(kind: str, make: Callable[[], Logits], *of: Json) -> Run:
        def work(place: Place) -> dict[str, Json]:
            place.on_progress(f"logits like {kind}", 0.0)
            with measuring_alone():
                found = compare(make(), size, repeats=repeats)
            return asdict(found)

        return Run({"labelled": kind, "of": list(of), "size": list(size), "repeats": repeats}, work, seconds=10.0)

    made_size = logits_size(size, get_architecture("lpsnet_s"))
    made_up = [run(kind, partial(example_scores, kind, size=made_size)) for kind in get_args(Kind)]
    real = [
        run(f"{file.name} on {Path(name).name}", partial(_logits, file, name, size), fingerprint(file), name)
        for file in files
        for name in settings.pictures
    ]
    return [*real, *made_up]


def _logits(file: Path, image: str, size: tuple[int, int]) -> Logits:
    return Segmenter(file, input_size=size).logits(read_image(Path(image)))


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for each kind of logits."""
    rows = [_row(outcome) for outcome in outcomes]
    findings = tuple(
        f"Logits like {row['scores']}: torch takes {row['ratio']:.1f} times as long; {row['num_different']} pixels of "
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
        **{name: result[name] for name in ("num_different", "num_pixels", "torch_threads")},
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
    title="From logits to labels",
    reference="Not in the paper, which leaves this step out of its latency.",
    differences=(
        "Synthetic logits for LPS-Net-S and 19 classes, besides a model's; torch upsamples and takes the argmax.",
    ),
    plan=plan,
    report=report,
    options=frozenset({"size", "models", "pictures"}),
)
