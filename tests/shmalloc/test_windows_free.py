# SPDX-License-Identifier: MIT
"""What a nested kfree_nolock does, by where it interrupts: appendix A.2, and the irq_work row of A.1.

The tables are read as those of test_windows_alloc.py.  An object of the cpu slab goes back by the fast path, unless
an NMI finds the cpu slab's lock held; everything else is always deferred to irq_work.
"""

import pytest
from rig import PER_SLAB, Rig
from windows import (
    Given,
    Window,
    cases,
    cpu_slab,
    debug_partial,
    full_slab,
    node_partial,
    node_partials,
    pcp_filled,
    remote_frees,
)

ANY = "probe irq nmi"
DEBUG = {"slab_debug": 0x1}

FAST = "cpu-slab object and (not NMI or lock free): fastpath"
LOCK_HELD = "cpu-slab object, NMI with lock held: deferred"
ELSEWHERE = "any non-cpu-slab object: always deferred, even if everything is idle"
REARMED = "inside irq_work callback after llist_del_all: kfree_nolock re-arms"

DEFERRED = "defer_free=1 irq_work_runs=1 free_slowpath=1"
TO_PARTIAL = f"{DEFERRED} cpu_partial_free=1"  # its slab was full: it goes to the cpu partial list


def idle_pages(rig: Rig) -> Given:
    """A cpu slab and a full slab; and pages on the page lists."""
    pcp_filled(rig)
    return cpu_slab(rig)


WINDOWS = (
    # --- fast path ---------------------------------------------------------------------------------------
    Window(FAST, "alloc_fastpath", ANY, cpu_slab, "kmalloc", "free", "A: freed",
           "alloc_fastpath=1 free_fastpath=1 cmpxchg_double_cpu_fail=1"),
    Window(FAST, "alloc_fastpath", ANY, cpu_slab, "kmalloc", "alloc A, free", "A: A, freed",
           "alloc_fastpath=2 free_fastpath=1 cmpxchg_double_cpu_fail=1"),
    Window(FAST, "free_fastpath", ANY, cpu_slab, "kfree", "free", "freed: freed",
           "free_fastpath=2 cmpxchg_double_cpu_fail=1"),
    Window(FAST, "free_fastpath", ANY, cpu_slab, "kfree_nolock", "free", "freed: freed",
           "free_fastpath=2 cmpxchg_double_cpu_fail=1"),
    *(Window(FAST, "cpu_slab_irq_off", "nmi probe", remote_frees, outer, "free", "A: freed",
             "alloc_slowpath=1 free_fastpath=1") for outer in ("kmalloc", "kmalloc_nolock")),
    Window(FAST, "cpu_slab_unlocked", ANY, remote_frees, "kmalloc", "free", "A: freed",
           "alloc_slowpath=1 alloc_refill=1 free_fastpath=1"),
    # a probe finds the lock held and may use the fast path all the same; the outer one takes what it freed
    Window(FAST, "cpu_slab_locked", "probe", remote_frees, "kmalloc", "free", "A: freed",
           "alloc_slowpath=1 free_fastpath=1"),
    Window(FAST, "cpu_slab_locked", "probe", full_slab, "kmalloc", "free", "A: freed",
           "alloc_slowpath=1 free_fastpath=1"),
    Window(FAST, "cpu_slab_locked", "irq", remote_frees, "kmalloc", "free", "A: freed",
           "alloc_slowpath=1 alloc_refill=1 free_fastpath=1"),
    # --- deferred because of the lock -------------------------------------------------------------------------
    *(Window(LOCK_HELD, site, "nmi", remote_frees, outer, "free", "A: freed",
             f"alloc_slowpath=1 alloc_refill=1 {DEFERRED} free_frozen=1")
      for site in ("cpu_slab_locked", "cpu_slab_editing") for outer in ("kmalloc", "kmalloc_nolock")),
    # the slab is full and given up: by the time irqs are on it is a partial slab, and serves the outer one
    *(Window(LOCK_HELD, site, "nmi", full_slab, "kmalloc", "free", "A: freed",
             f"alloc_slowpath=1 deactivate_bypass=1 cpu_partial_alloc=1 {TO_PARTIAL}")
      for site in ("cpu_slab_locked", "cpu_slab_editing")),
    # --- deferred because it lies elsewhere ---------------------------------------------------------------------
    Window(ELSEWHERE, "alloc_fastpath", ANY, cpu_slab, "kmalloc", "free elsewhere", "A: freed",
           f"alloc_fastpath=1 {TO_PARTIAL}"),
    Window(ELSEWHERE, "free_fastpath", ANY, cpu_slab, "kfree", "free elsewhere", "freed: freed",
           f"free_fastpath=1 {TO_PARTIAL}"),
    Window(ELSEWHERE, "alloc_fastpath", "other_cpu", cpu_slab, "kmalloc", "free", "A: freed",
           f"alloc_fastpath=1 {DEFERRED} free_frozen=1"),
    *(Window(ELSEWHERE, site, by, remote_frees, "kmalloc", "free elsewhere", "A: freed",
             f"alloc_slowpath=1 alloc_refill=1 {TO_PARTIAL}")
      for site, by in (("cpu_slab_locked", ANY), ("cpu_slab_editing", "irq nmi"), ("cpu_slab_unlocked", ANY))),
    # the cpu slab has just been given up, so that its objects lie elsewhere too
    *(Window(ELSEWHERE, site, ANY, full_slab, outer, "free", "A: freed",
             f"alloc_slowpath=1 deactivate_bypass=1 alloc_slab=1 {TO_PARTIAL}")
      for site in ("before_get_partial", "before_new_slab", "before_install")
      for outer in ("kmalloc", "kmalloc_nolock")),
    # under list_lock: the free needs no lock; irq_work follows when irqs are on.  The slab is the one in use.
    *(Window(ELSEWHERE, "list_lock_held", ANY, node_partial, outer, "free elsewhere", "A: freed",
             f"alloc_slowpath=1 alloc_from_partial=1 {DEFERRED}") for outer in ("kmalloc", "kmalloc_nolock")),
    Window(ELSEWHERE, "list_lock_and_cpu_slab", ANY, node_partials, "kmalloc", "free elsewhere", "A: freed",
           f"alloc_slowpath=1 alloc_from_partial=1 cpu_partial_node=2 {DEFERRED}"),
    # a slow free: the slab's freelist has changed under it
    *(Window(ELSEWHERE, "slab_free_cmpxchg", by, cpu_slab, "kfree elsewhere", "free elsewhere", "freed: freed",
             f"{DEFERRED.replace('free_slowpath=1', 'free_slowpath=2')} cmpxchg_double_fail=1 cpu_partial_free=1")
      for by in (ANY, "other_cpu")),
    # ... and a deferred one, which irq_work is doing; here irqs are off, and the nested one comes after it
    Window(ELSEWHERE, "slab_free_cmpxchg", "nmi probe", cpu_slab, "kfree_nolock elsewhere", "free elsewhere",
           "freed: freed", "defer_free=2 irq_work_runs=2 free_slowpath=2 cpu_partial_free=1"),
    # the page allocator's locks are no concern of a free
    Window(ELSEWHERE, "pcp_locked", ANY, idle_pages, "alloc_pages", "free elsewhere", "zone 0: freed", TO_PARTIAL),
    Window(ELSEWHERE, "zone_locked", ANY, idle_pages, "alloc_pages(4)", "free elsewhere", "zone 0: freed",
           TO_PARTIAL),
    Window(ELSEWHERE, "zone_locked", ANY, idle_pages, "alloc_pages(4)", "free", "zone 0: freed",
           "free_fastpath=1"),
    # --- irq_work -------------------------------------------------------------------------------------------------
    Window(REARMED, "irq_work_detached", "nmi probe", cpu_slab, "kfree_nolock elsewhere", "free elsewhere",
           "freed: freed", "defer_free=2 irq_work_runs=2 free_slowpath=2 cpu_partial_free=1"),
    Window(REARMED, "irq_work_detached", "irq", cpu_slab, "kfree_nolock elsewhere", "free elsewhere",
           "freed: freed", "defer_free=2 irq_work_runs=2 free_slowpath=2 cpu_partial_free=1"),
    Window(REARMED, "irq_work_detached", "nmi", cpu_slab, "kfree_nolock elsewhere", "free elsewhere, free elsewhere",
           "freed: freed, freed", "defer_free=3 irq_work_runs=2 free_slowpath=3 cpu_partial_free=1"),
    # --- debug caches ----------------------------------------------------------------------------------------------
    Window(ELSEWHERE, "debug_list_lock_held", ANY, debug_partial, "kfree elsewhere", "free elsewhere",
           "freed: freed", "free_slowpath=2 defer_free=1 irq_work_runs=1", geometry=DEBUG),
    Window(ELSEWHERE, "list_lock_held", ANY, debug_partial, "kmalloc", "free elsewhere",
           "A: freed", f"alloc_slowpath=1 {DEFERRED}", geometry=DEBUG),
)  # fmt: skip


