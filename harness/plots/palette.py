# SPDX-License-Identifier: MIT
"""The colours of all pictures: eight for data, four for the rest, each with its value on paper and on a dark screen.

The eight keep to Okabe and Ito's hues; their lightness was moved until no two are closer than `tests` ask for, to
normal sight, protanopia, deuteranopia and tritanopia.  Nothing is told by colour alone: lines differ in dash and
marker, areas in hatch, and bars have their names.

What is drawn has stand-ins, which are no colours that anyone would use: a file gets the values for paper in their
place, a page its variables, which follow the reader's scheme.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "COLOURS",
    "DARK",
    "GROUND",
    "INK",
    "LIGHT",
    "LINE",
    "QUIET",
    "Colour",
    "css",
    "paper",
    "series",
    "variables",
]

LIGHT = ("#013aa6", "#a83004", "#0da8ff", "#d15c02", "#6c5364", "#d177b9", "#303030", "#04946f")
DARK = ("#4d66c7", "#fe610e", "#9fd6ca", "#f4d630", "#815e6e", "#d08aea", "#ffffff", "#03ac83")


@dataclass(frozen=True)
class Colour:
    """A colour of a picture. Attributes: stand_in: in what is drawn.  variable: of a page.  light, dark: values."""

    stand_in: str
    variable: str
    light: str
    dark: str


INK = "#f1e0a1"
QUIET = "#f1e0a2"
LINE = "#f1e0a3"
GROUND = "#f1e0a4"
COLOURS = (
    *(
        Colour(f"#f1e0d{at}", f"--series-{at}", light, dark)
        for at, (light, dark) in enumerate(zip(LIGHT, DARK, strict=True))
    ),
    Colour(INK, "--ink", "#1b1f24", "#e4e8ec"),
    Colour(QUIET, "--quiet", "#59636e", "#9aa5b1"),
    Colour(LINE, "--line", "#d5dae0", "#343b44"),
    Colour(GROUND, "--ground", "#ffffff", "#14181d"),
)


def series(number: int) -> str:
    """Return the stand-in of a colour for data. Args: number: from there on they begin again."""
    return COLOURS[number % len(LIGHT)].stand_in


def variables() -> dict[str, str]:
    """Return what to put in the place of stand-ins in a page."""
    return {colour.stand_in: f"var({colour.variable})" for colour in COLOURS}


def paper() -> dict[str, str]:
    """Return what to put in the place of stand-ins in a file of its own."""
    return {colour.stand_in: colour.light for colour in COLOURS}


def css(scheme: str) -> str:
    """Write the data colours as declarations of CSS. Args: scheme: light or dark."""
    return " ".join(f"{colour.variable}: {getattr(colour, scheme)};" for colour in COLOURS[: len(LIGHT)])
