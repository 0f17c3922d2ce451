# SPDX-License-Identifier: MIT
"""What subjects are put to: one row of the table each, with the op array that the runner replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.workload.sizes import draw_sizes
from harness.workload.tracefile import KIND_KMALLOC, KIND_PAGES, Trace, read_trace

__all__ = ["LINES", "OPS", "Line", "Row", "native_rows", "python_rows", "trace_ops", "trace_row"]

Kind = Literal["pair", "batch", "ops", "handover", "both", "python"]
Line = Literal["near", "far"]
LINES: tuple[Line, ...] = ("near", "far")

#: an op as the runner reads it: frees what the slot holds, or allocates into it if it is empty; 0 bytes: frees only
OPS = np.dtype([("slot", "<u4"), ("bytes", "<u4")])
Ops = npt.NDArray[np.void]

BATCH_BYTES = (16, 64, 256, 1024, 4096)
_SEED = 20231
_MIX_OPS = 1 << 15
_HANDOVER_SIZES = 1 << 12
_LARGEST_OF_MIX = 2048  # pages are in lifo*_4096 and in the traces; not every design has them


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: in tables and results.
        summary: one line.
        kind: what the runner calls it; python: a row that subjects called from Python name by themselves.
        bytes, count: of pair and batch.
        ops: of the others.
        whole: a sample is of whole passes over the ops, because they are not alike.
        sides: 1 or 2.
        lines: samples in which a cache line took long between the sides, and the others, are apart.
        notes: what was done to a trace.
    """

    name: str
    summary: str
    kind: Kind
    bytes: int = 0
    count: int = 0
    ops: Ops | None = None
    whole: bool = False
    sides: int = 1
    lines: bool = False
    notes: Mapping[str, int] | None = None


def native_rows() -> list[Row]:
    """Return the rows that are always there, in the table's order."""
    rows = [Row("pair_64", "allocate and free 64 bytes", "pair", bytes=64)]
    for count in (64, 512):
        rows += [
            Row(
                f"lifo{count}_{size}",
                f"allocate {count} objects of {size} bytes, free them, the last first",
                "batch",
                bytes=size,
                count=count,
            )
            for size in BATCH_BYTES
        ]
    for slots in (256, 4096):
        rows.append(
            Row(
                f"mix_{slots}",
                f"random lifetimes over {slots:,} slots, sizes as a kernel asks for them",
                "ops",
                ops=_mix(slots),
            )
        )
    fixed, mixed = _ops(np.zeros(1), np.full(1, 64)), _ops(np.zeros(_HANDOVER_SIZES), _sizes(_HANDOVER_SIZES))
    for name, ops, what in (("pc_fixed", fixed, "64 bytes"), ("pc_mixed", mixed, "kernel-like sizes")):
        summary = f"allocated on one CPU, freed on another, {what}"
        rows.append(Row(name, summary, "handover", ops=ops, sides=2, lines=True))
    return [
        *rows,
        Row("two_cpus", "mix_4096 on two CPUs at once, each its own", "both", ops=_mix(4096), sides=2),
        Row(
            "two_cpus_64",
            "64 objects of 64 bytes on two CPUs at once, each its own",
            "both",
            ops=_lifo(64, 64),
            sides=2,
        ),
    ]


def python_rows(names: Sequence[str]) -> list[Row]:
    """Return the rows that subjects called from Python speak of."""
    return [Row(name, "called from Python, beyond an empty loop", "python") for name in names]


def _ops(slot: npt.ArrayLike, size: npt.ArrayLike) -> Ops:
    slots = np.asarray(slot)
    made = np.zeros(slots.size, OPS)
    made["slot"], made["bytes"] = slots, size
    return made


def _sizes(count: int) -> npt.NDArray[np.uint32]:
    rng = np.random.default_rng(_SEED)
    drawn = draw_sizes(rng, 2 * count)
    small = drawn[drawn <= _LARGEST_OF_MIX]
    return np.resize(small, count)


def _mix(slots: int) -> Ops:
    rng = np.random.default_rng(_SEED + slots)
    return _ops(rng.integers(0, slots, _MIX_OPS), _sizes(_MIX_OPS))


def _lifo(count: int, size: int) -> Ops:
    order = np.arange(count)
    return _ops(np.concatenate([order, order[::-1]]), np.full(2 * count, size))


def trace_row(path: Path) -> Row:
    """Read a recorded trace as a row. Raises: TraceError."""
    ops, notes = trace_ops(read_trace(path))
    return Row(
        f"trace_{path.stem}",
        f"{notes['allocations']:,} allocations recorded in {path.name}",
        "ops",
        ops=ops,
        whole=True,
        notes=notes,
    )


def trace_ops(trace: Trace) -> tuple[Ops, dict[str, int]]:
    """Make ops of a trace's objects, in the order of the recording, as one CPU's.

    Pages are left out: they are no objects. An allocation of a live slot frees first, because the recorder has
    not seen that free; what lives at the end is freed then, so that it can be played again.

    Returns: the ops; how many events of which kind were left out, added and kept.
    """
    slots: list[int] = []
    sizes: list[int] = []
    live: dict[int, int] = {}  # recorded slot: ours
    spare: list[int] = []
    notes = {"allocations": 0, "pages_left_out": 0, "unknown_frees": 0, "unseen_frees": 0, "freed_at_end": 0}

    def free(recorded: int) -> None:
        slots.append(live[recorded])
        sizes.append(0)
        spare.append(live.pop(recorded))

    columns = zip(
        *(array.tolist() for array in (trace.op, trace.kind, trace.slot, trace.size_req, trace.size_alloc)),
        strict=True,
    )
    for op, kind, recorded, asked, given in columns:
        if kind == KIND_PAGES:
            notes["pages_left_out"] += op == 0
            continue
        size = asked if kind == KIND_KMALLOC else max(asked, given)
        if op == 0 and recorded >= 0 and size:
            if recorded in live:
                notes["unseen_frees"] += 1
                free(recorded)
            live[recorded] = spare.pop() if spare else len(live)
            slots.append(live[recorded])
            sizes.append(size)
            notes["allocations"] += 1
        elif op == 1 and recorded in live:
            free(recorded)
        elif op == 1:
            notes["unknown_frees"] += 1
    notes["freed_at_end"] = len(live)
    for recorded in list(live):
        free(recorded)
    return _ops(np.array(slots), np.array(sizes)), notes
