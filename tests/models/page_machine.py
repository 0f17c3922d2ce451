# SPDX-License-Identifier: MIT
"""A state machine that does the same to the page allocator and to its model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from models.page_state import ArenaPages, differences, of_model
from models.pages import PageAllocator, PageGeometry, Request
from models.watermarks import ZoneShape
from shmalloc import Arena, Cpu
from shmalloc.arena import Geometry
from shmalloc.audit import audit
from shmalloc.errors import AllocationFailed
from shmalloc.gfp import parse

PAGE_BYTES = 4096
AUDIT_EVERY = 11  # steps: it costs more than comparing all there is
WHICH = st.integers(0, 1 << 16)


def model_of(arena: Arena, geometry: Geometry) -> PageAllocator:
    """Make the model of an arena, from what the arena was made from."""
    return PageAllocator(
        PageGeometry(
            nr_pages=arena.header.nr_pages,
            pageblock_order=geometry.pageblock_order,
            zone_permille=geometry.zones(arena.core.lib),
            distance=geometry.distances(),
            cpu_node=geometry.nodes_of_cpus(),
            min_free_kbytes=geometry.min_free_kbytes,
            watermark_scale_factor=geometry.watermark_scale_factor,
        )
    )


class PageMachine(RuleBasedStateMachine):
    """An arena whose CPUs are all this thread, its model, and the blocks that are in use.

    Attributes: flavour: of the core.  geometry: of the arena.
    """

    flavour: str
    geometry: Geometry

    def __init__(self) -> None:
        super().__init__()
        self.live: list[int] = []
        self.steps = 0
        self.ready = False
        self.arena: Arena | None = None

    @initialize()
    def create(self) -> None:
        """Make an arena."""
        geometry = self.geometry
        self.arena = Arena.create(geometry, flavour=self.flavour, reserve="sparse")
        self.cpus = [Cpu(self.arena, number, handlers=False) for number in range(geometry.nr_cpus)]
        self.model = model_of(self.arena, geometry)
        self.pages = ArenaPages(self.arena)
        self.prepare()
        self.ready = True

    def prepare(self) -> None:
        """Do what a kind of machine needs before its first step."""

    def allocate(self, cpu: int, request: Request) -> bool:
        """Ask both for a block.  Returns: whether there was one."""
        core, offset, reason = self.cpus[cpu], 0, None
        call = core.alloc_pages_nolock if request.nolock else core.alloc_pages
        try:
            offset = call(request.order, request.gfp, request.node)
        except AllocationFailed as failure:
            reason = failure.reason
        expected = self.model.allocate(cpu, request)
        found = (offset - self.pages.memory) // PAGE_BYTES if offset else None
        self.ready = (found, reason) == (expected, self.model.reason)
        assert self.ready, (
            f"CPU {cpu}, {request}: the core gave {reason or found}, the model {self.model.reason or expected}"
        )
        if expected is not None:
            self.live.append(expected)
        return expected is not None

    def take_many(self, cpu: int, request: Request, count: int) -> None:
        """Ask both for blocks until there are so many, or none any more; the node may be any number."""
        node = min(request.node, len(self.model.zonelists) - 1)
        for _ in range(count):
            if not self.allocate(cpu % len(self.cpus), replace(request, node=node)):
                return

    def free_many(self, cpu: int, index: int, count: int, stride: int, *, nolock: bool = False) -> None:
        """Give several blocks back to both, with some left over in between."""
        for _ in range(min(count, len(self.live))):
            self.free(cpu % len(self.cpus), index, nolock=nolock)
            index += stride

    def free(self, cpu: int, index: int, *, nolock: bool = False) -> None:
        """Give a block in use back to both."""
        pfn = self.live.pop(index % len(self.live))
        order, core = self.model.used[pfn].order, self.cpus[cpu]
        call = core.free_pages_nolock if nolock else core.free_pages
        call(self.pages.memory + pfn * PAGE_BYTES, order)
        self.model.free(cpu, pfn, nolock=nolock)

    def hold(self, *, zone: int, cpu: int | None, held: bool) -> None:
        """Have a zone's lock, or that of one of its pagesets, held by somebody else."""
        self.pages.hold(zone=zone, cpu=cpu, held=held)
        group: set[Any] = self.model.held_zones if cpu is None else self.model.held_pagesets
        (group.add if held else group.discard)(zone if cpu is None else (zone, cpu))

    def release_all(self) -> None:
        """Let all locks go."""
        for zone, cpu in sorted(self.model.held_pagesets):
            self.hold(zone=zone, cpu=cpu, held=False)
        for zone in sorted(self.model.held_zones):
            self.hold(zone=zone, cpu=None, held=False)

    @invariant()
    def same_state(self) -> None:
        if not self.ready:
            return
        self.steps += 1
        if self.steps % AUDIT_EVERY == 0:
            self.check_audit(live=True)
        found = differences(self.pages.state(), of_model(self.model))
        self.ready = not found  # else there is no use in going on
        assert not found, "\n".join(found)

    def check_audit(self, *, live: bool) -> None:
        """Have the audit look at the arena, with no lock held."""
        pagesets, zones = sorted(self.model.held_pagesets), sorted(self.model.held_zones)
        self.release_all()
        assert self.arena is not None
        report = audit(self.arena, expect_live=live)
        assert report.ok, "\n".join(map(str, report.problems))
        for zone, cpu in pagesets:
            self.hold(zone=zone, cpu=cpu, held=True)
        for zone in zones:
            self.hold(zone=zone, cpu=None, held=True)

    def teardown(self) -> None:
        if self.arena is None:
            return
        try:
            if self.ready:
                self.finish()
        finally:
            self.arena.__exit__(None, None, None)

    def finish(self) -> None:
        """Give everything back: all pages must be there, in blocks that cannot grow any more."""
        for zone in sorted(self.model.held_zones):
            self.hold(zone=zone, cpu=None, held=False)
        self.check_audit(live=True)
        while self.live:
            self.free(0, -1)
        self.release_all()
        for cpu, core in enumerate(self.cpus):
            core.drain_pages()
            self.model.drain(cpu)
        self.same_state()
        for shape, free, parked in self._totals():
            assert free + parked == shape.pages
        self.check_audit(live=any(zone.parked for zone in self.model.zones))

    def _totals(self) -> Iterator[tuple[ZoneShape, int, int]]:
        """List the zones with their free and their parked pages."""
        for zone in self.model.zones:
            parked = sum(1 << self.model.used[pfn].order for pfn in zone.parked)
            yield zone.shape, zone.buddy.free_pages, parked


