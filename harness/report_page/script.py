# SPDX-License-Identifier: MIT
"""Runs of the engine `script`: the counters that its steps stored, and what happened step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.page import Child, Loaded, Markup, Section, details, element, join, matrix, named_cells, table
from harness.report_page.words import number

__all__ = ["sections"]

Cell = Mapping[str, Any]
_INSIDE = "    "  # a line of what happened within a step
_OPEN = 6  # cells whose steps are not folded away

_CSS = """
.steps { border-left: 2px solid var(--line); padding-left: .7rem; }
.steps .inside { color: var(--link); }
"""


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Show the scripts among the cells."""
    named = [(cell, name) for _, cell, name in named_cells(runs) if cell.get("steps") or cell.get("facts")]
    if not named:
        return []
    shown = [
        details(name, _interleaving(cell), _steps(cell), open=_interrupted(cell) or at < _OPEN)
        for at, (cell, name) in enumerate(named)
    ]
    body = join(_facts(named), element("h3", "Step by step"), shown)
    return [Section("script", "The script", body, css=_CSS)]


def _facts(named: Sequence[tuple[Cell, str]]) -> Markup | None:
    names = list(dict.fromkeys(name for cell, _ in named for name in cell.get("facts", {})))
    if not names:
        return None
    rows: list[tuple[Child, list[Child]]] = [
        (element("code", name), [number(cell.get("facts", {}).get(name)) for cell, _ in named])
        for name in names
    ]
    said = "Counters that the steps stored:"
    return join(element("p", said, class_="quiet"), matrix("counter", [name for _, name in named], rows))


def _interrupted(cell: Cell) -> bool:
    return any(line.startswith(_INSIDE) for line in cell.get("interleaving", ()))


def _interleaving(cell: Cell) -> Markup | None:
    """Write what happened, in order, what an interrupt did inside a step set in."""
    lines = cell.get("interleaving", ())
    if not lines:
        return None
    made = [
        (element("span", line, class_="inside") if line.startswith(_INSIDE) else line, "\n") for line in lines
    ]
    return element("pre", made, class_="steps")


def _steps(cell: Cell) -> Markup | None:
    steps = cell.get("steps", ())
    if not steps:
        return None
    rows = [
        [
            number(step.get("step")),
            element("code", step.get("do", "")),
            number(step.get("cpu")),
            number(step.get("result")),
            ", ".join(f"{reason} {number(count)}" for reason, count in step.get("reasons", {}).items()),
        ]
        for step in steps
    ]
    return details("results", table(("step", "do", "CPU", "result", "failed"), rows, left=2))
