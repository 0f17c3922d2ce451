# SPDX-License-Identifier: MIT
"""The cells of runs by design and by what else varies: what the rows and lines of a picture are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from harness.compare import Requests, group_of
from harness.memory import Sample
from harness.plots.palette import LIGHT
from harness.vocabulary import CONTEXTS

__all__ = ["MOST_ROWS", "Cell", "Facet", "Grid", "Line", "Row", "Source", "asked"]

Cell = Mapping[str, Any]
Source = tuple[str, Cell, Sequence[Sample]]  # label of its run, the cell, its samples

_LINES_FROM = 3  # values of a number that varies, from which a line says more than bars
MOST_ROWS = 48  # more rows than that nobody reads; the table behind a figure has all of them
_MOST_LINES = 16  # over a sweep; of more, rows say more
_TOGETHER = 6  # rows in one panel, where none belongs to another


def asked(counts: Mapping[str, Any]) -> Requests:
    """Count the requests of a cell, or of one of its contexts; what an old result lacks is none."""
    return Requests(int(counts.get("allocs", 0)), sum(counts.get("failures", {}).values()))


@dataclass(frozen=True)
class Row:
    """A cell.

    Attributes: label: unique in the grid.  line: the same for all rows of one line over the number that is
        swept.  run: label of its run, "" if there is only one.  design.  design_colour: number of its colour.
        colour, dash: numbers of a colour and of a line style with its marker, over a sweep.  cell.  samples.
    """

    label: str
    line: str
    run: str
    design: str
    design_colour: int
    colour: int
    dash: int
    cell: Cell
    samples: Sequence[Sample]

    def context(self, name: str) -> Mapping[str, Any]:
        """Return what the cell did in a context; of an old result that may be nothing."""
        found: Mapping[str, Any] = self.cell.get("contexts", {}).get(name, {})
        return found

    def handler_note(self, context: str) -> str:
        """Say which design was used in a context, if it was not the cell's own."""
        used = [name for name, seen in self.cell.get("designs", {}).items() if context in seen]
        return f"by {', '.join(used)}" if used and used != [self.design] else ""

    @property
    def short(self) -> str:
        """The design, and the run if there are several: what tells the rows of a group apart."""
        return ": ".join(filter(None, (self.run, self.design)))


@dataclass(frozen=True)
class Line:
    """A row as a line of a panel. Attributes: row.  name: in the legend.  colour, dash: numbers."""

    row: Row
    name: str
    colour: int
    dash: int