@pytest.mark.parametrize(("window", "by"), cases(*WINDOWS))
def test_a_nested_free(window: Window, by: str) -> None:
    with window.experiment(by) as (rig, outcome):
        assert str(outcome) == window.gives
        assert outcome.counters == window.expected()
        rig.settle()


def test_a_batch_costs_one_push_an_object_and_one_irq_work() -> None:
    with Rig.create() as rig:
        objects = rig.take(23 + PER_SLAB, cpu=1)
        before = rig.counters()
        with rig.cpu.irq_save():
            for offset in objects[:23]:
                rig.free(offset, "kfree_nolock")
            assert rig.telling(before) == {"defer_free": 23}
        assert rig.telling(before) == {
            "defer_free": 23,
            "irq_work_runs": 1,
            "free_slowpath": 23,
            "cpu_partial_free": 2,  # two slabs were full
        }
        rig.settle()


def test_without_irqs_off_each_free_is_a_batch_of_its_own() -> None:
    with Rig.create() as rig:
        objects = rig.take(23, cpu=1)
        before = rig.counters()
        for offset in objects[:5]:
            rig.free(offset, "kfree_nolock")
        moved = rig.telling(before)
        assert moved["defer_free"] == moved["irq_work_runs"] == 5
        rig.settle()


def test_the_deferred_free_of_a_full_cpu_partial_list_drains_it() -> None:
    """Four full slabs become partial, one by one; the list of three is drained by the fourth, in irq context."""
    with Rig.create() as rig:
        objects = rig.take(5 * PER_SLAB)
        before = rig.counters()
        for slab in range(4):
            rig.free(objects[slab * PER_SLAB], "kfree_nolock")
        moved = rig.telling(before)
        assert moved["cpu_partial_free"] == 4
        assert moved["cpu_partial_drain"] == 1
        assert moved["free_add_partial"] == 3
        assert rig.cache_node().nr_partial == 3
        rig.settle()


def test_null_and_the_object_of_size_zero_are_no_objects() -> None:
    with Rig.create() as rig:
        before = rig.counters()
        rig.cpu.kfree_nolock(0)
        rig.cpu.kfree_nolock(16)
        assert rig.telling(before) == {}
        rig.settle()
