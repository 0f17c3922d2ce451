# SPDX-License-Identifier: MIT
"""Audits: whether every page and object was accounted for, and where they were."""

from __future__ import annotations

from collections.abc import Sequence

from harness.page import Child, Loaded, Section, breakable, details, element, join, matrix, named_cells, table
from harness.report_page.words import number

__all__ = ["sections"]


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tabulate audits and their totals."""
    found = [
        (f"{name}, {when}", name, when, audit)
        for _, cell, name in named_cells(runs)
        for when, audit in cell["audits"].items()
    ]
    if not found:
        return []
    rows: list[list[Child]] = [
        [
            breakable(name),
            when,
            element("span", "clean", class_="good")
            if audit.get("ok")
            else element("span", f"{number(audit.get('problems'))} problems", class_="bad"),
            number(audit.get("seconds")),
            [element("div", note) for note in audit.get("notes", ())],
        ]
        for _, name, when, audit in found
    ]
    names = list(dict.fromkeys(key for *_, audit in found for key in audit.get("totals", {})))
    used = [key for key in names if any(audit.get("totals", {}).get(key) for *_, audit in found)]
    totals: list[tuple[Child, list[Child]]] = [
        (element("code", key), [number(audit.get("totals", {}).get(key)) for *_, audit in found])
        for key in used
    ]
    titles = [title for title, *_ in found]
    body = join(
        table(("cell", "when", "", "seconds", "notes"), rows, left=3, last=1),
        details("totals (what is 0 everywhere is left out)", matrix("total", titles, totals))
        if totals
        else None,
    )
    return [Section("audits", "Audits", body)]