def gfp_of(*names: str) -> int:
    """Join flags by name."""
    return parse("|".join(names))


COUNTS = st.sampled_from([1, 1, 2, 5, 11, 23])
MANY = 601
STRIDES = st.sampled_from([0, 1, 2, 5])
NODES = st.integers(-1, 2)
BASE_GFP = st.sampled_from(
    [
        gfp_of("GFP_KERNEL"),
        gfp_of("GFP_KERNEL"),
        gfp_of("GFP_ATOMIC"),
        gfp_of("GFP_NOWAIT"),
        0,
        gfp_of("GFP_KERNEL", "__GFP_MEMALLOC"),
        gfp_of("GFP_NOWAIT", "__GFP_NOFAIL"),  # one that may block would wait for ever
        gfp_of("GFP_ATOMIC", "__GFP_NOMEMALLOC"),
    ]
)
TYPE_GFP = st.sampled_from([0, gfp_of("__GFP_MOVABLE"), gfp_of("__GFP_RECLAIMABLE")])
ZONE_GFP = st.sampled_from([0, 0, 0, gfp_of("__GFP_DMA"), gfp_of("__GFP_DMA32"), gfp_of("__GFP_HIGHMEM")])
PLACE_GFP = st.sampled_from([0, 0, 0, gfp_of("__GFP_THISNODE")])

ANY_GFP = st.tuples(BASE_GFP, TYPE_GFP, ZONE_GFP, PLACE_GFP).map(sum)
