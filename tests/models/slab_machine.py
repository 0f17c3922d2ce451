# SPDX-License-Identifier: MIT
"""A state machine that does the same to one slab cache and to its model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from models.page_machine import PAGE_BYTES, model_of
from models.page_state import ArenaPages, differences
from models.page_state import of_model as pages_of_model
from models.pages import Request
from models.slab import SlabCache
from models.slab_debug import DebugCache
from models.slab_parts import CacheShape, Object
from models.slab_state import ArenaCache, of_model
from shmalloc import Arena, Cpu
from shmalloc.arena import Geometry
from shmalloc.audit import audit
from shmalloc.errors import AllocationFailed
from shmalloc.gfp import parse

AUDIT_EVERY = 11  # steps
_ALWAYS = 1023
_KERNEL, _ATOMIC = parse("GFP_KERNEL"), parse("GFP_ATOMIC")
_DIRECT_RECLAIM = parse("__GFP_DIRECT_RECLAIM")
_MAY_WAIT = parse("__GFP_DIRECT_RECLAIM|__GFP_IO|__GFP_FS")


@dataclass(frozen=True)
class Setting:
    """An arena and the cache that is looked at in it.

    Attributes: geometry: of the arena.  size: of the objects.  flags: of the cache.
        any_node: whether it uses partial slabs of other nodes: always, or never.
    """

    geometry: Geometry
    size: int
    flags: tuple[str, ...] = field(default=())
    any_node: bool = False


def shape_of(row: Any, setting: Setting, arena: Arena) -> CacheShape:
    """Describe a cache to its model; that its numbers are right is test_sizing's matter."""
    lib = arena.core.lib
    return CacheShape(
        order=row.oo >> 16,
        objects=row.oo & 0xFFFF,
        min_order=row.min >> 16,
        min_objects=row.min & 0xFFFF,
        cpu_partial_slabs=row.cpu_partial_slabs,
        min_partial=row.min_partial,
        any_node=setting.any_node and setting.geometry.nr_nodes > 1,
        debug=bool(row.flags & lib.SLAB_DEBUG_FLAGS),
        track_full=bool(row.flags & lib.SLAB_STORE_USER),
        lockless=bool(row.flags & lib.SLAB_CMPXCHG_DOUBLE),
        typesafe=bool(row.flags & lib.SLAB_TYPESAFE_BY_RCU),
        allocflags=row.allocflags,
    )


