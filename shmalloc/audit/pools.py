# SPDX-License-Identifier: MIT
"""Preallocated pools and hash maps: every element is in exactly one place, and each block has its holder.

An element is on the freelist of one CPU, put aside as a CPU's spare one, in a bucket, or in somebody's hands;
who has it then is what the ownership bitmaps say, if there are any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shmalloc import layout
from shmalloc.audit.kept import Keep
from shmalloc.audit.lists import walk_chain
from shmalloc.audit.report import BROKEN_RULE, CORRUPTION, LOST_MEMORY, Findings
from shmalloc.audit.view import Ints, Records, View, constant, field_offset

__all__ = ["Pool", "area_elements", "check_pools", "keep_areas", "map_elements", "pools_of", "region_of"]

_WORD_BYTES = 8
_NULLS = 1  # the mark at the end of a chain


def region_of(view: View, name: str, struct: str) -> Records:
    """Return a region of the arena as an array of one axis; empty if the arena has none."""
    region = view.header["regions"][constant(f"REGION_{name}")]
    offset, length = int(region["offset"]), int(region["bytes"])
    raw = view.words.view(np.uint8)[offset : offset + length]
    item = layout.dtype(struct)
    return raw[: length // item.itemsize * item.itemsize].view(item)


@dataclass
class Pool:
    """A preallocated pool.

    Attributes: name: as messages show it.  index: number; 0 is the design prealloc's own.  elements: offset of
        each, int64, rising within a block.  place: what holds each, by its index.
    """

    name: str
    index: int
    record: Any
    elements: Ints
    place: dict[int, str] = field(default_factory=dict)

    def put(self, offset: int, place: str, findings: Findings) -> None:
        """Record where an element is."""
        if offset not in self._index_of:
            findings.add(CORRUPTION, self.name, f"{place} leads to {offset:#x}, which is no element of it")
            return
        index = self._index_of[offset]
        if index in self.place:
            text = f"element {offset:#x} is in two places: {self.place[index]} and {place}"
            findings.add(CORRUPTION, self.name, text)
        self.place[index] = place

    def __post_init__(self) -> None:
        self._index_of = {int(offset): index for index, offset in enumerate(self.elements)}


def area_elements(view: View, area: Any) -> Ints:
    """Return the offset of each element of an area; as far as its blocks make sense."""
    most = view.nr_pages * constant("SHM_PAGE_SIZE") // _WORD_BYTES
    count, size = int(area["nr_elems"]), int(area["elem_size"])
    blocks = area["blocks"][: min(int(area["nr_blocks"]), len(area["blocks"]))]
    upto = np.cumsum(blocks["nr_elems"].astype(np.int64))
    parts = [
        int(block["offset"]) + np.arange(int(block["nr_elems"]), dtype=np.int64) * size
        for at, block in enumerate(blocks)
        if upto[at] <= count <= most
    ]
    found: Ints = np.concatenate([np.zeros(0, np.int64), *parts])
    end = view.memory.stop
    inside: Ints = found[(found >= view.memory_offset) & (found + size <= end) & (found % _WORD_BYTES == 0)]
    return inside


def _area_pfns(view: View, area: Any) -> Ints:
    blocks = area["blocks"][: min(int(area["nr_blocks"]), len(area["blocks"]))]
    pfns: Ints = (blocks["offset"].astype(np.int64) - view.memory_offset) // constant("SHM_PAGE_SIZE")
    return pfns


def _live_maps(view: View) -> list[Any]:
    maps = region_of(view, "MAPS", "shm_map")
    return [record for record in maps if record["state"] == constant("MAP_LIVE")]


def keep_areas(view: View, findings: Findings) -> Iterator[Keep]:
    """Yield the blocks that pools and maps hold; taken down, they hold none."""
    for index, record in enumerate(region_of(view, "POOLS", "shm_pool")):
        name = f"pool of map {index - 1}" if index else "pool of prealloc"
        yield Keep("pool", name, blocks=_area_pfns(view, record["area"]), pending=True)
    for record in _live_maps(view):
        where = f"buckets of map {record['index']}"
        yield Keep("map", where, blocks=_area_pfns(view, record["buckets"]), pending=True)


def pools_of(view: View, findings: Findings) -> list[Pool]:
    """Find all pools that have elements, and follow their freelists."""
    heads = region_of(view, "FREELISTS", "pcpu_freelist_head").reshape(-1, len(view.cpus))
    found = []
    for index, record in enumerate(region_of(view, "POOLS", "shm_pool")):
        if not record["area"]["nr_blocks"]:
            continue
        name = f"pool of map {index - 1}" if index else "pool of prealloc"
        pool = Pool(name, index, record, area_elements(view, record["area"]))
        for cpu, head in enumerate(heads[index]):
            _follow(view, pool, int(head["first"]), f"the freelist of CPU {cpu}", findings)
            if head["extra"]:
                pool.put(int(head["extra"]), f"the spare element of CPU {cpu}", findings)
        _follow(view, pool, int(record["extralist"]["first"]), "the extralist", findings)
        found.append(pool)
    return found


def _follow(view: View, pool: Pool, first: int, place: str, findings: Findings) -> None:
    chain = walk_chain(view.cells, first, view.memory)
    if chain.fault:
        findings.add(CORRUPTION, pool.name, f"after {len(chain.links)} entries {place} {chain.fault}")
    for link in dict.fromkeys(chain.links):
        pool.put(link - int(pool.record["link"]), place, findings)


def map_elements(view: View, record: Any, findings: Findings) -> list[int]:
    """Return the offsets of the elements in a map's buckets."""
    buckets = area_elements(view, record["buckets"]).tolist()
    where, found = f"map {record['index']}", []
    seen: set[int] = set()
    next_at, pprev_at = field_offset("htab_elem", "next"), field_offset("htab_elem", "pprev")
    for number, bucket in enumerate(buckets):
        at, before = view.cells[bucket >> 3], bucket
        while not at & _NULLS:
            if at not in view.memory or at in seen:
                text = f"bucket {number} leads to {at:#x}, " + (
                    "where it has been before" if at in seen else "where no element can be"
                )
                findings.add(CORRUPTION, where, text)
                break
            if view.cells[(at + pprev_at) >> 3] != before:
                findings.add(CORRUPTION, where, f"element {at:#x} does not lead back in bucket {number}")
            seen.add(at)
            found.append(at)
            before, at = at + next_at, view.cells[(at + next_at) >> 3]
        else:
            if at >> 1 != number:
                findings.add(CORRUPTION, where, f"bucket {number} ends at the mark of bucket {at >> 1}")
    return found


