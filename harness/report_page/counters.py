# SPDX-License-Identifier: MIT
"""All counters of all cells."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from harness.page import Loaded, Section, details, element, join, matrix, named_cells
from harness.report_page.words import number, plural

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tabulate counters: a row each, a column for each cell."""
    cells = [(cell, name) for _, cell, name in named_cells(runs) if cell["counters"]]
    names = list(dict.fromkeys(name for cell, _ in cells for name in cell["counters"]))
    used = [name for name in names if any(cell["counters"].get(name) for cell, _ in cells)]
    if not names:
        return []
    rows = [
        (element("code", name), [number(cell["counters"].get(name)) for cell, _ in cells]) for name in used
    ]
    unused = [element("code", name) for name in names if name not in used]
    rest = [(", " if at else "", name) for at, name in enumerate(unused)]
    shown = matrix("counter", [name for _, name in cells], rows)
    title = f"{plural(len(rows), 'counter')} of {plural(len(cells), 'cell')}"
    body = join(
        details(title, shown, open=True, class_="long") if rows else None,
        details(f"{len(unused)} more are 0 in every cell", element("p", rest)) if unused else None,
    )
    script = resources.files("harness.report_page").joinpath("counters.js").read_text(encoding="utf-8")
    return [Section("counters", "Counters", body, js=script if rows else "")]
