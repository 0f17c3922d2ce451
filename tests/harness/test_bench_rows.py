# SPDX-License-Identifier: MIT
"""What rows ask for: op arrays that free what they allocate, and a trace that keeps the recording's order."""

from pathlib import Path

import numpy as np
import pytest

from harness.bench import rows
from harness.workload.tracefile import Trace, read_trace

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "configs" / "traces" / "git.npz"


def played(ops: np.ndarray) -> tuple[list[tuple[int, int]], set[int]]:
    """Play ops as the runner does. Returns: (slot, bytes) of each allocation; the slots that are full at the end."""
    live: set[int] = set()
    allocated = []
    for slot, size in zip(ops["slot"].tolist(), ops["bytes"].tolist(), strict=True):
        if slot in live:
            live.remove(slot)
        elif size:
            live.add(slot)
            allocated.append((slot, size))
    return allocated, live


def test_names_are_those_of_the_table_and_unlike() -> None:
    names = [row.name for row in rows.native_rows()]

    assert len(set(names)) == len(names)
    assert names[:3] == ["pair_64", "lifo64_16", "lifo64_64"]
    assert {"lifo512_4096", "mix_256", "mix_4096", "pc_fixed", "pc_mixed", "two_cpus"} <= set(names)


@pytest.mark.parametrize("slots", [256, 4096])
def test_mix_is_of_random_lifetimes_over_its_slots(slots: int) -> None:
    row = next(row for row in rows.native_rows() if row.name == f"mix_{slots}")
    assert row.ops is not None
    allocated, live = played(row.ops)

    assert row.ops["slot"].max() == slots - 1 and len(set(row.ops["slot"].tolist())) > 0.99 * slots
    assert slots * 0.4 < len(live) < slots * 0.6  # half of them are full at any time
    sizes = {size for _, size in allocated}
    assert len(sizes) > 30 and max(sizes) <= 2048 and min(sizes) >= 8


def test_a_batch_as_ops_frees_the_last_first_and_everything() -> None:
    row = next(row for row in rows.native_rows() if row.name == "two_cpus_64")
    assert row.ops is not None
    allocated, live = played(row.ops)

    assert allocated == [(slot, 64) for slot in range(64)] and not live
    assert row.ops["slot"][64:].tolist() == list(range(63, -1, -1))
    assert set(row.ops["bytes"].tolist()) == {64}  # frees too: a subject of one size does the row


def event(op: int, slot: int, size: int = 64, kind: int = 0) -> tuple[int, int, int, int]:
    return op, kind, slot, size


def trace(*events: tuple[int, int, int, int]) -> Trace:
    op, kind, slot, size = (np.array(column) for column in zip(*events, strict=True))
    none = np.zeros(op.size, dtype=np.int64)
    return Trace(op, kind, size, size, none, none, none, slot, none, none, none - 1, ())


def test_trace_becomes_ops_in_its_order() -> None:
    ops, notes = rows.trace_ops(
        trace(event(0, 7, 10), event(0, 9, 20), event(1, 7), event(0, 5, 30), event(1, 9))
    )
    allocated, live = played(ops)

    assert [size for _, size in allocated] == [10, 20, 30]
    assert allocated[2][0] == allocated[0][0]  # 7 was free: its slot is used again
    assert not live and notes["freed_at_end"] == 1 and notes["allocations"] == 3


def test_trace_leaves_out_what_is_no_object_and_adds_what_the_recorder_missed() -> None:
    ops, notes = rows.trace_ops(
        trace(
            event(1, 3),  # free of what was there before
            event(0, -1),  # failed
            event(0, 4, 4096, kind=2),  # pages
            event(1, 4, kind=2),
            event(0, 8, 10),
            event(0, 8, 20),  # the free between was not seen
            event(0, 6, 0),  # kmalloc(0)
        )
    )
    allocated, live = played(ops)

    assert [size for _, size in allocated] == [10, 20] and not live
    counts = {key: notes[key] for key in ("pages_left_out", "unknown_frees", "unseen_frees", "freed_at_end")}
    assert counts == {"pages_left_out": 1, "unknown_frees": 1, "unseen_frees": 1, "freed_at_end": 1}


def test_recorded_trace_is_played_whole() -> None:
    row = rows.trace_row(TRACE)
    assert row.ops is not None and row.notes is not None and row.whole
    allocated, live = played(row.ops)
    recorded = read_trace(TRACE)
    objects = int(
        ((recorded.op == 0) & (recorded.kind != 2) & (recorded.slot >= 0) & (recorded.size_alloc > 0)).sum()
    )

    assert row.name == "trace_git" and not live
    assert len(allocated) == row.notes["allocations"] == objects
    assert 2 * len(allocated) == row.ops.size  # every op does something
