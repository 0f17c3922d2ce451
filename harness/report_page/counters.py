# SPDX-License-Identifier: MIT
"""All counters of all cells."""

from __future__ import annotations

from collections.abc import Sequence

from harness.page import Loaded, Section, element, named_cells, table
from harness.report_page.words import number

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tabulate counters: a row each, a column for each cell."""
    cells = [(cell, name) for _, cell, name in named_cells(runs)]
    names = list(dict.fromkeys(name for cell, _ in cells for name in cell["counters"]))
    if not names:
        return []
    rows = [
        [element("code", name), *(number(cell["counters"].get(name)) for cell, _ in cells)] for name in names
    ]
    return [Section("counters", "Counters", table(("counter", *(name for _, name in cells)), rows))]
