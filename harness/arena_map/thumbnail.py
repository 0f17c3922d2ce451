# SPDX-License-Identifier: MIT
"""One moment as a small inline SVG: for paper, and where no script runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.arena_map.recording import thinned
from harness.page import Markup, element
from shmalloc.pagemap import KINDS, Kind, Zone

__all__ = ["draw", "tile_shape"]

MOST_CELLS = 1 << 14
_WIDTH = 300  # cells, about
_LABEL = 7  # cells high


def tile_shape(pageblock_order: int) -> tuple[int, int]:
    """Return columns and rows of a pageblock's cells."""
    return 1 << (pageblock_order + 1) // 2, 1 << pageblock_order // 2


def draw(
    kinds: NDArray[np.uint8], zones: Sequence[tuple[str, Zone]], pageblock_order: int, group: int
) -> Markup:
    """Draw a moment.

    Args: kinds: of each cell.  zones: with their names.  group: pages that a cell is, a power of two.
    """
    while len(kinds) > MOST_CELLS:
        kinds, group = thinned(kinds, 2), group * 2
    order = max(0, pageblock_order - group.bit_length() + 1)
    wide, high = tile_shape(order)
    across = max(1, _WIDTH // (wide + 1))
    paths: dict[int, list[str]] = {}
    labels, top, right = [], 0, 0
    for name, zone in zones:
        mine = kinds[zone.start // group : -(-(zone.start + zone.pages) // group)]
        labels.append(element("text", name, x=0, y=top + _LABEL - 2))
        top += _LABEL
        blocks = -(-len(mine) >> order)
        for block in range(blocks):
            part = mine[block << order : (block + 1) << order]
            x, y = block % across * (wide + 1), top + block // across * (high + 1)
            for row in range(-(-len(part) // wide)):
                _runs(part[row * wide : (row + 1) * wide], x, y + row, paths)
        right = max(right, min(across, blocks) * (wide + 1))
        top += -(-blocks // across) * (high + 1)
    drawn = [
        element("path", element("title", KINDS[Kind(kind)].label), d="".join(parts), class_=f"map-k{kind}")
        for kind, parts in sorted(paths.items())
    ]
    box = f"0 0 {right} {top}"
    return element(
        "svg", drawn, labels, role="img", class_="map-thumb", viewBox=box, width=right * 3, height=top * 3
    )


def _runs(row: NDArray[np.uint8], x: int, y: int, paths: dict[int, list[str]]) -> None:
    """Draw the stretches of equal cells of a row."""
    border = np.flatnonzero(np.diff(row)) + 1
    starts = [0, *border.tolist()]
    for begin, end in zip(starts, [*starts[1:], len(row)], strict=True):
        paths.setdefault(int(row[begin]), []).append(f"M{x + begin} {y}h{end - begin}v1h-{end - begin}z")
