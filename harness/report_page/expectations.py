# SPDX-License-Identifier: MIT
"""What was expected, and what was measured of it: of the run (tests and claims) and of each cell (must_happen)."""

from __future__ import annotations

from collections.abc import Sequence

from harness import report
from harness.page import Loaded, Markup, Section, element, join, named_cells, table

__all__ = ["sections"]

_HOLDS = {
    True: ("holds", "good"),
    False: ("does not hold", "bad"),
    None: ("about no cell of this run", "quiet"),
}


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tabulate expectations of runs and of cells."""
    parts = [part for part in (_of_runs(runs), _of_cells(runs)) if part]
    return [Section("expectations", "What was expected", join(*parts))] if parts else []


def _holds(holds: bool | None) -> Markup:
    text, look = _HOLDS[holds]
    return element("span", text, class_=look)


def _of_runs(runs: Sequence[Loaded]) -> Markup | None:
    rows = [
        [*_run(runs, each.label), entry["text"], entry["kind"], _holds(entry["holds"]), report.said(entry)]
        for each in runs
        for entry in each.run["expectations"]
    ]
    head = [*_run(runs, "run"), "expectation", "kind", "", "measured"]
    return table(head, rows, left=len(head)) if rows else None


def _run(runs: Sequence[Loaded], label: str) -> list[str]:
    return [label] if len(runs) > 1 else []


def _of_cells(runs: Sequence[Loaded]) -> Markup | None:
    rows = [
        [
            name,
            element("code", entry["condition"]),
            _holds(entry["holds"]),
            report.measured(entry["measured"]),
        ]
        for _, cell, name in named_cells(runs)
        for entry in cell["must_happen"]
    ]
    if not rows:
        return None
    said = "Must happen in each cell, or it has proved nothing (must_happen):"
    return join(element("p", said), table(("cell", "condition", "", "measured"), rows, left=4))
