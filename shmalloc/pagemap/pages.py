# SPDX-License-Identifier: MIT
"""From a look to pages: what each page frame is, whose, and how full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shmalloc.audit.view import Ints, Mask, Words, constant, places_in
from shmalloc.pagemap.kinds import PFMEMALLOC, Kind

if TYPE_CHECKING:
    from shmalloc.pagemap.look import Eye, Look

__all__ = ["PLANES", "Planes", "Slabs", "paint", "slabs_of"]

PLANES = {
    "kind": "u1",
    "order": "u1",
    "cache": "u2",
    "cpu": "u1",
    "inuse": "u2",
    "objects": "u2",
    "marks": "u1",
}
_MOST_STEPS = 1 << 12  # along a chain of slabs


@dataclass(frozen=True)
class Planes:
    """What each page frame is, shape (nr_pages,) each.

    Attributes: kind: a Kind.  order: of its block.  cache: index + 1 of its slab's, 0 = none.  cpu: + 1, that
        has it on its pageset or as its slab, 0 = none.  inuse, objects: of its slab.  marks: PFMEMALLOC.
    """

    kind: NDArray[np.uint8]
    order: NDArray[np.uint8]
    cache: NDArray[np.uint16]
    cpu: NDArray[np.uint8]
    inuse: NDArray[np.uint16]
    objects: NDArray[np.uint16]
    marks: NDArray[np.uint8]


@dataclass(frozen=True)
class Slabs:
    """The slabs of a look that can be made sense of, by page frame.

    Attributes: row: of the look.  pfn, order, cache (index), objects, inuse.
    """

    row: Ints
    pfn: Ints
    order: Ints
    cache: Ints
    objects: Ints
    inuse: Ints


def slabs_of(look: Look) -> Slabs:
    """List the slabs: those of a cache that is there, and whose objects fit."""
    row = np.flatnonzero(look.flags & constant("PG_slab"))
    cache = look.cache[row].astype(np.int64) - 1
    known = (cache >= 0) & (cache < len(look.caches["state"]))
    row, cache = row[known], cache[known]
    objects = (look.counters[row] >> 16 & 0x7FFF).astype(np.int64)
    order = look.order[row].astype(np.int64)
    size = look.caches["size"][cache].astype(np.int64)
    room = constant("SHM_PAGE_SIZE") << order
    good = (size >= 8) & (objects > 0) & (objects * size <= room)
    good &= look.caches["state"][cache] != constant("CACHE_UNUSED")
    inuse = (look.counters[row] & 0xFFFF).astype(np.int64)
    return Slabs(
        *(column[good] for column in (row, look.pfn[row], order, cache, objects, np.minimum(inuse, objects)))
    )


def paint(eye: Eye, look: Look) -> Planes:
    """Say of each page what it is."""
    nr_pages = eye.frame.nr_pages
    kind, cpu = _kinds(eye, look)
    slabs = slabs_of(look)
    inuse, objects = np.zeros(len(look.pfn), np.uint16), np.zeros(len(look.pfn), np.uint16)
    inuse[slabs.row], objects[slabs.row] = slabs.inuse, slabs.objects
    cache = np.where(look.flags & constant("PG_slab"), look.cache, 0).astype(np.uint16)
    pfmemalloc = (look.flags & constant("PG_pfmemalloc")) != 0
    block = _block_of_pages(look, nr_pages)
    outside = np.uint8(Kind.TRANSIT)
    kinds = np.append(kind, outside)[block]
    _add_pools(look, kinds)
    _add_reserve(eye, look, kinds)
    _add_holes(eye, kinds)

    def spread(column: NDArray[Any], name: str) -> NDArray[Any]:
        return np.append(column, 0).astype(PLANES[name])[block]

    return Planes(
        kind=kinds,
        order=spread(look.order, "order"),
        cache=spread(cache, "cache"),
        cpu=spread(cpu, "cpu"),
        inuse=spread(inuse, "inuse"),
        objects=spread(objects, "objects"),
        marks=spread(pfmemalloc * PFMEMALLOC, "marks"),
    )


def _block_of_pages(look: Look, nr_pages: int) -> Ints:
    """Return the row of the block that each page lies in, -1 for none; where blocks overlap, the last head's."""
    if not len(look.pfn):
        return np.full(nr_pages, -1)
    heads = np.zeros(nr_pages, np.int64)
    heads[look.pfn] = np.arange(1, len(look.pfn) + 1)
    block = np.maximum.accumulate(heads) - 1
    end = look.pfn + (np.int64(1) << look.order.astype(np.int64))
    found: Ints = np.where((block >= 0) & (np.arange(nr_pages) < end[block]), block, -1)
    return found


