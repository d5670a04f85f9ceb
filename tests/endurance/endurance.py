"""Hours of work with flat memory and file handles: the same again and again, and what the process holds meanwhile.

    python tests/endurance/endurance.py segment --minutes 60
    python tests/endurance/endurance.py train --minutes 60

A line a minute: rounds done, resident memory in MiB, open file handles, threads. At the end the second half is compared
with the first, after a warm-up of a tenth. Exit code 1 if memory grew by more than `--tolerance-mib`, or handles or
threads at all. Linux only (it reads /proc).
"""

import argparse
import gc
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Held(NamedTuple):
    """What the process holds."""

    resident_mib: float
    handles: int
    threads: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return cls(mib, _count("/proc/self/fd"), _count("/proc/self/task"))


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def growth(samples: list[Held]) -> Held:
    """How much more was held in the second half than in the first, the first tenth left out; medians."""
    kept = samples[len(samples) // 10 :]
    halves = kept[: len(kept) // 2], kept[len(kept) // 2 :]
    first, second = (Held(*(statistics.median(values) for values in zip(*half, strict=True))) for half in halves)
    return Held(*(later - earlier for earlier, later in zip(first, second, strict=True)))


def segmenting(folder: Path) -> Iterator[None]:
    """Images of a stream, in three sizes, segmented and written over and over."""
    from lpsnet.data.images import write_png
    from lpsnet.export.export import export
    from lpsnet.inference.outputs import DEFAULT_OUTPUTS, Style
    from lpsnet.inference.pipeline import find_sources, segment_images
    from lpsnet.inference.segmenter import Segmenter
    from lpsnet.models.checkpoint import default_record
    from lpsnet.models.network import create_model
    from lpsnet.models.reparameterise import fuse

    net = create_model("tiny", num_classes=5)
    export(net, folder / "model.onnx", to="onnx", record=default_record(fuse(net)))
    for number, size in enumerate(((64, 96), (120, 160), (90, 50))):
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        write_png(folder / "photos" / f"{number}.png", noise)
    segmenter = Segmenter(folder / "model.onnx", num_threads=1)
    media, style = find_sources([str(folder / "photos")]), Style(segmenter.label_space)
    while True:
        list(segment_images(segmenter, media, folder / "out", outputs=DEFAULT_OUTPUTS, style=style))
        yield


def training(folder: Path) -> Iterator[None]:
    """One training after another, each with its evaluation and checkpoints."""
    from lpsnet.architecture import Architecture
    from lpsnet.training.config import get_recipe
    from lpsnet.training.run import TrainingRun
    from lpsnet.training.segmentation import train

    settings = {"iterations": 12, "batch_size": 2, "crop_size": (48, 64), "num_workers": 2, "precision": "f32"}
    recipe = get_recipe("demo").with_overrides(settings)
    architecture = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))
    run = TrainingRun(data="scenes:size=48x64,num_train=6,num_val=2", architecture=architecture, recipe=recipe)
    for number in itertools.count():
        train(run, folder / str(number % 3), resume=number % 3 == 0 and number > 0, tensorboard=False)
        for path in (folder / str((number + 1) % 3)).glob("*"):
            path.unlink()
        yield


WORK = {"segment": segmenting, "train": training}


def sampled(work: Iterator[None], *, rounds: int) -> list[Held]:
    """What is held after each of `rounds` rounds."""
    return [Held.now() for _ in zip(range(rounds), work, strict=False)]


def main() -> int:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--tolerance-mib", type=float, default=16)
    arguments = parser.parse_args()
    samples, begun, reported = [], time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for rounds, _ in enumerate(WORK[arguments.work](Path(folder)), start=1):
            samples.append(Held.now())
            minutes = (time.monotonic() - begun) / 60
            if minutes >= reported:
                print(f"{minutes:6.1f} min  {rounds} rounds  {samples[-1]}", flush=True)
                reported += 1
            if minutes >= arguments.minutes:
                break
    grown = growth(samples)
    print(f"after {len(samples)} rounds: second half against first: {grown}")
    return int(grown.resident_mib > arguments.tolerance_mib or grown.handles > 0 or grown.threads > 0)


if __name__ == "__main__":
    sys.exit(main())
