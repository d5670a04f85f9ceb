"""Label maps as images: in the colours of their classes, over the image, with a legend.

Images are H x W x 3 uint8 RGB, label maps H x W uint8 class ids with `IGNORE_INDEX` for pixels without one.
"""

import math
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from lpsnet.data.images import Image, Labels
from lpsnet.data.labels import IGNORE_INDEX, LabelSpace
from lpsnet.errors import DataError

MIN_TEXT_HEIGHT, MAX_TEXT_HEIGHT = 6, 200  # pixels of a capital letter

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_CAPITAL = 22  # pixels of a capital letter at scale 1
_WHITE, _BLACK, _GREY = (255, 255, 255), (20, 20, 20), (120, 120, 120)


def colourise(labels: Labels, label_space: LabelSpace) -> Image:
    """Every pixel in the colour of its class; pixels without one are black.

    Args:
        labels: H x W uint8.
        label_space: source of the colours.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: this is not a label map, or it has ids that are not in the label space.
    """
    _check_labels(labels, label_space)
    table = np.zeros((256, 1, 3), np.uint8)
    table[: label_space.num_classes, 0] = label_space.colours
    return np.asarray(cv2.applyColorMap(labels, table))


def overlay(image: Image, labels: Labels, label_space: LabelSpace, *, opacity: float = 0.55) -> Image:
    """The image with the colours of the classes over it; pixels without a class show the image alone.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: H x W uint8, as large as the image.
        label_space: source of the colours.
        opacity: of the colours, 0 (the image alone) to 1 (the colours alone).

    Returns:
        H x W x 3 uint8 RGB, a new array.

    Raises:
        DataError: wrong shape or type, different sizes, an id that is not in the label space, or opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise DataError(f"opacity lies between 0 and 1; got {opacity}")
    _check_image(image)
    colours = colourise(labels, label_space)
    if image.shape[:2] != labels.shape:
        sizes = f"{image.shape[0]}x{image.shape[1]} and {labels.shape[0]}x{labels.shape[1]}"
        raise DataError(f"image and label map differ in size: {sizes} (height x width); resize the label map")
    blended = cv2.addWeighted(image, 1 - opacity, colours, opacity, 0, dst=colours)
    unlabelled = np.equal(labels, IGNORE_INDEX).view(np.uint8)  # cv2.compare refuses a single pixel
    return np.asarray(cv2.copyTo(image, unlabelled, dst=blended))


def legend(
    label_space: LabelSpace,
    *,
    shares: Sequence[float] | None = None,
    width: int | None = None,
    text_height: int = 12,
) -> Image:
    """The classes' names beside patches of their colours, in columns, black on white.

    Letters that are not in OpenCV's font are written without their accents, or as question marks.

    Args:
        label_space: names and colours.
        shares: one number per class, 0 to 1, written as percent behind the name; NaN is written as a dash.
        width: of the result in pixels: as many columns as fit, and smaller text where not even one does. None: one
            column, as wide as needed.
        text_height: of a capital letter in pixels.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: not one share per class, or a size out of range.
    """
    if not MIN_TEXT_HEIGHT <= text_height <= MAX_TEXT_HEIGHT:
        raise DataError(f"text_height is {MIN_TEXT_HEIGHT} to {MAX_TEXT_HEIGHT} pixels; got {text_height}")
    if width is not None and not 1 <= width <= 65_536:
        raise DataError(f"the width of a legend is 1 to 65536 pixels; got {width}")
    texts = _texts(label_space, shares)
    cell = _cell_width(texts, text_height)
    while width is not None and cell > width and text_height > 1:
        text_height -= 1
        cell = _cell_width(texts, text_height)
    columns = 1 if width is None else max(1, min(len(texts), width // cell))
    rows, row_height = math.ceil(len(texts) / columns), 2 * text_height
    canvas = np.full((rows * row_height + text_height, width or cell, 3), _WHITE, np.uint8)
    for number, (text, colour) in enumerate(zip(texts, label_space.colours, strict=True)):
        column, row = divmod(number, rows)
        _write_entry(canvas, (column * cell, row * row_height + text_height // 2), text, colour, text_height)
    return canvas


def side_by_side(*images: Image, gap: int = 4) -> Image:
    """Images of one height in a row, with `gap` white pixels between them.

    Raises:
        DataError: there is no image, one is not H x W x 3 uint8, or their heights differ.
    """
    for image in images:
        _check_image(image)
    if len({image.shape[0] for image in images}) != 1:
        heights = ", ".join(str(image.shape[0]) for image in images) or "no image"
        raise DataError(f"images side by side have the same height; got {heights}")
    space = np.full((images[0].shape[0], gap, 3), _WHITE, np.uint8)
    parts = [part for image in images for part in (space, image)][1:]
    return np.hstack(parts)


def _texts(label_space: LabelSpace, shares: Sequence[float] | None) -> list[str]:
    names = [_printable(name) for name in label_space.names]
    if shares is None:
        return names
    if len(shares) != len(names):
        raise DataError(f"a legend of {len(names)} classes takes {len(names)} shares; got {len(shares)}")
    percents = ("-" if math.isnan(share) else f"{100 * share:.1f} %" for share in shares)
    return [f"{name}  {percent}" for name, percent in zip(names, percents, strict=True)]


def _printable(name: str) -> str:
    """The name in the letters that OpenCV's font has: accents dropped, the rest as question marks."""
    letters = (letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def _cell_width(texts: Sequence[str], text_height: int) -> int:
    """Width of the widest entry in pixels: margin, patch, margin, text, margin."""
    scale, thickness = _pen(text_height)
    widest = max(cv2.getTextSize(text, _FONT, scale, thickness)[0][0] for text in texts)
    return int(widest) + 4 * text_height


def _pen(text_height: int) -> tuple[float, int]:
    return text_height / _FONT_CAPITAL, max(1, round(text_height / 12))


def _write_entry(
    canvas: Image, corner: tuple[int, int], text: str, colour: tuple[int, int, int], text_height: int
) -> None:
    scale, thickness = _pen(text_height)
    left, top = corner[0] + text_height // 2, corner[1] + text_height // 2
    end = (left + 2 * text_height, top + text_height)
    cv2.rectangle(canvas, (left, top), end, colour, cv2.FILLED)
    cv2.rectangle(canvas, (left, top), end, _GREY, 1)
    where = (end[0] + text_height // 2, top + text_height)
    cv2.putText(canvas, text, where, _FONT, scale, _BLACK, thickness, cv2.LINE_AA)


def _check_labels(labels: Labels, label_space: LabelSpace) -> None:
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        raise DataError(f"a label map is H x W uint8; got {labels.shape} {labels.dtype}")
    if (labels + np.uint8(1)).max() > label_space.num_classes:  # bytes wrap: IGNORE_INDEX becomes 0
        unknown = [int(number) for number in np.unique(labels) if label_space.num_classes <= number != IGNORE_INDEX]
        allowed = f"0 to {label_space.num_classes - 1} and {IGNORE_INDEX} are allowed"
        raise DataError(f"label map has ids outside label space {label_space.name!r}: {unknown[:10]}; {allowed}")


def _check_image(image: Image) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise DataError(f"an image is H x W x 3 uint8; got {image.shape} {image.dtype}")