class SlabMachine(RuleBasedStateMachine):
    """An arena whose CPUs are all this thread, one cache, its model, and the objects that are in use.

    Attributes: flavour: of the core.  setting: of the arena and the cache.
    """

    flavour: str
    setting: Setting

    def __init__(self) -> None:
        super().__init__()
        self.live: list[Object] = []
        self.hogged: list[int] = []
        self.steps = 0
        self.ready = False
        self.arena: Arena | None = None

    @initialize()
    def create(self) -> None:
        """Make an arena with one cache of ours."""
        setting = self.setting
        self.arena = Arena.create(setting.geometry, flavour=self.flavour, reserve="sparse")
        self.cpus = [Cpu(self.arena, number, handlers=False) for number in range(setting.geometry.nr_cpus)]
        index = self.cpus[0].kmem_cache_create("modelled", setting.size, flags="|".join(setting.flags)).index
        self.caches = [cpu.cache(index) for cpu in self.cpus]
        self.pages = ArenaPages(self.arena)
        self.cache = ArenaCache(self.arena, index, self.pages)
        self.cache.row.remote_node_defrag_ratio = _ALWAYS if setting.any_node else 0
        shape = shape_of(self.cache.row, setting, self.arena)
        kind = DebugCache if shape.debug else SlabCache
        self.model = kind(shape, model_of(self.arena, setting.geometry))
        self.ready = True

    def allocate(self, cpu: int, gfp: int, node: int, *, nolock: bool) -> bool:
        """Ask both for an object.  Returns: whether there was one."""
        offset, reason = 0, None
        call = self.caches[cpu].alloc_nolock if nolock else self.caches[cpu].alloc
        try:
            offset = call(gfp, node)
        except AllocationFailed as failure:
            reason = failure.reason
        if self.model.cpus[cpu].irqs_off and not nolock and gfp & _DIRECT_RECLAIM:
            gfp = gfp & ~_MAY_WAIT | _ATOMIC  # what its caller would have had to write
        expected = self.model.allocate(cpu, gfp, node)
        found = self.cache.object_at(offset) if offset else None
        self.ready = (found, reason) == (expected, self.model.reason)
        assert self.ready, (
            f"CPU {cpu}, {gfp:#x}, node {node}: the core gave {found or reason}, "
            f"the model {expected or self.model.reason}"
        )
        if expected is not None:
            self.live.append(expected)
        return expected is not None

    def free(self, cpu: int, index: int, *, nolock: bool = False) -> None:
        """Give an object in use back to both."""
        thing = self.live.pop(index % len(self.live))
        offset = self.cache.offset_of(thing)
        (self.cpus[cpu].kfree_nolock if nolock else self.caches[cpu].free)(offset)
        self.model.free(cpu, thing, nolock=nolock)

    def take_many(self, cpu: int, gfp: int, node: int, count: int, *, nolock: bool = False) -> None:
        """Ask both for objects until there are so many, or none any more; CPU and node may be any numbers."""
        for _ in range(count):
            if not self.allocate(
                cpu % len(self.cpus), gfp, min(node, len(self.model.nodes) - 1), nolock=nolock
            ):
                return

    def free_many(self, cpu: int, index: int, count: int, stride: int, *, nolock: bool = False) -> None:
        """Give several objects back to both, with some left over in between."""
        for _ in range(min(count, len(self.live))):
            self.free(cpu % len(self.cpus), index, nolock=nolock)
            index += stride

    def hog(self, cpu: int, pages: int) -> None:
        """Take single pages that the cache then cannot have."""
        for _ in range(pages):
            pfn = self.model.pages.allocate(cpu, Request(0, _ATOMIC))
            try:
                offset = self.cpus[cpu].alloc_pages(0, _ATOMIC)
            except AllocationFailed:
                assert pfn is None
                return
            assert pfn is not None and offset == self.pages.memory + pfn * PAGE_BYTES
            self.hogged.append(pfn)

    def unhog(self, cpu: int, stride: int) -> None:
        """Give some of these pages back, leaving others in between."""
        for pfn in self.hogged[::stride]:
            self.cpus[cpu].free_pages(self.pages.memory + pfn * PAGE_BYTES)
            self.model.pages.free(cpu, pfn)
        del self.hogged[::stride]

    def set_irqs(self, cpu: int, *, off: bool) -> None:
        """Hold irqs off on a CPU, or let them come: what was deferred is then done."""
        c, core = self.model.cpus[cpu], self.cpus[cpu]
        if c.irqs_off == off:
            return
        assert self.arena is not None
        lib = self.arena.core.lib
        core.irq_pending()  # becomes the CPU
        assert (lib.shm_irq_save() if off else lib.shm_irq_restore(0)) == 0
        c.irqs_off = off
        self.model.irq_work(cpu)

    def tick(self, cpu: int) -> None:
        """Let the timer of a CPU come twice: to start a grace period, and to do what waits for its end."""
        for _ in range(2):
            self.cpus[cpu].rcu_tick()
        self.model.tick(cpu)

    def hold(self, node: int, *, held: bool) -> None:
        """Have a node's list_lock held by somebody else, or given back."""
        self.cache.hold(node, held=held)
        (self.model.held_lists.add if held else self.model.held_lists.discard)(node)

    @invariant()
    def same_state(self) -> None:
        if not self.ready:
            return
        self.steps += 1
        if self.steps % AUDIT_EVERY == 0 and not self.model.held_lists:
            self.check_audit(drained=False)
        found = differences(
            self.cache.state() | self.pages.state(), of_model(self.model) | pages_of_model(self.model.pages)
        )
        self.ready = not found  # else there is no use in going on
        assert not found, "\n".join(found)

    def check_audit(self, *, drained: bool) -> None:
        """Have the audit look at the arena, with irqs on everywhere."""
        off = [cpu for cpu, c in enumerate(self.model.cpus) if c.irqs_off]
        for cpu in off:
            self.set_irqs(cpu, off=False)
        assert self.arena is not None
        report = audit(self.arena, expect_live=not drained)
        assert report.ok, "\n".join(map(str, report.problems))
        for cpu in off:
            self.set_irqs(cpu, off=True)

    def teardown(self) -> None:
        if self.arena is None:
            return
        try:
            if self.ready:
                self.finish()
        finally:
            self.arena.__exit__(None, None, None)

    def finish(self) -> None:
        """Give everything back: no slab may be left, and all pages must be there."""
        for node in sorted(self.model.held_lists):
            self.hold(node, held=False)
        for cpu in range(len(self.cpus)):
            self.set_irqs(cpu, off=False)
        self.check_audit(drained=False)
        while self.live:
            self.free(len(self.live) % len(self.cpus), -1)
        self.unhog(0, 1)
        self.caches[0].shrink()
        self.model.shrink(0)
        self.same_state()
        for cpu in range(len(self.cpus)):
            self.tick(cpu)
        self.same_state()
        assert not self.model.slabs
        for cpu, core in enumerate(self.cpus):
            core.drain_pages()
            self.model.pages.drain(cpu)
        self.same_state()
        assert all(zone.buddy.free_pages == zone.shape.pages for zone in self.model.pages.zones)
        self.caches[0].destroy()
        self.check_audit(drained=True)
