# SPDX-License-Identifier: MIT
"""The page allocator's state as plain values: of a model, and of an arena."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from models.buddy import NR_ORDERS, TYPES
from models.pages import PageAllocator, Zone
from models.pcp import NR_LISTS, Pageset
from shmalloc import Arena

State = dict[str, Any]

PAGESET_EVENTS = (
    *("numa_hit", "numa_miss", "numa_foreign", "numa_local", "numa_other", "pgalloc", "pgfree"),
    *("pcp_refill", "pcp_drain", "pcp_busy", "zone_busy", "pcp_alloc", "fallback_claim", "fallback_steal"),
)
_ZONE_EVENTS = ("nr_deferred_free", "nr_deferred_drained", "nr_kswapd_wakeups")
_WORD = 8
_LOCKED = 0x40  # an owner's CPU number + 1, beyond those that the tests bind


def of_model(model: PageAllocator) -> State:
    """Write down all that a model predicts; empty lists are left out."""
    state: State = {}
    for index, zone in enumerate(model.zones):
        state.update(_zone_of_model(f"zone {index}", zone))
        for cpu, pageset in enumerate(zone.pagesets):
            state.update(_pageset_of_model(f"zone {index} cpu {cpu}", pageset))
    return state


def _zone_of_model(name: str, zone: Zone) -> State:
    state: State = {
        f"{name} free pages": zone.buddy.free_pages,
        f"{name} types": list(zone.buddy.types.values()),
        f"{name} below high, boosted, boost": (zone.below_high, zone.boosted, zone.boost),
        f"{name} highatomic": (zone.buddy.reserved, zone.buddy.free_highatomic),
        f"{name} parked": zone.parked,
        f"{name} events": [zone.events[event] for event in _ZONE_EVENTS],
    }
    for order, lists in enumerate(zone.buddy.lists):
        state[f"{name} order {order} blocks"] = sum(map(len, lists))
        state.update({f"{name} order {order} type {mt}": pfns for mt, pfns in enumerate(lists) if pfns})
    return state


def _pageset_of_model(name: str, pageset: Pageset) -> State:
    state: State = {
        f"{name} count, high": (pageset.count, pageset.high),
        f"{name} alloc factor, free count": (pageset.alloc_factor, pageset.free_count),
        f"{name} events": [pageset.events[event] for event in PAGESET_EVENTS],
    }
    state.update({f"{name} list {number}": pfns for number, pfns in enumerate(pageset.lists) if pfns})
    return state


def differences(real: State, expected: State) -> list[str]:
    """List where two states differ, a line for each."""
    if real == expected:
        return []
    return [
        f"{key}: the core has {real.get(key)}, the model {expected.get(key)}"
        for key in sorted(real | expected)
        if real.get(key) != expected.get(key)
    ]


class ArenaPages:
    """Reads the page allocator's state out of an arena.

    Attributes: memory: offset of page 0's memory.
    """

    def __init__(self, arena: Arena) -> None:
        self._ffi, self._lib, self._base = arena.core.ffi, arena.core.lib, arena.base
        header = arena.header
        self._bytes, self._nr_pages = arena.size_bytes, header.nr_pages
        self._pages = header.regions[self._lib.REGION_PAGES].offset
        self.memory: int = header.regions[self._lib.REGION_MEMORY].offset
        self._lru = self._ffi.offsetof("struct page", "lru")
        self._page_bytes = self._ffi.sizeof("struct page")
        self._words = self._ffi.cast("uint64_t *", self._base)
        self._cpus = header.geometry.nr_cpus
        self._zones = self._array(header, "struct zone *", self._lib.REGION_ZONES, header.nr_zones)
        self._pagesets = self._array(
            header, "struct per_cpu_pages *", self._lib.REGION_PAGESETS, header.nr_zones * self._cpus
        )
        self._blocks = self._ffi.cast(
            "struct pageblock *", self._base + header.regions[self._lib.REGION_PAGEBLOCKS].offset
        )
        self._block_order = header.geometry.pageblock_order
        self._page_array = self._ffi.cast("struct page *", self._base + self._pages)

    def _array(self, header: Any, kind: str, region: int, count: int) -> list[Any]:
        first = self._ffi.cast(kind, self._base + header.regions[region].offset)
        return [first + i for i in range(count)]

    def page(self, pfn: int) -> Any:
        """Look at one struct page."""
        return self._page_array[pfn]

    def word(self, offset: int) -> int:
        """Read a 64-bit word of the arena, and of nothing else."""
        assert 0 < offset <= self._bytes - _WORD and offset % _WORD == 0, (
            f"{offset:#x} is no offset of a link"
        )
        return int(self._words[offset // _WORD])

    def pfn_of_link(self, link: int) -> int:
        """Return the page whose lru field a link leads to."""
        pfn, rest = divmod(link - self._lru - self._pages, self._page_bytes)
        assert not rest and 0 <= pfn < self._nr_pages, f"link {link:#x} leads to no struct page"
        return int(pfn)

    def walk(self, head: Any) -> list[int]:
        """List the pages on a list."""
        start = int(self._ffi.cast("uintptr_t", self._ffi.addressof(head))) - self._base
        found: list[int] = []
        link = head.next
        while link != start:
            found.append(self.pfn_of_link(link))
            assert len(found) <= 1 << 20, f"the list at {start:#x} has no end"
            link = self.word(link)
        return found

    def _chain(self, first: int) -> Iterator[int]:
        while first:
            yield self.pfn_of_link(first)
            first = self.word(first)

    def hold(self, *, zone: int, cpu: int | None, held: bool) -> None:
        """Have a zone's lock, or that of a pageset, held by somebody, or given back."""
        lock = self._zones[zone].lock if cpu is None else self._pagesets[zone * self._cpus + cpu].lock
        lock.word = _LOCKED if held else 0

    def state(self) -> State:
        """Write down what `of_model` predicts."""
        state: State = {}
        for index, zone in enumerate(self._zones):
            state.update(self._zone(f"zone {index}", zone))
            for cpu in range(self._cpus):
                pageset = self._pagesets[index * self._cpus + cpu]
                state.update(self._pageset(f"zone {index} cpu {cpu}", pageset))
        return state

    def _zone(self, name: str, zone: Any) -> State:
        lib, first = self._lib, zone.start_pfn >> self._block_order
        blocks = range(first, first + (zone.spanned_pages >> self._block_order))
        flags = zone.flags
        state: State = {
            f"{name} free pages": zone.free_pages,
            f"{name} types": [self._blocks[block].migratetype for block in blocks],
            f"{name} below high, boosted, boost": (
                bool(flags & lib.ZONE_BELOW_HIGH),
                bool(flags & lib.ZONE_BOOSTED_WATERMARK),
                zone.wmark_boost,
            ),
            f"{name} highatomic": (zone.nr_reserved_highatomic, zone.free_highatomic),
            f"{name} parked": list(self._chain(zone.trylock_free_pages.first)),
            f"{name} events": [getattr(zone, event) for event in _ZONE_EVENTS],
        }
        for order in range(NR_ORDERS):
            area = zone.free_area[order]
            state[f"{name} order {order} blocks"] = area.nr_free
            for mt in (*TYPES, lib.MIGRATE_HIGHATOMIC):
                if pfns := self.walk(area.free_list[mt]):
                    state[f"{name} order {order} type {mt}"] = pfns
        return state

    def _pageset(self, name: str, pageset: Any) -> State:
        state: State = {
            f"{name} count, high": (pageset.count, pageset.high),
            f"{name} alloc factor, free count": (pageset.alloc_factor, pageset.free_count),
            f"{name} events": [getattr(pageset, event) for event in PAGESET_EVENTS],
        }
        for number in range(NR_LISTS):
            if pfns := self.walk(pageset.lists[number]):
                state[f"{name} list {number}"] = pfns
        return state
