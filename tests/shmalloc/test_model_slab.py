# SPDX-License-Identifier: MIT
"""A slab cache beside its model: objects, lists, transaction ids and statistics, after each step.

Several CPUs are switched in one process: fast paths, frees from elsewhere, cpu partial lists, node partial
lists, discards, deferred frees, and list_locks that somebody else holds.
"""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from models.page_machine import COUNTS, MANY, NODES, STRIDES, WHICH, gfp_of
from models.running import run_machine, walk
from models.slab_machine import Setting, SlabMachine

from shmalloc.arena import Geometry

MIB = 1024 * 1024
ONE = Geometry(8 * MIB, nr_cpus=1, pageblock_order=4, min_free_kbytes=64)
THREE = Geometry(8 * MIB, nr_cpus=3, pageblock_order=4, min_free_kbytes=64)
HARD = Geometry(3 * MIB, nr_cpus=2, pageblock_order=3, min_free_kbytes=64, freelist_hardened=True)
OLD = Geometry(8 * MIB, nr_cpus=2, pageblock_order=4, min_free_kbytes=64, cmpxchg_double=False)
NUMA = Geometry(
    10 * MIB,
    nr_cpus=3,
    nr_nodes=3,
    pageblock_order=4,
    min_free_kbytes=64,
    zone_permille=[[0, 0, 500, 0], [0, 200, 300, 0], [0, 0, 0, 0]],
    cpu_node=[0, 1, 2],
)
DEBUG = ("SLAB_CONSISTENCY_CHECKS", "SLAB_RED_ZONE", "SLAB_POISON", "SLAB_STORE_USER")
SETTINGS = {
    "one CPU, 4 objects": Setting(ONE, 8192),
    "one CPU, many objects": Setting(ONE, 1000),
    "three CPUs, 4 objects": Setting(THREE, 8192),
    "three CPUs, 8 objects": Setting(THREE, 4096),
    "typesafe": Setting(replace(THREE, rcu_gp_us=0), 2000, ("SLAB_TYPESAFE_BY_RCU",)),
    "hardened": Setting(HARD, 3000),
    "without cmpxchg16b": Setting(OLD, 8192),
    "NUMA": Setting(NUMA, 8192, any_node=True),
    "NUMA, own nodes only": Setting(NUMA, 4096),
    "debug": Setting(THREE, 2000, DEBUG),
    "debug, NUMA": Setting(NUMA, 4000, ("SLAB_RED_ZONE",), any_node=True),
}
KERNEL = gfp_of("GFP_KERNEL")
GFP = st.sampled_from(
    [KERNEL] * 3
    + [gfp_of("GFP_ATOMIC"), gfp_of("GFP_NOWAIT"), gfp_of("GFP_KERNEL", "__GFP_THISNODE")]
    + [gfp_of("GFP_KERNEL", "__GFP_HIGH")]
)
FEW = COUNTS | st.just(101)


