# SPDX-License-Identifier: MIT
"""What is shown of a script's run: its numbers, and the exact interleaving where something was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.vocabulary import OK

Run = Mapping[str, Any]
_INSIDE = "    "  # a line of what happened within a step


def parts(cells: Sequence[Run]) -> Iterator[RenderableType]:
    """Yield the tables and texts that are a script's own."""
    yield _numbers(cells)
    for cell in cells:
        yield from interleaving(cell)


def _numbers(cells: Sequence[Run]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("cell", "verdict", "steps"):
        table.add_column(name)
    table.add_column("counters", overflow="fold")
    for cell in cells:
        stored = ", ".join(f"{name} {value:g}" for name, value in cell["facts"].items())
        failed = ", ".join(f"{reason} {count}" for reason, count in cell["failures"].items() if count)
        table.add_row(
            cell["id"], _verdict(cell), str(cell["ops"]), stored + (f"; failed: {failed}" if failed else "")
        )
    return table


def _verdict(cell: Run) -> Text:
    if cell["verdict"] == cell["expected"]:
        return Text(cell["verdict"] + ("" if cell["verdict"] == OK else " (as expected)"), style="green")
    return Text(f"{cell['verdict']}, expected {cell['expected']}", style="bold red")


def interleaving(cell: Run) -> Iterator[Text]:
    """Yield the interleaving of a cell, if anything in it was interrupted."""
    lines = cell["interleaving"]
    if not any(line.startswith(_INSIDE) for line in lines):
        return
    yield Text(f"{cell['id']}: the interleaving", style="bold")
    for line in lines:
        yield Text(f"  {line}", style="cyan" if line.startswith(_INSIDE) else "")
    yield Text()
