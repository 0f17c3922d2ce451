# SPDX-License-Identifier: MIT
"""The lives of objects: which free ends which allocation, though addresses are used again and again.

A free's memory may be given out on another CPU before the free is recorded. So a free belongs to the last allocation
of its address that was over when the free began; what lived there before was freed by what is not in the trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shmalloc.trace import NO_PFN, Events

__all__ = ["Life", "lives"]

_CALLS = ("shmalloc:alloc",), ("shmalloc:free",)
_OBJECTS = ("kmem:kmalloc", "kmem:kmem_cache_alloc"), ("kmem:kfree", "kmem:kmem_cache_free")
_PAGES = ("kmem:mm_page_alloc",), ("kmem:mm_page_free",)
_ZERO_SIZE = 16


@dataclass(frozen=True)
class Life:
    """An allocation and its free. Attributes: alloc, free: indices of records.  remote: freed on another CPU."""

    alloc: int
    free: int
    remote: bool


def lives(events: Events) -> list[Life]:
    """Pair allocations with frees: calls of designs, or, if none were recorded, the kmem events."""
    calls = list(_pairs(events, _CALLS, "ptr"))
    if calls:
        return calls
    return [*_pairs(events, _OBJECTS, "ptr"), *_pairs(events, _PAGES, "pfn")]


def _pairs(events: Events, names: tuple[tuple[str, ...], tuple[str, ...]], place: str) -> Iterator[Life]:
    numbers = {event: is_free for is_free, group in enumerate(names) for event in map(events.number, group)}
    records = events.records
    table = [records[name].tolist() for name in ("id", "ts", "dur", "cpu", place)]
    steps = []
    for index, (number, ts, dur, cpu, where) in enumerate(zip(*table, strict=True)):
        is_free = numbers.get(number)
        if is_free is not None and (where > _ZERO_SIZE if place == "ptr" else where != NO_PFN):
            steps.append((ts - min(dur, ts) if is_free else ts, index, is_free, cpu, where))
    steps.sort()
    live: dict[int, tuple[int, int]] = {}
    for _, index, is_free, cpu, where in steps:
        if not is_free:
            live[where] = index, cpu
        elif (alloc := live.pop(where, None)) is not None:
            yield Life(alloc[0], index, alloc[1] != cpu)
