# SPDX-License-Identifier: MIT
"""A slab cache with cpu slabs: slabs, the lists they are on, and how objects come and go.

One CPU acts at a time, so there are no races here: what an interrupt would change in between is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from models.pages import (
    GFP_DIRECT_RECLAIM,
    GFP_KSWAPD_RECLAIM,
    GFP_NOFAIL,
    GFP_NOMEMALLOC,
    GFP_THISNODE,
    PageAllocator,
    Request,
)
from models.slab_parts import CacheShape, CpuSlab, NodeSlabs, Object, Slab
from shmalloc.gfp import parse

RECLAIM = GFP_DIRECT_RECLAIM | GFP_KSWAPD_RECLAIM
_NOWAIT = parse("GFP_NOWAIT")
_TRY_ONCE = parse("__GFP_NOWARN|__GFP_NORETRY")
_PROMOTED = 32  # a shrink sorts the slabs with up to so many free objects


class SlabCache:
    """One cache over a page allocator.

    Attributes: slabs: all of them, by first page.  reason: why the last allocation failed.
        held_lists: nodes whose list_lock somebody else holds.
    """

    def __init__(self, shape: CacheShape, pages: PageAllocator) -> None:
        self.shape = shape
        self.pages = pages
        self.cpus = [CpuSlab() for _ in pages.geometry.cpu_node]
        self.nodes = [NodeSlabs() for _ in pages.zonelists]
        self.slabs: dict[int, Slab] = {}
        self.reason: str | None = None
        self.held_lists: set[int] = set()

    def _node(self, slab: Slab) -> NodeSlabs:
        assert slab.node not in self.held_lists, "this call would wait for ever"
        return self.nodes[slab.node]

    def _has_memory(self, node: int) -> bool:
        return bool(self.pages.thisnode[node])

    # --- slabs ------------------------------------------------------------------------------------

    def new_slab(self, cpu: int, gfp: int, node: int) -> Slab | None:
        """Make a slab of the usual order, or of the smallest."""
        shape, nolock = self.shape, not gfp & RECLAIM
        first = (gfp | shape.allocflags | _TRY_ONCE) & ~GFP_NOFAIL
        if first & GFP_DIRECT_RECLAIM and shape.order > shape.min_order:
            first = (first | GFP_NOMEMALLOC) & ~RECLAIM
        for order, objects, flags in (
            (shape.order, shape.objects, first),
            (shape.min_order, shape.min_objects, gfp | shape.allocflags),
        ):
            pfn = self.pages.allocate(cpu, Request(order, 0 if nolock else flags, node, nolock))
            if pfn is None:
                self._fails(self.pages.reason)
                continue
            if flags is not first:
                self.cpus[cpu].stats["order_fallback"] += 1
            owner = self.pages.zones[self.pages.zone_of(pfn)].shape.node
            self.slabs[pfn] = Slab(pfn, order, objects, owner, list(range(objects)))
            return self.slabs[pfn]
        return None

    def _fails(self, reason: str | None) -> None:
        if self.reason is None or (reason or "").endswith("busy"):
            self.reason = reason

    def free_slab(self, cpu: int, slab: Slab) -> None:
        """Give a slab's pages back, at once or after a grace period."""
        if self.shape.typesafe:
            self.cpus[cpu].waiting_slabs.append(slab)
        else:
            self._free_pages(cpu, slab)

    def _free_pages(self, cpu: int, slab: Slab) -> None:
        del self.slabs[slab.pfn]
        self.pages.free(cpu, slab.pfn)

    def tick(self, cpu: int) -> None:
        """A grace period is over for all that a CPU has waiting, if it takes interrupts."""
        c = self.cpus[cpu]
        while c.waiting_slabs and not c.irqs_off:
            self._free_pages(cpu, c.waiting_slabs.pop(0))

    def discard(self, cpu: int, slab: Slab) -> None:
        """Give up a slab that was counted."""
        self.count(slab, -1)
        self.cpus[cpu].stats["free_slab"] += 1
        self.free_slab(cpu, slab)

    def count(self, slab: Slab, sign: int = 1) -> None:
        """Count a slab among its node's, or no more."""
        self.nodes[slab.node].nr_slabs += sign
        self.nodes[slab.node].total_objects += sign * slab.objects

    # --- lists ------------------------------------------------------------------------------------

    def deactivate(self, cpu: int, slab: Slab, freelist: list[int]) -> None:
        """Unfreeze a slab; what its CPU had left goes in front of what others freed."""
        stats, node = self.cpus[cpu].stats, self.nodes[slab.node]
        remote = bool(slab.freelist)
        stats["deactivate_remote_frees"] += remote
        slab.freelist = freelist + slab.freelist
        slab.inuse -= len(freelist)
        slab.frozen = False
        if not slab.inuse and len(node.partial) >= self.shape.min_partial:
            stats["deactivate_empty"] += 1
            self.discard(cpu, slab)
        elif slab.freelist:
            self._node(slab).add(slab, tail=remote)
            stats["deactivate_to_tail" if remote else "deactivate_to_head"] += 1
        else:
            stats["deactivate_full"] += 1

    def put_cpu_partial(self, cpu: int, slab: Slab, *, drain: bool) -> None:
        """Keep a slab for this CPU; with too many of them, those before go to their nodes."""
        c = self.cpus[cpu]
        full = drain and len(c.partial) >= self.shape.cpu_partial_slabs
        surplus = c.partial if full else []
        c.partial = [slab] if full else [slab, *c.partial]
        if full:
            self.put_partials(cpu, surplus)
            c.stats["cpu_partial_drain"] += 1

    def put_partials(self, cpu: int, slabs: list[Slab]) -> None:
        """Give slabs to their nodes; empty ones beyond the minimum are given up, the last one first."""
        stats = self.cpus[cpu].stats
        surplus: list[Slab] = []
        for slab in slabs:
            node = self._node(slab)
            if not slab.inuse and len(node.partial) >= self.shape.min_partial:
                surplus.insert(0, slab)
            else:
                node.add(slab, tail=True)
                stats["free_add_partial"] += 1
        for slab in surplus:
            stats["deactivate_empty"] += 1
            self.discard(cpu, slab)

    def get_partial(self, cpu: int, gfp: int, node: int) -> Slab | None:
        """Find a slab with free objects: on the wanted node, else on one that has more than it needs."""
        local = self.pages.geometry.cpu_node[cpu]
        wanted = node if node >= 0 else self._nearest(local)
        found = self._from_node(cpu, gfp, wanted)
        if found or (node >= 0 and gfp & GFP_THISNODE) or not self.shape.any_node:
            return found
        for zone in self.pages.zonelists[local]:
            other = self.pages.zones[zone].shape.node
            if len(self.nodes[other].partial) > self.shape.min_partial:
                found = self._from_node(cpu, gfp, other)
                if found:
                    return found
        return None

    def _nearest(self, node: int) -> int:
        return self.pages.zones[self.pages.zonelists[node][0]].shape.node

    def _from_node(self, cpu: int, gfp: int, number: int) -> Slab | None:
        node, stats = self.nodes[number], self.cpus[cpu].stats
        if not node.partial or not self.lock_list(cpu, gfp, number):
            return None
        if self.shape.debug:
            return node.partial[0]
        first = node.partial[0]
        node.remove(first)
        stats["alloc_from_partial"] += 1
        for slab in node.partial[: self.shape.cpu_partial_slabs // 2 + 1]:
            node.remove(slab)
            self.put_cpu_partial(cpu, slab, drain=False)
            stats["cpu_partial_node"] += 1
        return first

    def lock_list(self, cpu: int, gfp: int, node: int) -> bool:
        """Take a node's list_lock, if the request may wait for it or need not."""
        if node not in self.held_lists:
            return True
        assert not gfp & RECLAIM, "this call would wait for ever"
        self.cpus[cpu].stats["list_lock_busy"] += 1
        self.reason = "list_lock_busy"
        return False

    # --- allocation -------------------------------------------------------------------------------

    def allocate(self, cpu: int, gfp: int, node: int = -1) -> Object | None:
        """Take an object as one CPU; without a reclaim flag nothing is waited for."""
        self.reason = None
        if not gfp & RECLAIM and not self.shape.lockless and not self.shape.debug:
            self.reason = "context_refused"
            return None
        c = self.cpus[cpu]
        if c.slab and c.freelist and node in (-1, c.slab.node):
            c.events += 1
            c.stats["alloc_fastpath"] += 1
            return c.slab.pfn, c.freelist.pop(0)
        c.stats["alloc_slowpath"] += 1
        found = self._slow_path(cpu, gfp, node)
        if found is not None:
            self.reason = None
        return found

    def _slow_path(self, cpu: int, gfp: int, node: int) -> Object | None:
        c, spin = self.cpus[cpu], bool(gfp & RECLAIM)
        if node >= 0 and not self._has_memory(node):
            node = -1
        if c.slab and node not in (-1, c.slab.node):
            if spin:
                c.stats["alloc_node_mismatch"] += 1
                slab, freelist = c.detach()
                assert slab is not None
                self.deactivate(cpu, slab, freelist)
            else:
                node = -1
        if c.slab:
            freelist = c.freelist or self._refill(c)
            if freelist:
                return self._load(c, c.slab, freelist)
            c.detach()
            c.stats["deactivate_bypass"] += 1
        return self._from_cpu_partial(cpu, gfp, node) or self._from_elsewhere(cpu, gfp, node)

    @staticmethod
    def _refill(c: CpuSlab) -> list[int]:
        """Take what others have freed to the cpu slab; if that is nothing it is a full slab now."""
        assert c.slab is not None
        freelist = c.slab.take_all(frozen=bool(c.slab.freelist))
        c.stats["alloc_refill"] += bool(freelist)
        return freelist

    @staticmethod
    def _load(c: CpuSlab, slab: Slab, freelist: list[int]) -> Object:
        c.slab, c.freelist = slab, freelist[1:]
        c.events += 1
        return slab.pfn, freelist[0]

    def _from_cpu_partial(self, cpu: int, gfp: int, node: int) -> Object | None:
        c = self.cpus[cpu]
        while c.partial:
            slab = c.partial.pop(0)
            if not gfp & RECLAIM or node in (-1, slab.node):
                c.stats["cpu_partial_alloc"] += 1
                return self._load(c, slab, slab.take_all(frozen=True))
            self.put_partials(cpu, [slab])
        return None

    def _from_elsewhere(self, cpu: int, gfp: int, node: int) -> Object | None:
        """Ask the node's list, then the page allocator: there first, then anywhere."""
        plans = [gfp]
        if node >= 0 and not gfp & GFP_THISNODE:
            plans.insert(0, (_NOWAIT if gfp & RECLAIM else gfp) | GFP_THISNODE)
        for plan in plans:
            slab = self.get_partial(cpu, plan, node)
            if slab:
                return self.use_partial(cpu, slab)
            slab = self.new_slab(cpu, plan, node)
            if slab:
                self.cpus[cpu].stats["alloc_slab"] += 1
                return self.use_new(cpu, slab, gfp)
        return None

    def use_partial(self, cpu: int, slab: Slab) -> Object | None:
        """Take an object from a slab of a partial list."""
        return self._load(self.cpus[cpu], slab, slab.take_all(frozen=True))

    def use_new(self, cpu: int, slab: Slab, gfp: int) -> Object | None:
        """Take an object from a fresh slab."""
        del gfp
        self.count(slab)
        return self.use_partial(cpu, slab)

    # --- free -------------------------------------------------------------------------------------

    def free(self, cpu: int, thing: Object, *, nolock: bool = False) -> None:
        """Give an object back as one CPU."""
        c, (pfn, slot) = self.cpus[cpu], thing
        if c.slab is self.slabs[pfn]:
            c.freelist.insert(0, slot)
            c.events += 1
            c.stats["free_fastpath"] += 1
        elif nolock:
            c.deferred.insert(0, thing)
            c.stats["defer_free"] += 1
            self.irq_work(cpu)
        else:
            self.slow_free(cpu, self.slabs[pfn], slot)

    def slow_free(self, cpu: int, slab: Slab, slot: int) -> None:
        """Give an object back to a slab that is not this CPU's."""
        c = self.cpus[cpu]
        c.stats["free_slowpath"] += 1
        was_full = not slab.freelist
        slab.push(slot)
        if slab.frozen:
            c.stats["free_frozen"] += 1
        elif was_full:
            self.put_cpu_partial(cpu, slab, drain=True)
            c.stats["cpu_partial_free"] += 1
        elif not slab.inuse:
            self._emptied(cpu, slab)

    def _emptied(self, cpu: int, slab: Slab) -> None:
        node = self._node(slab)
        if slab.on_node_list and len(node.partial) >= self.shape.min_partial:
            node.remove(slab)
            self.cpus[cpu].stats["free_remove_partial"] += 1
            self.discard(cpu, slab)

    def irq_work(self, cpu: int) -> None:
        """Do what was deferred, unless irqs are off: the newest first."""
        c = self.cpus[cpu]
        if c.irqs_off:
            return
        objects, c.deferred = c.deferred, []
        for pfn, slot in objects:
            self.slow_free(cpu, self.slabs[pfn], slot)
        slabs, c.deferred_slabs = c.deferred_slabs, []
        for slab in slabs:
            self.free_slab(cpu, slab)  # was never counted

    # --- maintenance ------------------------------------------------------------------------------

    def flush(self, by: int) -> None:
        """Take all slabs from all CPUs, one CPU doing it for all."""
        for c in self.cpus:
            partial, c.partial = c.partial, []
            slab, freelist = c.detach()
            if slab:
                self.cpus[by].stats["cpuslab_flush"] += 1
                self.deactivate(by, slab, freelist)
            self.put_partials(by, partial)

    def shrink(self, by: int) -> None:
        """Flush, give up all empty slabs, and have the fullest of the others used first."""
        self.flush(by)
        for node in self.nodes:
            empty = [slab for slab in node.partial if not slab.inuse]
            for slab in empty:
                node.remove(slab)
            node.partial = list(self._by_use(node.partial))
            for slab in reversed(empty):
                self.discard(by, slab)

    @staticmethod
    def _by_use(slabs: list[Slab]) -> Iterator[Slab]:
        for free in range(1, _PROMOTED + 1):
            yield from (slab for slab in reversed(slabs) if len(slab.freelist) == free)
        yield from (slab for slab in slabs if len(slab.freelist) > _PROMOTED)
