# SPDX-License-Identifier: MIT
"""What a figure is: panels, a legend, what has to be said of it, and the table behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.plots import palette

__all__ = ["HATCHES", "MARKERS", "Drawing", "Entry", "Numbers", "Panel"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "xxxx")


@dataclass(frozen=True)
class Panel:
    """One axes, drawn when it is asked for: without figures nobody needs matplotlib.

    Attributes: name: in a page's ids.  label: for who does not see it.  draw: makes matplotlib's figure, and says
        what the pointer shows over its marks, by their gid.
    """

    name: str
    label: str
    draw: Callable[[], tuple[Any, Mapping[str, str]]]

    @cached_property
    def _drawn(self) -> tuple[Any, Mapping[str, str]]:
        from harness.plots import style

        with style.drawing():
            return self.draw()

    @property
    def figure(self) -> Any:
        """The panel as matplotlib has it."""
        return self._drawn[0]

    @property
    def titles(self) -> Mapping[str, str]:
        """What the pointer shows over marks, by their gid."""
        return self._drawn[1]

    @cached_property
    def svg(self) -> str:
        """The panel as a document, with stand-ins for colours."""
        from harness.plots import style

        with style.drawing():
            return style.svg(self.figure)

    @property
    def size_pt(self) -> tuple[float, float]:
        """Width and height in points."""
        width, height = self.figure.get_size_inches()
        return 72 * float(width), 72 * float(height)


@dataclass(frozen=True)
class Entry:
    """A line of a legend. Attributes: label.  colour: a stand-in.  dash: number of a line style, None = an area.
    marker: number of a marker, None = none.  hatch: number of one.
    """

    label: str
    colour: str = palette.INK
    dash: int | None = None
    marker: int | None = None
    hatch: int = 0


@dataclass(frozen=True)
class Numbers:
    """A table. Attributes: head, rows: texts.  left: how many columns are text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes: name: of its file, and in a page's ids.  title: what it shows.  said: sentences: units, numbers of
        samples, spread.  panels, legend.  numbers: what it is drawn from.
    """

    name: str
    title: str
    said: Sequence[str]
    panels: Sequence[Panel]
    legend: Sequence[Entry] = ()
    numbers: Numbers | None = None
