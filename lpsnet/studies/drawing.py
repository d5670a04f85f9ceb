"""How figures of studies look, and how they get into files. matplotlib is imported when the first one is drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lpsnet.errors import MissingDependencyError
from lpsnet.files import atomic_path

# Apart for eyes that do not tell red from green too (Okabe and Ito 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "0.55"
_DPI = 150


def check_drawing() -> None:
    """MissingDependencyError, naming the install command, unless figures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependencyError.for_extra("matplotlib", "report") from None


def save_figure(path: Path, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
    """Write a PNG.

    Args:
        path: the file.
        draw: draws into a `matplotlib.figure.Figure`.
        size: width and height in inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    check_drawing()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # no window system is asked for
    draw(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def tidy(axes: Any) -> None:
    """Axes with no more ink than their values need."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
