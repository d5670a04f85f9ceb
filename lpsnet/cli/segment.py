"""`lpsnet segment`: a model on images, videos and cameras."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

from lpsnet import agent
from lpsnet.cli import output
from lpsnet.data.channels import require_rgb
from lpsnet.errors import DataError, LpsnetError, postponed_end
from lpsnet.inference import outputs, pipeline, windows
from lpsnet.inference.hub import DEFAULT_MODEL
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.video import camera_stream, video_stream

_PACE = ("num_frames", "duration_s", "frames_per_second", "frames_per_second_without_drawing")  # in JSON


@dataclass
class Work:
    """What one `lpsnet segment` does: the settings of all its sources, and what became of each."""

    segmenter: "Segmenter"
    read: pipeline.Reader
    out: Path
    names: Sequence[str]
    style: outputs.Style
    annotations: outputs.Annotations
    cut: windows.Windows | None
    stop: threading.Event
    num_workers: int
    max_frames: int | None
    json_to: str | None
    outcomes: "list[pipeline.ImageOutcome]" = field(default_factory=list)
    streams: "list[pipeline.StreamOutcome]" = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)

    def images(self, sources: Sequence[pipeline.Source]) -> None:
        """Segment images, until they are done or asked to stop; what was done is annotated."""
        if not sources:
            return
        self._segment(sources)
        self.folders, remarks = self.annotations.write()
        for remark in remarks:
            output.say(f"note: {remark}", json_to=self.json_to)

    def _segment(self, sources: Sequence[pipeline.Source]) -> None:
        settings: dict[str, Any] = {"outputs": self.names, "style": self.style, "annotations": self.annotations}
        settings |= {"windows": self.cut, "stop": self.stop, "read": self.read, "num_workers": self.num_workers}
        with output.image_progress("segmenting") as update:
            for outcome in pipeline.segment_images(self.segmenter, sources, self.out, **settings):
                self.outcomes.append(outcome)
                self._problem("left out", outcome.problem)
                if outcome.note:
                    output.say(f"note: {outcome.note}", json_to=self.json_to)
                update(len(self.outcomes), len(sources))
                if self.stop.is_set():
                    return

    def stream(self, source: pipeline.Source) -> None:
        """Segment a video or camera; one that cannot be read does not stop the others."""
        segment, cut = self.segmenter, self.cut
        try:
            stream = camera_stream(int(str(source.path))) if source.kind == "camera" else video_stream(source.path)
            with frame_progress(source.path.name, self.max_frames or stream.info.num_frames) as show:
                outcome = pipeline.segment_stream(
                    segment if cut is None else lambda image: segment.windows(image, cut.size, cut.overlap),
                    stream,
                    self.out / source.stem,
                    outputs=self.names,
                    style=self.style,
                    stop=self.stop,
                    max_frames=self.max_frames,
                    on_progress=show,
                )
        except DataError as error:
            self._problem("left out", str(error))
            return
        self.streams.append(outcome)
        self._problem("cut short", outcome.problem)
        output.say(describe(outcome), json_to=self.json_to)

    def _problem(self, what: str, problem: str) -> None:
        if problem:
            self.problems.append(problem)
            output.say(f"{what}: {problem}", json_to="-")

    def unfinished(self, num_sources: int) -> bool:
        """Whether Ctrl-C kept something from being done."""
        done = len(self.outcomes) + sum(stream.whole or bool(stream.problem) for stream in self.streams)
        return self.stop.is_set() and done < num_sources

    def written(self) -> str:
        """What is there now, in words."""
        num_images = sum(not outcome.problem for outcome in self.outcomes)
        counts = {"image": num_images, "video": len(self.streams)}
        plural = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items() if count]
        parts = [f"{', '.join(self.names)} of {text}" for text in plural]
        return " and ".join(parts) or "nothing"

    def report(self) -> dict[str, Any]:
        """The same for machines."""
        missing = dict.fromkeys(name for name in self.names if name in outputs.OUTPUTS)
        pictures = [_described(one, missing) for one in self.outcomes]
        videos = [_described(one, {}) for one in self.streams]
        folders = {name: str(folder) for name, folder in self.folders.items()}
        return {"pictures": pictures, "videos": videos, "annotations": folders, "problems": self.problems}


def _described(one: pipeline.ImageOutcome | pipeline.StreamOutcome, missing: dict[str, None]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if isinstance(one, pipeline.StreamOutcome):
        figures = {**{key: getattr(one.pace, key) for key in _PACE}, "whole": one.whole}
    files = {name: str(path) for name, path in one.files.items()}
    return {"source": str(one.source), **missing, **files, **figures, "problem": one.problem or None}


def describe(outcome: "pipeline.StreamOutcome") -> str:
    """A line on a segmented stream: how many frames, how fast, and where the time went."""
    pace, name = outcome.pace, Path(outcome.source).name
    work = {"decoding": pace.decoding_s, "network": pace.network_s, "drawing": pace.drawing_s}
    each = ", ".join(f"{what} {1000 * seconds / pace.num_frames:.1f}" for what, seconds in work.items())
    part = "" if outcome.whole else "; stopped, so these are named `part`"
    return f"{name}: {pace.num_frames} frames in {pace.duration_s:.1f} s, {speeds(pace)}; ms a frame: {each}{part}"


def speeds(pace: "pipeline.Pace") -> str:
    """Frames a second with and without drawing, in words."""
    without = pace.frames_per_second_without_drawing
    return f"{pace.frames_per_second:.1f} frames/s (about {without:.1f} without drawing)"


@contextmanager
def frame_progress(name: str, total: int | None) -> Iterator["Callable[[pipeline.Pace], None]"]:
    """A bar on standard error, if it is a terminal; call the value with the pace after every frame."""
    columns = (MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with output.progress(name, *columns, total=total, speed="") as update:
        yield lambda pace: update(completed=pace.num_frames, speed=speeds(pace))


_OUTPUTS = (
    f"{', '.join(outputs.OUTPUTS)} as images, {', '.join(outputs.FORMATS)} as annotations; several with commas between "
    f"them, or by several options. Default: {' and '.join(outputs.DEFAULT_OUTPUTS)}"
)
MAX_WORKERS = 8  # images in memory at the same time
STOPPED = 130  # exit code after Ctrl-C, as shells have it


def _parse_windows(window: str | None, overlap: int | None) -> windows.Windows | None:
    size = output.parse_size(window)
    if size is None and overlap is not None:
        raise LpsnetError("--overlap is that of windows; give their size too, --window HxW")
    return None if size is None else windows.Windows.of(size, overlap)


def _workers_and_threads(
    sources: Sequence[pipeline.Source], threads: int | None, cut: windows.Windows | None
) -> tuple[int, int | None]:
    """How many images are segmented at the same time, and the threads of the network for each.

    Several images with a thread each are done sooner than one after the other with all threads: reading, drawing and
    writing are not parallel, and neither is all of a network. Videos have a pipeline of their own, windows the memory
    of one image.
    """
    cores = len(agent.affinity())
    if len(sources) < 2 or cut is not None or any(source.kind != "image" for source in sources):
        return 1, threads
    workers = min(cores // (threads or 1), len(sources), MAX_WORKERS)
    return max(1, workers), threads or max(1, cores // max(1, workers))


def segment(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Images, videos, folders, globs, or a camera's number.")
    ],
    model: output.ModelOption = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("segmented"),
    write: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help=f"What to write: {_OUTPUTS}."),
    ] = None,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the colours over the image.")] = 0.55,
    legend: Annotated[bool, typer.Option("--legend", help="A legend below, which makes images higher.")] = False,
    tolerance: Annotated[
        float,
        typer.Option(metavar="PX", help="How far an outline in annotations may be from its pixels; 0 is exact."),
    ] = outputs.DEFAULT_TOLERANCE,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace annotations of an earlier run, even if they were corrected.")
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Cut images into windows; a large TIFF is read and written in parts."),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(metavar="N", help="Pixels that windows share, blended. Default: 64.")
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Of a video or camera, at most as many.")] = None,
    extra_images: output.ExtraImagesOption = None,
    runtime: output.RuntimeOption = None,
    precision: output.PrecisionOption = "f32",
    threads: output.ThreadsOption = None,
    size: output.SizeOption = None,
    network: output.NetworkOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Segment images, videos and cameras: label maps, and the classes' colours over the image.

    An image gives PNG files, STEM.labels.png and STEM.overlay.png. A video gives H.264 of its own size and frame rate,
    STEM.overlay.mp4, and its label maps without loss, STEM.labels.mkv. Ctrl-C ends it: what was done of a video
    is kept as STEM.overlay.part.mp4; of a camera it is the whole.

    Examples: `lpsnet segment photos/ --model model.onnx --out segmented`

    `lpsnet segment drive.mp4 --write overlay --legend`

    `lpsnet segment 0 --write side-by-side` (the first camera, until Ctrl-C)

    `lpsnet segment map.tif --window 720x960 --overlap 64 --write labels` (of any size)

    `lpsnet segment rgb/ --extra-images depth/ --model rgbd.onnx` (channels in two files for each image)

    `lpsnet segment photos/ --write labelme,confidence` (annotations to correct in labelme; 16-bit STEM.confidence.png)
    """
    names = outputs.check_outputs(write or outputs.DEFAULT_OUTPUTS)
    cut = _parse_windows(window, overlap)
    found = pipeline.find_sources(sources, skip=[out / name for name in outputs.FORMATS])
    if any(source.kind != "image" for source in found):
        outputs.check_video_outputs(names)
    workers, threads = _workers_and_threads(found, threads, cut)
    segmenter = Segmenter(
        model, runtime=runtime, precision=precision, num_threads=threads, input_size=output.parse_size(size)
    )
    channels = segmenter.record.image_channels
    if any(source.kind != "image" for source in found):
        require_rgb(channels, "videos and cameras have frames of RGB of 8 bits")
    read = pipeline.Reader.of(channels, extra_images or [], found)
    found = read.without_extra(found)
    if channels.drawn:
        output.say(f"note: {channels.drawn}", json_to=json_to)
    style = outputs.Style(segmenter.label_space, opacity, legend)
    forms = [name for name in names if name in outputs.FORMATS]
    notes = outputs.Annotations(out, forms, segmenter.label_space, tolerance=tolerance, overwrite=overwrite)
    with postponed_end() as stop, notes:
        work = Work(segmenter, read, out, names, style, notes, cut, stop, workers, max_frames, json_to)
        work.images([source for source in found if source.kind == "image"])
        for source in found:
            if source.kind != "image" and not stop.is_set():
                work.stream(source)
    output.write_json(work.report(), json_to)
    output.say(f"Wrote {work.written()} to {out}/", json_to=json_to)
    output.next_command("lpsnet", "info", model, json_to=json_to)
    if work.unfinished(len(found)):
        output.say("Stopped before everything was done; the same command starts again from the beginning", json_to="-")
        raise typer.Exit(STOPPED)
    if work.problems:
        raise typer.Exit(2)