@dataclass(frozen=True)
class Facet:
    """A panel of lines. Attributes: title: what its rows have in common.  lines."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Grid:
    """Cells that asked for memory.

    Attributes: rows: in the order of the runs.  contexts: those in which memory was asked for.  sweep: name of
        the one number that varies beside the design, if its values make a line; else "".
    """

    rows: tuple[Row, ...]
    contexts: tuple[str, ...]
    sweep: str

    @classmethod
    def of(cls, sources: Sequence[Source], order: Sequence[str]) -> Self | None:
        """Lay cells out; None if none of them asked for memory. Args: order: designs, whose places are colours."""
        used = [source for source in sources if asked(source[1]).number]
        if not used:
            return None
        cells = [cell for _, cell, _ in used]
        sweep = _sweep(cells)
        rows = _rows(used, sweep, order)
        if len({row.line for row in rows}) > _MOST_LINES:
            sweep = ""
            rows = _rows(used, sweep, order)
        contexts = [name for name in CONTEXTS if any(asked(row.context(name)).number for row in rows)]
        return cls(tuple(rows), tuple(contexts), sweep)

    @property
    def is_single(self) -> bool:
        """Whether there is nothing to compare."""
        return len(self.rows) == 1

    @property
    def shown(self) -> tuple[Row, ...]:
        """The rows of a figure that has one for each cell; if those are not all, whole groups of them."""
        if len(self.rows) <= MOST_ROWS:
            return self.rows
        groups = list(dict.fromkeys(group_of(row.cell) for row in self.rows))
        return tuple(sorted(self.rows, key=lambda row: groups.index(group_of(row.cell)))[:MOST_ROWS])

    @property
    def cut(self) -> str:
        """Say how many rows a figure of rows leaves out; "" if none."""
        if self.sweep or len(self.rows) <= MOST_ROWS:
            return ""
        return f"{MOST_ROWS} of {len(self.rows)} cells; the table has all of them."

    @property
    def handlers(self) -> str:
        """Say where another design than the cell's was at work; "" if nowhere."""
        found: dict[tuple[str, str], dict[str, None]] = {}
        for row in self.rows:
            for context in self.contexts:
                if note := row.handler_note(context):
                    found.setdefault((context, note), {})[row.design] = None
        return " ".join(
            f"In {context}, cells of {', '.join(designs)} are served {note}."
            for (context, note), designs in found.items()
        )

    @property
    def facets(self) -> list[Facet]:
        """The rows as lines of panels: in one panel those that differ in design and run only.

        Where no two rows are such, some at a time in the order of the runs.
        """
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(group_of(row.cell), []).append(row)
        if all(len(rows) == 1 for rows in groups.values()):
            return self._in_order()
        names = list(dict.fromkeys(row.short for row in self.rows))
        designs = {row.design for row in self.rows}

        def line(row: Row) -> Line:
            number = names.index(row.short)
            return Line(row, row.short, row.design_colour + (0 if len(designs) > 1 else number), number)

        return [Facet(title, [line(row) for row in rows]) for title, rows in groups.items()]

    def _in_order(self) -> list[Facet]:
        lines = [Line(row, row.label, row.design_colour + at, at) for at, row in enumerate(self.rows)]
        parts = [lines[at : at + _TOGETHER] for at in range(0, len(lines), _TOGETHER)]
        if len(parts) == 1:
            return [Facet("", lines)]
        ends = [(at * _TOGETHER + 1, at * _TOGETHER + len(part)) for at, part in enumerate(parts)]
        return [Facet(f"cells {a} to {b}", part) for (a, b), part in zip(ends, parts, strict=True)]

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


def _rows(sources: Sequence[Source], sweep: str, order: Sequence[str]) -> list[Row]:
    designs = list(dict.fromkeys([*order, *(cell["design"] for _, cell, _ in sources)]))
    several = len({cell["design"] for _, cell, _ in sources}) > 1
    has_runs = len({run for run, _, _ in sources}) > 1

    def name(run: str, cell: Cell, without: str) -> str:
        """Name a row or a line: run, design, and what else varies but for one number."""
        group = group_of({"params": {k: v for k, v in cell["params"].items() if k != without}})
        design = cell["design"] if several or not group else ""
        text = ", ".join(part for part in (design, group) if part)
        return f"{run}: {text}" if has_runs else text

    lines = [name(run, cell, sweep) for run, cell, _ in sources]
    known = list(dict.fromkeys(lines))
    rows = []
    for line, (run, cell, samples) in zip(lines, sources, strict=True):
        design = cell["design"]
        colour, step = designs.index(design), known.index(line)
        # colours are the designs'; where there is only one design, they tell its lines apart
        shade = colour if several else colour + step
        label = name(run, cell, "")
        run = run if has_runs else ""
        rows.append(Row(label, line, run, design, colour, shade % len(LIGHT), step, cell, samples))
    return rows


def _sweep(cells: Sequence[Cell]) -> str:
    """Find the one number that varies, beside the design and what is no number."""
    paths = {path for cell in cells for path in cell["params"] if path not in ("design", "seed")}
    found = [path for path in sorted(paths) if _is_swept([cell["params"].get(path) for cell in cells])]
    return found[0] if len(found) == 1 else ""


def _is_swept(values: Sequence[Any]) -> bool:
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return numeric and len(set(values)) >= _LINES_FROM
