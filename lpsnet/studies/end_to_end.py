"""The time a user waits, from a decoded image to its label map, beside that of the network alone.

The paper times the network up to its scores (design-notes, 'What is timed'). Before them an image is normalised and
resized, after them scores are brought to its size and the best class is taken. Here all is measured in turn, in one
run, for every engine asked for:

- `network`: the engine alone, from the normalised image to the scores; the image is resized for the paths inside;
- `network_by_path`: the same from the paths' inputs, resized before; None where engine or file does not allow it;
- `fast`: a `Segmenter`, from the image's bytes to its label map;
- `naive`: what is usually done: NumPy normalises, the engine scores, torch upsamples the scores and takes the argmax.

The time a user waits beside that of the network alone, as a study; not a figure of the paper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, interpolate, pad

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.timing import PROTOCOLS, Comparison, Latency, TimingProtocol, compare, measure
from lpsnet.data.images import Image, read_image
from lpsnet.errors import ModelFileError
from lpsnet.inference.engines import Precision, SessionOptions, open_session
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord
from lpsnet.report.figures import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import PAPER_SIZE, fingerprint, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study

Labels = NDArray[np.uint8]
Segment = Callable[[Image], Labels]


class Engine(NamedTuple):
    """What computes the network: a name in `RUNTIMES`, and the arithmetic to ask for."""

    runtime: str
    precision: Precision = "f32"

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """What was measured with one engine; all latencies were taken in turn and may be compared.

    Attributes:
        engine: what was asked for.
        protocol: how the segmenter makes label maps, see `Segmenter.protocol`.
        network, network_by_path, fast, naive: see above.
        agreement: pixels that have the same label in the fast and the naive way, in percent.
    """

    engine: Engine
    protocol: dict[str, Any]
    network: Latency
    network_by_path: Latency | None
    fast: Latency
    naive: Latency
    agreement: float

    @property
    def bare(self) -> Latency:
        """The network alone, the faster of the two ways to feed it."""
        both = [self.network, *([self.network_by_path] if self.network_by_path else [])]
        return min(both, key=lambda latency: latency.median_ms)

    @property
    def overhead(self) -> Comparison:
        """The fast way through, as a multiple of the bare network."""
        return compare(self.fast, self.bare)

    @property
    def naive_overhead(self) -> Comparison:
        """The naive way, as a multiple of the bare network."""
        return compare(self.naive, self.bare)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the samples."""
        latencies = {
            "network": self.network,
            "network_by_path": self.network_by_path,
            "fast": self.fast,
            "naive": self.naive,
        }
        return {
            **{
                name: None if latency is None else latency.to_dict(samples=False) for name, latency in latencies.items()
            },
            "runtime": self.engine.runtime,
            "precision": self.engine.precision,
            "segmenter": self.protocol,
            "bare_is": "network" if self.bare is self.network else "network_by_path",
            "overhead": self.overhead.to_dict(),
            "naive_overhead": self.naive_overhead.to_dict(),
            "agreement_percent": self.agreement,
        }


def measure_end_to_end(
    model: str | Path,
    image: Image,
    *,
    engines: Sequence[Engine] = (Engine("onnxruntime"),),
    num_threads: int | None = None,
    input_size: tuple[int, int] | None = None,
    protocol: TimingProtocol = PROTOCOLS["quick"],
    progress: Callable[[float], None] | None = None,
) -> list[EndToEnd]:
    """Time all ways with all engines in turn, in one run.

    Args:
        model: a model file or a bundled model's name.
        image: H x W x 3 uint8 RGB.
        engines: what to compute the network with.
        num_threads: threads of every engine, of OpenCV and of torch; None leaves the choice to them.
        input_size: (height, width) the network runs at; None for the record's, or else the image's.
        protocol: how long.
        progress: told the part of the time that has passed, 0 to 1.

    Returns:
        What was measured, an item for each engine.

    Raises:
        ModelFileError: the file is not usable with an engine.
    """
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        ways = [_Ways(str(model), image, engine, num_threads, input_size) for engine in engines]
        calls = {f"{way.engine} {name}": call for way in ways for name, call in way.calls.items()}
        latencies = measure(calls, protocol=protocol, progress=progress)
        return [way.result(latencies) for way in ways]
    finally:
        torch.set_num_threads(before)


