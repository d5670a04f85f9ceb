"""The page of `lpsnet next`: the images to label next, what the network makes of them, and why they were chosen."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lpsnet.data.labels import LabelSpace
from lpsnet.evaluation.selection import Selection
from lpsnet.inference.result import Segmentation
from lpsnet.report import html
from lpsnet.report.evaluation import data_uri

MAX_SHOWN = 24  # images on the page; all of them are in the table
_NUM_RARE = 3  # classes named for an image


class Shown(NamedTuple):
    """A row of images on the page."""

    title: str
    images: tuple[html.GalleryImage, ...]


def show(title: str, result: Segmentation) -> Shown:
    """The image, the classes over it, and where the network is unsure: the darker, the nearer the two best classes."""
    margin = np.rint(255 * result.margin).astype(np.uint8)
    drawn = (("Image", result.image), ("Prediction", result.overlay()), ("Unsure: dark", np.dstack([margin] * 3)))
    return Shown(title, tuple(html.GalleryImage(data_uri(image), caption) for caption, image in drawn))


def selection_page(selection: Selection, names: Sequence[str], space: LabelSpace, shown: Sequence[Shown]) -> html.Page:
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
            html.Section("Why", (_table(selection, names, space.names), _weights(selection, space.names))),
        ),
    )


def _table(selection: Selection, names: Sequence[str], classes: Sequence[str]) -> html.Table:
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
