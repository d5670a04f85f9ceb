"""How `lpsnet segment` goes through its sources: what is told meanwhile, at the end, and on Ctrl-C."""

import signal
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lpsnet.cli.output import console, picture_progress, say
from lpsnet.errors import DataError
from lpsnet.inference.pipeline import Medium
from lpsnet.inference.visualise import Style

if TYPE_CHECKING:
    from lpsnet.inference.pipeline import Pace, PictureOutcome, StreamOutcome
    from lpsnet.inference.segmenter import Segmenter


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The event is set by Ctrl-C, so that what is being written can be finished; a second Ctrl-C ends at once."""
    stop, before = threading.Event(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:  # as under nohup
        yield stop
        return

    def ask(number: int, frame: types.FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class Work:
    """What one `lpsnet segment` does: the settings of all its sources, and what became of each."""

    segmenter: "Segmenter"
    out: Path
    products: Sequence[str]
    style: Style
    stop: threading.Event
    max_frames: int | None
    json_to: str | None
    outcomes: "list[PictureOutcome]" = field(default_factory=list)
    streams: "list[StreamOutcome]" = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def pictures(self, media: Sequence[Medium]) -> None:
        """Segment pictures, until they are done or asked to stop."""
        from lpsnet.inference.pipeline import segment_pictures

        if not media:
            return
        with picture_progress("segmenting") as update:
            for outcome in segment_pictures(self.segmenter, media, self.out, products=self.products, style=self.style):
                self.outcomes.append(outcome)
                self._problem("left out", outcome.problem)
                update(len(self.outcomes), len(media))
                if self.stop.is_set():
                    return

    def stream(self, medium: Medium) -> None:
        """Segment a video or camera; one that cannot be read does not stop the others."""
        from lpsnet.inference.pipeline import segment_stream
        from lpsnet.inference.video import camera_stream, video_stream

        try:
            stream = camera_stream(int(str(medium.path))) if medium.kind == "camera" else video_stream(medium.path)
            with frame_progress(medium.path.name, self.max_frames or stream.info.num_frames) as show:
                outcome = segment_stream(
                    self.segmenter,
                    stream,
                    self.out / medium.stem,
                    products=self.products,
                    style=self.style,
                    stop=self.stop,
                    max_frames=self.max_frames,
                    progress=show,
                )
        except DataError as error:
            self._problem("left out", str(error))
            return
        self.streams.append(outcome)
        self._problem("cut short", outcome.problem)
        say(describe(outcome), json_to=self.json_to)

    def _problem(self, what: str, problem: str) -> None:
        if problem:
            self.problems.append(problem)
            say(f"{what}: {problem}", json_to="-")

    def unfinished(self, num_media: int) -> bool:
        """Whether Ctrl-C kept something from being done."""
        done = len(self.outcomes) + sum(stream.whole or bool(stream.problem) for stream in self.streams)
        return self.stop.is_set() and done < num_media

    def written(self) -> str:
        """What is there now, in words."""
        num_pictures = sum(not outcome.problem for outcome in self.outcomes)
        counts = {"pictures": num_pictures, "videos": len(self.streams)}
        names = {kind: kind.removesuffix("s") if count == 1 else kind for kind, count in counts.items()}
        parts = [f"{', '.join(self.products)} of {count} {names[kind]}" for kind, count in counts.items() if count]
        return " and ".join(parts) or "nothing"

    def report(self) -> dict[str, Any]:
        """The same for machines."""
        missing = dict.fromkeys(self.products)
        pictures = [
            {"source": str(one.source), **missing, **_texts(one.files), "problem": one.problem or None}
            for one in self.outcomes
        ]
        videos = [
            {
                "source": one.source,
                **_texts(one.files),
                "num_frames": one.pace.num_frames,
                "duration_s": one.pace.duration_s,
                "frames_per_second": one.pace.frames_per_second,
                "frames_per_second_without_drawing": one.pace.frames_per_second_without_drawing,
                "whole": one.whole,
                "problem": one.problem or None,
            }
            for one in self.streams
        ]
        return {"pictures": pictures, "videos": videos, "problems": self.problems}


def _texts(files: dict[str, Path]) -> dict[str, str]:
    return {product: str(path) for product, path in files.items()}


def describe(outcome: "StreamOutcome") -> str:
    """A line on a segmented stream: how many frames, how fast, and where the time went."""
    pace, name = outcome.pace, Path(outcome.source).name
    work = {"decoding": pace.decoding_s, "network": pace.network_s, "drawing": pace.drawing_s}
    each = ", ".join(f"{what} {1000 * seconds / pace.num_frames:.1f}" for what, seconds in work.items())
    part = "" if outcome.whole else "; stopped, so these are named `part`"
    return f"{name}: {pace.num_frames} frames in {pace.duration_s:.1f} s, {speeds(pace)}; ms a frame: {each}{part}"


def speeds(pace: "Pace") -> str:
    """Frames a second with and without drawing, in words."""
    without = pace.frames_per_second_without_drawing
    return f"{pace.frames_per_second:.1f} frames/s (about {without:.1f} without drawing)"


@contextmanager
def frame_progress(name: str, total: int | None) -> Iterator["Callable[[Pace], None]"]:
    """A bar on standard error, if it is a terminal; call the value with the pace after every frame."""
    error = console("-")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    quiet = not error.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=error, transient=True, disable=quiet) as progress:
        task = progress.add_task(name, total=total, speed="")
        yield lambda pace: progress.update(task, completed=pace.num_frames, speed=speeds(pace))