class _Ways:
    """The calls to time with one engine."""

    def __init__(
        self, model: str, image: Image, engine: Engine, num_threads: int | None, size: tuple[int, int] | None
    ) -> None:
        asked: dict[str, Any] = {"runtime": engine.runtime, "precision": engine.precision, "num_threads": num_threads}
        self.engine = engine
        self._image = image
        self._fast = Segmenter(model, input_size=size, **asked)
        plain = Segmenter(model, input_size=size, path_inputs=False, **asked)
        self._naive = naive_segmenter(plain.session.run, plain.record, input_size=plain.input_size)
        whole = plain.prepare(image)
        self.calls: dict[str, Callable[[], object]] = {
            "network": lambda: plain.session.run(whole),
            "fast": lambda: self._fast(image),
            "naive": lambda: self._naive(image),
        }
        if self._fast.path_inputs:
            inputs = self._fast.inputs(image)
            self.calls["network_by_path"] = lambda: self._fast.session.run(*inputs)

    def result(self, latencies: dict[str, Latency]) -> EndToEnd:
        own = {name: latencies[f"{self.engine} {name}"] for name in self.calls}
        return EndToEnd(
            engine=self.engine,
            protocol=self._fast.protocol,
            network=own["network"],
            network_by_path=own.get("network_by_path"),
            fast=own["fast"],
            naive=own["naive"],
            agreement=100 * float((self._fast(self._image) == self._naive(self._image)).mean()),
        )


def reference_segmenter(network: Network, record: ModelRecord, *, input_size: tuple[int, int] | None = None) -> Segment:
    """What every label map is measured by: the network in torch, fed and read in the naive way, all in float32.

    Args:
        network: in evaluation mode, on the CPU.
        record, input_size: as for `naive_segmenter`.
    """

    def score(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            scores: NDArray[np.float32] = network(torch.from_numpy(image)).numpy()
        return scores

    return naive_segmenter(score, record, input_size=input_size)


def naive_segmenter(
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    record: ModelRecord,
    *,
    input_size: tuple[int, int] | None = None,
) -> Segment:
    """The usual way from H x W x 3 uint8 RGB to H x W labels: NumPy normalises, torch resizes image and scores.

    Args:
        score: 1 x 3 x h x w float32, normalised, to 1 x K x h' x w' scores.
        record: of the network; says how images are normalised and resized.
        input_size: (h, w); None for the record's, or else the image's own.
    """
    size = input_size or record.input_size
    mean, std = (np.array(values, np.float32) for values in (record.normalisation.mean, record.normalisation.std))

    def segment(image: Image) -> Labels:
        normalised = (image.astype(np.float32) / 255 - mean) / std
        planes = torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))[None]
        planes = _shrink_or_enlarge(planes, size or planes.shape[2:], align_corners=record.align_corners)
        scores = torch.from_numpy(score(planes.numpy()))
        upsampled = interpolate(scores, image.shape[:2], mode="bilinear", align_corners=record.align_corners)
        labels: Labels = upsampled.argmax(1)[0].to(torch.uint8).numpy()
        return labels

    return segment


def _shrink_or_enlarge(planes: torch.Tensor, size: Sequence[int], *, align_corners: bool) -> torch.Tensor:
    """1 x 3 x H x W at another size, averaged before where it is halved or more, as `preparation` explains."""
    if tuple(planes.shape[2:]) == tuple(size):
        return planes
    height, width = (source // target // 2 * 2 + 1 for source, target in zip(planes.shape[2:], size, strict=True))
    around = (width // 2, width // 2, height // 2, height // 2)
    averaged = avg_pool2d(pad(planes, around, mode="reflect"), (height, width), stride=1)
    return interpolate(averaged, tuple(size), mode="bilinear", align_corners=align_corners)


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
            _image(settings, size),
            engines=_engines(settings, files[0]),
            input_size=size,
            num_threads=settings.num_threads,
            protocol=PROTOCOLS["quick" if settings.scale == "small" else "paper"],
            progress=lambda part: place.progress("measuring all ways in turn", part),
        )
    return {"ways": [each.to_dict() for each in found]}


def _image(settings: Settings, size: tuple[int, int]) -> Image:
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
    axes.set_ylabel("ms from the image's bytes to its label map")
    axes.legend(frameon=False, fontsize="small")


STUDY = Study(
    name="end-to-end",
    title="From an image's bytes to its label map",
    reference="Not in the paper, which times the network up to its scores.",
    differences=("LPS-Net-S with random weights and a generated scene, unless a file and an image were given.",),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "models", "pictures"}),
)
