# SPDX-License-Identifier: MIT
"""The figure about nodes: mismatches, slow path, where objects came from, and what a model says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.compare import percent
from harness.plots import palette
from harness.plots.drawing import Drawing, Numbers
from harness.plots.grid import Grid, Row
from harness.plots.panels import Bar, Part, rows_of_bars, swept, swept_entries

__all__ = ["numa"]

_SHARES = {
    "mismatch": ("node mismatch", "slab allocations after one (%)"),
    "slow_path": ("slow path", "slab allocations through it (%)"),
    "elsewhere": ("elsewhere", "requests not from the node named (%)"),
    "remote": ("remote", "allocations remote to the CPU (%)"),
}


def numa(grid: Grid) -> Drawing | None:
    """Draw what naming nodes did; None, if no arena had several."""
    if not any(_counted(row) for row in grid.rows):
        return None
    modelled = any(_modelled(row) is not None for row in grid.rows)
    kinds = [*_SHARES, *(["modelled"] if modelled else [])]
    panels = []
    for kind in kinds:
        name, value = f"numa-{kind}", _modelled if kind == "modelled" else _share(kind)
        title, unit = _SHARES.get(kind, ("MODELLED, not measured", "modelled ns per allocated object"))
        if grid.sweep:
            panels.append(swept(name, title, unit, grid, value, limits=(0, None)))
        else:
            panels.append(rows_of_bars(name, title, unit, grid.shown, _bars(grid, name, kind, value)))
    return Drawing(
        "numa",
        "Requests for nodes: what they did to the slabs, and where memory came from",
        [
            "Shares of all slab allocations, of the requests that named a node, and of all allocations; exact counts "
            "of the whole run, without a spread. How many there were is in the table.",
            "What is modelled is SLIT distance times a price (numa_model), and in no measured time."
            if modelled
            else "",
            grid.cut,
        ],
        panels,
        swept_entries(grid),
        _table(grid, modelled),
    )


def _bars(
    grid: Grid, name: str, kind: str, value: Callable[[Row], float | None]
) -> Callable[[Row], Bar | None]:
    def bar(row: Row) -> Bar | None:
        number = value(row)
        if number is None:
            return None
        said = f"{number:.0f} ns" if kind == "modelled" else percent(number / 100)
        gid = f"{name}-{grid.rows.index(row)}"
        return Bar([Part(number, palette.series(row.colour), gid, f"{row.label}: {said}")], said)

    return bar


def _of(row: Row) -> Mapping[str, Any]:
    found: Mapping[str, Any] = row.cell.get("numa", {})
    return found


def _counted(row: Row) -> int:
    return sum(_of(row).get("allocs", {}).values())


def _share(kind: str) -> Callable[[Row], float | None]:
    def share(row: Row) -> float | None:
        found = _of(row).get(f"{kind}_share")
        return None if found is None else 100 * float(found)

    return share


def _modelled(row: Row) -> float | None:
    found = _of(row).get("modelled_ns", {}).get("per_alloc")
    return None if found is None else float(found)


def _table(grid: Grid, modelled: bool) -> Numbers:
    rows = []
    for row in grid.rows:
        counters = row.cell.get("counters", {})
        slab = counters.get("alloc_fastpath", 0) + counters.get("alloc_slowpath", 0)
        numbers = [slab, counters.get("node_requests", 0), _counted(row)]
        shares = [percent(_of(row).get(f"{kind}_share")) for kind in _SHARES]
        price = ["-" if (ns := _modelled(row)) is None else f"{ns:.1f}"] if modelled else []
        rows.append([row.label, *(f"{number:,}" for number in numbers), *shares, *price])
    counts = ("slab allocations", "requests that name a node", "allocations")
    head = (
        "cell",
        *counts,
        *(title for title, _ in _SHARES.values()),
        *(["modelled ns"] if modelled else []),
    )
    return Numbers(head, rows)
