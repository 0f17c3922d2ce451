# SPDX-License-Identifier: MIT
"""The page allocator: which zone serves a request, and by which way a block comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models import watermarks as wm
from models.buddy import MAX_ORDER, MOVABLE, RECLAIMABLE, UNMOVABLE, Buddy, How, Used
from models.pcp import COSTLY_ORDER, Pageset, allowed_order, list_index
from models.watermarks import Demand, Marks, ZoneShape
from shmalloc.gfp import parse

GFP_DMA, GFP_DMA32, GFP_HIGHMEM = parse("__GFP_DMA"), parse("__GFP_DMA32"), parse("__GFP_HIGHMEM")
GFP_MOVABLE, GFP_RECLAIMABLE = parse("__GFP_MOVABLE"), parse("__GFP_RECLAIMABLE")
GFP_HIGH, GFP_NOFAIL, GFP_THISNODE = parse("__GFP_HIGH"), parse("__GFP_NOFAIL"), parse("__GFP_THISNODE")
GFP_MEMALLOC, GFP_NOMEMALLOC = parse("__GFP_MEMALLOC"), parse("__GFP_NOMEMALLOC")
GFP_DIRECT_RECLAIM, GFP_KSWAPD_RECLAIM = parse("__GFP_DIRECT_RECLAIM"), parse("__GFP_KSWAPD_RECLAIM")
MAX_RETRIES = 16


@dataclass(frozen=True)
class PageGeometry:
    """What the page allocator is made of: see shmalloc.Geometry, which has the same names."""

    nr_pages: int
    pageblock_order: int
    zone_permille: Sequence[Sequence[int]]
    distance: Sequence[Sequence[int]]
    cpu_node: Sequence[int]
    min_free_kbytes: int = 0
    watermark_scale_factor: int = 10


@dataclass(frozen=True)
class Request:
    """What is asked of the page allocator.

    Attributes: order, gfp, node: as in the kernel.  nolock: it may wait for no lock.
    """

    order: int
    gfp: int = 0
    node: int = -1
    nolock: bool = False

    @property
    def migratetype(self) -> int:
        """The lists it is served from."""
        if self.gfp & GFP_MOVABLE:
            return MOVABLE
        return RECLAIMABLE if self.gfp & GFP_RECLAIMABLE else UNMOVABLE

    @property
    def highest(self) -> int:
        """The highest zone it may be served from."""
        if self.gfp & GFP_DMA:
            return wm.DMA
        if self.gfp & GFP_DMA32:
            return wm.DMA32
        both = GFP_HIGHMEM | GFP_MOVABLE
        return wm.MOVABLE if self.gfp & both == both else wm.NORMAL


class Zone:
    """One zone: its buddy lists, its marks, and a pageset for each CPU.

    Attributes:
        below_high: somebody has met it below its high mark.
        boost, boosted: pages added to the marks, and whether kswapd is to hear of it.
        parked: blocks whose free did not get the lock, the last one first.
        events: counters of the zone.
    """

    def __init__(self, shape: ZoneShape, geometry: PageGeometry, shapes: Sequence[ZoneShape]) -> None:
        self.shape = shape
        self.buddy = Buddy(shape, geometry.pageblock_order)
        self.marks: Marks = wm.marks_of(
            shape, shapes, geometry.min_free_kbytes, geometry.watermark_scale_factor
        )
        limits = wm.limits_of(shape, self.marks, list(geometry.cpu_node).count(shape.node))
        self.pagesets = [Pageset(limits) for _ in geometry.cpu_node]
        self.below_high = self.boosted = False
        self.boost = 0
        self.parked: list[int] = []
        self.events: Counter[str] = Counter()

    def ok(self, order: int, mark: int, highest: int, flags: int = 0) -> bool:
        """Say whether the zone is above one of its marks."""
        demand = Demand(order, self.marks.marks[mark] + self.boost, highest, flags)
        free = self.buddy.free_pages - (0 if flags & wm.RESERVES else self.buddy.free_highatomic)

        def has_block(wanted: int) -> bool:
            return self.buddy.has_block(wanted, highatomic=bool(flags & wm.HIGHATOMIC))

        return wm.watermark_ok(demand, free, self.marks.reserve, has_block)

    def add_boost(self, times: int, *, tell_kswapd: bool) -> None:
        """Raise the marks after mixing types within a pageblock."""
        block = 1 << self.buddy.pageblock_order
        ceiling = self.marks.marks[wm.HIGH] * 15000 // 10000
        if times and block * 4 <= self.shape.pages:
            self.boost = min(self.boost + times * block, max(ceiling, block))
            self.boosted = self.boosted or tell_kswapd


class PageAllocator:
    """All zones, and the paths into them.

    Attributes:
        used: the blocks in use, by first page.
        reason: why the last allocation failed; None if it did not.
        held_pagesets, held_zones: whose lock somebody else holds: pairs of zone and CPU, zones.
    """

    def __init__(self, geometry: PageGeometry) -> None:
        shapes = wm.lay_out(geometry.nr_pages, geometry.zone_permille, geometry.pageblock_order)
        memory_nodes = sorted({shape.node for shape in shapes})
        orders = wm.node_orders(geometry.distance, memory_nodes, geometry.cpu_node)
        self.geometry = geometry
        self.zones = [Zone(shape, geometry, shapes) for shape in shapes]
        self.zonelists = [wm.zonelist(order, shapes) for order in orders]
        self.thisnode = [wm.zonelist([node], shapes) for node in range(len(orders))]
        self.used: dict[int, Used] = {}
        self.reason: str | None = None
        self.held_pagesets: set[tuple[int, int]] = set()
        self.held_zones: set[int] = set()

    def zone_of(self, pfn: int) -> int:
        """Return the index of the zone that a page lies in."""
        return next(
            i for i, z in enumerate(self.zones) if z.shape.start <= pfn < z.shape.start + z.shape.pages
        )

    # --- allocation ---------------------------------------------------------------------------

    def allocate(self, cpu: int, request: Request) -> int | None:
        """Take a block as one CPU.  Returns: its first page."""
        self.reason = None
        pfn = self._attempts(cpu, request)
        if pfn is not None:
            self.used[pfn] = Used(request.order, request.migratetype)
            self.reason = None
        return pfn

    def _attempts(self, cpu: int, request: Request) -> int | None:
        if request.order > MAX_ORDER or (request.nolock and not allowed_order(request.order)):
            self._shortage("order_limit")
            return None
        if request.nolock:
            return self._walk(cpu, request, wm.MIN | wm.TRYLOCK)
        kswapd = wm.KSWAPD if request.gfp & GFP_KSWAPD_RECLAIM else 0
        nofragment = wm.NOFRAGMENT if self._has_dma32_beside(cpu, request) else 0
        pfn = self._walk(cpu, request, wm.LOW | kswapd | nofragment)
        return self._slow_path(cpu, request, kswapd) if pfn is None else pfn

    def _has_dma32_beside(self, cpu: int, request: Request) -> bool:
        """Say whether it prefers a normal zone whose node has one for DMA32, too."""
        shapes = [self.zones[index].shape for index in self._suitable(cpu, request)]
        if not shapes or shapes[0].kind != wm.NORMAL:
            return False
        return (shapes[0].node, wm.DMA32) in {(shape.node, shape.kind) for shape in shapes}

    def _slow_path(self, cpu: int, request: Request, kswapd: int) -> int | None:
        gfp, entitled = request.gfp, not request.gfp & GFP_NOMEMALLOC
        flags = wm.MIN | kswapd | (wm.MIN_RESERVE if gfp & GFP_HIGH else 0)
        if entitled and not gfp & GFP_DIRECT_RECLAIM:
            flags |= wm.NON_BLOCK
            if request.order and flags & wm.MIN_RESERVE:
                flags |= wm.HIGHATOMIC
        suitable = self._suitable(cpu, request)
        if not suitable:
            return None
        self._wake_all(suitable, kswapd)
        pfn = self._walk(cpu, request, flags)
        loops = 0
        while pfn is None:
            self._wake_all(suitable, kswapd)
            if gfp & GFP_MEMALLOC and entitled:
                flags = wm.NO_WATERMARKS | kswapd
            pfn = self._walk(cpu, request, flags)
            if pfn is not None or not gfp & GFP_DIRECT_RECLAIM or request.order > COSTLY_ORDER:
                break  # there is nothing to reclaim
            loops += 1
            if not self._should_retry(suitable, request, flags, loops):
                return self._walk(cpu, request, wm.HIGH)
        return pfn

    def _should_retry(self, suitable: list[int], request: Request, flags: int, loops: int) -> bool:
        zones = [self.zones[index] for index in suitable]
        if loops > MAX_RETRIES:
            return any(zone.buddy.unreserve(request.migratetype) for zone in zones if zone.buddy.reserved)
        return any(zone.ok(request.order, wm.MIN, request.highest, flags) for zone in zones)

    def _wake_all(self, suitable: list[int], kswapd: int) -> None:
        """Wake the kswapd of each node, in order."""
        nodes = [self.zones[index].shape.node for index in suitable]
        for at, index in enumerate(suitable):
            if kswapd and (at == 0 or nodes[at] != nodes[at - 1]):
                self._wake_kswapd(self.zones[index])

    @staticmethod
    def _wake_kswapd(zone: Zone) -> None:
        """There is none: the boost that it would work off is dropped."""
        zone.boost = 0
        zone.events["nr_kswapd_wakeups"] += 1

    def _suitable(self, cpu: int, request: Request) -> list[int]:
        node = request.node if request.node >= 0 else self.geometry.cpu_node[cpu]
        zones = (self.thisnode if request.gfp & GFP_THISNODE else self.zonelists)[node]
        return [index for index in zones if self.zones[index].shape.kind <= request.highest]

    def _walk(self, cpu: int, request: Request, flags: int) -> int | None:
        zones = self._suitable(cpu, request)
        for index in zones:
            if flags & wm.NOFRAGMENT and self.zones[index].shape.node != self.zones[zones[0]].shape.node:
                break
            if self._usable(self.zones[index], request, flags):
                pfn = self._from_zone(cpu, index, request, flags)
                if pfn is not None:
                    self._count(cpu, zones[0], index, request.order)
                    if flags & wm.HIGHATOMIC:
                        self.zones[index].buddy.reserve(pfn, request.order)
                    return pfn
            self._shortage("below_watermark")
        if flags & wm.NOFRAGMENT:
            return self._walk(cpu, request, flags & ~wm.NOFRAGMENT)
        self._shortage("below_watermark")
        return None

    @staticmethod
    def _usable(zone: Zone, request: Request, flags: int) -> bool:
        if flags & wm.NO_WATERMARKS:
            return True
        if not zone.below_high:
            if zone.ok(request.order, wm.HIGH, request.highest, flags):
                return True
            zone.below_high = True
        return zone.ok(request.order, flags & wm.WATERMARK_MASK, request.highest, flags)

    def _from_zone(self, cpu: int, index: int, request: Request, flags: int) -> int | None:
        pfn, busy = None, False
        if allowed_order(request.order):
            pfn, busy = self._from_pageset(cpu, index, request, flags)
        if pfn is None:
            pfn = self._from_buddy(cpu, index, request, flags)
        if pfn is None:
            if busy and self.reason != "zone_busy":
                self.reason = "pcp_busy"
            return None
        zone = self.zones[index]
        if flags & wm.KSWAPD and zone.boosted:
            zone.boosted = False
            self._wake_kswapd(zone)
        return pfn

    def _from_pageset(self, cpu: int, index: int, request: Request, flags: int) -> tuple[int | None, bool]:
        zone = self.zones[index]
        pageset = zone.pagesets[cpu]
        if (index, cpu) in self.held_pagesets:
            pageset.events["pcp_busy"] += 1
            return None, True
        pageset.free_count >>= 1
        if not pageset.lists[list_index(request.order, request.migratetype)]:
            want = pageset.refill_size(request.order, below_high=zone.below_high)
            if self._lock_zone(cpu, index, flags):
                before = zone.buddy.claims_below_block
                pageset.refill(
                    zone.buddy,
                    request.order,
                    request.migratetype,
                    want,
                    self.used,
                    nofragment=bool(flags & wm.NOFRAGMENT),
                )
                self._boost(zone, before, flags)
        return pageset.pop(request.order, request.migratetype), False

    def _from_buddy(self, cpu: int, index: int, request: Request, flags: int) -> int | None:
        zone = self.zones[index]
        if not self._lock_zone(cpu, index, flags):
            return None
        before = zone.buddy.claims_below_block
        pfn = zone.buddy.take_reserved(request.order) if flags & wm.HIGHATOMIC else None
        if pfn is not None:
            return pfn
        found = zone.buddy.take(
            request.order,
            request.migratetype,
            self.used,
            How.OWN,
            nofragment=bool(flags & wm.NOFRAGMENT),
        )
        self._boost(zone, before, flags)
        if found is None:
            return zone.buddy.take_reserved(request.order) if flags & wm.NON_BLOCK else None
        zone.pagesets[cpu].note(found[1])
        return found[0]

    @staticmethod
    def _boost(zone: Zone, before: int, flags: int) -> None:
        zone.add_boost(zone.buddy.claims_below_block - before, tell_kswapd=bool(flags & wm.KSWAPD))

    def _lock_zone(self, cpu: int, index: int, flags: int) -> bool:
        if index not in self.held_zones:
            return True
        assert flags & wm.TRYLOCK, "this call would wait for ever"
        self.zones[index].pagesets[cpu].events["zone_busy"] += 1
        self.reason = "zone_busy"
        return False

    def _shortage(self, reason: str) -> None:
        if self.reason is None or not self.reason.endswith("busy"):
            self.reason = reason  # a contention outlasts a shortage

    def _count(self, cpu: int, preferred: int, index: int, order: int) -> None:
        zone, wanted = self.zones[index], self.zones[preferred]
        events = zone.pagesets[cpu].events
        events["pgalloc"] += 1 << order
        if zone.shape.node == wanted.shape.node:
            events["numa_hit"] += 1
        else:
            events["numa_miss"] += 1
            wanted.pagesets[cpu].events["numa_foreign"] += 1
        local = zone.shape.node == self.geometry.cpu_node[cpu]
        events["numa_local" if local else "numa_other"] += 1

    # --- free ---------------------------------------------------------------------------------

    def free(self, cpu: int, pfn: int, *, nolock: bool = False) -> None:
        """Give a block back as one CPU."""
        order, index = self.used.pop(pfn).order, self.zone_of(pfn)
        zone = self.zones[index]
        pageset = zone.pagesets[cpu]
        pageset.events["pgfree"] += 1 << order
        if not allowed_order(order):
            self._free_to_buddy(cpu, index, pfn, order, nolock=nolock)
        elif (index, cpu) in self.held_pagesets:
            pageset.events["pcp_busy"] += 1
            self._free_to_buddy(cpu, index, pfn, order, nolock=nolock)
        else:
            self._free_to_pageset(zone, pageset, pfn, order, nolock=nolock)

    def _free_to_buddy(self, cpu: int, index: int, pfn: int, order: int, *, nolock: bool) -> None:
        zone = self.zones[index]
        if nolock and index in self.held_zones:
            zone.pagesets[cpu].events["zone_busy"] += 1
            zone.events["nr_deferred_free"] += 1
            zone.parked.insert(0, pfn)
            self.used[pfn] = Used(order, UNMOVABLE)  # nobody's, but not free either
            return
        assert index not in self.held_zones, "this call would wait for ever"
        if not nolock:
            self._unpark(zone)
        zone.buddy.free(pfn, order)

    def _unpark(self, zone: Zone) -> None:
        for pfn in zone.parked:
            zone.buddy.free(pfn, self.used.pop(pfn).order)
            zone.events["nr_deferred_drained"] += 1
        zone.parked = []

    @staticmethod
    def _free_to_pageset(zone: Zone, pageset: Pageset, pfn: int, order: int, *, nolock: bool) -> None:
        migratetype = zone.buddy.type_of(pfn)
        if migratetype not in (UNMOVABLE, MOVABLE, RECLAIMABLE):
            migratetype = MOVABLE  # what is set apart has no list of its own
        free_high = pageset.push(pfn, order, migratetype)
        if nolock:
            return
        surplus = pageset.surplus(below_high=zone.below_high, free_high=free_high)
        if surplus:
            pageset.give_back(zone.buddy, surplus, list_index(order, migratetype))
            if zone.below_high and zone.ok(0, wm.HIGH, wm.MOVABLE):
                zone.below_high = False

    def vmstat_tick(self, cpu: int) -> None:
        """Do a CPU's periodic work."""
        for zone in self.zones:
            zone.pagesets[cpu].decay(zone.buddy)
            zone.pagesets[cpu].expire(zone.buddy, local=zone.shape.node == self.geometry.cpu_node[cpu])

    def drain(self, cpu: int) -> None:
        """Give everything on a CPU's lists back."""
        for zone in self.zones:
            pageset = zone.pagesets[cpu]
            pageset.give_back(zone.buddy, pageset.count, 0)
