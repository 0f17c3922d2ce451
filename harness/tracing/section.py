# SPDX-License-Identifier: MIT
"""The report's section of recorded events: how many of each kind, what was lost, the longest calls, how to see more."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from harness.page import (
    Child,
    Loaded,
    Markup,
    Section,
    breakable,
    copyable,
    details,
    element,
    join,
    named_cells,
    table,
)
from harness.report_page.words import number

if TYPE_CHECKING:
    import numpy as np

    from shmalloc.trace import Events

__all__ = ["sections"]

_OPEN, _LONGEST = 4, 8  # cells that are not folded away; calls
_CALLS = ("shmalloc:alloc", "shmalloc:free")
_BETWEEN = ("shmalloc:handler_entry", "lock:contention_begin")


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Sum up each cell's trace."""
    told = []
    for loaded, cell, name in named_cells(runs):
        events = _events(loaded, cell.get("trace") or {})
        if events is not None:
            told.append((name, _of_cell(loaded, cell["id"], events)))
    if not told:
        return []
    parts = [
        join(element("h3", breakable(name)), of_cell) if at < _OPEN else details(breakable(name), of_cell)
        for at, (name, of_cell) in enumerate(told)
    ]
    said = (
        "What the tracepoints recorded: groups kmem and lock with the kernel's names, shmalloc's own beside them. "
        "Overwritten: what the ring held no longer; lost: what found no room in it."
    )
    return [Section("trace", "Recorded events", join(element("p", said, class_="quiet"), parts))]


def _events(loaded: Loaded, trace: Mapping[str, Any]) -> Events | None:
    from shmalloc.trace import Events

    file = trace.get("file")
    arrays = loaded.arrays(PurePosixPath(file).stem) if isinstance(file, str) else None
    return Events.from_arrays(arrays) if arrays is not None else None


def _of_cell(loaded: Loaded, cell: str, events: Events) -> Markup:
    from harness.tracing.timeline import cpus_of

    command = f"shmalloc export-trace {shlex.quote(str(loaded.folder))}"
    if len(loaded.run["cells"]) > 1:
        command += f" --cell {shlex.quote(cell)}"
    return join(
        table(("event", *(f"CPU {cpu}" for cpu in cpus_of(events)), "all"), _counts(events)),
        _longest(events),
        element("p", "for Perfetto: ", copyable(command)),
        element("p", "as tracefs prints it: ", copyable(f"{command} --format tracefs")),
    )


def _counts(events: Events) -> Iterator[list[Child]]:
    import numpy as np

    from harness.tracing.timeline import cpus_of

    records, cpus = events.records, cpus_of(events)
    shape = max(cpus, default=0) + 1, len(events.names)
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (records["cpu"], records["id"]), 1)
    for index, name in enumerate(events.names):
        if counts[:, index].any():
            yield _row(":".join(name), [int(counts[cpu, index]) for cpu in cpus])
    for what, lost in (("overwritten", events.overwritten), ("lost", events.lost)):
        yield _row(what, [lost.get(cpu, 0) for cpu in cpus])


def _row(name: str, counts: Sequence[int]) -> list[Child]:
    return [name, *map(number, counts), number(sum(counts))]


def _longest(events: Events) -> Markup | None:
    """List the calls that took longest, with what came in between."""
    import numpy as np

    records = events.records
    calls = np.flatnonzero(np.isin(records["id"], [events.number(name) for name in _CALLS]))
    rows: list[list[Child]] = []
    for index in calls[np.argsort(records["dur"][calls], kind="stable")][::-1][:_LONGEST]:
        record = records[index]
        what = events.name(record).partition(":")[2]
        reason = str(events.value(record, "reason")) if int(record["reason"]) else ""
        rows.append(
            [
                f"{what} {events.value(record, 'design')}",
                f"CPU {int(record['cpu'])}, {events.contexts[int(record['ctx'])]}",
                reason,
                number(round(events.ns(int(record["dur"])))),
                *(number(_within(events, record, name)) for name in _BETWEEN),
            ]
        )
    head = ("longest calls", "where", "failed", "ns", "interrupts within", "waits for locks within")
    return table(head, rows, left=3) if rows else None


def _within(events: Events, call: np.void, name: str) -> int:
    """Count events of a name on a call's CPU while it lasted."""
    records = events.records
    during = (records["ts"] < call["ts"]) & (records["ts"] >= call["ts"] - min(call["dur"], call["ts"]))
    return int((during & (records["cpu"] == call["cpu"]) & (records["id"] == events.number(name))).sum())
