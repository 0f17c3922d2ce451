# SPDX-License-Identifier: MIT
"""The buddy allocator beside its model: which page comes back, and every free list in order, after each step.

All pagesets are held by somebody else, so that every order goes straight to the buddy.
"""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from models.page_machine import ANY_GFP, COUNTS, MANY, NODES, STRIDES, WHICH, PageMachine
from models.pages import Request
from models.running import run_machine

from shmalloc.arena import Geometry

KIB = 1024
GEOMETRIES = {
    "blocks of the largest order": Geometry(10240 * KIB, nr_cpus=1, pageblock_order=4, min_free_kbytes=4),
    "small": Geometry(1000 * KIB, nr_cpus=1, pageblock_order=3, min_free_kbytes=4),
    "smallest pageblocks": Geometry(1000 * KIB, nr_cpus=1, pageblock_order=1, min_free_kbytes=64),
    "default pageblocks": Geometry(6000 * KIB, nr_cpus=1, pageblock_order=9, min_free_kbytes=128),
    "all zones": Geometry(
        2000 * KIB,
        nr_cpus=2,
        pageblock_order=3,
        min_free_kbytes=32,
        zone_permille=[[100, 300, 450, 150]],
    ),
    "three nodes": Geometry(
        3000 * KIB,
        nr_cpus=3,
        nr_nodes=3,
        pageblock_order=2,
        min_free_kbytes=64,
        zone_permille=[[0, 100, 200, 0], [0, 0, 350, 50], [0, 0, 250, 50]],
        distance=[[10, 20, 15], [20, 10, 30], [15, 30, 10]],
        cpu_node=[0, 1, 1],
    ),
}
ORDERS = st.integers(0, 10) | st.sampled_from([0, 0, 1, 2, 11])


class BuddyMachine(PageMachine):
    """Blocks of all orders and types, taken and given back in any order."""

    def prepare(self) -> None:
        for zone in range(len(self.model.zones)):
            for cpu in range(len(self.cpus)):
                self.hold(zone=zone, cpu=cpu, held=True)

    @rule(cpu=WHICH, node=NODES, order=ORDERS, gfp=ANY_GFP, count=COUNTS)
    def take(self, cpu: int, node: int, order: int, gfp: int, count: int) -> None:
        self.take_many(cpu, Request(order, gfp, node), count)

    @rule(cpu=WHICH, node=NODES, order=ORDERS, gfp=ANY_GFP)
    def take_all(self, cpu: int, node: int, order: int, gfp: int) -> None:
        self.take_many(cpu, Request(order, gfp, node), MANY)

    @precondition(lambda self: self.live)
    @rule(cpu=WHICH, index=WHICH, count=COUNTS | st.just(MANY), stride=STRIDES)
    def give_back(self, cpu: int, index: int, count: int, stride: int) -> None:
        self.free_many(cpu, index, count, stride)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_buddy(flavour: str, name: str) -> None:
    run_machine(BuddyMachine, share=20, flavour=flavour, geometry=GEOMETRIES[name])