def check_pools(view: View, findings: Findings) -> None:
    """Check pools and maps, and fill in their totals."""
    pools = {pool.index: pool for pool in pools_of(view, findings)}
    totals = findings.totals
    maps = _live_maps(view)
    totals["maps"] = len(maps)
    totals["map_elements"] = 0
    for record in maps:
        elements = map_elements(view, record, findings)
        totals["map_elements"] += len(elements)
        where = f"map {record['index']}"
        if len(elements) != record["count"]:
            text = f"count is {record['count']}, {len(elements)} elements are in its buckets"
            findings.add(CORRUPTION, where, text)
        _check_owned(view, where, elements, findings)
        pool = pools.get(int(record["index"]) + 1)
        for offset in elements if pool else ():
            assert pool is not None
            pool.put(offset, "a bucket", findings)
    for pool in pools.values():
        _check_rest(view, pool, findings)
    totals["pool_elements"] = sum(len(pool.elements) for pool in pools.values())
    totals["pool_free"] = sum(
        place.startswith("the freelist") for pool in pools.values() for place in pool.place.values()
    )
    _check_locks(view, maps, findings)


def _owned(view: View, offset: int) -> bool:
    if offset not in view.memory:
        return False
    granule = (offset - view.memory_offset) >> 3
    return bool(int(view.start[granule >> 6]) >> (granule & 63) & 1)


def _check_owned(view: View, where: str, elements: list[int], findings: Findings) -> None:
    if view.has_oracle:
        findings.add_each(
            CORRUPTION,
            [offset for offset in elements if not _owned(view, offset)],
            lambda offset: (where, f"element {offset:#x} is in a bucket, and nobody owns it"),
            "elements that nobody owns",
        )


def _check_rest(view: View, pool: Pool, findings: Findings) -> None:
    """Check the elements that are in no place: they are in somebody's hands, or lost."""
    if not view.has_oracle:
        return
    free = [int(pool.elements[at]) for at, place in pool.place.items() if place != "a bucket"]
    findings.add_each(
        CORRUPTION,
        [offset for offset in free if _owned(view, offset)],
        lambda offset: (pool.name, f"element {offset:#x} is free, and owned"),
        "elements that are free and owned",
    )
    rest = [int(offset) for at, offset in enumerate(pool.elements) if at not in pool.place]
    lost = [offset for offset in rest if pool.index or not _owned(view, offset)]
    if lost:
        text = f"{len(lost)} elements are in no place, the first at {lost[0]:#x}"
        findings.add(LOST_MEMORY, pool.name, text)


def _check_locks(view: View, maps: list[Any], findings: Findings) -> None:
    heads = region_of(view, "FREELISTS", "pcpu_freelist_head").reshape(-1, len(view.cpus))
    for pool, cpu in np.argwhere(heads["lock"]["word"] != 0).tolist():
        findings.add(BROKEN_RULE, f"freelist of CPU {cpu} of pool {pool}", "lock never released: freelist")
    word = field_offset("bucket", "lock") >> 3
    for record in maps:
        buckets = area_elements(view, record["buckets"])
        held = [
            at for at, bucket in enumerate(buckets.tolist()) if view.cells[(bucket >> 3) + word] & 0xFFFFFFFF
        ]
        for at in held[:5]:
            where = f"bucket {at} of map {record['index']}"
            findings.add(BROKEN_RULE, where, "lock never released: bucket")
