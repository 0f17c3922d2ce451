# SPDX-License-Identifier: MIT
"""A figure as a file of its own: panels side by side, what is said of them, and the legend, in colours for paper."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator
from pathlib import Path

from harness.page.svg import embedded
from harness.plots import legend, palette
from harness.plots.drawing import Drawing
from harness.writing import replace_text

__all__ = ["FOLDER", "text", "write"]

FOLDER = "plots"
_COLUMNS = 3
_GAP, _MARGIN = 10.0, 12.0  # points
_TITLE, _LINE, _SMALL = 13.0, 12.5, 9.0
_LETTER = 0.56  # of the size of a text, wide
_FONT = "'DejaVu Sans', sans-serif"


def write(folder: Path, drawing: Drawing, footer: str) -> Path:
    """Leave a figure in the folder of plots. Returns: the file."""
    path = folder / FOLDER / f"{drawing.name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text(drawing, footer))
    return path


def text(drawing: Drawing, footer: str) -> str:
    """Compose the document. Args: footer: which run it is of."""
    columns = min(_COLUMNS, len(drawing.panels))
    panel_width = max(panel.size_pt[0] for panel in drawing.panels)
    width = max(2 * _MARGIN + columns * (panel_width + _GAP) - _GAP, 460.0)
    parts, y = [], _MARGIN + _TITLE
    parts.append(_text(_MARGIN, y, drawing.title, _TITLE, palette.INK, bold=True))
    letters = int((width - 2 * _MARGIN) / (_SMALL * _LETTER))
    for line in textwrap.wrap(" ".join(filter(None, drawing.said)), letters):
        y += _LINE
        parts.append(_text(_MARGIN, y, line, _SMALL, palette.QUIET))
    y += _GAP
    for first in range(0, len(drawing.panels), columns):
        row = drawing.panels[first : first + columns]
        for at, panel in enumerate(row):
            panel_wide, panel_high = panel.size_pt
            x = _MARGIN + at * (panel_width + _GAP)
            place = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{panel_wide:g}", "height": f"{panel_high:g}"}
            parts.append(embedded(panel.svg, panel.name, {}, _FONT, panel.titles, **place))
        y += max(panel.size_pt[1] for panel in row) + _GAP
    for line_parts in _legend(drawing, width - 2 * _MARGIN):
        parts += [part.replace("@Y", f"{y:g}").replace("@T", f"{y + 9:g}") for part in line_parts]
        y += legend.HEIGHT + 4
    y += _LINE
    parts.append(_text(width - _MARGIN, y, footer, 7.5, palette.QUIET, anchor="end"))
    y += _MARGIN
    inner = "\n".join(parts)
    made = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}pt" height="{y:g}pt" viewBox="0 0 {width:g} {y:g}" '
        f'stroke-linejoin="round">\n<rect width="100%" height="100%" fill="{palette.GROUND}"/>\n{inner}\n</svg>\n'
    )
    for stand_in, value in palette.paper().items():
        made = made.replace(stand_in, value)
    return made


def _text(
    x: float,
    y: float | str,
    content: str,
    size: float,
    colour: str,
    *,
    bold: bool = False,
    anchor: str = "start",
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    at = y if isinstance(y, str) else f"{y:g}"
    return (
        f'<text x="{x:g}" y="{at}" font-family="{_FONT}" font-size="{size:g}" fill="{colour}" '
        f'text-anchor="{anchor}"{weight}>{html.escape(content)}</text>'
    )


def _legend(drawing: Drawing, width: float) -> Iterator[list[str]]:
    """Yield the lines of the legend; @Y is where a line begins, @T where its text stands."""
    line: list[str] = []
    x = _MARGIN
    for entry in drawing.legend:
        wide = legend.WIDTH + 6 + len(entry.label) * _SMALL * _LETTER + 2 * _GAP
        if line and x + wide > width:
            yield line
            line, x = [], _MARGIN
        size = f'width="{legend.WIDTH:g}" height="{legend.HEIGHT:g}"'
        sample = f'<svg x="{x:g}" y="@Y" {size}>{legend.swatch(entry)}</svg>'
        line += [sample, _text(x + legend.WIDTH + 6, "@T", entry.label, _SMALL, palette.INK)]
        x += wide
    if line:
        yield line
