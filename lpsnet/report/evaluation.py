"""The report of an evaluation: IoU by class, confusion matrix, corruptions, best and worst images, protocol.

Read from the JSON of `lpsnet evaluate --json` or from the last evaluation of a training. It holds no images: they are
read and segmented again with the data and the model it names, and left out where one of the two is missing.
"""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from lpsnet.data.dataset import open_dataset
from lpsnet.data.labels import IGNORE_INDEX, LABEL_SPACES, Colour, LabelSpace
from lpsnet.data.split import Split
from lpsnet.errors import DataError, LpsnetError, MissingDependencyError, ModelFileError
from lpsnet.evaluation.evaluate import Evaluation, Robustness
from lpsnet.evaluation.metrics import confusion_matrix, scores
from lpsnet.evaluation.selection import Selection
from lpsnet.inference.result import Segmentation, overlay
from lpsnet.inference.segmenter import Segmenter
from lpsnet.report import html
from lpsnet.report.charts import draw_confusion

Image = NDArray[np.uint8]

WRONG = (213, 94, 0)  # RGB of pixels that were taken for another class
MAX_WIDTH = 520  # pixels of an image in the page
# Colours in full, or thin wrong pixels would be washed out
_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 88),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
_HALF = ("bf16", "f16")  # arithmetics that are asked for; a quantised file computes in its own
_ENGINE = ("runtime", "precision")  # of a protocol
_SAME = 1.0  # points of mIoU; an image that scores otherwise now is not what was evaluated


class Source(NamedTuple):
    """Where images and predictions come from."""

    data: str  # as `open_dataset` takes it
    split: str  # of the data
    model: str  # a model file, or a bundled model's name
    runtime: str | None = None  # the engine; None for the file's own
    precision: str | None = None  # the arithmetic; None for f32, or what the file is quantised to
    input_size: tuple[int, int] | None = None  # (height, width) that the model runs at; None for its own
    is_averaged: bool = False  # whether scores are those of several views of an image; what is shown is one view's


def show_images(evaluation: Evaluation, source: Source, count: int) -> tuple[html.Gallery | None, str]:
    """The `count` best and the `count` worst images; and, where something is missing for them, what, in a line.

    Args:
        evaluation: which images they are.
        source: of images and predictions.
        count: at least 1.
    """
    try:
        split = open_dataset(source.data).split(source.split)
        if split.label_space.names != evaluation.names:
            raise DataError(f"{source.data} has other classes now than were evaluated")
        precision = source.precision if source.precision in _HALF else "f32"
        segmenter = Segmenter(source.model, runtime=source.runtime, precision=precision, input_size=source.input_size)
        rows = list(_rows(evaluation, split, segmenter, count))
    except ModuleNotFoundError as error:
        return None, _without(MissingDependencyError.from_import(error) or error)
    except (LpsnetError, OSError) as error:
        return None, _without(error)
    legend = tuple(zip(split.label_space.names, split.label_space.colours, strict=True))
    wrong = ("taken for another class", WRONG)
    note = ""
    if source.is_averaged:
        note = "Several views of every image were averaged; the predictions below are of the image as it is."
    elif not all(same for _, _, same in rows):
        note = "Images below do not score as they did when this was evaluated: data or model have changed since."
    return html.Gallery(tuple((title, images) for title, images, _ in rows), (*legend, wrong)), note


