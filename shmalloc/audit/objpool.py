# SPDX-License-Identifier: MIT
"""The pool of the design objpool: each object is in one ring, once, or in somebody's hands."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shmalloc.audit.kept import Keep
from shmalloc.audit.lists import walk_chain
from shmalloc.audit.pools import region_of
from shmalloc.audit.report import CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.view import Records, View, constant

__all__ = ["check_objpool", "keep_rings", "ring_objects"]

_WHERE = "objpool"
_SLOT_BYTES, _LEAST_BYTES = 16, 8
_NEXT_AT = 8  # k45: of the link in the node in front of an object


def _cpus(view: View) -> Records:
    return region_of(view, "OBJPOOL_CPUS", "objpool_cpu")


def keep_rings(view: View, findings: Findings) -> Iterator[Keep]:
    """Yield the blocks of the rings; when the last object is back there are none."""
    for cpu, record in enumerate(_cpus(view)):
        if record["slot"]:
            pfn = (int(record["slot"]) - view.memory_offset) // constant("SHM_PAGE_SIZE")
            pages = min(int(record["nr_pages"]), view.nr_pages)
            yield Keep("objpool", f"{_WHERE} of CPU {cpu}", blocks=np.arange(pfn, pfn + pages), pending=True)


def check_objpool(view: View, findings: Findings) -> None:
    """Check the rings, and that nothing is lost."""
    head = view.header["objpool"]
    findings.totals["objpool_objects"] = findings.totals["objpool_free"] = 0
    if not head["capacity"]:
        return
    objects = ring_objects(view)
    free: dict[int, str] = {}
    for cpu, record in enumerate(_cpus(view)):
        for object_ in _in_ring(view, cpu, int(record["slot"]), findings):
            _place(objects, free, object_, f"the ring of CPU {cpu}", findings)
    if head["freelist"]:
        chain = walk_chain(view.cells, int(head["freelist"]), view.memory, _NEXT_AT - int(head["node_bytes"]))
        if chain.fault:
            findings.add(CORRUPTION, _WHERE, f"after {len(chain.links)} entries the freelist {chain.fault}")
        for object_ in dict.fromkeys(chain.links):
            _place(objects, free, object_, "the freelist", findings)
    findings.totals["objpool_objects"], findings.totals["objpool_free"] = len(objects), len(free)
    if view.has_oracle:
        _check_rest(view, objects, free, findings)


def ring_objects(view: View) -> set[int]:
    """Return the offsets of all objects of the pool, wherever they are."""
    head = view.header["objpool"]
    stride = max(_LEAST_BYTES, int(head["obj_size"]) + int(head["node_bytes"]))
    most = view.nr_pages * constant("SHM_PAGE_SIZE") // stride
    return {
        int(record["objects"]) + number * stride
        for record in _cpus(view)
        for number in range(min(int(record["nr_objs"]), most))
    }


def _in_ring(view: View, cpu: int, slot: int, findings: Findings) -> list[int]:
    """Return what the poppers can find in one ring."""
    capacity = int(view.header["objpool"]["capacity"])
    if slot not in view.memory or slot + _SLOT_BYTES + 8 * capacity > view.memory.stop:
        findings.add(CORRUPTION, _WHERE, f"the ring of CPU {cpu} lies at {slot:#x}, outside of page memory")
        return []
    first, last = (int(view.cells[(slot >> 3) + word]) for word in (0, 1))
    head, tail, last = first & 0xFFFFFFFF, first >> 32, last & 0xFFFFFFFF
    held, reserved = (last - head) & 0xFFFFFFFF, (tail - last) & 0xFFFFFFFF
    if reserved:
        text = f"the ring of CPU {cpu} has places up to {tail}, the poppers know those up to {last}"
        findings.add(LOST_MEMORY, _WHERE, text)
    if held > capacity:
        findings.add(CORRUPTION, _WHERE, f"the ring of CPU {cpu} holds {held} of {capacity} objects")
        return []
    entries = (slot + _SLOT_BYTES) >> 3
    return [int(view.cells[entries + ((head + at) & (capacity - 1))]) for at in range(held)]


def _place(objects: set[int], free: dict[int, str], object_: int, place: str, findings: Findings) -> None:
    if object_ not in objects:
        findings.add(CORRUPTION, _WHERE, f"{place} holds {object_:#x}, which is no object of it")
        return
    if object_ in free:
        findings.add(CORRUPTION, _WHERE, f"object {object_:#x} is in two places: {free[object_]} and {place}")
    free[object_] = place


def _check_rest(view: View, objects: set[int], free: dict[int, str], findings: Findings) -> None:
    def owned(offset: int) -> bool:
        if offset not in view.memory:
            return False
        granule = (offset - view.memory_offset) >> 3
        return bool(int(view.start[granule >> 6]) >> (granule & 63) & 1)

    findings.add_each(
        CORRUPTION,
        [offset for offset in free if owned(offset)],
        lambda offset: (_WHERE, f"object {offset:#x} is in {free[offset]}, and owned"),
        "objects that are free and owned",
    )
    lost = sorted(offset for offset in objects - free.keys() if not owned(offset))
    if lost:
        text = f"{len(lost)} objects are in no place, the first at {lost[0]:#x}"
        findings.add(LOST_MEMORY, _WHERE, text)
