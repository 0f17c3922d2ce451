# SPDX-License-Identifier: MIT
"""What a report says about nodes: one row for each cell, and each node's memory as numastat prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness import numa, units
from harness.compare import percent
from shmalloc.procfs import numastat_memory

__all__ = ["numastat_text", "parts"]

_IN_FULL = 4  # cells whose memory a report prints node by node in full; the file numastat.txt has all

Cell = Mapping[str, Any]


def parts(cells: Sequence[Cell]) -> Iterator[RenderableType]:
    """Yield what there is to say about arenas of several nodes."""
    shown = numa.several(cells)
    if not shown:
        return
    yield _events(shown)
    if len(shown) <= _IN_FULL:
        yield Text(numastat_text(shown))
    else:
        yield _used(shown)


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for at, name in enumerate(names):
        widest = max(map(len, name.split()))
        table.add_column(name, justify="right" if at else "left", no_wrap=at == 0, min_width=widest)
    return table


def _events(cells: Sequence[Cell]) -> Table:
    """Tabulate the kernel's counters of pages, and ours of objects."""
    names = (
        "hit",
        "miss",
        "foreign",
        "local",
        "other",
        "mismatch",
        "slow path",
        "elsewhere",
        "remote",
        "failed",
    )
    modelled = any(cell["numa"]["modelled_ns"]["per_alloc"] is not None for cell in cells)
    table = _table("nodes", *names, *(["modelled ns/alloc", "modelled, all local"] if modelled else []))
    for cell in cells:
        found, counters = cell["numa"], cell["counters"]
        row = [units.count(counters[f"numa_{name}"]) for name in names[:5]]
        row.append(units.count(counters["alloc_node_mismatch"]))
        row += [percent(found[f"{name}_share"]) for name in ("slow_path", "elsewhere", "remote")]
        row.append(units.count(sum(cell["failures"].values())))
        if modelled:
            row += [units.nanoseconds(found["modelled_ns"][key]) for key in ("per_alloc", "if_all_local")]
        table.add_row(_label(cell), *row)
    return table


def _label(cell: Cell) -> str:
    return str(cell["id"]).removeprefix("design=")


def _used(cells: Sequence[Cell]) -> Table:
    """Tabulate MemUsed of each node at the end of the replay, MB."""
    nodes = max((list(cell["numa"]["memory_per_node"]) for cell in cells), key=len)
    heads = [node.replace("node", "Node ") for node in nodes]
    table = _table("MemUsed per node (MBs), rest in numastat.txt", *heads, "Total")
    for cell in cells:
        memory = cell["numa"]["memory_per_node"]
        used = [memory[node]["MemUsed"] / (1 << 20) if node in memory else None for node in nodes]
        total = sum(value for value in used if value is not None)
        table.add_row(_label(cell), *("" if value is None else f"{value:.2f}" for value in [*used, total]))
    return table


def numastat_text(cells: Sequence[Cell]) -> str:
    """Write each cell's memory per node at the end of its replay, in the form of numastat -m."""
    return "\n".join(
        f"{cell['id']}\n{numastat_memory(cell['numa']['memory_per_node'])}" for cell in numa.several(cells)
    )
