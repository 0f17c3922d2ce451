# SPDX-License-Identifier: MIT
"""Allocating and freeing objects of slabs, in arenas of Linux 6.18."""

from __future__ import annotations

from harness.atlas.operations import operation
from harness.atlas.staging import Request, Staging

SLAB = ("kmalloc", "kmalloc_nolock", "try_kmalloc")


def exhausted_cpu_slab(stage: Staging, cpu: int = 0) -> list[int]:
    """Leave a CPU with a cpu slab that has no free object. Returns: at least two held objects of that slab."""
    row = stage.cpu_slab(cpu)
    mine: list[int] = []
    while row.freelist or len(mine) < 2:
        offset = stage.alloc(cpu=cpu)
        mine = [each for each in (*mine, offset) if stage.slab_of(each) == row.slab]
    return mine


@operation(
    "alloc_fastpath",
    "the cpu slab has free objects",
    group="alloc",
    designs=SLAB,
    path={"alloc_fastpath": "== 1", "alloc_slowpath": "== 0"},
    in_irq=True,
)
def alloc_fastpath(stage: Staging) -> Request:
    """A free object more than the handlers take."""
    stage.free(exhausted_cpu_slab(stage)[0])
    stage.free(stage.alloc())
    return stage.ask_alloc()


@operation(
    "alloc_refill",
    "the cpu slab's freelist is empty, and another CPU has freed to its slab",
    group="alloc",
    designs=SLAB,
    path={"alloc_refill": "== 1", "alloc_slowpath": "== 1"},
)
def alloc_refill(stage: Staging) -> Request:
    """Two objects were freed remotely."""
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset, cpu=1)
    return stage.ask_alloc()
