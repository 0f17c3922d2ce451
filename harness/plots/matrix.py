# SPDX-License-Identifier: MIT
"""Which CPUs got memory of which nodes: a matrix of numbers for each cell, shaded by share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import units
from harness.compare import percent
from harness.page.markup import Markup, details, element, table
from harness.plots.grid import Grid, Row

__all__ = ["matrices"]

_DEEPEST = 0.55  # of a shade: the number over it can be read on either ground
_MOST = 24

Matrix = Mapping[str, Mapping[str, int]]


def matrices(grid: Grid) -> Markup | None:
    """Write the matrices of all cells whose arena has several nodes; None, if there are none."""
    found = [(row, matrix) for row in grid.rows if (matrix := _matrix(row))]
    if not found:
        return None
    cut = (
        f" The first {_MOST} of {len(found)} cells; the table has all of them." if len(found) > _MOST else ""
    )
    caption = (
        "Objects and pages allocated, by the node of the CPU that asked (rows) and the node of the memory it got "
        "(columns): share of the row in % and shade, and how many; exact counts of the whole run, without a spread. "
        f"What lies on the diagonal is local.{cut}"
    )
    return element(
        "figure",
        element("figcaption", element("b", "Nodes of CPUs and of their memory. "), caption),
        element("div", [_heat(row, matrix) for row, matrix in found[:_MOST]], class_="heats"),
        details("the same in numbers", _table(found)),
        id="figure-numa-matrix",
        class_="drawn",
    )


def _matrix(row: Row) -> Matrix:
    """Return the counts of a cell, with the nodes in it only; nothing of an arena of one, or of an old result."""
    found: Matrix = row.cell.get("numa", {}).get("allocs_from", {})
    used = {home: counts for home, counts in found.items() if sum(counts.values())}
    return used if len(found) > 1 else {}


def _heat(row: Row, matrix: Matrix) -> Markup:
    nodes = list(next(iter(matrix.values())))
    head = element("tr", element("th", "CPU \\ memory"), [element("th", node, scope="col") for node in nodes])
    rows = [
        element("tr", element("th", home, scope="row"), [_shade(home, node, counts) for node in nodes])
        for home, counts in matrix.items()
    ]
    caption = element("caption", row.label)
    inner = element("table", caption, element("thead", head), element("tbody", rows), class_="heat")
    return element("div", inner)


def _shade(home: str, node: str, counts: Mapping[str, int]) -> Markup:
    share = counts.get(node, 0) / sum(counts.values())
    return element(
        "td",
        element("i", style=f"opacity:{share * _DEEPEST:.3f}"),
        element("b", percent(share)) if home == node else percent(share),
        element("br"),
        element("span", units.count(counts.get(node, 0))),
        class_="n",
        title=f"CPUs of {home}, memory of {node}: {counts.get(node, 0):,} of {sum(counts.values()):,}",
    )


def _table(found: Sequence[tuple[Row, Matrix]]) -> Markup:
    rows = [
        [row.label, home, node, f"{count:,}", percent(count / sum(counts.values()))]
        for row, matrix in found
        for home, counts in matrix.items()
        for node, count in counts.items()
    ]
    return table(("cell", "node of the CPU", "node of the memory", "allocations", "share"), rows, left=3)
