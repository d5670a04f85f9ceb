"""A square of cells, each as deep in colour as its value: the confusion matrix."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lpsnet.charts.svg import Drawing

MAX_NAME = 16  # letters of a name beside the cells; the rest is said where a cell is pointed at

_LETTER = 6.4  # pixels
_MAX_CELL, _MIN_TEXT_CELL = 46.0, 24.0  # pixels of a cell; from the second on it holds its number
# share up to which text of a style can be read on a cell, light and dark
_STYLES = ((0.62, "on-pale"), (0.8, "on-middle"), (1.0, "on-accent"))
_LEAST = 0.5  # percent below which a cell has no number, so that the eye finds what matters


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str], width: float, *, label: str) -> Drawing:
    """The confusion matrix, each row in shares of its class's true pixels; cells without pixels stay empty.

    Args:
        matrix: K x K pixel counts; rows are the truth, columns the prediction.
        names: of the K classes.
        width: of the drawing in pixels, at most.
        label: what it shows, for those who do not see it.
    """
    short = [shortened(name) for name in names]
    left = max(map(len, short)) * _LETTER + 10
    cell = min(_MAX_CELL, (width - left) / len(names))
    top = left + 4
    drawing = Drawing(left + cell * len(names) + 1, top + cell * len(names) + 1, label=label)
    for number, name in enumerate(short):
        centre = (number + 0.5) * cell
        drawing.add("text", css="tick end", x=left - 6, y=top + centre + 4, text=name)
        x, y = left + centre + 4, top - 6
        drawing.add("text", css="tick", x=x, y=y, transform=f"rotate(-90 {x:.1f} {y:.1f})", text=name)
    for number in range(len(names) + 1):
        near, far = number * cell, len(names) * cell
        drawing.add("line", css="grid", x1=left, x2=left + far, y1=top + near, y2=top + near)
        drawing.add("line", css="grid", x1=left + near, x2=left + near, y1=top, y2=top + far)
    totals = matrix.sum(axis=1)
    for row, column in np.argwhere(matrix > 0):
        share = matrix[row, column] / totals[row]
        names_of = f"truth: {names[row]}\nprediction: {names[column]}"
        tip = f"{names_of}\n{100 * share:.2f} % of it, {matrix[row, column]:,} pixels"
        _draw_cell(drawing, left + column * cell, top + row * cell, cell, share, tip)
    return drawing


def text_style(share: float) -> str:
    """The style of text on a cell that is this deep in colour."""
    return next(style for bound, style in _STYLES if share <= bound)


def shortened(name: str) -> str:
    """At most `MAX_NAME` letters of a name."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"


def _draw_cell(drawing: Drawing, x: float, y: float, cell: float, share: float, tip: str) -> None:
    if cell >= _MIN_TEXT_CELL and 100 * share >= _LEAST:
        drawing.add("rect", css="cell", x=x, y=y, width=cell, height=cell, fill_opacity=share)
        drawing.add(
            "text",
            css=f"count middle {text_style(share)}",
            x=x + cell / 2,
            y=y + cell / 2 + 4,
            text=f"{100 * share:.0f}",
        )
        drawing.add("rect", css="target", x=x, y=y, width=cell, height=cell, tip=tip)
    else:
        drawing.add("rect", css="cell", x=x, y=y, width=cell, height=cell, fill_opacity=share, tip=tip)
