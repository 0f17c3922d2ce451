# SPDX-License-Identifier: MIT
"""The arena map beside the models: after each of many random operations every page and object is what they say."""

from random import Random

import numpy as np
import pytest
from hypothesis.stateful import invariant, rule
from models.page_machine import PageMachine, gfp_of
from models.pages import PageAllocator, Request
from models.running import walk
from models.slab import SlabCache
from models.slab_machine import Setting, SlabMachine

from shmalloc.arena import Geometry
from shmalloc.pagemap import SLABS, Kind, PageMap, State, page_map

MIB = 1024 * 1024
HIGHATOMIC = 3
PAGES = {
    "one node": Geometry(16 * MIB, nr_cpus=2, pageblock_order=5, min_free_kbytes=512),
    "two nodes": Geometry(
        6 * MIB,
        nr_cpus=2,
        nr_nodes=2,
        pageblock_order=4,
        min_free_kbytes=256,
        zone_permille=[[100, 200, 200, 0], [0, 0, 400, 100]],
        cpu_node=[1, 0],
    ),
}
THREE = Geometry(8 * MIB, nr_cpus=3, pageblock_order=4, min_free_kbytes=64)
NUMA = Geometry(
    10 * MIB,
    nr_cpus=3,
    nr_nodes=3,
    pageblock_order=4,
    min_free_kbytes=64,
    zone_permille=[[0, 0, 500, 0], [0, 200, 300, 0], [0, 0, 0, 0]],
    cpu_node=[0, 1, 2],
)
SLAB_SETTINGS = {
    "three CPUs": Setting(THREE, 1000),
    "hardened": Setting(Geometry(8 * MIB, nr_cpus=2, pageblock_order=3, freelist_hardened=True), 3000),
    "typesafe": Setting(
        Geometry(8 * MIB, nr_cpus=3, pageblock_order=4, rcu_gp_us=0), 2000, ("SLAB_TYPESAFE_BY_RCU",)
    ),
    "debug": Setting(THREE, 2000, ("SLAB_RED_ZONE", "SLAB_STORE_USER")),
    "NUMA": Setting(NUMA, 8192, any_node=True),
}
KERNEL = gfp_of("GFP_KERNEL")
WORDS = ("kind", "order", "cpu")


