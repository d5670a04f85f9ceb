"""Segmenting picture files: every picture gives a PNG for each product, `STEM.labels.png`, `STEM.overlay.png`, …"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import read_image, write_png
from lpsnet.deployment.drawing import Picture, Style, draw
from lpsnet.deployment.media import Medium
from lpsnet.errors import DataError, LpsnetError

Segment = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class PictureOutcome:
    """What became of one picture.

    Attributes:
        source: the picture.
        files: those written, by product; none if it could not be segmented.
        problem: why not, in one line; empty if all went well.
    """

    source: Path
    files: dict[str, Path] = field(default_factory=dict)
    problem: str = ""


def segment_pictures(
    segment: Segment, media: Iterable[Medium], out: Path, *, products: Sequence[str], style: Style
) -> Iterator[PictureOutcome]:
    """Segment pictures one by one and write their results below `out`; one that cannot be read does not stop the rest.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`.
        media: pictures, from `find_media`.
        out: folder of the results, made where it is missing.
        products: names in `PRODUCTS`.
        style: how they are drawn.

    Raises:
        LpsnetError: results cannot be written; no later picture could be written either.
    """
    for medium in media:
        try:
            drawn = _drawn(segment, medium.path, products, style)
        except LpsnetError as error:
            yield PictureOutcome(medium.path, problem=str(error))
            continue
        files = {product: out / f"{medium.stem}.{product}.png" for product in products}
        for product, path in files.items():
            write_png(path, drawn[product])
        yield PictureOutcome(medium.path, files)


def _drawn(segment: Segment, path: Path, products: Sequence[str], style: Style) -> dict[str, Picture]:
    image = read_image(path)
    try:
        labels = segment(image)
        return {product: draw(product, image, labels, style) for product in products}
    except LpsnetError as error:
        raise DataError(f"{path}: {error}") from None
