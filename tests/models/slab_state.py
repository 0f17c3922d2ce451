# SPDX-License-Identifier: MIT
"""A cache's state as plain values: of a model, and of an arena."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from models.page_state import ArenaPages, State
from models.slab import SlabCache
from models.slab_parts import Object
from shmalloc import Arena

PAGE_BYTES = 4096
_LOCKED = 0x40


def of_model(model: SlabCache) -> State:
    """Write down all that a model predicts; stats that are 0 are left out."""
    state: State = {}
    for number, c in enumerate(model.cpus):
        name = f"cpu {number}"
        holds = c.slab.pfn if c.slab else None
        state |= {
            f"{name} slab": holds,
            f"{name} freelist": [(holds, slot) for slot in c.freelist],
            f"{name} partial": [(s.pfn, len(c.partial) - i) for i, s in enumerate(c.partial)],
            f"{name} tid events": c.events,
            f"{name} stats": {key: count for key, count in c.stats.items() if count},
            f"{name} deferred": c.deferred,
            f"{name} deferred slabs": [s.pfn for s in c.deferred_slabs],
        }
    for number, node in enumerate(model.nodes):
        name = f"node {number}"
        state |= {
            f"{name} partial": [slab.pfn for slab in node.partial],
            f"{name} nr_partial": len(node.partial),
            f"{name} full": [slab.pfn for slab in node.full],
            f"{name} slabs, objects": (node.nr_slabs, node.total_objects),
        }
    for slab in model.slabs.values():
        state[f"slab {slab.pfn}"] = (
            *(slab.order, slab.objects, slab.inuse, slab.frozen, slab.on_node_list),
            slab.freelist,
        )
    return state


class ArenaCache:
    """Reads one cache's state out of an arena.

    Attributes: row: of the cache table.
    """

    def __init__(self, arena: Arena, index: int, pages: ArenaPages) -> None:
        self._ffi, self._lib, self._base = arena.core.ffi, arena.core.lib, arena.base
        self._header, self._pages = arena.header, pages
        self.row = self._at("struct kmem_cache *", "REGION_CACHES", index)
        self._nodes = [
            self._at("struct kmem_cache_node *", "REGION_CACHE_NODES", index * self._header.geometry.nr_nodes)
            + node
            for node in range(self._header.geometry.nr_nodes)
        ]
        cpus = range(self._header.geometry.nr_cpus)
        self._cpus = [
            self._at(
                "struct kmem_cache_cpu *", "REGION_CACHE_CPUS", index, cpu * self._header.cache_cpus_stride
            )
            for cpu in cpus
        ]
        self._stats = [
            self._at(
                "struct kmem_cache_stat *", "REGION_CACHE_STATS", index, cpu * self._header.cache_stats_stride
            )
            for cpu in cpus
        ]
        self._stat_names = [
            name for name, _ in self._ffi.typeof("struct kmem_cache_stat").fields if name != "pad"
        ]
        self._areas = [self._at("struct shm_cpu *", "REGION_CPUS", cpu) for cpu in cpus]
        self._records = arena.region("pages")
        self._page_offset = self._ffi.offsetof("struct page", "lru")
        self._first_tids = [c.tid for c in self._cpus]

    def _at(self, kind: str, region: str, index: int, skip: int = 0) -> Any:
        offset = self._header.regions[getattr(self._lib, region)].offset
        return self._ffi.cast(kind, self._base + offset + skip) + index

    def hold(self, node: int, *, held: bool) -> None:
        """Have a node's list_lock held by somebody, or given back."""
        self._nodes[node].list_lock.word = _LOCKED if held else 0

    def object_at(self, offset: int) -> Object:
        """Name the object at an offset by its slab and slot."""
        pfn = (offset - self._pages.memory) // PAGE_BYTES
        assert 0 <= pfn < self._header.nr_pages, f"{offset:#x} is no object"
        page = self._pages.page(pfn)
        if page.flags & self._lib.PG_tail:
            pfn = page.compound_head
        slot, rest = divmod(offset - self.offset_of((pfn, 0)), self.row.size)
        assert not rest, f"{offset:#x} is the start of no slot"
        return int(pfn), int(slot)

    def offset_of(self, thing: Object) -> int:
        """Return where an object lies."""
        pfn, slot = thing
        return int(self._pages.memory + pfn * PAGE_BYTES + self.row.red_left_pad + slot * self.row.size)

    def chain(self, first: int) -> Iterator[Object]:
        """Follow a freelist, as hardening wants it read."""
        for _ in range(1 << 16):
            if not first:
                return
            yield self.object_at(first)
            at = first + self.row.offset
            first = self._pages.word(at)
            if self.row.random:
                first ^= self.row.random ^ int.from_bytes(at.to_bytes(8, "little"), "big")
        raise AssertionError(f"a freelist of {self.row.index} has no end")

    def _pfn(self, page: int) -> int:
        return self._pages.pfn_of_link(page + self._page_offset)

    def _partial(self, page: int) -> Iterator[tuple[int, int]]:
        while page:
            pfn = self._pfn(page)
            yield pfn, self._pages.page(pfn).lru.prev
            page = self._pages.page(pfn).lru.next

    def _deferred(self, link: int) -> Iterator[Object]:
        while link:
            yield self.object_at(link - self.row.offset)
            link = self._pages.word(link)

    def _deferred_slabs(self, link: int) -> Iterator[int]:
        while link:
            yield self._pages.pfn_of_link(link)
            link = self._pages.word(link)

    def state(self) -> State:
        """Write down what `of_model` predicts."""
        state: State = {}
        for number, c in enumerate(self._cpus):
            name, area, stats = f"cpu {number}", self._areas[number], self._stats[number]
            state |= {
                f"{name} slab": self._pfn(c.slab) if c.slab else None,
                f"{name} freelist": list(self.chain(c.freelist)),
                f"{name} partial": list(self._partial(c.partial)),
                f"{name} tid events": self._events(number),
                f"{name} stats": {key: count for key in self._stat_names if (count := getattr(stats, key))},
                f"{name} deferred": list(self._deferred(area.defer_objects.first)),
                f"{name} deferred slabs": list(self._deferred_slabs(area.defer_slabs.first)),
            }
        for number, node in enumerate(self._nodes):
            name = f"node {number}"
            state |= {
                f"{name} partial": self._pages.walk(node.partial),
                f"{name} nr_partial": node.nr_partial,
                f"{name} full": self._pages.walk(node.full),
                f"{name} slabs, objects": (node.nr_slabs, node.total_objects),
            }
        return state | {f"slab {pfn}": self._slab(pfn) for pfn in self._slabs()}

    def _events(self, cpu: int) -> int:
        events, rest = divmod(self._cpus[cpu].tid - self._first_tids[cpu], self._header.tid_step)
        assert rest == 0, f"the transaction id of CPU {cpu} is another CPU's"
        return int(events)

    def _slabs(self) -> list[int]:
        mine = self._records["flags"] & self._lib.PG_slab != 0
        return [
            int(pfn) for pfn in np.flatnonzero(mine & (self._records["slab_cache"] == self.row.index + 1))
        ]

    def _slab(self, pfn: int) -> tuple[Any, ...]:
        page = self._pages.page(pfn)
        counters = page.counters
        return (
            *(page.order, counters >> 16 & 0x7FFF, counters & 0xFFFF, bool(counters >> 31 & 1)),
            bool(page.flags & self._lib.PG_partial),
            [slot for _, slot in self.chain(page.freelist)],
        )
