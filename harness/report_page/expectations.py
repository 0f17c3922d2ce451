# SPDX-License-Identifier: MIT
"""What was expected, and what was measured of it: of the run (tests and claims) and of each cell (must_happen)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import report
from harness.page import (
    Child,
    Loaded,
    Markup,
    Section,
    breakable,
    details,
    element,
    join,
    matrix,
    named_cells,
    table,
)
from harness.report_page.words import number

__all__ = ["of_runs", "sections"]

_HOLDS = {
    True: ("holds", "good"),
    False: ("does not hold", "bad"),
    None: ("about no cell of this run", "quiet"),
}


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Tabulate expectations of runs and of cells."""
    parts = [part for part in (of_runs(runs), _of_cells(runs)) if part]
    return [Section("expectations", "What was expected", join(parts))] if parts else []


# --- of runs -------------------------------------------------------------------------------------


def of_runs(runs: Sequence[Loaded]) -> Markup | None:
    """Tabulate the tests and claims of runs, if they have any."""
    rows = [
        [
            *_run(runs, each.label),
            _prose(entry["text"]),
            entry["kind"],
            _holds(entry["holds"]),
            _measured(entry),
        ]
        for each in runs
        for entry in each.run["expectations"]
    ]
    head = [*_run(runs, "run"), "expectation", "kind", "", "measured"]
    return table(head, rows, left=len(head)) if rows else None


def _run(runs: Sequence[Loaded], label: str) -> list[str]:
    return [label] if len(runs) > 1 else []


def _prose(text: str) -> Markup:
    return element("div", text, class_="prose")


def _holds(holds: bool | None) -> Markup:
    text, look = _HOLDS[holds]
    return element("span", text, class_=look)


def _measured(entry: Mapping[str, Any]) -> Child:
    """Say what was measured: in the config's words, if it has some; cell by cell where there are several."""
    value = entry.get("measured")
    said = entry.get("said")
    if not isinstance(value, Mapping) or not value:
        return _prose(said or _value(value))
    if any(isinstance(each, Mapping) for each in value.values()):
        names = list(
            dict.fromkeys(key for each in value.values() if isinstance(each, Mapping) for key in each)
        )
        rows = [(cell, [_value(_of(each, key)) for key in names]) for cell, each in value.items()]
        full = table(("cell", *map(breakable, names)), [(breakable(cell), *each) for cell, each in rows])
        return details(_prose(said or f"in {len(value)} cells"), full)
    full = table(("", "measured"), [(breakable(key), _value(each)) for key, each in value.items()])
    if len(value) <= 2 and not said:
        return join(_listed(value))
    return details(_prose(said or report.measured(value).removeprefix("measured ")), full)


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else value


def _listed(values: Mapping[str, Any]) -> list[Markup]:
    return [element("div", breakable(key), ": ", _value(each)) for key, each in values.items()]


def _value(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else number(value)


# --- of cells ------------------------------------------------------------------------------------


def _of_cells(runs: Sequence[Loaded]) -> Markup | None:
    """Tabulate conditions, a column for each cell that has any."""
    cells = [(cell, name) for _, cell, name in named_cells(runs) if cell["must_happen"]]
    found = [{entry["condition"]: entry for entry in cell["must_happen"]} for cell, _ in cells]
    conditions = list(dict.fromkeys(condition for each in found for condition in each))
    if not conditions:
        return None
    rows = [
        (element("code", condition), [_met(each.get(condition)) for each in found])
        for condition in conditions
    ]
    said = "Must happen in a cell, or it has proved nothing; measured:"
    return join(
        element("h3", "must_happen"),
        element("p", said, class_="quiet"),
        matrix("condition", [name for _, name in cells], rows),
    )


def _met(entry: Mapping[str, Any] | None) -> Child:
    if entry is None:
        return ""
    value = entry.get("measured")
    said = join(_listed(value)) if isinstance(value, Mapping) else _value(value)
    return said if entry["holds"] else element("span", said, " (not met)", class_="bad")
