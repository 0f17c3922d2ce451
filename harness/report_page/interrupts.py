# SPDX-License-Identifier: MIT
"""Interrupts and injected faults: how many there were, where they landed, what they used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.page import Child, Loaded, Markup, Section, breakable, element, join, matrix, named_cells, table
from harness.plots.sections import figure
from harness.report_page.words import number

__all__ = ["sections"]

Cell = Mapping[str, Any]
_FAULTS = ("failslab", "fail_page_alloc", "fault_dumps")  # counters


def sections(runs: Sequence[Loaded], designs: Sequence[str]) -> list[Section]:
    """Draw the one and tabulate both, where there are any."""
    named = [(cell, name) for _, cell, name in named_cells(runs)]
    made = []
    if rows := [row for cell, name in named for row in _rows(cell, name)]:
        counts = _counts(named)
        head = ("cell", "interrupt", "handler's design", *(name.replace("_", " ") for name in counts))
        said = (
            "In allocator: the handler arrived while an allocator's code was being executed; in slow path: behind the "
            "fast path; masked: held back while interrupts were off; nested: arrived in a handler."
        )
        drawn = figure("interrupts", runs, designs)
        body = join(drawn, element("p", said, class_="quiet"), table(head, rows, left=3))
        made.append(Section("interrupts", "Interrupts", body))
    if faults := _faults(runs, named):
        made.append(Section("faults", "Injected faults", faults))
    return made


def _counts(named: Sequence[tuple[Cell, str]]) -> list[str]:
    return list(dict.fromkeys(key for cell, _ in named for row in cell["interrupts"].values() for key in row))


def _rows(cell: Cell, name: str) -> Iterator[list[Child]]:
    for kind, row in cell["interrupts"].items():
        if any(row.values()):
            design = cell.get("handlers", {}).get(kind, "-")
            yield [breakable(name), kind.upper(), design, *map(number, row.values())]


def _faults(runs: Sequence[Loaded], named: Sequence[tuple[Cell, str]]) -> Markup | None:
    """Show attributes as configured, and what came of them."""
    attributes = [
        [*([each.label] if len(runs) > 1 else []), element("code", name), _attributes(attribute)]
        for each in runs
        for name, attribute in (each.run["config"].get("faults") or {}).items()
        if attribute
    ]
    if not attributes:
        return None
    rows: list[tuple[Child, list[Child]]] = [
        (element("code", name), [number(cell["counters"].get(name)) for cell, _ in named]) for name in _FAULTS
    ]
    rows.append(("requests that failed", [number(cell["failures"].get("injected")) for cell, _ in named]))
    return join(
        table((*(["run"] if len(runs) > 1 else []), "attribute", ""), attributes, left=3),
        matrix("counted", [name for _, name in named], rows),
    )


def _attributes(attribute: Any) -> str:
    if isinstance(attribute, Mapping):
        return ", ".join(f"{key} = {str(value).lower()}" for key, value in attribute.items())
    return str(attribute)
