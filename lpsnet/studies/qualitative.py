"""Figure 8: label maps of S, M and L side by side, with boxes where a larger network corrects the smallest.

The networks are the user's files (`--models`, named after the networks), or are trained as in the study `expansion`;
its trainings are reused if both studies share a folder.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.architecture import get_architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.data.images import read_image, write_png
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import Sample, Split, select
from lpsnet.errors import RunError, unknown_name
from lpsnet.inference.result import colourise
from lpsnet.inference.segmenter import Segmenter
from lpsnet.studies.comparison import OURS
from lpsnet.studies.network_latency import StudyNetwork, fingerprint, model_files
from lpsnet.studies.network_training import data_of, describe_training, schedule_of, training_runs
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study, of_kind

Labels = NDArray[np.uint8]  # H x W class ids, 255 for no label
Box = tuple[int, int, int, int]  # top, left, height, width in pixels

NUM_BOXES = 3
MIN_SHARE = 5e-4  # of the image; smaller regions are not shown
MARGIN = 2  # pixels around a box
NUM_SHOWN = 3  # images, as in Figure 8
NUM_LOOKED_AT = 60  # images of val that they are chosen from
NETWORKS = {name: StudyNetwork(title, get_architecture(name)) for title, name in OURS.items()}
SMALLEST, LARGEST = next(iter(NETWORKS)), list(NETWORKS)[-1]


def corrected_regions(before: Labels, after: Labels, truth: Labels) -> list[Box]:
    """Boxes around the largest connected regions that `after` has right and `before` wrong, largest first.

    All maps are H x W uint8 class ids, 255 for no label.
    """
    found = _regions(before, after, truth)
    large = [region for region in found if region[0] >= MIN_SHARE * truth.size]
    return [_widened(box, truth.shape) for _, box in large[:NUM_BOXES]]


def largest_gain(before: Labels, after: Labels, truth: Labels) -> int:
    """Pixels of the largest region that `after` has right and `before` wrong; 0 without any."""
    found = _regions(before, after, truth)
    return found[0][0] if found else 0


def accuracy(labels: Labels, truth: Labels) -> float:
    """Correct share of the labelled pixels in percent; 0 if none is labelled."""
    known = truth != IGNORE_INDEX
    return 100 * float((labels == truth)[known].mean()) if known.any() else 0.0


def _regions(before: Labels, after: Labels, truth: Labels) -> list[tuple[int, Box]]:
    """(pixels, box) of all regions that `after` has right and `before` wrong, largest first."""
    better = (after == truth) & (before != truth) & (truth != IGNORE_INDEX)
    count, _, stats, _ = cv2.connectedComponentsWithStats(better.astype(np.uint8), connectivity=8)
    boxes = [tuple(map(int, stats[number])) for number in range(1, count)]  # 0 is everything else
    regions = [(area, (top, left, height, width)) for left, top, width, height, area in boxes]
    return sorted(regions, key=lambda region: -region[0])


def _widened(box: Box, shape: tuple[int, ...]) -> Box:
    top, left, height, width = box
    first_row, first_column = max(0, top - MARGIN), max(0, left - MARGIN)
    end_row, end_column = min(shape[0], top + height + MARGIN), min(shape[1], left + width + MARGIN)
    return first_row, first_column, end_row - first_row, end_column - first_column


def plan(settings: Settings, known: Known) -> list[Run]:
    """Trainings, unless files are given; then the images."""
    data = data_of(settings)
    if settings.models is not None:
        files = _named_files(settings.models)
        return [_image_run(data, settings, files, [fingerprint(file) for file in files.values()])]
    schedule = schedule_of(settings, data)
    runs = training_runs([schedule.training(network) for network in NETWORKS.values()], known, settings.num_threads)
    trained = runs[-len(NETWORKS) :]
    folders = {name: run.slug for name, run in zip(NETWORKS, trained, strict=True)}
    return [*runs, _image_run(data, settings, folders, [run.key for run in trained])]


def _named_files(models: Path) -> dict[str, Path]:
    """The files of S, M and L, recognised by the start of their names."""
    files = model_files(models)
    found = {name: [file for file in files if file.stem.startswith(name)] for name in NETWORKS}
    if missing := [name for name, own in found.items() if not own]:
        raise RunError(
            f"no model file in {models} has a name that begins with {missing[0]}; this study shows all three"
        )
    return {name: own[0] for name, own in found.items()}


def _image_run(data: str, settings: Settings, models: Mapping[str, str | Path], key: Json) -> Run:
    """A run that segments images; `models` are files, or names of the trainings' folders."""

    def work(place: Place) -> dict[str, Json]:
        files = {
            name: model if isinstance(model, Path) else place.folder.parent / model / "model.safetensors"
            for name, model in models.items()
        }
        segmenters = {name: Segmenter(file, num_threads=settings.num_threads) for name, file in files.items()}
        split = open_dataset(data).split("val")
        return _segment(segmenters, split, settings.pictures, place)

    return Run({"shown": list(settings.pictures), "data": data, "models": key}, work, portable=True, seconds=60.0)


