# SPDX-License-Identifier: MIT
"""The cells of a run: verdict, what each did, and the command that runs it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import units
from harness.page import Loaded, Section, copyable, element, named_cells, table
from harness.report_page.words import anchor, number, verdict

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tabulate all cells."""
    head = ("cell", "verdict", "again", "CPUs", "ops", "allocs", "frees", "failed", "time")
    places = [anchor(at, place) for at, each in enumerate(runs) for place in range(len(each.run["cells"]))]
    rows = [
        [
            element("span", name, id=place),
            verdict(cell),
            copyable(cell["replay"]) if cell.get("replay") else "-",
            number(cell.get("cpus")),
            number(cell.get("ops")),
            number(cell.get("allocs")),
            number(cell.get("frees")),
            number(_failed(cell)),
            units.seconds(cell["seconds"]) if "seconds" in cell else "-",
        ]
        for place, (_, cell, name) in zip(places, named_cells(runs), strict=True)
    ]
    return [Section("cells", "Cells", table(head, rows, left=3))] if rows else []


def _failed(cell: Mapping[str, Any]) -> int:
    return sum(cell["failures"].values())
