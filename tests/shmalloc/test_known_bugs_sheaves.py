# SPDX-License-Identifier: MIT
"""Known bugs of the sheaves (Linux 7.x), each met by an exact interleaving or state; see also test_broken.py."""

import contextlib
from typing import Any

import pytest
from controls import Control, assert_caught, assert_silent, name_of
from rig import A_BYTES, B_BYTES, PER_SLAB, Rig
from windows import SHEAF, SHEAVES

from shmalloc import AllocationFailed, ShmallocError

CPU_1_AT_TASK_LEVEL = 2  # a lock word
MOVABLE_ONLY: dict[str, Any] = {
    **SHEAVES,
    "nr_nodes": 2,
    "zone_permille": [[0, 0, 0, 300], [0, 0, 700, 0]],
}


def destroyed_while_a_cpu_has_its_sheaves_locked(rig: Rig) -> None:
    """K-31. On PREEMPT_RT the section's owner may have been preempted: a flush that tries the lock fails."""
    cache = rig.cpu.kmem_cache_create("named", 96)
    offset = int(rig.lib.shm_kmem_cache_alloc(cache.index, 0xCC0, -1))
    assert rig.lib.shm_cpu_switch(1) == 0
    assert rig.lib.shm_kmem_cache_free(cache.index, offset) == 0  # CPU 1's sheaf has it now
    assert rig.lib.shm_cpu_switch(0) == 0
    lock = rig.sheaves(cpu=1, cache=cache.index).lock
    lock.word = CPU_1_AT_TASK_LEVEL
    with pytest.raises(ShmallocError):
        cache.destroy()
    lock.word = 0
    with contextlib.suppress(ShmallocError):  # a verdict has stopped the run
        cache.destroy()


def allocation_on_a_node_without_slabs(rig: Rig) -> None:
    """K-33. The local memory node has movable memory only: slabs, and so a barn, it has none."""
    with contextlib.suppress(AllocationFailed):  # a verdict has stopped the run
        rig.alloc()
    assert rig.held or rig.violations()


def refill_that_fails_half_way(rig: Rig) -> None:
    """K-49. Five objects are free in slabs, and there is no page for more: a sheaf wants twelve."""
    taken = rig.take(3 * PER_SLAB)  # four sheaves, three slabs: nothing is left over
    for offset in taken[:5]:
        rig.free(offset)
    rig.cpu.flush_all()
    rig.exhaust(0)
    one_of_the_five, lost = "A", "below_watermark"
    assert rig.outcome_of(rig.alloc) == (lost if rig.arena.header.broken else one_of_the_five)


def kfree_rcu_under_list_lock(rig: Rig) -> None:
    """K-29. A probe in a section with list_lock frees by kfree_rcu, which needs a sheaf, and pages are few."""
    other = rig.take(1, B_BYTES)
    taken = rig.take(PER_SLAB)
    rig.free(taken[0])
    rig.cpu.flush_all()
    rig.exhaust(0)  # from here on each request that may, wakes it
    with pytest.raises(AllocationFailed):
        list(iter(lambda: rig.alloc(size=128), None))  # sheaves of that cache are of this bucket
    program = rig.program("free_rcu", holds=other, design="sheaves")
    rig.arm("list_lock_held", "probe", program)
    rig.alloc()
    assert rig.fired() == 1
    assert not program.slots[0]
    assert rig.counters()["free_rcu_sheaf_fail"] == 1  # it waits for its grace period by itself


CONTROLS = (
    Control("k29", "lock_rules", "broken_rule", kfree_rcu_under_list_lock, "kswapd is woken", SHEAVES),
    Control(
        "k31",
        "slab",
        "lost_memory",
        destroyed_while_a_cpu_has_its_sheaves_locked,
        "a CPU was not flushed",
        SHEAVES,
    ),
    Control("k33", "slab", "corruption", allocation_on_a_node_without_slabs, "NULL barn", MOVABLE_ONLY),
    Control("k49", "audit", "lost_memory", refill_that_fails_half_way, "neither free nor owned", SHEAVES),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)


@pytest.mark.parametrize(
    ("broken", "moved"),
    [
        ("none", {"alloc_fastpath": 4 * SHEAF, "sheaf_refill": 4 * SHEAF, "list_lock": 0}),
        ("k32", {"alloc_fastpath": 0, "sheaf_refill": 0, "list_lock": 4 * SHEAF}),
    ],
)
def test_k32_sends_who_may_not_block_to_list_lock(broken: str, moved: dict[str, int]) -> None:
    """No checker sees it: everything is served, only that each object costs a turn under the lock."""
    with Rig.create(broken=broken, **SHEAVES) as rig:
        before = rig.counters()
        for _ in range(4 * SHEAF):
            rig.held[rig.cpu.kmalloc(A_BYTES, "GFP_NOWAIT")] = None
        counts = rig.telling(before)
        assert counts.get("alloc_fastpath", 0) == moved["alloc_fastpath"]
        assert rig.sheaves().sheaf_refill == moved["sheaf_refill"]
        assert counts.get("alloc_slowpath", 0) >= moved["list_lock"]
        rig.settle()