class CacheMachine(SlabMachine):
    """Objects taken and given back by several CPUs."""

    @rule(cpu=WHICH, gfp=GFP, node=NODES, count=FEW)
    @precondition(lambda self: not self.model.held_lists)
    def take(self, cpu: int, gfp: int, node: int, count: int) -> None:
        self.take_many(cpu, gfp, node, count)

    @rule(cpu=WHICH, node=NODES, count=COUNTS)
    def take_nolock(self, cpu: int, node: int, count: int) -> None:
        self.take_many(cpu, 0, node, count, nolock=True)

    @rule(cpu=WHICH, index=WHICH, count=FEW, stride=STRIDES)
    @precondition(lambda self: self.live and not self.model.held_lists)
    def give_back(self, cpu: int, index: int, count: int, stride: int) -> None:
        self.free_many(cpu, index, count, stride)

    @rule(cpu=WHICH, other=WHICH, taken=COUNTS, given=COUNTS, stride=st.sampled_from([0, -1, -2]))
    @precondition(lambda self: not self.model.held_lists)
    def pass_on(self, cpu: int, other: int, taken: int, given: int, stride: int) -> None:
        """One CPU takes, and another gives back, beginning with the newest."""
        self.take_many(cpu, KERNEL, -1, taken)
        self.free_many(other, len(self.live) - 1, given, stride)

    @rule(cpu=WHICH, index=WHICH, count=COUNTS, stride=STRIDES)
    @precondition(lambda self: self.live)
    def give_back_nolock(self, cpu: int, index: int, count: int, stride: int) -> None:
        if self.model.held_lists:  # the deferred free waits for the lock: not here, then
            self.set_irqs(cpu % len(self.cpus), off=True)
        self.free_many(cpu, index, count, stride, nolock=True)

    @rule(cpu=WHICH, off=st.booleans())
    @precondition(lambda self: not self.model.held_lists)
    def irqs(self, cpu: int, off: bool) -> None:
        self.set_irqs(cpu % len(self.cpus), off=off)

    @rule(cpu=WHICH)
    def timer(self, cpu: int) -> None:
        self.tick(cpu % len(self.cpus))

    @rule(node=WHICH)
    def list_lock(self, node: int) -> None:
        """Somebody takes a list_lock, or gives all back."""
        held = sorted(self.model.held_lists)
        for other in held:
            self.hold(other, held=False)
        if not held:
            self.hold(node % len(self.model.nodes), held=True)

    @rule(cpu=WHICH, shrink=st.booleans())
    @precondition(lambda self: not self.model.held_lists)
    def tidy(self, cpu: int, shrink: bool) -> None:
        number = cpu % len(self.cpus)
        if shrink:
            self.caches[number].shrink()
            self.model.shrink(number)
        else:
            self.cpus[number].flush_all(self.caches[number])
            self.model.flush(number)

    @rule(cpu=WHICH, gfp=GFP, stride=st.sampled_from([0, 2, 3, 9]))
    @precondition(lambda self: not self.model.held_lists)
    def use_up(self, cpu: int, gfp: int, stride: int) -> None:
        """Take all memory, or leave it in fragments."""
        number = cpu % len(self.cpus)
        if not stride:
            self.take_many(number, gfp, -1, MANY)
            return
        if not self.hogged:
            self.hog(number, MANY)
        self.unhog(number, stride)


@pytest.mark.parametrize("name", SETTINGS)
def test_cache(flavour: str, name: str) -> None:
    run_machine(CacheMachine, share=25, flavour=flavour, setting=SETTINGS[name])


# --- a long way ------------------------------------------------------------------------------------


def some_cpu(machine: SlabMachine, draw: Random) -> int:
    return draw.randrange(len(machine.cpus))


def some_node(machine: SlabMachine, draw: Random) -> int:
    return draw.choice([-1, draw.randrange(len(machine.model.nodes))])


def take(machine: SlabMachine, draw: Random) -> None:
    gfp, count = draw.choice([KERNEL, gfp_of("GFP_ATOMIC"), 0]), draw.choice([1, 2, 5, 11, 23])
    machine.take_many(some_cpu(machine, draw), gfp, some_node(machine, draw), count, nolock=not gfp)


def give(machine: SlabMachine, draw: Random) -> None:
    if machine.live:
        count, stride = draw.choice([1, 2, 5, 23, 53]), draw.choice([0, 1, 1, 3, -1])
        first = draw.choice([-1, draw.randrange(len(machine.live))])
        machine.free_many(some_cpu(machine, draw), first, count, stride, nolock=draw.random() < 0.3)


def mask(machine: SlabMachine, draw: Random) -> None:
    machine.set_irqs(some_cpu(machine, draw), off=draw.random() < 0.5)


def flush(machine: SlabMachine, draw: Random) -> None:
    number = some_cpu(machine, draw)
    machine.cpus[number].flush_all(machine.caches[number])
    machine.model.flush(number)


def busy_list(machine: SlabMachine, draw: Random) -> None:
    """A request that may not wait meets somebody else's list_lock."""
    node = draw.randrange(len(machine.model.nodes))
    machine.hold(node, held=True)
    machine.take_many(some_cpu(machine, draw), 0, some_node(machine, draw), 9, nolock=True)
    machine.hold(node, held=False)


MOVES = ((9, take), (10, give), (3, mask), (1, flush), (1, busy_list))


@pytest.mark.parametrize("name", SETTINGS)
def test_long_walk(name: str) -> None:
    walk(CacheMachine, MOVES, 201, flavour="release", setting=SETTINGS[name])