def pages_of_model(model: PageAllocator, nr_pages: int) -> dict[str, np.ndarray]:
    """What a model of the page allocator says of each page."""
    found = {name: np.zeros(nr_pages, np.uint8) for name in WORDS}

    def put(pfn: int, order: int, kind: Kind, cpu: int = 0) -> None:
        block = slice(pfn, pfn + (1 << order))
        assert not found["kind"][block].any()
        found["kind"][block], found["order"][block], found["cpu"][block] = kind, order, cpu

    for zone in model.zones:
        for order, lists in enumerate(zone.buddy.lists):
            for kind, pfns in enumerate(lists):
                for pfn in pfns:
                    put(pfn, order, Kind.RESERVE if kind == HIGHATOMIC else Kind.FREE)
        for cpu, pageset in enumerate(zone.pagesets):
            for number, pfns in enumerate(pageset.lists):
                for pfn in pfns:
                    put(pfn, number // 3 if number < 12 else 9, Kind.PCP, cpu + 1)
        for pfn in zone.parked:
            put(pfn, model.used[pfn].order, Kind.PARKED)
    return found


def compare(found: PageMap, expected: dict[str, np.ndarray], which: np.ndarray) -> None:
    for name in WORDS:
        real = getattr(found.planes, name)
        wrong = np.flatnonzero(which & (real != expected[name]))
        assert not len(wrong), (
            f"{name} of page {wrong[0]}: {real[wrong[0]]}, the model {expected[name][wrong[0]]}"
        )


class Mapped:
    """A machine whose map is compared with the model, too. Attributes: kinds: of pages that there were."""

    kinds: set[Kind]

    @rule()
    def nothing(self) -> None:
        """A machine has a rule."""

    @invariant()
    def same_state(self) -> None:
        super().same_state()
        if self.ready:
            self.same_map()


class MappedPages(Mapped, PageMachine):
    """Compares the map with the model."""

    def same_map(self) -> None:
        assert self.arena is not None
        found = page_map(self.arena)
        expected = pages_of_model(self.model, found.frame.nr_pages)
        for pfn in self.live:
            order = self.model.used[pfn].order
            expected["kind"][pfn : pfn + (1 << order)] = Kind.PAGES
            expected["order"][pfn : pfn + (1 << order)] = order
        compare(found, expected, np.ones(found.frame.nr_pages, bool))
        self.kinds |= {Kind(kind) for kind in np.unique(expected["kind"])}


def take_pages(machine: PageMachine, draw: Random) -> None:
    types = [0, 0, gfp_of("__GFP_MOVABLE"), gfp_of("__GFP_RECLAIMABLE")]
    gfp = draw.choice([KERNEL, KERNEL, gfp_of("GFP_ATOMIC")]) | draw.choice(types)
    order = draw.choice([0, 0, 0, 1, 2, 3, 4, 7, 9])
    machine.take_many(
        draw.randrange(2), Request(order, gfp, draw.choice([-1, 0, 1])), draw.choice([1, 5, 23, 601])
    )


def give_pages(machine: PageMachine, draw: Random) -> None:
    if machine.live:
        first, count = draw.randrange(len(machine.live)), draw.choice([1, 11, 53, 211])
        machine.free_many(draw.randrange(2), first, count, draw.choice([0, 1, 3]))


def drain(machine: PageMachine, draw: Random) -> None:
    number = draw.randrange(2)
    machine.cpus[number].drain_pages()
    machine.model.drain(number)


def give_to_nobody(machine: PageMachine, draw: Random) -> None:
    """Frees find the locks of everything taken: their blocks are parked."""
    for zone in range(len(machine.model.zones)):
        for cpu in (None, 0, 1):
            machine.hold(zone=zone, cpu=cpu, held=True)
    if machine.live:
        machine.free_many(draw.randrange(2), draw.randrange(len(machine.live)), 5, 1, nolock=True)
    machine.same_map()
    machine.release_all()


@pytest.mark.parametrize("name", PAGES)
def test_pages(name: str) -> None:
    kinds: set[Kind] = set()
    moves = ((7, take_pages), (7, give_pages), (1, drain), (2, give_to_nobody))
    walk(MappedPages, moves, 101, flavour="release", geometry=PAGES[name], kinds=kinds)
    assert kinds >= {Kind.FREE, Kind.PCP, Kind.PARKED, Kind.PAGES}, "the walk led nowhere"


def objects_of_model(model: SlabCache) -> dict[tuple[int, int], State]:
    """Where a model has each object that is free."""
    found = {(slab.pfn, slot): State.ON_SLAB for slab in model.slabs.values() for slot in slab.freelist}
    for cpu in model.cpus:
        if cpu.slab:
            found |= {(cpu.slab.pfn, slot): State.ON_CPU for slot in cpu.freelist}
        found |= dict.fromkeys(cpu.deferred, State.DEFERRED)
    return found


class MappedSlabs(Mapped, SlabMachine):
    """Compares the map's slabs and objects with the model."""

    def same_map(self) -> None:
        assert self.arena is not None
        found, model = page_map(self.arena), self.model
        expected = pages_of_model(model.pages, found.frame.nr_pages)
        free = expected["kind"] != 0
        compare(found, expected, free)
        kinds: dict[int, tuple[Kind, int]] = dict.fromkeys(model.slabs, (Kind.SLAB_FULL, 0))
        for node in model.nodes:
            kinds |= {slab.pfn: (Kind.SLAB_PARTIAL, 0) for slab in node.partial}
        for cpu, c in enumerate(model.cpus):
            kinds |= {slab.pfn: (Kind.SLAB_CPU_PARTIAL, cpu + 1) for slab in c.partial}
            kinds |= {slab.pfn: (Kind.SLAB_DEFERRED, cpu + 1) for slab in c.deferred_slabs}
            kinds |= {slab.pfn: (Kind.SLAB_RCU, 0) for slab in c.waiting_slabs}
            if c.slab:
                kinds[c.slab.pfn] = (Kind.SLAB_CPU, cpu + 1)
        planes, index = found.planes, self.caches[0].index
        mine = np.flatnonzero(np.isin(planes.kind, SLABS) & (planes.cache == index + 1))
        assert {int(pfn) for pfn in mine if pfn & ((1 << planes.order[pfn]) - 1) == 0} == set(kinds)
        where = objects_of_model(model)
        for pfn, (kind, cpu) in kinds.items():
            assert (Kind(planes.kind[pfn]), planes.cpu[pfn]) == (kind, cpu), pfn
            slab = model.slabs.get(pfn)
            if slab is None or kind is Kind.SLAB_DEFERRED:
                continue  # what its freelist is, is in its list entry
            assert (planes.inuse[pfn], planes.objects[pfn]) == (slab.inuse, slab.objects)
            states = found.objects.of(pfn).tolist()
            assert states == [where.get((pfn, slot), State.LIVE) for slot in range(slab.objects)], pfn
        self.kinds |= {kind for kind, _ in kinds.values()}


def take(machine: SlabMachine, draw: Random) -> None:
    gfp = draw.choice([KERNEL, gfp_of("GFP_ATOMIC"), 0])
    node = draw.choice([-1, draw.randrange(len(machine.model.nodes))])
    machine.take_many(
        draw.randrange(len(machine.cpus)), gfp, node, draw.choice([1, 5, 11, 53]), nolock=not gfp
    )


def give(machine: SlabMachine, draw: Random) -> None:
    if machine.live:
        first, nolock = draw.randrange(len(machine.live)), draw.random() < 0.3
        cpu, count = draw.randrange(len(machine.cpus)), draw.choice([1, 5, 23, 53])
        machine.free_many(cpu, first, count, draw.choice([0, 1, 3]), nolock=nolock)


def mask(machine: SlabMachine, draw: Random) -> None:
    cpu = draw.randrange(len(machine.cpus))
    machine.set_irqs(cpu, off=not machine.model.cpus[cpu].irqs_off)


def tick(machine: SlabMachine, draw: Random) -> None:
    machine.tick(draw.randrange(len(machine.cpus)))


@pytest.mark.parametrize("name", SLAB_SETTINGS)
def test_slabs(name: str) -> None:
    kinds: set[Kind] = set()
    moves = ((7, take), (7, give), (2, mask), (1, tick))
    walk(MappedSlabs, moves, 101, flavour="release", setting=SLAB_SETTINGS[name], kinds=kinds)
    expected = {
        "debug": {Kind.SLAB_PARTIAL, Kind.SLAB_FULL},
        "typesafe": {Kind.SLAB_CPU, Kind.SLAB_CPU_PARTIAL, Kind.SLAB_RCU},
    }
    assert kinds >= expected.get(name, {Kind.SLAB_CPU, Kind.SLAB_CPU_PARTIAL, Kind.SLAB_FULL}), kinds
