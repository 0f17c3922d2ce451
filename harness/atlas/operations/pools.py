# SPDX-License-Identifier: MIT
"""The preallocated pool and objpool: few objects, so that a CPU's own part, then all of it, is soon empty."""

from __future__ import annotations

from typing import Any

from harness.atlas.operations import Register, operation
from harness.atlas.staging import Request, Staging

PREALLOC, OBJPOOL = "prealloc", "objpool"
SIZE = 64
EACH = 4  # objects that each CPU is dealt
GEOMETRY: dict[str, Any] = {"pool_size": SIZE, "nr_cpus": 2, "pool_entries": 2 * EACH}


def set_up(stage: Staging) -> None:
    """Have a burst ask for more than there is."""
    stage.burst = 2 * EACH + 1


def _own_part_empty(stage: Staging, *, all_of_it: bool = False) -> None:
    """Take what CPU 0 would find first, and then what it would find elsewhere."""
    others = 1 if not all_of_it else 0
    while free_objects(stage) > others and (all_of_it or own_objects(stage)):
        stage.alloc()


def own_objects(stage: Staging) -> int:
    """Objects of CPU 0's own freelist or ring."""
    return _objects(stage, 0)


def free_objects(stage: Staging) -> int:
    """Objects of all freelists or rings."""
    return sum(_objects(stage, cpu) for cpu in range(len(stage.cpus)))


def _objects(stage: Staging, cpu: int) -> int:
    arena = stage.arena
    if stage.task_design == OBJPOOL:
        row = arena.item("struct objpool_cpu", "objpool_cpus", cpu)
        ring = arena.pointer("struct objpool_slot", row.slot)
        return int(ring.last - ring.head) & 0xFFFFFFFF
    link, count = int(arena.item("struct pcpu_freelist_head", "freelists", cpu).first), 0
    while link:
        link, count = int(arena.pointer("uint64_t", link)[0]), count + 1
    return count


def take_lock(stage: Staging, lock: Any) -> None:
    """Have CPU 1 hold a lock, which another CPU of this thread does not wait for."""

    def release() -> None:
        lock.word = 0

    lock.word = stage.cpus[1].number + 1  # at task level
    stage.at_release.append(release)


def _lock_own_head(stage: Staging) -> None:
    take_lock(stage, stage.arena.item("struct pcpu_freelist_head", "freelists", 0).lock)


def _operation(
    design: str, name: str, summary: str, path: dict[str, str], *, in_irq: bool = False
) -> Register:
    group = "pool" if design == PREALLOC else "objpool"
    return operation(
        name,
        summary,
        group=group,
        designs=(design,),
        path=path,
        geometry=GEOMETRY,
        size=SIZE,
        before=set_up,
        in_irq=in_irq,
    )


# --- prealloc: freelists --------------------------------------------------------------------------

_OWN = {"freelist_steals": "== 0", "freelist_strays": "== 0"}


@_operation(PREALLOC, "pool_pop", "from the CPU's own freelist", {"allocs": "== 1", **_OWN}, in_irq=True)
def pool_pop(stage: Staging) -> Request:
    """As many as it was dealt, less what the handler was given."""
    return stage.ask_alloc()


@_operation(PREALLOC, "pool_push", "to the CPU's own freelist", {"frees": "== 1", **_OWN}, in_irq=True)
def pool_push(stage: Staging) -> Request:
    """One is out."""
    return stage.ask_free(stage.alloc())


@_operation(PREALLOC, "pool_push_remote", "an element that another CPU took", {"frees": "== 1", **_OWN})
def pool_push_remote(stage: Staging) -> Request:
    """One of CPU 1's is out."""
    return stage.ask_free(stage.alloc(cpu=1))


@_operation(
    PREALLOC, "pool_steal", "from another CPU's freelist", {"allocs": "== 1", "freelist_steals": "== 1"}
)
def pool_steal(stage: Staging) -> Request:
    """The own one is empty."""
    _own_part_empty(stage)
    return stage.ask_alloc()


@_operation(
    PREALLOC, "pool_empty", "all freelists are empty: NULL", {"allocs": "== 0", "null_freelist_empty": "== 1"}
)
def pool_empty(stage: Staging) -> Request:
    """Everything is out."""
    _own_part_empty(stage, all_of_it=True)
    return stage.ask_alloc()


@_operation(PREALLOC, "pool_push_last", "to freelists that are all empty", {"frees": "== 1", **_OWN})
def pool_push_last(stage: Staging) -> Request:
    """Everything is out, one comes back."""
    last = stage.alloc()
    _own_part_empty(stage, all_of_it=True)
    return stage.ask_free(last)


@_operation(
    PREALLOC,
    "pool_pop_busy",
    "the own freelist is locked: from another CPU's",
    {"allocs": "== 1", "freelist_steals": "== 1", "lock_waits": "== 1"},
)
def pool_pop_busy(stage: Staging) -> Request:
    """Somebody steals from it."""
    _lock_own_head(stage)
    return stage.ask_alloc()


@_operation(
    PREALLOC,
    "pool_push_busy",
    "the own freelist is locked: to another CPU's",
    {"frees": "== 1", "freelist_strays": "== 1", "lock_waits": "== 1"},
)
def pool_push_busy(stage: Staging) -> Request:
    """Somebody steals from it."""
    element = stage.alloc()
    _lock_own_head(stage)
    return stage.ask_free(element)


# --- objpool: rings -------------------------------------------------------------------------------

_RING = {"objpool_steals": "== 0", "objpool_misses": "== 0"}


@_operation(OBJPOOL, "objpool_pop", "from the CPU's own ring", {"allocs": "== 1", **_RING}, in_irq=True)
def objpool_pop(stage: Staging) -> Request:
    """As many as it was dealt, less what the handler was given."""
    return stage.ask_alloc()


@_operation(OBJPOOL, "objpool_push", "to the CPU's own ring", {"frees": "== 1", **_RING}, in_irq=True)
def objpool_push(stage: Staging) -> Request:
    """One is out."""
    return stage.ask_free(stage.alloc())


@_operation(OBJPOOL, "objpool_push_remote", "an object of another CPU's ring", {"frees": "== 1", **_RING})
def objpool_push_remote(stage: Staging) -> Request:
    """One of CPU 1's is out."""
    return stage.ask_free(stage.alloc(cpu=1))


@_operation(OBJPOOL, "objpool_steal", "from another CPU's ring", {"allocs": "== 1", "objpool_steals": "== 1"})
def objpool_steal(stage: Staging) -> Request:
    """The own one is empty."""
    _own_part_empty(stage)
    return stage.ask_alloc()


@_operation(
    OBJPOOL, "objpool_empty", "all rings are empty: NULL", {"allocs": "== 0", "objpool_misses": "== 1"}
)
def objpool_empty(stage: Staging) -> Request:
    """Everything is out."""
    _own_part_empty(stage, all_of_it=True)
    return stage.ask_alloc()


@_operation(OBJPOOL, "objpool_push_last", "to rings that are all empty", {"frees": "== 1", **_RING})
def objpool_push_last(stage: Staging) -> Request:
    """Everything is out, one comes back."""
    last = stage.alloc()
    _own_part_empty(stage, all_of_it=True)
    return stage.ask_free(last)
