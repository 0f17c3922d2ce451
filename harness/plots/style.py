# SPDX-License-Identifier: MIT
"""How pictures look: colours that colour-blind readers tell apart, light ground, text as text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["canvas", "colour", "dash", "drawing", "reason_look", "title"]

# Okabe and Ito's colours, without the yellow, which is lost on a light ground
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8B8B8B")
_REASON_COLOURS = tuple(colour for colour in _COLOURS if colour != "#000000")
_DASHES = ("-", (0, (6, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)))
_HATCHES = ("", "////", "....", "xxxx")
_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "0.5",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "0.9",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "shmalloc",  # ids of the file's parts: the same every time
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in our style, whatever the user's is."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **keys: Any
) -> tuple[Figure, list[Any]]:
    """Make an empty figure without a window.

    Args: width, height: inches.  rows, columns: of its axes.  keys: for `Figure.subplots`.
    Returns: the figure, and its axes, row by row.
    """
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **keys)
    return figure, list(axes.flat)


def title(figure: Figure, text: str) -> None:
    """Write what a figure shows above it, on the left, where no legend is."""
    figure.suptitle(text, x=0.01, ha="left")


def colour(number: int) -> str:
    """Return a design's colour. Args: number: its place in the registry."""
    return _COLOURS[number % len(_COLOURS)]


def dash(number: int) -> Any:
    """Return a line style, so that lines differ without colour as well."""
    return _DASHES[number % len(_DASHES)]


def reason_look(number: int) -> dict[str, Any]:
    """Return face and hatch of a reason's bar. Args: number: its place in the list of reasons."""
    return {
        "facecolor": _REASON_COLOURS[number % len(_REASON_COLOURS)],
        "hatch": _HATCHES[number // len(_REASON_COLOURS) % len(_HATCHES)],
        "edgecolor": "white",
    }
