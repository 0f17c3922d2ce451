# SPDX-License-Identifier: MIT
"""Looking at an arena that runs: what is needed is copied in a few passes, and made sense of later.

Nothing is locked and nothing followed that could lead astray: the copy may contradict itself where it changed
under the eye, and who reads it must put up with that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shmalloc.audit.objpool import keep_rings
from shmalloc.audit.pools import keep_areas, region_of
from shmalloc.audit.report import Findings
from shmalloc.audit.view import WORDS_PER_PAGE, Auditable, Ints, View, Words, constant, field_offset

__all__ = ["CacheRow", "Eye", "Frame", "Look", "Zone", "pages_of"]

_PLACES = ("PG_buddy", "PG_pcp", "PG_deferred", "PG_lru", "PG_slab", "PG_allocated")
_COLUMNS = ("state", "size", "object_size", "oo", "min", "red_left_pad", "offset", "random", "flags")


@dataclass(frozen=True)
class Zone:
    """A zone. Attributes: node.  type: enum shm_zone_type.  start, pages: its page frames."""

    node: int
    type: int
    start: int
    pages: int


@dataclass(frozen=True)
class Frame:
    """What of an arena never changes.

    Attributes: nr_pages.  zones: those that have pages.  pageblock_order.  cpus.  sheaves: a 7.x arena.
        oracle: ownership is recorded.
    """

    nr_pages: int
    zones: tuple[Zone, ...]
    pageblock_order: int
    cpus: int
    sheaves: bool
    oracle: bool


@dataclass(frozen=True)
class CacheRow:
    """A cache, as hovering needs it. Attributes: sizes in bytes."""

    name: str
    size: int
    object_size: int
    red_left_pad: int


@dataclass(frozen=True)
class Look:
    """One look. Rows are blocks' heads, by page frame.

    Attributes: pfn, flags, order, cache (index + 1), counters: of struct page.  link: lru.next where it leads
        somewhere of interest, else 0.  types: of the pageblocks.  caches: columns of the cache table.
        cpu_slab, cpu_partial: offsets of struct pages, (cpus, caches).  deferred: first entry, (cpus,).
        kept: first page frames that pools, maps and rings hold.  slab_pages, start: each page of a slab, and the
        8 words that say which granules of it begin an owned object; empty without an oracle.
        free: page frame of the slab, index of the object and state of those that were followed.  at_rest.
    """

    pfn: Ints
    flags: NDArray[np.uint16]
    order: NDArray[np.uint8]
    cache: NDArray[np.uint32]
    counters: NDArray[np.uint32]
    link: Words
    types: NDArray[np.uint8]
    caches: dict[str, NDArray[Any]]
    cpu_slab: Words
    cpu_partial: Words
    deferred: Words
    kept: Ints
    slab_pages: Ints
    start: Words
    free: tuple[Ints, Ints, NDArray[np.uint8]] | None

    @property
    def bytes(self) -> int:
        """Memory that it takes, about."""
        rows = (self.pfn, self.flags, self.order, self.cache, self.counters, self.link, self.start)
        return sum(row.nbytes for row in rows)


class Eye:
    """Looks at one arena, again and again.

    Args: arena: as the audit takes one.
    Raises: ValueError, if its header describes no arena of this size.
    """

    def __init__(self, arena: Auditable) -> None:
        self.view = view = View.of(arena)
        self._heads = np.uint32(sum(map(constant, _PLACES)))
        self._linked = np.uint32(constant("PG_pcp") | constant("PG_slab"))
        self.lru = field_offset("page", "lru")
        self.frame = Frame(
            nr_pages=view.nr_pages,
            zones=tuple(
                Zone(int(zone["node"]), int(zone["type"]), int(zone["start_pfn"]), int(zone["spanned_pages"]))
                for zone in view.zones
                if zone["spanned_pages"]
            ),
            pageblock_order=view.pageblock_order,
            cpus=view.pagesets.shape[1],
            sheaves=bool(view.cache_sheaves.size),
            oracle=view.has_oracle,
        )
        self.pagesets = view.offsets(view.pagesets["count"]).ravel()  # of each (zone, CPU), rising

    def look(self, *, objects: bool = True, follow: bool = False) -> Look:
        """Copy what is needed to say what each page is.

        Args: objects: also which objects of slabs are owned, as far as there is an oracle.  follow: and go
            through all lists of free objects: for an arena at rest, or who can wait.
        """
        view = self.view
        all_flags = view.page_flags()
        pfn = np.flatnonzero(all_flags & self._heads)
        flags = all_flags[pfn]
        pages = view.pages
        order = pages["order"][pfn]
        counters = np.zeros(len(pfn), np.uint32)
        cache = np.zeros(len(pfn), np.uint32)
        link = np.zeros(len(pfn), np.uint64)
        slab = np.flatnonzero(flags & np.uint32(constant("PG_slab")))
        counters[slab] = pages["counters"][pfn[slab]]
        cache[slab] = pages["slab_cache"][pfn[slab]]
        linked = np.flatnonzero(flags & self._linked)
        link[linked] = pages["lru"]["next"][pfn[linked]]
        small = np.minimum(order, constant("SHM_MAX_PAGE_ORDER")).astype(np.uint8)
        slab_pages, start = np.zeros(0, np.int64), np.zeros((0, WORDS_PER_PAGE), np.uint64)
        if objects and view.has_oracle:
            slab_pages = pages_of(pfn[slab], small[slab], view.nr_pages)
            words = view.start[: view.nr_pages * WORDS_PER_PAGE].reshape(-1, WORDS_PER_PAGE)
            start = words[slab_pages]
        look = Look(
            pfn=pfn,
            flags=flags.astype(np.uint16),
            order=small,
            cache=cache,
            counters=counters,
            link=link,
            types=view.pageblocks["migratetype"].copy(),
            caches={name: view.caches[name].copy() for name in _COLUMNS},
            cpu_slab=view.cache_cpus["slab"].copy(),
            cpu_partial=view.cache_cpus["partial"].copy(),
            deferred=view.cpus["defer_slabs"]["first"].copy(),
            kept=self._kept(),
            slab_pages=slab_pages,
            start=start,
            free=None,
        )
        if not follow:
            return look
        from shmalloc.pagemap.objects import follow_free

        return replace(look, free=follow_free(self, look))

    def _kept(self) -> Ints:
        """List the page frames that pools, buckets of maps and rings hold."""
        view = self.view
        pools, maps = region_of(view, "POOLS", "shm_pool"), region_of(view, "MAPS", "shm_map")
        found = [np.zeros(0, np.int64)]
        if pools["area"]["nr_blocks"].any() or (maps["state"] == constant("MAP_LIVE")).any():
            found += [keep.blocks for keep in keep_areas(view, Findings())]
        found += [keep.blocks for keep in keep_rings(view, Findings())]
        return np.concatenate(found)

    def cache_rows(self) -> dict[int, CacheRow]:
        """Return the caches there are, by index."""
        caches = self.view.caches
        used = np.flatnonzero(caches["state"] != constant("CACHE_UNUSED"))
        return {
            at: CacheRow(
                bytes(caches["name"][at]).decode(errors="replace"),
                *(int(caches[name][at]) for name in ("size", "object_size", "red_left_pad")),
            )
            for at in used.tolist()
        }


def pages_of(pfn: Ints, order: NDArray[np.uint8], nr_pages: int) -> Ints:
    """List all pages of some blocks, in their order; what would lie beyond the last page is left out."""
    pages = np.int64(1) << order.astype(np.int64)
    first = np.cumsum(pages) - pages
    found: Ints = np.repeat(pfn - first, pages) + np.arange(int(pages.sum()))
    return found[found < nr_pages]
