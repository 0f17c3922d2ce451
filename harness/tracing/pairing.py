# SPDX-License-Identifier: MIT
"""From events to the rows of a workload: dense slots, and which free belongs to which allocation.

Memory: 26 bytes an event, and a dictionary of the addresses that occur. Objects and pages are told apart; an
address is one slot, however often it is given out.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from harness.tracing.lines import KmemEvent
from harness.workload.ops import IntArray
from harness.workload.tracefile import KIND_KMALLOC, KIND_PAGES

__all__ = ["Pairs", "Rows"]

#: column: type code of array
_COLUMNS = {
    "op": "B",
    "kind": "B",
    "size_req": "I",
    "size_alloc": "I",
    "gfp_flags": "I",
    "node": "b",
    "cpu": "H",
    "slot": "i",
    "ctx": "B",
    "cache": "H",
    "match": "i",
}
_MOST_CPUS = 0x10000
_COMP, _USERS_AND_FILES = 0x40000, 0x2 | 0x8  # __GFP_COMP; __GFP_HIGHMEM | __GFP_MOVABLE: no page of a slab
_SIZES = "size_req", "size_alloc"


@dataclass
class Rows:
    """The rows that were made. Attributes: columns: as in the workload's file.  caches: names, the first is none."""

    columns: dict[str, array[int]] = field(
        default_factory=lambda: {name: array(code) for name, code in _COLUMNS.items()}
    )
    caches: dict[bytes, int] = field(default_factory=lambda: {b"": 0})

    def __len__(self) -> int:
        return len(self.columns["op"])

    def arrays(self, dropped: set[int]) -> dict[str, np.ndarray]:
        """Return the file's arrays, without some allocations and their frees."""
        table = {name: np.frombuffer(column, dtype=column.typecode) for name, column in self.columns.items()}
        if dropped:
            gone = np.zeros(len(self), dtype=np.bool_)
            gone[np.fromiter(dropped, dtype=np.int64)] = True
            gone |= (table["match"] >= 0) & gone[table["match"]]
            table = _without(table, gone)
        names = [name.decode("utf-8", "backslashreplace") for name in self.caches]
        return table | {"cache_names": np.array(names)}


def _without(table: dict[str, np.ndarray], gone: np.ndarray) -> dict[str, np.ndarray]:
    place: IntArray = np.cumsum(~gone) - 1
    kept = {name: column[~gone] for name, column in table.items()}
    matched = kept["match"] >= 0
    kept["match"][matched] = place[kept["match"][matched]]
    somewhere = kept["slot"] >= 0
    kept["slot"][somewhere] = np.unique(kept["slot"][somewhere], return_inverse=True)[1]
    return kept


class Pairs:
    """Takes events in the order of time and makes rows of them.

    Args: one_space: pages are known by their addresses, not by their numbers.
    Attributes:
        rows: made so far.
        counts: what was found, and what was done.
        peak_bytes: most that was live at a time, as far as the trace shows.
        below_slabs: rows of pages that a slab or a large kmalloc was made of.
    """

    def __init__(self, *, one_space: bool = False) -> None:
        self.rows = Rows()
        self.counts: Counter[str] = Counter()
        self.peak_bytes = 0
        self.below_slabs: set[int] = set()
        self._live_bytes = 0
        objects: dict[int, int] = {}
        self._slots = objects, objects if one_space else {}  # of objects, of pages
        self._owner = array("i")  # slot -> row of the allocation that lives there, or -1
        self._pages_of: dict[int, list[int]] = {}  # task -> the pages it took since it last did anything else

    def add(self, event: KmemEvent, *, wanted: bool) -> None:
        """Take an event.

        Args: wanted: it is of a task that is asked for. Frees of objects of such tasks are taken anyway.
        """
        if event.address < 0:
            self.counts["address hidden"] += 1
        elif event.cpu >= _MOST_CPUS:
            self.counts["no such CPU"] += 1
        elif event.is_free:
            self._free(event, wanted)
        else:
            self._alloc(event, wanted)

    def _alloc(self, event: KmemEvent, wanted: bool) -> None:
        pages = event.kind == KIND_PAGES
        slots = self._slots[pages]
        slot = slots.get(event.address, -1)
        if slot >= 0 and self._owner[slot] >= 0:
            self.counts["free not seen"] += 1
            self._end(slot)
        if not wanted:
            self.counts["not of these tasks"] += 1
            return
        nothing = not event.address or (event.kind == KIND_KMALLOC and not event.size_req)
        if nothing:
            slot = -1
            self.counts["failed" if event.size_req else "of no size"] += 1
        elif slot < 0:
            slot = slots[event.address] = len(self._owner)
            self._owner.append(-1)
        row = self._append(event, slot, -1, event.size_req, event.size_alloc)
        if not nothing:
            self._owner[slot] = row
            self._live_bytes += event.size_alloc
            self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        self._look_below(event, row)

    def _look_below(self, event: KmemEvent, row: int) -> None:
        """Remember a task's pages until it says what they are for: an allocation of objects comes right after them."""
        task = event.tid if event.tid >= 0 else -2 - event.cpu
        if event.kind == KIND_PAGES:
            if event.gfp_flags & _COMP and not event.gfp_flags & _USERS_AND_FILES:
                self._pages_of.setdefault(task, []).append(row)
            else:
                self._pages_of.pop(task, None)
        elif taken := self._pages_of.pop(task, None):
            self.below_slabs.update(taken)

    def _free(self, event: KmemEvent, wanted: bool) -> None:
        self._pages_of.pop(event.tid if event.tid >= 0 else -2 - event.cpu, None)
        slot = self._slots[event.kind == KIND_PAGES].get(event.address, -1)
        match = self._owner[slot] if slot >= 0 else -1
        if match < 0 and event.name == b"mm_page_free_batched":
            self.counts["freed in a batch, again"] += 1  # the kernel has said so by mm_page_free
        elif match < 0 and not wanted:
            self.counts["not of these tasks"] += 1
        elif match < 0:
            self.counts["frees of NULL" if not event.address else "frees without an allocation"] += 1
            if slot < 0 and event.address:
                slot = self._slots[event.kind == KIND_PAGES][event.address] = len(self._owner)
                self._owner.append(-1)
            self._append(event, slot, -1, event.size_req, event.size_alloc)
        else:
            self.counts["matched frees"] += 1
            sizes = (self.rows.columns[name][match] for name in _SIZES)
            self._end(slot)
            row = self._append(event, slot, match, *sizes)
            columns = self.rows.columns
            if columns["cpu"][match] != event.cpu:
                self.counts["freed on another CPU"] += 1
            if not event.cache:
                columns["cache"][row] = columns["cache"][match]

    def _end(self, slot: int) -> None:
        """End the life of what lives in a slot."""
        self._live_bytes -= self.rows.columns["size_alloc"][self._owner[slot]]
        self._owner[slot] = -1

    def _append(self, event: KmemEvent, slot: int, match: int, size_req: int, size_alloc: int) -> int:
        columns, caches = self.rows.columns, self.rows.caches
        columns["op"].append(event.is_free)
        columns["kind"].append(event.kind)
        columns["size_req"].append(size_req)
        columns["size_alloc"].append(size_alloc)
        columns["gfp_flags"].append(event.gfp_flags)
        columns["node"].append(event.node)
        columns["cpu"].append(event.cpu)
        columns["slot"].append(slot)
        columns["ctx"].append(event.ctx)
        columns["cache"].append(caches.setdefault(event.cache, len(caches)))
        columns["match"].append(match)
        return len(columns["op"]) - 1

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._owner)
