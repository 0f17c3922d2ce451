# SPDX-License-Identifier: MIT
"""How pictures look: text as text, no window, no layout that has to be searched for, stand-ins for colours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.plots import palette
from harness.writing import replace_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["canvas", "colour", "dash", "drawing", "panel", "save", "svg", "title"]

_DASHES = ("-", (0, (6, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)))
_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": palette.QUIET,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": palette.INK,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": palette.INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": palette.LINE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": palette.INK,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "shmalloc",  # ids of the file's parts: the same every time
    "text.color": palette.INK,
    "xtick.color": palette.QUIET,
    "xtick.labelsize": 8,
    "ytick.color": palette.QUIET,
    "ytick.labelsize": 8,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in our style, whatever the user's is."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **keys: Any
) -> tuple[Figure, list[Any]]:
    """Make an empty figure without a window, laid out by matplotlib, which takes a while.

    Args: width, height: inches.  rows, columns: of its axes.  keys: for `Figure.subplots`.
    Returns: the figure, and its axes, row by row.
    """
    figure = _figure(width, height, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **keys)
    return figure, list(axes.flat)


def panel(
    width: float, height: float, left: float, right: float, top: float, bottom: float
) -> tuple[Figure, Any]:
    """Make an empty figure of one axes. Args: all in inches; the last four are its margins."""
    figure = _figure(width, height)
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes(box)


def _figure(width: float, height: float, **keys: Any) -> Figure:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **keys)
    FigureCanvasSVG(figure)
    return figure


def svg(figure: Figure) -> str:
    """Write a figure, the same text for the same numbers; its colours are stand-ins."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Leave a figure in a file of its own, in the colours for paper. Returns: the file."""
    figure.set_facecolor(palette.GROUND)
    text = svg(figure)
    for stand_in, value in palette.paper().items():
        text = text.replace(stand_in, value)
    replace_text(path, text)
    return path


def title(figure: Figure, text: str) -> None:
    """Write what a figure shows above it, on the left, where no legend is."""
    figure.suptitle(text, x=0.01, ha="left")


def colour(number: int) -> str:
    """Return a design's colour. Args: number: its place in the registry."""
    return palette.series(number)


def dash(number: int) -> Any:
    """Return a line style, so that lines differ without colour as well."""
    return _DASHES[number % len(_DASHES)]