def best_and_worst(evaluation: Evaluation, count: int) -> list[tuple[str, str, float]]:
    """(what it is, name, mIoU in percent) of the best images, best first, then of the worst, worst first."""
    scored = [(it.name, it.miou) for it in evaluation.per_image if not math.isnan(it.miou)]
    ranked = sorted(scored, key=lambda entry: -entry[1])
    count_worst = min(count, len(ranked) // 2)
    count_best = min(count, len(ranked) - count_worst)
    best = [(f"Best {place}", *it) for place, it in enumerate(ranked[:count_best], start=1)]
    worst = [(f"Worst {place}", *it) for place, it in enumerate(ranked[::-1][:count_worst], start=1)]
    return best + worst


def difference(image: Image, truth: Image, prediction: Image) -> Image:
    """The image in pale grey, wrong pixels in `WRONG`; pixels without a label are dark.

    Args:
        image: H x W x 3 uint8 RGB.
        truth, prediction: H x W uint8 class ids.

    Returns:
        H x W x 3 uint8 RGB.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    result: Image = (255 - (255 - grey) // 2).astype(np.uint8)
    labelled = truth != IGNORE_INDEX
    result[~labelled] = grey[~labelled] // 3
    result[labelled & (truth != prediction)] = WRONG
    return result


def data_uri(image: Image, max_width: int = MAX_WIDTH) -> str:
    """An image, H x W x 3 uint8 RGB, as a JPEG inside a page, at most `max_width` pixels wide."""
    height, width = image.shape[:2]
    if width > max_width:
        size = (max_width, max(1, round(height * max_width / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], _JPEG)
    assert done, "OpenCV writes JPEG"
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _rows(
    evaluation: Evaluation, split: Split, segmenter: Segmenter, count: int
) -> Iterator[tuple[str, tuple[html.GalleryImage, ...], bool]]:
    """A row's title, its images, and whether it scores as it did."""
    places = {name: index for index, name in enumerate(split.names)}
    for what, name, miou in best_and_worst(evaluation, count):
        if name not in places:
            raise DataError(f"the data has no image {name!r} any more")
        sample = split[places[name]]
        prediction = segmenter(sample.image)
        matrix = confusion_matrix(sample.labels, prediction, num_classes=split.label_space.num_classes)
        images = _images(split.channels.rendering(sample.image), sample.labels, prediction, split.label_space)
        yield f"{what}: {name}, {miou:.1f} mIoU", images, abs(scores(matrix).miou - miou) <= _SAME


def _images(image: Image, truth: Image, prediction: Image, space: LabelSpace) -> tuple[html.GalleryImage, ...]:
    labelled = truth != IGNORE_INDEX
    wrong = float(np.mean(truth[labelled] != prediction[labelled])) if labelled.any() else 0.0
    shown: Sequence[tuple[str, Image]] = (
        ("Image", image),
        ("Truth", overlay(image, truth, space)),
        ("Prediction", overlay(image, prediction, space)),
        (f"Difference: {100 * wrong:.1f} % wrong", difference(image, truth, prediction)),
    )
    return tuple(html.GalleryImage(data_uri(drawn), caption) for caption, drawn in shown)


def _without(error: Exception) -> str:
    moved = isinstance(error, DataError | ModelFileError)
    advice = ". If data or model have moved, give their place with --data and --model" if moved else ""
    return f"No images are shown: {' '.join(str(error).split())}{advice}."


NUM_CONFUSIONS = 8  # pairs of classes named below the matrix
MAX_DRAWN = 64  # classes, beyond which cells are too small to see
MAX_BESIDE = 12  # classes, up to which the matrix and those pairs stand beside each other
MAX_MATRIX_WIDTH = 860.0  # pixels, beyond which cells would be larger than their text


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Which images a report shows."""

    count: int = 3  # the best and the worst, each; 0 for none
    data: str | None = None  # data, model: to be used in place of those that were evaluated
    model: str | None = None


def evaluation_page(path: Path, images: ImageOptions) -> html.Page:
    """The page of a JSON file that `lpsnet evaluate` wrote.

    Raises:
        RunError: the file holds no evaluation.
    """
    evaluation = html.parsed(Evaluation, html.read_json(path), path)
    protocol = evaluation.protocol
    gallery, note = gallery_of(evaluation, images)
    made = html.making(evaluation.command, {"Protocol": html.flat(protocol)})
    return html.Page(
        kind="Evaluation",
        title=Path(str(protocol.get("model") or path.stem)).name,
        lead=f"{evaluation.num_images} images of {protocol.get('data', '?')}, {protocol.get('split', '?')}",
        tiles=score_tiles(evaluation),
        notes=(note,) if note else (),
        sections=(
            *score_sections(evaluation),
            robustness_section(evaluation, images),
            image_section(gallery),
            html.Section("How it was measured", made),
        ),
    )


def gallery_of(evaluation: Evaluation, options: ImageOptions) -> tuple[html.Gallery | None, str]:
    """As `show_images`, of the data and model in the options, or else those that the evaluation names."""
    protocol = evaluation.protocol
    if options.count == 0:
        return None, ""
    data, model = options.data or protocol.get("data"), options.model or protocol.get("model")
    if not isinstance(data, str) or not isinstance(model, str):
        return None, "No images are shown: the file does not name the data and model that were evaluated."
    source = Source(data, str(protocol.get("split", "val")), model)
    if options.model is None:
        runtime, precision = (it if isinstance(it := protocol.get(key), str) else None for key in _ENGINE)
        size: Any = protocol.get("input_size")
        is_size = isinstance(size, list) and len(size) == 2 and all(isinstance(length, int) for length in size)
        source = Source(
            data, source.split, model, runtime, precision, tuple(size) if is_size else None, "averaged" in protocol
        )
    return show_images(evaluation, source, options.count)


def score_tiles(evaluation: Evaluation) -> tuple[html.Tile, ...]:
    """The means."""
    means = {
        "mIoU": evaluation.miou,
        "Pixel accuracy": evaluation.pixel_accuracy,
        "Mean accuracy": evaluation.mean_accuracy,
        "Frequency-weighted IoU": evaluation.frequency_weighted_iou,
        **({"Boundary mIoU": evaluation.boundary_miou} if evaluation.boundary_ious else {}),
        **({"mIoU under corruptions": evaluation.robustness.mean_miou} if evaluation.robustness else {}),
    }
    tiles = (html.Tile(name, html.figure(value, 2), "%") for name, value in means.items())
    return (*tiles, html.Tile("Images", f"{evaluation.num_images:,}"))


def interval_note(evaluation: Evaluation) -> html.Text:
    """How much hangs on which images were scored; nothing where it was not counted."""
    if evaluation.miou_interval is None or math.isnan(evaluation.miou_interval[0]):
        return html.Text(())
    text = (
        "95 % interval of mIoU, from these images drawn again at random, with repetition: "
        f"{_interval(evaluation.miou_interval)}. Images of one film are alike, and leave more doubt than this shows."
    )
    return html.Text((text,))


def _interval(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None or math.isnan(ends[0]) else " to ".join(map(html.figure, ends))


def score_sections(evaluation: Evaluation) -> tuple[html.Section, ...]:
    """IoU by class, and what is taken for what."""
    return (
        html.Section("By class", (class_table(evaluation), interval_note(evaluation))),
        html.Section("What is taken for what", (*_confusion_chart(evaluation), *_confusions(evaluation))),
    )


def image_section(gallery: html.Gallery | None) -> html.Section:
    """The best and the worst images; empty where they could not be made."""
    return html.Section("Best and worst images", () if gallery is None else (gallery,))


MAX_THUMBNAIL = 260  # pixels of width of a corrupted image


def robustness_section(evaluation: Evaluation, options: ImageOptions) -> html.Section:
    """mIoU under corruptions, and what they look like on an image; empty where robustness was not measured.

    Args:
        evaluation: with or without robustness.
        options: whether images are shown, and of which data.
    """
    robust = evaluation.robustness
    if robust is None:
        return html.Section("Robustness", ())
    loss = html.figure(robust.clean_miou - robust.mean_miou)
    images = f"{robust.num_images} of the {evaluation.num_images} images"
    lead = (
        f"On {images}: {html.figure(robust.clean_miou)} mIoU as they are, {html.figure(robust.mean_miou)} in the mean"
    )
    rows = [_corrupted_row(it.corruption, f"{it.strength}: {it.value:g}", it.miou, robust) for it in robust.scores]
    heads = ("Corruption", "mIoU (%)", "Loss (points)", "Strength", "Unit", "What it is like")
    table = html.Table(heads, (_corrupted_row("none", "", robust.clean_miou, robust), *rows), words=(0, 3, 4, 5))
    return html.Section(
        "Robustness",
        (html.Text((f"{lead} under corruptions, {loss} points less.",)), table, *_examples(evaluation, options)),
    )


def _corrupted_row(name: str, strength: str, miou: float, robust: Robustness) -> tuple[html.Cell | str, ...]:
    bar = html.Cell(html.figure(miou), bar=0.0 if math.isnan(miou) else miou / 100)
    row = CORRUPTIONS.get(name)  # None for a name of another version
    loss = "" if name == "none" else html.figure(robust.clean_miou - miou)
    return (name.replace("_", " "), bar, loss, strength, *((row.unit, row.meaning) if row else ("", "")))


def _examples(evaluation: Evaluation, options: ImageOptions) -> tuple[html.Part, ...]:
    """The image in the middle of the split under every corruption that was measured; empty where it is not there."""
    protocol, robust = evaluation.protocol, evaluation.robustness
    data = options.data or protocol.get("data")
    if options.count == 0 or robust is None or not isinstance(data, str):
        return ()
    try:
        split = open_dataset(data).split(str(protocol.get("split", "val")))
        place = len(split) // 2
        image = split.image(place)
    except (LpsnetError, OSError, ModuleNotFoundError):
        return ()  # the section of best and worst images says why
    cells = [it for it in robust.scores if it.corruption in CORRUPTIONS and it.strength in STRENGTHS]
    shown = [
        html.GalleryImage(
            data_uri(corrupt(it.corruption, image, it.strength, index=place, seed=robust.seed), MAX_THUMBNAIL),
            f"{it.corruption.replace('_', ' ')}, {it.strength}",
        )
        for it in cells
    ]
    clean = html.GalleryImage(data_uri(image, MAX_THUMBNAIL), "as it is")
    return (html.Gallery(((f"What they look like: {split.names[place]}", (clean, *shown)),)),)


def class_colours(evaluation: Evaluation) -> tuple[Colour, ...]:
    """Of the classes, RGB bytes. Where the file has none: those of a label space with these classes, or others."""
    if evaluation.colours.keys() == evaluation.ious.keys():
        return tuple(evaluation.colours[name] for name in evaluation.names)
    from lpsnet.data.synthetic import SCENES

    known = (space.colours for space in (*LABEL_SPACES.values(), SCENES) if space.names == evaluation.names)
    return next(known, LabelSpace.numbered(len(evaluation.names)).colours)


def class_table(evaluation: Evaluation) -> html.Table:
    """A row a class, the best first, those that occur nowhere last."""
    truth = evaluation.matrix.sum(axis=1)
    shares = 100 * truth / max(truth.sum(), 1)
    ious, colours = list(evaluation.ious.values()), class_colours(evaluation)
    order = sorted(range(len(ious)), key=lambda number: -1 if math.isnan(iou := ious[number]) else -100 - iou)
    figures = {"Accuracy (%)": evaluation.accuracies, "Boundary IoU (%)": evaluation.boundary_ious}
    figures = {head: by_class for head, by_class in figures.items() if by_class}
    rows: list[tuple[html.Cell | str, ...]] = []
    for number in order:
        name, iou = evaluation.names[number], ious[number]
        cells = [html.figure(by_class.get(name)) for by_class in figures.values()]
        bar = html.Cell(html.figure(iou), bar=0.0 if math.isnan(iou) else iou / 100)
        if evaluation.iou_intervals:
            cells.insert(0, _interval(evaluation.iou_intervals.get(name)))
        colour = html.Cell(name, colour=colours[number])
        rows.append((colour, bar, *cells, html.figure(shares[number], 2)))
    interval = ("95 % interval",) if evaluation.iou_intervals else ()
    return html.Table(("Class", "IoU (%)", *interval, *figures, "Pixels (%)"), tuple(rows))


def _confusion_chart(evaluation: Evaluation) -> tuple[html.Part, ...]:
    """The matrix; left out where there are too many classes to see any."""
    if len(evaluation.names) > MAX_DRAWN:
        return ()
    label = "Confusion matrix: a row a true class, a column a predicted one"
    caption = "Rows are the truth, columns the prediction; numbers are percent of a row."
    draw = partial(draw_confusion, evaluation.matrix, evaluation.names, label=label)
    half = len(evaluation.names) <= MAX_BESIDE
    return (html.Chart.of(lambda width: draw(min(width, MAX_MATRIX_WIDTH)), caption=caption, half=half),)


def _confusions(evaluation: Evaluation) -> tuple[html.Part, ...]:
    """The largest shares of a class that are taken for another."""
    matrix = evaluation.matrix
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    places = np.argsort(shares, axis=None)[::-1][:NUM_CONFUSIONS]
    pairs = [np.unravel_index(place, shares.shape) for place in places]
    classes = [html.Cell(name, colour=it) for name, it in zip(evaluation.names, class_colours(evaluation), strict=True)]
    rows = tuple(
        (
            classes[truth],
            classes[taken],
            html.Cell(html.figure(100 * shares[truth, taken]), bar=float(shares[truth, taken])),
            f"{matrix[truth, taken]:,}",
        )
        for truth, taken in pairs
        if shares[truth, taken] > 0
    )
    heads, half = ("Truth", "Taken for", "Share (%)", "Pixels"), len(evaluation.names) <= MAX_BESIDE
    return (html.Table(heads, rows, words=(0, 1), title="Most often", half=half),) if rows else ()


# The page of `lpsnet next`: the images to label next, what the network makes of them, and why they were chosen.

MAX_CHOSEN = 24  # images on the page; all of them are in the table
_NUM_RARE = 3  # classes named for an image


class ChosenImages(NamedTuple):
    """A row of images on the page."""

    title: str
    images: tuple[html.GalleryImage, ...]


def show_chosen(title: str, result: Segmentation) -> ChosenImages:
    """The image, the classes over it, and where the network is unsure: the darker, the nearer the two best classes."""
    margin = np.rint(255 * result.margin).astype(np.uint8)
    drawn = (("Image", result.image), ("Prediction", result.overlay()), ("Unsure: dark", np.dstack([margin] * 3)))
    return ChosenImages(title, tuple(html.GalleryImage(data_uri(image), caption) for caption, image in drawn))


def selection_page(
    selection: Selection, names: Sequence[str], space: LabelSpace, shown: Sequence[ChosenImages]
) -> html.Page:
    """The page.

    Args:
        selection: what was chosen.
        names: of the images, in its order.
        space: the classes.
        shown: the images to look at, in the same order.
    """
    few = f"The first {len(shown)} of {len(names)} are shown." if len(shown) < len(names) else ""
    left_out = [
        ("labelled already and were left out", len(selection.labelled)),
        ("unreadable and were left out", len(selection.problems)),
    ]
    legend = tuple(zip(space.names, space.colours, strict=True))
    return html.Page(
        kind="Next images to label",
        title=f"{len(names)} of {selection.num_pool} images",
        lead="Unsure in rare classes, and different from each other and from what is labelled",
        tiles=(html.Tile("Chosen", f"{len(names):,}"), html.Tile("Pool", f"{selection.num_pool:,}")),
        notes=tuple(f"Of the pool, {what}: {count}." for what, count in left_out if count),
        sections=(
            html.Section("The images", (*([html.Text((few,))] if few else []), html.Gallery(tuple(shown), legend))),
            html.Section("Why", (_chosen_table(selection, names, space.names), _weights(selection, space.names))),
        ),
    )


def _chosen_table(selection: Selection, names: Sequence[str], classes: Sequence[str]) -> html.Table:
    """A row an image, in the order of choice."""
    rows = []
    for name, view, distance in zip(names, selection.views, selection.distances, strict=True):
        order = np.argsort(-view.shares * selection.weights)[:_NUM_RARE]
        most = ", ".join(f"{classes[number]} {100 * view.shares[number]:.1f} %" for number in order)
        far = "–" if math.isinf(distance) else f"{distance:.2f}"
        rows.append((name, html.figure(view.value, 3), html.figure(100 * view.unsure), far, most))
    heads = ("Image", "Value", "Unsure (%)", "Distance", "Classes that count most")
    caption = (
        "Value: unsure times rare, mean over the pixels. Distance: to the nearest image labelled or chosen before."
    )
    return html.Table(heads, tuple(rows), words=(0, 4), caption=caption)


def _weights(selection: Selection, classes: Sequence[str]) -> html.Table:
    order = np.argsort(-selection.weights, kind="stable")
    rows = tuple((classes[number], html.figure(float(selection.weights[number]), 2)) for number in order)
    return html.Table(("Class", "Weight"), rows, title="Weights of the classes, by how rare they are", half=True)
