# SPDX-License-Identifier: MIT
"""What a nested kmalloc_nolock does, by where it interrupts: appendix A.1, the rows of the slab allocator.

Each line interrupts one operation exactly there, and states everything that follows: where the objects of the
outer and of the nested operation come from, or why there is none, and every counter that moves.
"""

import pytest
from rig import A_BYTES, B_BYTES, PER_SLAB, Rig
from windows import (
    Window,
    cases,
    cpu_partial,
    cpu_slab,
    debug_partial,
    full_slab,
    no_slab,
    node_partial,
    node_partials,
    other_node_partial,
    remote_frees,
)

ANY = "probe irq nmi"
TWO_NODES = {"nr_nodes": 2}
DEBUG = {"slab_debug": 0x1}
TAKE_ALL = ", ".join(["alloc A"] * 11)  # all ten free objects of the cpu slab, and one of the next slab

FASTPATH = "between tid read and cmpxchg of a fastpath: the outer cmpxchg fails once and retries"
IRQ_OFF = "after irq off, before acquired=1: nested sees unlocked; outer rechecks c->slab and c->freelist"
LOCKED = "acquired=1, NMI: skip fastpath, -EBUSY -> next bucket"
CALLEE = "acquired=1, probe in a callee: the fastpath is tried; if it needs the slow path -> -EBUSY"
HELD_BACK = "irqs off: an irq waits for the end of the section, and then finds everything as usual"
UNLOCKED = "acquired=0, irqs still off: normal"
BETWEEN = "between the locked sections: normal; outer flushes what the nested one has installed"
LIST_LOCK = "node list_lock(A) held: partial lookup of that node skipped; other nodes, then a new slab"
BOTH = "list_lock + cpu_slab lock: -EBUSY on A; B unaffected"
DEBUG_CACHE = "debug cache: NULL after deferring the slab"
OTHER_CPU = "another CPU has a cpu slab of its own"

FLUSH = "cpuslab_flush=1 deactivate_to_head=1"
DEFER = f"{FLUSH} defer_deactivate=1 irq_work_runs=1"
RETRY = "cpu_slab_busy=1 bucket_retry=1"

