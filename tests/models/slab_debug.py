# SPDX-License-Identifier: MIT
"""A debug cache: every object comes from, and goes to, a slab under list_lock."""

from __future__ import annotations

from models.slab import SlabCache
from models.slab_parts import NodeSlabs, Object, Slab


class DebugCache(SlabCache):
    """One cache without cpu slabs, over a page allocator."""

    def _take_one(self, slab: Slab) -> Object:
        slab.inuse += 1
        return slab.pfn, slab.freelist.pop(0)

    def use_partial(self, cpu: int, slab: Slab) -> Object | None:
        node, taken = self._node(slab), self._take_one(slab)
        if not slab.freelist:
            node.remove(slab)
            self._add_full(node, slab)
        return taken

    def use_new(self, cpu: int, slab: Slab, gfp: int) -> Object | None:
        if not self.lock_list(cpu, gfp, slab.node):
            self.cpus[cpu].stats["defer_deactivate"] += 1
            self.cpus[cpu].deferred_slabs.insert(0, slab)
            self.irq_work(cpu)
            return None
        node, taken = self._node(slab), self._take_one(slab)
        if slab.freelist:
            node.add(slab, tail=False)
        else:
            self._add_full(node, slab)
        self.count(slab)
        return taken

    def _add_full(self, node: NodeSlabs, slab: Slab) -> None:
        if self.shape.track_full:
            node.full.insert(0, slab)

    def slow_free(self, cpu: int, slab: Slab, slot: int) -> None:
        stats, node = self.cpus[cpu].stats, self._node(slab)
        stats["free_slowpath"] += 1
        was_full = not slab.freelist
        slab.push(slot)
        surplus = not slab.inuse and len(node.partial) >= self.shape.min_partial
        if was_full:
            if self.shape.track_full:
                node.full.remove(slab)
            if not surplus:
                node.add(slab, tail=True)
                stats["free_add_partial"] += 1
        elif surplus:
            node.remove(slab)
            stats["free_remove_partial"] += 1
        if surplus:
            self.discard(cpu, slab)
