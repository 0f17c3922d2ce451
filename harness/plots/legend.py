# SPDX-License-Identifier: MIT
"""Samples of lines and areas as a legend shows them, drawn by hand: matplotlib takes 10 ms for one."""

from __future__ import annotations

from harness.plots import palette
from harness.plots.drawing import HATCHES, Entry

__all__ = ["HEIGHT", "LINE_WIDTH", "PATTERNS", "WIDTH", "swatch"]

WIDTH, HEIGHT = 30.0, 12.0  # of a sample, in points
LINE_WIDTH = 1.5
PATTERNS = ((), (6, 1.5), (1.5, 1), (6, 1.5, 1.5, 1.5), (3, 1))  # of lines, in widths of the line
_MIDDLE = (WIDTH / 2, HEIGHT / 2)
# outlines about the middle, in the order of drawing.MARKERS
_OUTLINES = (
    "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0 -3 0Z",
    "M-2.7 -2.7H2.7V2.7H-2.7Z",
    "M0 -3.2L3.2 3H-3.2Z",
    "M0 -3.7L3.7 0L0 3.7L-3.7 0Z",
    "M0 3.2L3.2 -3H-3.2Z",
    "M-1.2 -3.4H1.2V-1.2H3.4V1.2H1.2V3.4H-1.2V1.2H-3.4V-1.2H-1.2Z",
    "M-3 -1.4L-1.4 -3L0 -1.6L1.4 -3L3 -1.4L1.6 0L3 1.4L1.4 3L0 1.6L-1.4 3L-3 1.4L-1.6 0Z",
    "M0 -3.6L.9 -1.2L3.4 -1.1L1.4 .5L2.1 2.9L0 1.5L-2.1 2.9L-1.4 .5L-3.4 -1.1L-.9 -1.2Z",
)
_HATCHED = {
    "////": "".join(f"M{x} 12L{x + 10} 0" for x in range(-6, 30, 5)),
    "....": "".join(f"M{x} {y}h1.4" for y in (3, 6, 9) for x in range(2 + y % 2 * 2, 30, 5)),
    "xxxx": "".join(f"M{x} 12L{x + 10} 0M{x} 0L{x + 10} 12" for x in range(-6, 30, 5)),
}


def swatch(entry: Entry) -> str:
    """Draw a sample: the inner part of an SVG of WIDTH x HEIGHT, in stand-ins."""
    if entry.dash is None and entry.marker is None:
        return _area(entry)
    parts = []
    if entry.dash is not None:
        pattern = " ".join(f"{part * LINE_WIDTH:g}" for part in PATTERNS[entry.dash % len(PATTERNS)])
        dashes = f' stroke-dasharray="{pattern}"' if pattern else ""
        parts.append(
            f'<path d="M1 6H29" fill="none" stroke="{entry.colour}" stroke-width="{LINE_WIDTH}"{dashes}/>'
        )
    if entry.marker is not None:
        outline = _OUTLINES[entry.marker % len(_OUTLINES)]
        x, y = _MIDDLE
        parts.append(f'<path d="{outline}" transform="translate({x:g} {y:g})" fill="{entry.colour}"/>')
    return "".join(parts)


def _area(entry: Entry) -> str:
    hatch = _HATCHED.get(HATCHES[entry.hatch % len(HATCHES)])
    lines = f'<path d="{hatch}" fill="none" stroke="{palette.GROUND}" stroke-width="1"/>' if hatch else ""
    # what a hatch draws beyond the area the element's own edge cuts off
    return f'<path d="M0 1H{WIDTH:g}V11H0Z" fill="{entry.colour}" stroke="{palette.LINE}" stroke-width=".7"/>{lines}'
