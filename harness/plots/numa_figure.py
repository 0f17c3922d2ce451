# SPDX-License-Identifier: MIT
"""The figure about nodes: mismatches, slow path, where objects came from, and what a model says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.compare import percent
from harness.plots import style
from harness.plots.grid import Cell, Grid, Row
from harness.plots.panels import name_axes, scale, side_by_side, values

__all__ = ["numa"]

_SHARES = {
    "mismatch": "node mismatches (% of slab allocations)",
    "slow_path": "slow path (% of slab allocations)",
    "elsewhere": "not on the node asked for (%)",
    "remote": "remote to the CPU (%)",
}


def numa(grid: Grid) -> Any:
    """Draw what naming nodes did; None, if no arena had several."""
    if grid.is_single or not any(sum(row.cell["numa"]["allocs"].values()) for row in grid.rows):
        return None
    modelled = any(row.cell["numa"]["modelled_ns"]["per_alloc"] is not None for row in grid.rows)
    names = [*_SHARES, *(["modelled"] if modelled else [])]
    figure, panels = side_by_side(grid, names, sharey=False)
    for axes, name in zip(panels, names, strict=True):
        _draw(axes, grid, name)
    style.title(
        figure, f"Requests for nodes: what they did to the slabs, and where memory came from{grid.cut}"
    )
    return figure


def _draw(axes: Any, grid: Grid, name: str) -> None:
    if name == "modelled":
        values(axes, grid, "numa-modelled", _modelled, lambda row: f"{_modelled(row.cell) or 0:.0f} ns")
        name_axes(axes, grid, "MODELLED, not measured", "modelled ns per allocated object")
        scale(axes, grid, (0, None))
        return
    value = _share(name)

    def said(row: Row) -> str:
        return percent(row.cell["numa"][f"{name}_share"])

    values(axes, grid, f"numa-{name}", value, said)
    most = max(value(row.cell) for row in grid.rows)
    scale(axes, grid, (0, max(1e-9, 1.1 * most)) if grid.sweep else (0, max(1e-9, 1.5 * most)))
    name_axes(axes, grid, "", _SHARES[name])


def _share(name: str) -> Callable[[Cell], float]:
    return lambda cell: 100 * float(cell["numa"][f"{name}_share"])


def _modelled(cell: Cell) -> float | None:
    found = cell["numa"]["modelled_ns"]["per_alloc"]
    return None if found is None else float(found)
