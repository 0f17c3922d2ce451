# SPDX-License-Identifier: MIT
"""The cells of a run by design and by what else varies: what the rows and lines of a picture are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from harness.compare import contexts_used, group_of, requests

__all__ = ["Cell", "Grid", "Row"]

Cell = Mapping[str, Any]

_LINES_FROM = 3  # values of a number that varies, from which a line says more than bars
MOST_ROWS = 48  # more rows than that nobody reads; the report has all of them


@dataclass(frozen=True)
class Row:
    """A cell.

    Attributes: label: unique in the grid.  line: the same for all rows of one line over the number that is
        swept.  design.  colour: number of its design's colour.  dash: of its line style.  cell.
    """

    label: str
    line: str
    design: str
    colour: int
    dash: int
    cell: Cell

    def handler_note(self, context: str) -> str:
        """Say which design was used in a context, if it was not the cell's own."""
        used = [name for name, seen in self.cell.get("designs", {}).items() if context in seen]
        return f"by {', '.join(used)}" if used and used != [self.design] else ""


@dataclass(frozen=True)
class Grid:
    """Cells that asked for memory.

    Attributes: rows: in the order of the run.  contexts: those in which memory was asked for.  sweep: name of
        the one number that varies beside the design, if its values make a line; else "".
    """

    rows: tuple[Row, ...]
    contexts: tuple[str, ...]
    sweep: str

    @classmethod
    def of(cls, cells: Sequence[Cell], order: Sequence[str]) -> Self | None:
        """Lay the cells of a run out; None if none of them asked for memory."""
        used = [cell for cell in cells if requests(cell).number]
        if not used:
            return None
        designs = [*order, *(cell["design"] for cell in used)]
        sweep = _sweep(used)
        rows = tuple(_row(cell, used, sweep, designs) for cell in used)
        return cls(rows, tuple(contexts_used(used)), sweep)

    @property
    def is_single(self) -> bool:
        """Whether there is nothing to compare."""
        return len(self.rows) == 1

    @property
    def cut(self) -> str:
        """Say how many rows a figure of rows leaves out; "" if none."""
        if self.sweep or len(self.rows) <= MOST_ROWS:
            return ""
        return f" (first {MOST_ROWS} of {len(self.rows)} cells)"

    @property
    def groups(self) -> dict[str, list[Row]]:
        """The rows that differ in their design only, by what they have in common."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(group_of(row.cell), []).append(row)
        return groups

    @property
    def lines(self) -> dict[str, list[Row]]:
        """The rows of each line, by the number that is swept."""
        lines: dict[str, list[Row]] = {}
        for row in self.rows:
            lines.setdefault(row.line, []).append(row)
        return {name: sorted(rows, key=lambda row: self.value(row)) for name, rows in lines.items()}

    def value(self, row: Row) -> float:
        """Return the number that is swept, of one row."""
        return float(row.cell["params"][self.sweep])


def _name(cell: Cell, cells: Sequence[Cell], without: str) -> str:
    """Name a row or a line: the design, and what else varies but for one number."""
    several = len({other["design"] for other in cells}) > 1
    group = group_of({**cell, "params": {k: v for k, v in cell["params"].items() if k != without}})
    return ", ".join(part for part in (cell["design"] if several or not group else "", group) if part)


def _row(cell: Cell, cells: Sequence[Cell], sweep: str, designs: Sequence[str]) -> Row:
    """Make the row of one cell."""
    design, line = cell["design"], _name(cell, cells, sweep)
    colour = designs.index(design)
    siblings = [_name(other, cells, sweep) for other in cells if other["design"] == design]
    return Row(_name(cell, cells, ""), line, design, colour, _dash(colour, line, siblings), cell)


def _dash(colour: int, name: str, names: Sequence[str]) -> int:
    """Tell lines apart that are of one design, and so of one colour. Args: names: of that design's rows."""
    return colour + list(dict.fromkeys(names)).index(name)


def _sweep(cells: Sequence[Cell]) -> str:
    """Find the one number that varies, beside the design and what is no number."""
    paths = {path for cell in cells for path in cell["params"] if path not in ("design", "seed")}
    found = [path for path in sorted(paths) if _is_swept([cell["params"].get(path) for cell in cells])]
    return found[0] if len(found) == 1 else ""


def _is_swept(values: Sequence[Any]) -> bool:
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return numeric and len(set(values)) >= _LINES_FROM