def _segment(segmenters: Mapping[str, Segmenter], split: Split, names: Sequence[str], place: Place) -> dict[str, Json]:
    indices = [_index(split, name) for name in names] or _choose(segmenters, split, place)
    place.folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number, index in enumerate(indices):
        sample = split[index]
        labels = {name: segmenter(sample.image) for name, segmenter in segmenters.items()}
        maps = {"truth": sample.labels, **labels}
        panels = {"picture": sample.image, **{name: colourise(own, split.label_space) for name, own in maps.items()}}
        for name, panel in panels.items():
            write_png(place.folder / f"{number}_{name}.png", panel)
        images.append(_figures(sample, labels))
    return {"pictures": images, "chosen": not names}


def _figures(sample: Sample, labels: Mapping[str, NDArray[np.uint8]]) -> dict[str, Json]:
    smallest, truth = labels[SMALLEST], sample.labels
    return {
        "name": sample.name,
        "aspect": truth.shape[0] / truth.shape[1],
        "accuracy": {name: accuracy(own, truth) for name, own in labels.items()},
        "regions": {name: corrected_regions(smallest, labels[name], truth) for name in labels if name != SMALLEST},
    }


def _index(split: Split, name: str) -> int:
    if name not in split.names:
        raise RunError(f"{unknown_name('image', name, split.names)}, in split {split.name!r}")
    return list(split.names).index(name)


def _choose(segmenters: Mapping[str, Segmenter], split: Split, place: Place) -> list[int]:
    """Images on which the largest network corrects the largest regions of the smallest network."""
    some = select(split, NUM_LOOKED_AT)
    gains = []
    for number in range(len(some)):
        place.on_progress("choosing images", number / len(some))
        image, truth = some.image(number), some.labels(number)
        gains.append(largest_gain(segmenters[SMALLEST](image), segmenters[LARGEST](image), truth))
    best = sorted(range(len(some)), key=lambda number: -gains[number])[:NUM_SHOWN]
    return [_index(split, some.names[number]) for number in sorted(best)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for every image."""
    (shown,), trained = of_kind(outcomes, "shown"), of_kind(outcomes, "trained")
    images = shown.result["pictures"]
    rows: list[Row] = [
        {
            "picture": image["name"],
            **{f"{name}_accuracy": image["accuracy"][name] for name in NETWORKS},
            **{f"{name}_boxes": len(boxes) for name, boxes in image["regions"].items()},
        }
        for image in images
    ]
    choice = (
        f"The images are those of up to {NUM_LOOKED_AT} of val, spread evenly, on which L corrects the largest "
        "region of S: a choice in favour of L. The paper does not say how it chose its own."
    )
    differences = [choice] if shown.result["chosen"] else []
    differences += [describe_training(each.key["trained"]) for each in trained[:1]]
    height = 13.0 / (2 + len(NETWORKS)) * images[0]["aspect"] if images else 0.0
    size = (13.0, 0.6 + len(images) * height)
    draw = partial(_draw, images, shown.folder)
    return Report(tuple(rows), tuple(map(_finding, rows)), draw, size, tuple(differences))


def _finding(row: Row) -> str:
    each = ", ".join(f"{NETWORKS[name].name} {row[f'{name}_accuracy']:.1f} %" for name in NETWORKS)
    return f"{row['picture']}: pixels right {each}."


def _draw(images: Sequence[Mapping[str, Json]], folder: Path, figure: Any) -> None:
    titles = {"picture": "image", "truth": "ground truth", **{name: n.name for name, n in NETWORKS.items()}}
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    for number, (image, row) in enumerate(zip(images, grid, strict=True)):
        for (name, title), axes in zip(titles.items(), row, strict=True):
            axes.imshow(read_image(folder / f"{number}_{name}.png"))
            axes.set_axis_off()
            axes.autoscale(enable=False)  # boxes at the border must not enlarge the axes
            if number == 0:
                axes.set_title(title, fontsize="small")
            for top, left, height, width in image["regions"].get(name, []):
                _box(axes, top, left, height, width)


def _box(axes: Any, top: int, left: int, height: int, width: int) -> None:
    x, y = [left, left + width, left + width, left, left], [top, top, top + height, top + height, top]
    for colour, linewidth in (("white", 2.4), ("red", 1.2)):  # to be seen on red labels too
        axes.plot(x, y, "-", color=colour, linewidth=linewidth)


STUDY = Study(
    name="qualitative",
    title="What S, M and L see",
    reference="The paper's Figure 8: three images of Cityscapes on which the larger networks see poles, cars and "
    "walls that the smaller ones miss.",
    differences=("Boxes are drawn by rule: around the largest regions where S is wrong and the larger network right.",),
    plan=plan,
    report=report,
    options=frozenset({"data", "epochs", "num_threads", "models", "pictures"}),
)