def _kinds(eye: Eye, look: Look) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the kind of each block, and the CPU that has it + 1."""
    kind = np.full(len(look.pfn), Kind.TRANSIT, np.uint8)
    cpu = np.zeros(len(look.pfn), np.uint8)

    def flagged(name: str) -> Mask:
        mask: Mask = (look.flags & constant(name)) != 0
        return mask

    allocated = flagged("PG_allocated")
    kind[allocated] = np.where(flagged("PG_large"), Kind.LARGE, Kind.PAGES)[allocated]
    kind[flagged("PG_lru")] = Kind.PAGE_CACHE
    kind[flagged("PG_deferred")] = Kind.PARKED
    kind[flagged("PG_pcp")] = Kind.PCP
    kind[flagged("PG_buddy")] = Kind.FREE
    pcp = np.flatnonzero(flagged("PG_pcp"))
    cpu[pcp] = _pageset_cpus(eye, look, pcp)
    _slab_kinds(eye, look, kind, cpu)
    return kind, cpu


def _slab_kinds(eye: Eye, look: Look, kind: NDArray[np.uint8], cpu: NDArray[np.uint8]) -> None:
    """Fill in who has each slab; later ones win, as far as a look at a running arena contradicts itself."""
    slab = np.flatnonzero(look.flags & constant("PG_slab"))
    counters, flags = look.counters[slab], look.flags[slab]
    objects, inuse, frozen = counters >> 16 & 0x7FFF, counters & 0xFFFF, counters >> 31 != 0
    cache = np.clip(look.cache[slab].astype(np.int64) - 1, 0, len(look.caches["flags"]) - 1)
    typesafe = (look.caches["flags"][cache] & constant("SLAB_TYPESAFE_BY_RCU")) != 0
    found = np.full(len(slab), Kind.SLAB_MOVING, np.uint8)
    found[typesafe & (inuse == 0) & ~frozen] = Kind.SLAB_RCU
    found[(inuse >= objects) & ~frozen] = Kind.SLAB_FULL
    found[(flags & constant("PG_partial")) != 0] = Kind.SLAB_PARTIAL
    found[(flags & constant("PG_disabled")) != 0] = Kind.SLAB_DISABLED
    kind[slab] = found
    structs = eye.view.page_structs
    for at in range(len(look.deferred)):
        rows = _chain(look, structs, look.deferred[at : at + 1] - np.uint64(eye.lru), np.uint64(eye.lru))
        kind[rows], cpu[rows] = Kind.SLAB_DEFERRED, at + 1
    for at in range(look.cpu_partial.shape[0]):
        rows = _chain(look, structs, look.cpu_partial[at], np.uint64(0))
        kind[rows], cpu[rows] = Kind.SLAB_CPU_PARTIAL, at + 1
        rows = _rows(look, structs, look.cpu_slab[at])
        kind[rows], cpu[rows] = Kind.SLAB_CPU, at + 1


def _rows(look: Look, structs: range, links: Words) -> Ints:
    """Return the rows of the slabs whose struct pages some offsets are; the others are left out."""
    _, pfn = places_in(links, structs)
    if not len(look.pfn) or not len(pfn):
        return np.zeros(0, np.int64)
    row = np.minimum(np.searchsorted(look.pfn, pfn), len(look.pfn) - 1)
    found: Ints = row[(look.pfn[row] == pfn) & ((look.flags[row] & constant("PG_slab")) != 0)]
    return found


def _chain(look: Look, structs: range, first: Words, less: np.uint64) -> Ints:
    """Follow chains of slabs through their links, all in step, none to where it has been before.

    Args: less: what a link is more than the offset of the struct page.
    """
    seen = np.zeros(len(look.pfn), bool)
    rows = _rows(look, structs, first[first != 0])
    for _ in range(_MOST_STEPS):
        rows = rows[~seen[rows]]
        if not len(rows):
            break
        seen[rows] = True
        links = look.link[rows]
        rows = _rows(look, structs, links[links != 0] - less)
    return np.flatnonzero(seen)


def _pageset_cpus(eye: Eye, look: Look, pcp: Ints) -> NDArray[np.uint8]:
    """Return the CPU + 1 whose pageset each block is on, by following all lists to their ends at once."""
    view, count = eye.view, len(pcp)
    if not count:
        return np.zeros(0, np.uint8)
    links, lru = look.link[pcp], view.page_links
    cpus, first = eye.frame.cpus, eye.pagesets
    # next of each: another block, or count + CPU for the end of a list, or the last for astray
    astray = count + cpus
    jump = np.arange(astray + 1)
    jump[:count] = astray
    page, pfn = places_in(links, lru)
    at = np.minimum(np.searchsorted(look.pfn[pcp], pfn), count - 1)
    jump[np.flatnonzero(page)] = np.where(look.pfn[pcp][at] == pfn, at, astray)
    end = ~page & (links >= first[0]) & (links < first[-1] + np.uint64(view.pagesets.dtype.itemsize))
    which = np.searchsorted(first, links[end], side="right") - 1
    jump[np.flatnonzero(end)] = count + which % cpus
    for _ in range(count.bit_length()):
        jump = jump[jump]
    root = jump[:count] - count
    return np.where((root >= 0) & (root < cpus), root + 1, 0).astype(np.uint8)


def _add_pools(look: Look, kinds: NDArray[np.uint8]) -> None:
    """Mark what pools, maps and rings hold: their blocks are pages handed out, or large ones."""
    kept = np.unique(look.kept[(look.kept >= 0) & (look.kept < len(kinds))])
    row = np.searchsorted(look.pfn, kept)
    row = row[row < len(look.pfn)]
    row = row[np.isin(look.pfn[row], kept) & ((look.flags[row] & constant("PG_allocated")) != 0)]
    for pfn, order in zip(look.pfn[row].tolist(), look.order[row].tolist(), strict=True):
        kinds[pfn : pfn + (1 << order)] = Kind.POOL


def _add_reserve(eye: Eye, look: Look, kinds: NDArray[np.uint8]) -> None:
    high = np.flatnonzero(look.types == constant("MIGRATE_HIGHATOMIC"))
    for block in high.tolist():
        mine = kinds[block << eye.frame.pageblock_order : (block + 1) << eye.frame.pageblock_order]
        mine[mine == Kind.FREE] = Kind.RESERVE


def _add_holes(eye: Eye, kinds: NDArray[np.uint8]) -> None:
    end = max(zone.start + zone.pages for zone in eye.frame.zones) if eye.frame.zones else 0
    kinds[end:] = Kind.HOLE
