# SPDX-License-Identifier: MIT
"""Pagesets, zones and NUMA counters beside their model: everything the page allocator has, after each step.

Batches, the moving high mark, refills and bulk frees, frees beyond high, other people's locks, blocks that
are parked because of them, and drains, on several CPUs.
"""

from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from models.page_machine import ANY_GFP, COUNTS, MANY, NODES, STRIDES, WHICH, PageMachine, gfp_of
from models.pages import Request
from models.running import run_machine, walk

from shmalloc.arena import Geometry

MIB = 1024 * 1024
GEOMETRIES = {
    "batches of 1": Geometry(2 * MIB, nr_cpus=2, pageblock_order=3, min_free_kbytes=16),
    "batches of 3": Geometry(64 * MIB, nr_cpus=1, pageblock_order=9, min_free_kbytes=512),
    "batches of 7": Geometry(128 * MIB, nr_cpus=2, pageblock_order=9, min_free_kbytes=2048),
    "mostly below high": Geometry(64 * MIB, nr_cpus=2, pageblock_order=5, min_free_kbytes=36 * 1024),
    "two nodes": Geometry(
        100 * MIB,
        nr_cpus=3,
        nr_nodes=2,
        pageblock_order=6,
        min_free_kbytes=8 * 1024,
        zone_permille=[[0, 130, 400, 0], [0, 0, 400, 70]],
        cpu_node=[0, 1, 1],
    ),
    "two small nodes": Geometry(
        6 * MIB,
        nr_cpus=2,
        nr_nodes=2,
        pageblock_order=4,
        min_free_kbytes=256,
        zone_permille=[[100, 200, 200, 0], [0, 0, 400, 100]],
        cpu_node=[1, 0],
    ),
}
ORDERS = st.sampled_from([0] * 6 + [1, 1, 2, 3, 4, 6, 9, 9, 10, 11])


class PagesetMachine(PageMachine):
    """Several CPUs take, give back and drain, while locks come and go."""

    @rule(cpu=WHICH, node=NODES, order=ORDERS, gfp=ANY_GFP, count=COUNTS)
    @precondition(lambda self: not self.model.held_zones)
    def take(self, cpu: int, node: int, order: int, gfp: int, count: int) -> None:
        self.take_many(cpu, Request(order, gfp, node), count)

    @rule(cpu=WHICH, node=NODES, order=ORDERS, gfp=ANY_GFP)
    @precondition(lambda self: not self.model.held_zones)
    def take_all(self, cpu: int, node: int, order: int, gfp: int) -> None:
        self.take_many(cpu, Request(order, gfp, node), MANY)

    @rule(cpu=WHICH, node=NODES, order=ORDERS, count=COUNTS)
    def take_nolock(self, cpu: int, node: int, order: int, count: int) -> None:
        self.take_many(cpu, Request(order, 0, node, nolock=True), count)

    @rule(cpu=WHICH, index=WHICH, count=COUNTS | st.just(MANY), stride=STRIDES)
    @precondition(lambda self: self.live and not self.model.held_zones)
    def give_back(self, cpu: int, index: int, count: int, stride: int) -> None:
        self.free_many(cpu, index, count, stride)

    @rule(cpu=WHICH, index=WHICH, count=COUNTS, stride=STRIDES)
    @precondition(lambda self: self.live)
    def give_back_nolock(self, cpu: int, index: int, count: int, stride: int) -> None:
        self.free_many(cpu, index, count, stride, nolock=True)

    @rule(cpu=WHICH)
    @precondition(lambda self: not self.model.held_zones and not self.model.held_pagesets)
    def tick(self, cpu: int) -> None:
        self.cpus[cpu % len(self.cpus)].vmstat_tick()
        self.model.vmstat_tick(cpu % len(self.cpus))

    @rule(cpu=WHICH)
    @precondition(lambda self: not self.model.held_zones and not self.model.held_pagesets)
    def drain(self, cpu: int) -> None:
        self.cpus[cpu % len(self.cpus)].drain_pages()
        self.model.drain(cpu % len(self.cpus))

    @rule(zone=WHICH, cpu=st.none() | WHICH)
    def somebody_locks(self, zone: int, cpu: int | None) -> None:
        number = None if cpu is None else cpu % len(self.cpus)
        self.hold(zone=zone % len(self.model.zones), cpu=number, held=True)

    @rule()
    @precondition(lambda self: self.model.held_zones or self.model.held_pagesets)
    def all_unlock(self) -> None:
        self.release_all()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_pagesets(flavour: str, name: str) -> None:
    run_machine(PagesetMachine, share=20, flavour=flavour, geometry=GEOMETRIES[name])


# --- a long way ------------------------------------------------------------------------------------


def some_cpu(machine: PageMachine, draw: Random) -> int:
    return draw.randrange(len(machine.cpus))


def request(draw: Random, *, nolock: bool) -> Request:
    order = draw.choice([0, 0, 0, 1, 2, 3, 4, 7, 9])
    types = [0, 0, gfp_of("__GFP_MOVABLE"), gfp_of("__GFP_RECLAIMABLE"), gfp_of("GFP_HIGHUSER_MOVABLE")]
    gfp = 0 if nolock else draw.choice([gfp_of("GFP_KERNEL"), gfp_of("GFP_ATOMIC")]) | draw.choice(types)
    return Request(order, gfp, draw.choice([-1, 0, 1]), nolock)


def take(machine: PageMachine, draw: Random) -> None:
    count, nolock = draw.choice([1, 2, 5, 23, 101]), draw.random() < 0.3
    machine.take_many(some_cpu(machine, draw), request(draw, nolock=nolock), count)


def give(machine: PageMachine, draw: Random) -> None:
    if machine.live:
        count, stride = draw.choice([1, 2, 11, 53, 211]), draw.choice([0, 1, 3])
        first, nolock = draw.randrange(len(machine.live)), draw.random() < 0.3
        machine.free_many(some_cpu(machine, draw), first, count, stride, nolock=nolock)


def drain(machine: PageMachine, draw: Random) -> None:
    number = some_cpu(machine, draw)
    machine.cpus[number].drain_pages()
    machine.model.drain(number)


def busy(machine: PageMachine, draw: Random) -> None:
    """Somebody holds pagesets and a zone, and then the pagesets only."""
    zone = draw.randrange(len(machine.model.zones))
    machine.hold(zone=zone, cpu=None, held=True)
    for number in range(len(machine.cpus)):
        machine.hold(zone=zone, cpu=number, held=draw.random() < 0.8)
    for held in (True, False):
        machine.hold(zone=zone, cpu=None, held=held)
        machine.take_many(some_cpu(machine, draw), request(draw, nolock=True), 3)
        if machine.live:
            first = draw.randrange(len(machine.live))
            machine.free_many(some_cpu(machine, draw), first, 5, 1, nolock=True)
        machine.same_state()
    machine.release_all()


MOVES = ((7, take), (7, give), (1, drain), (3, busy))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_long_walk(name: str) -> None:
    walk(PagesetMachine, MOVES, 211, flavour="release", geometry=GEOMETRIES[name])