WINDOWS = (
    # --- the fast path -----------------------------------------------------------------------------
    Window(FASTPATH, "alloc_fastpath", ANY, cpu_slab, "kmalloc", "alloc A", "A: A",
           "alloc_fastpath=2 cmpxchg_double_cpu_fail=1"),
    Window(FASTPATH, "alloc_fastpath", ANY, cpu_slab, "kmalloc_nolock", "alloc A", "A: A",
           "alloc_fastpath=2 cmpxchg_double_cpu_fail=1"),
    Window(FASTPATH, "alloc_fastpath", ANY, cpu_slab, "kmalloc", "alloc B", "A: B",
           "alloc_fastpath=1 alloc_slowpath=1 alloc_slab=1"),
    Window(FASTPATH, "alloc_fastpath", ANY, cpu_slab, "kmalloc", TAKE_ALL, f"A: {', '.join('A' * 11)}",
           "alloc_fastpath=11 alloc_slowpath=1 alloc_slab=1 deactivate_bypass=1 cmpxchg_double_cpu_fail=1"),
    Window(FASTPATH, "free_fastpath", ANY, cpu_slab, "kfree", "alloc A", "freed: A",
           "alloc_fastpath=1 free_fastpath=1 cmpxchg_double_cpu_fail=1"),
    Window(FASTPATH, "free_fastpath", ANY, cpu_slab, "kfree_nolock", "alloc A", "freed: A",
           "alloc_fastpath=1 free_fastpath=1 cmpxchg_double_cpu_fail=1"),
    # the cpu slab is another one by then: a remote free, or with kfree_nolock a deferred one
    Window(FASTPATH, "free_fastpath", ANY, cpu_slab, "kfree", TAKE_ALL, f"freed: {', '.join('A' * 11)}",
           "alloc_fastpath=10 alloc_slowpath=1 alloc_slab=1 deactivate_bypass=1 cmpxchg_double_cpu_fail=1"
           " free_slowpath=1 cpu_partial_free=1"),
    Window(FASTPATH, "free_fastpath", ANY, cpu_slab, "kfree_nolock", TAKE_ALL, f"freed: {', '.join('A' * 11)}",
           "alloc_fastpath=10 alloc_slowpath=1 alloc_slab=1 deactivate_bypass=1 cmpxchg_double_cpu_fail=1"
           " defer_free=1 irq_work_runs=1 free_slowpath=1 cpu_partial_free=1"),
    Window(OTHER_CPU, "alloc_fastpath", "other_cpu", cpu_slab, "kmalloc", "alloc A", "A: A",
           "alloc_fastpath=1 alloc_slowpath=1 alloc_slab=1"),
    # --- irqs off, the lock not yet taken ------------------------------------------------------------
    Window(IRQ_OFF, "cpu_slab_irq_off", "nmi probe", remote_frees, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_refill=1"),
    Window(IRQ_OFF, "cpu_slab_irq_off", "nmi probe", remote_frees, "kmalloc_nolock", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_refill=1"),
    Window(IRQ_OFF, "cpu_slab_irq_off", "nmi probe", full_slab, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 deactivate_bypass=1 alloc_slab=1"),
    Window(IRQ_OFF, "cpu_slab_irq_off", "nmi probe", cpu_partial, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 deactivate_bypass=2 cpu_partial_alloc=1 alloc_slab=1"),
    Window(IRQ_OFF, "cpu_slab_irq_off", "nmi probe", no_slab, "kmalloc", "alloc A", "A: A",
           f"alloc_slowpath=2 alloc_slab=2 {FLUSH}"),
    Window(IRQ_OFF, "cpu_slab_irq_off", "nmi probe", no_slab, "kmalloc_nolock", "alloc A", "A: A",
           f"alloc_slowpath=2 alloc_slab=2 {DEFER}"),
    Window(HELD_BACK, "cpu_slab_irq_off", "irq", remote_frees, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=1 alloc_refill=1 alloc_fastpath=1"),
    Window(OTHER_CPU, "cpu_slab_irq_off", "other_cpu", remote_frees, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_refill=1 alloc_slab=1"),
    # --- the lock is held ------------------------------------------------------------------------------
    *(Window(LOCKED, site, "nmi", given, outer, "alloc A", "A: B", f"alloc_slowpath=2 {RETRY} {counts}")
      for outer in ("kmalloc", "kmalloc_nolock")
      for site, given, counts in (
          ("cpu_slab_locked", remote_frees, "alloc_refill=1 alloc_slab=1"),
          ("cpu_slab_editing", remote_frees, "alloc_refill=1 alloc_slab=1"),
          ("cpu_slab_locked", full_slab, "deactivate_bypass=1 alloc_slab=2"),
          ("cpu_slab_editing", full_slab, "deactivate_bypass=1 alloc_slab=2"),
          ("cpu_slab_locked", cpu_partial, "deactivate_bypass=1 cpu_partial_alloc=1 alloc_slab=1"),
          ("cpu_slab_locked", no_slab, "alloc_slab=2"),
          ("cpu_slab_locked", node_partial, "alloc_from_partial=1 alloc_slab=1"),
      )),
    # the second time: while the cpu partial list is taken from, and at the installation
    *(Window(LOCKED, site, "nmi", given, "kmalloc", "alloc A", "A: B", f"alloc_slowpath=2 {RETRY} {counts}", nth=2)
      for site, given, counts in (
          ("cpu_slab_locked", cpu_partial, "deactivate_bypass=1 cpu_partial_alloc=1 alloc_slab=1"),
          ("cpu_slab_editing", cpu_partial, "deactivate_bypass=1 cpu_partial_alloc=1 alloc_slab=1"),
          ("cpu_slab_locked", full_slab, "deactivate_bypass=1 alloc_slab=2"),
      )),
    Window(LOCKED, "cpu_slab_locked", "nmi", remote_frees, "kmalloc", "alloc B", "A: B",
           "alloc_slowpath=2 alloc_refill=1 alloc_slab=1"),
    Window(CALLEE, "cpu_slab_locked", "probe", remote_frees, "kmalloc", "alloc A", "A: B",
           f"alloc_slowpath=2 alloc_refill=1 alloc_slab=1 {RETRY}"),
    Window(CALLEE, "cpu_slab_locked", "probe", full_slab, "kmalloc_nolock", "alloc A", "A: B",
           f"alloc_slowpath=2 deactivate_bypass=1 alloc_slab=2 {RETRY}"),
    # a free object on the cpu slab: this site has one only where the slab is given up for its node
    Window(CALLEE, "cpu_slab_locked", "probe", cpu_slab, "kmalloc on node 1", "alloc A", "A: A",
           "alloc_slowpath=1 alloc_node_mismatch=1 alloc_slab=1 deactivate_to_head=1 alloc_fastpath=1",
           geometry=TWO_NODES),
    Window(LOCKED, "cpu_slab_locked", "nmi", cpu_slab, "kmalloc on node 1", "alloc A", "A: B",
           f"alloc_slowpath=2 alloc_node_mismatch=1 alloc_slab=2 deactivate_to_head=1 {RETRY}",
           geometry=TWO_NODES),
    Window(LOCKED, "cpu_slab_editing", "nmi", cpu_slab, "kmalloc on node 1", "alloc A", "A: B",
           f"alloc_slowpath=2 alloc_node_mismatch=1 alloc_slab=2 deactivate_to_head=1 {RETRY}",
           geometry=TWO_NODES),
    Window(HELD_BACK, "cpu_slab_locked", "irq", remote_frees, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=1 alloc_refill=1 alloc_fastpath=1"),
    Window(HELD_BACK, "cpu_slab_editing", "irq", remote_frees, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=1 alloc_refill=1 alloc_fastpath=1"),
    Window(OTHER_CPU, "cpu_slab_locked", "other_cpu", remote_frees, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_refill=1 alloc_slab=1"),
    # --- the lock is free again, irqs are still off --------------------------------------------------------
    *(Window(UNLOCKED, "cpu_slab_unlocked", ANY, given, outer, "alloc A", "A: A", counts)
      for outer in ("kmalloc", "kmalloc_nolock")
      for given, counts in (
          (remote_frees, "alloc_slowpath=1 alloc_refill=1 alloc_fastpath=1"),
          (no_slab, "alloc_slowpath=1 alloc_slab=1 alloc_fastpath=1"),
          (node_partial, "alloc_slowpath=2 alloc_from_partial=1 deactivate_bypass=1 alloc_slab=1"),
      )),
    Window(UNLOCKED, "cpu_slab_unlocked", ANY, full_slab, "kmalloc", "alloc A", "A: A",
           f"alloc_slowpath=2 deactivate_bypass=1 alloc_slab=2 {FLUSH}"),
    Window(UNLOCKED, "cpu_slab_unlocked", ANY, full_slab, "kmalloc_nolock", "alloc A", "A: A",
           f"alloc_slowpath=2 deactivate_bypass=1 alloc_slab=2 {DEFER}"),
    # --- between the locked sections of ___slab_alloc -----------------------------------------------------
    *(Window(BETWEEN, site, ANY, no_slab, outer, "alloc A", "A: A", f"alloc_slowpath=2 alloc_slab=2 {flush}")
      for site in ("before_get_partial", "before_new_slab", "before_install")
      for outer, flush in (("kmalloc", FLUSH), ("kmalloc_nolock", DEFER))),
    # before the lookup the nested one has the partial slab, afterwards the outer one has it
    Window(BETWEEN, "before_get_partial", ANY, node_partial, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1 cpuslab_flush=1 deactivate_full=1"),
    Window(BETWEEN, "before_get_partial", ANY, node_partial, "kmalloc_nolock", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1 cpuslab_flush=1 deactivate_full=1"
           " defer_deactivate=1 irq_work_runs=1"),
    Window(BETWEEN, "before_install", ANY, node_partial, "kmalloc", "alloc A", "A: A",
           f"alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1 {FLUSH}"),
    Window(BETWEEN, "before_install", ANY, node_partials, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_from_partial=1 cpu_partial_node=2 cpu_partial_alloc=1"
           " cpuslab_flush=1 deactivate_full=1"),
    Window(OTHER_CPU, "before_install", "other_cpu", no_slab, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_slab=2"),
    # --- list_lock ----------------------------------------------------------------------------------------
    *(Window(LIST_LOCK, "list_lock_held", "nmi probe", node_partial, outer, "alloc A", "A: A",
             f"alloc_slowpath=2 alloc_from_partial=1 list_lock_busy=1 alloc_slab=1 {flush}")
      for outer, flush in (("kmalloc", FLUSH), ("kmalloc_nolock", DEFER))),
    Window(LIST_LOCK, "list_lock_held", "other_cpu", node_partial, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_from_partial=1 list_lock_busy=1 alloc_slab=1"),
    Window(LIST_LOCK, "list_lock_held", "nmi probe", other_node_partial, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_from_partial=2 list_lock_busy=1 cpu_partial_node=2"
           " cpuslab_flush=1 deactivate_full=1", geometry=TWO_NODES),
    Window(LIST_LOCK, "list_lock_held", "nmi probe", node_partial, "kmalloc", "alloc B", "A: B",
           "alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1"),
    Window(HELD_BACK, "list_lock_held", "irq", node_partial, "kmalloc", "alloc A", "A: A",
           f"alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1 {FLUSH}"),
    # --- list_lock and the cpu slab's lock ----------------------------------------------------------------
    *(Window(BOTH, "list_lock_and_cpu_slab", "nmi probe", node_partials, outer, "alloc A", "A: B",
             f"alloc_slowpath=2 alloc_from_partial=1 cpu_partial_node=2 alloc_slab=1 {RETRY}")
      for outer in ("kmalloc", "kmalloc_nolock")),
    Window(BOTH, "list_lock_and_cpu_slab", "nmi probe", node_partials, "kmalloc", "alloc B", "A: B",
           "alloc_slowpath=2 alloc_from_partial=1 cpu_partial_node=2 alloc_slab=1"),
    Window(BOTH, "list_lock_and_cpu_slab", "other_cpu", node_partials, "kmalloc", "alloc A", "A: A",
           "alloc_slowpath=2 alloc_from_partial=1 cpu_partial_node=2 list_lock_busy=1 alloc_slab=1"),
    # --- debug caches: no cpu slab, so nothing but list_lock to meet -----------------------------------------
    Window(DEBUG_CACHE, "list_lock_held", "nmi probe", debug_partial, "kmalloc", "alloc A", "A: list_lock_busy",
           "alloc_slowpath=2 list_lock_busy=2 alloc_slab=1 defer_deactivate=1 irq_work_runs=1", geometry=DEBUG),
    Window(DEBUG_CACHE, "debug_list_lock_held", "nmi probe", debug_partial, "kfree elsewhere", "alloc A",
           "freed: list_lock_busy",
           "free_slowpath=1 alloc_slowpath=1 list_lock_busy=2 alloc_slab=1 defer_deactivate=1 irq_work_runs=1",
           geometry=DEBUG),
    Window(HELD_BACK, "debug_list_lock_held", "irq", debug_partial, "kfree elsewhere", "alloc A", "freed: A",
           "free_slowpath=1 alloc_slowpath=1", geometry=DEBUG),
)  # fmt: skip


@pytest.mark.parametrize(("window", "by"), cases(*WINDOWS))
def test_a_nested_allocation(window: Window, by: str) -> None:
    with window.experiment(by) as (rig, outcome):
        assert str(outcome) == window.gives
        assert outcome.counters == window.expected()
        rig.settle()


def test_both_buckets_busy() -> None:
    """acquired=1 on A and on B: NULL.  A probe within A's section goes on to B; there an NMI wants A."""
    with Rig.create() as rig:
        for size in (A_BYTES, B_BYTES):
            objects = rig.take(PER_SLAB, size)
            for offset in objects[:3]:
                rig.free(offset, cpu=1)
        probe, nmi = (rig.program(("alloc", {"size": A_BYTES})) for _ in range(2))
        rig.arm("cpu_slab_locked", "probe", probe)
        rig.arm("cpu_slab_editing", "nmi", nmi)  # B's section: A's has not come so far
        before = rig.counters()
        assert rig.origin(rig.alloc("kmalloc_nolock")) == "A"
        assert rig.fired() == 2
        assert [rig.origin(offset) for offset in probe.held()] == ["B"]
        assert nmi.held() == []
        assert rig.cpu.contexts()["nmi"]["failures"] == {"cpu_slab_busy": 1}
        assert rig.telling(before) == {
            "alloc_slowpath": 2,
            "alloc_refill": 2,
            "cpu_slab_busy": 3,  # the probe meets A's lock, the NMI both
            "bucket_retry": 2,
        }
        rig.settle()


@pytest.mark.parametrize("by", ["nmi", "probe"])
def test_the_largest_bucket_has_no_next(by: str) -> None:
    with Rig.create() as rig:
        objects = rig.take(4, 8192)
        rig.free(objects[0], cpu=1)
        program = rig.program(("alloc", {"size": 8192}))
        outcome = rig.experiment("cpu_slab_locked", by, lambda: rig.alloc(size=8192), program)
        assert str(outcome) == "kmalloc-8k: cpu_slab_busy"
        assert outcome.counters == {"alloc_slowpath": 1, "alloc_refill": 1, "cpu_slab_busy": 1}
        rig.settle()


@pytest.mark.parametrize("by", ["nmi", "probe"])
def test_a_named_cache_has_no_next(by: str) -> None:
    with Rig.create() as rig:
        cache = rig.cpu.kmem_cache_create("mine", A_BYTES)
        taken = [cache.alloc() for _ in range(cache.info().objects)]
        rig.held.update(dict.fromkeys(taken))
        rig.free(taken[0], cpu=1)
        program = rig.program(("cache_alloc", {"cache": cache.index}))

        def outer() -> int:
            offset = cache.alloc()
            rig.held[offset] = None
            return offset

        outcome = rig.experiment("cpu_slab_locked", by, outer, program)
        assert str(outcome) == "mine: cpu_slab_busy"
        assert outcome.counters == {"alloc_slowpath": 1, "alloc_refill": 1, "cpu_slab_busy": 1}
        rig.settle()


@pytest.mark.parametrize("by", ["nmi", "probe", "irq"])
@pytest.mark.parametrize("outer", ["kmalloc", "kmalloc_nolock"])
def test_the_outer_goes_round_as_often_as_it_is_overtaken(outer: str, by: str) -> None:
    """A second interrupt, at the second installation: both slabs are flushed, and the outer one is served."""
    with Rig.create() as rig:
        first, second = (rig.program(("alloc", {"size": A_BYTES})) for _ in range(2))
        rig.arm("before_install", by, first)
        rig.arm("cpu_slab_irq_off", "nmi", second, nth=3)  # 1: the first's installation, 2: the flush
        before = rig.counters()
        rig.alloc(outer)
        assert rig.fired() == 2
        assert [rig.origin(*program.held()) for program in (first, second)] == ["A", "A"]
        assert rig.telling(before)["cpuslab_flush"] == 2
        assert rig.telling(before).get("defer_deactivate", 0) == (2 if outer == "kmalloc_nolock" else 0)
        rig.settle()
