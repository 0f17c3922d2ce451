# SPDX-License-Identifier: MIT
"""Cells side by side: one row for each, with what a person who has to choose a design asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from harness import units
from harness.vocabulary import CONTEXTS
from shmalloc.units import format_bytes

__all__ = ["Requests", "contexts_used", "group_of", "percent", "requests", "table", "why"]

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Requests:
    """Requests of a cell or of one of its contexts. Attributes: served.  failed: with NULL, any reason."""

    served: int
    failed: int

    @property
    def number(self) -> int:
        """All requests."""
        return self.served + self.failed

    @property
    def success(self) -> float | None:
        """Share that was served, 0..1; of no request there is none."""
        return self.served / self.number if self.number else None


def requests(counts: Cell) -> Requests:
    """Count the requests of a cell, or of one of its contexts."""
    return Requests(int(counts["allocs"]), sum(counts["failures"].values()))


def contexts_used(cells: Sequence[Cell]) -> list[str]:
    """List the contexts in which any of the cells asked for memory."""
    return [name for name in CONTEXTS if any(requests(cell["contexts"][name]).number for cell in cells)]


def group_of(cell: Cell) -> str:
    """Name what varies beside the design: cells of one group differ in their design only."""
    others = {path: value for path, value in cell["params"].items() if path != "design"}
    return ", ".join(f"{path.rpartition('.')[2]} = {_short(value)}" for path, value in others.items())


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("kind", "/".join(map(str, value.values()))))
    return str(value).lower() if isinstance(value, bool) else str(value)


def percent(share: float | None) -> str:
    """Write a share: never rounded up to 100 %, nor down to 0 %."""
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    shown = next((f"{share:.{digits}%}" for digits in (1, 2, 3) if _is_between(share, digits)), None)
    return shown or (">99.999%" if share > 0.5 else "<0.001%")


def _is_between(share: float, digits: int) -> bool:
    return 0 < round(share * 100, digits) < 100


def why(failures: Mapping[str, int]) -> str:
    """Write the reasons of failures, most frequent first."""
    ordered = sorted(failures.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {units.count(number)}" for reason, number in ordered if number)


def table(cells: Sequence[Cell]) -> Table | None:
    """Tabulate cells for comparison; None, if there is nothing to compare."""
    contexts = contexts_used(cells)
    if len(cells) < 2 or not contexts:
        return None
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    made.add_column("compared", overflow="fold")
    latencies = [f"{context} p50/p99" for context in contexts]
    for name in ("success", "ops/s", *latencies, "peak memory", "failures"):
        made.add_column(name, justify="left" if name == "failures" else "right", overflow="fold")
    for cell in cells:
        asked = requests(cell)
        made.add_row(
            cell["id"],
            percent(asked.success),
            units.count(cell["throughput_ops_s"]),
            *(_latency(cell["contexts"][context]["latency_ns"]) for context in contexts),
            format_bytes(cell["memory"]["peak_bytes"]),
            why(cell["failures"]) or "none",
        )
    return made


def _latency(percentiles: Mapping[str, float | None]) -> str:
    return "/".join(units.nanoseconds(percentiles[key]) for key in ("p50", "p99"))
