# SPDX-License-Identifier: MIT
"""The plan and the merge at every probe site: what a nested try_kmalloc and a nested kmalloc_nolock get.

A row is read as those of test_windows_alloc.py, once for each design: where both do the same it says so once.
The outer operation is the plan's own where its path passes the site, else the spinning one that does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from rig import Rig
from windows import (
    NOLOCK,
    PLAN,
    Given,
    Window,
    cpu_partial,
    cpu_slab,
    debug_partial,
    full_slab,
    no_slab,
    node_partial,
    node_partials,
    pages_held,
    remote_frees,
)

ANY = "nmi probe irq"
NESTS = "nmi probe"
DEBUG = {"slab_debug": 0x1}


@dataclass(frozen=True)
class Row:
    """One site: what the nested allocation of bucket A gets, by the plan and as merged, with the counters."""

    site: str
    by: str
    given: Callable[[Rig], Given]
    outer: str
    plan: str
    plan_counts: str
    merge: str = ""
    merge_counts: str = ""
    nth: int = 1
    geometry: dict[str, Any] = field(default_factory=dict)

    def window(self, design: str) -> Window:
        gives, counts = self.plan, self.plan_counts
        if design == NOLOCK and self.merge:
            gives, counts = self.merge, self.merge_counts
        return Window(
            "", self.site, self.by, self.given, self.outer, "alloc A", gives, counts, self.nth, design,
            self.geometry,
        )  # fmt: skip


RACE = "alloc_fastpath=2 cmpxchg_double_cpu_fail=1"
REFILLED = "alloc_slowpath=2 alloc_refill=1"
LATER = "alloc_slowpath=1 alloc_refill=1 alloc_fastpath=1"
FLUSHED = "cpuslab_flush=1 deactivate_to_head=1"
DEFERRED = f"{FLUSHED} defer_deactivate=1 irq_work_runs=1"
BUSY = "A: cpu_slab_busy"
SECOND = "alloc_slowpath=2 cpu_slab_busy=1 bucket_retry=1"  # the merge's second try, in the next bucket

ROWS = (
    # --- the fast path is the same ----
    *(Row("alloc_fastpath", ANY, cpu_slab, outer, "A: A", RACE) for outer in (PLAN, NOLOCK)),
    Row("free_fastpath", ANY, cpu_slab, "kfree", "freed: A",
        "alloc_fastpath=1 free_fastpath=1 cmpxchg_double_cpu_fail=1"),
    # --- irqs off, the lock not yet taken ----
    Row("cpu_slab_irq_off", NESTS, remote_frees, PLAN, "A: A", REFILLED),
    Row("cpu_slab_irq_off", "irq", remote_frees, PLAN, "A: A", LATER),
    Row("cpu_slab_irq_off", NESTS, full_slab, PLAN, "A: A", "alloc_slowpath=2 deactivate_bypass=1 alloc_slab=1"),
    # both have a new slab, and the nested one's is there first: the plan gives its own back, the merge takes it away
    Row("cpu_slab_irq_off", NESTS, no_slab, PLAN, "A: A", "alloc_slowpath=2 alloc_slab=2 free_slab=1"),
    Row("cpu_slab_irq_off", NESTS, no_slab, NOLOCK, "A: A", f"alloc_slowpath=2 alloc_slab=2 {DEFERRED}"),
    # --- the lock is held: NULL, or the next bucket ----
    *(Row(site, "nmi", given, outer, BUSY, f"alloc_slowpath=1 cpu_slab_busy=1 {counts}",
          "A: B", f"{SECOND} {plus}")
      for outer in (PLAN, "kmalloc")
      for site in ("cpu_slab_locked", "cpu_slab_editing")
      for given, counts, plus in (
          (remote_frees, "alloc_refill=1", "alloc_refill=1 alloc_slab=1"),
          (full_slab, "deactivate_bypass=1 alloc_slab=1", "deactivate_bypass=1 alloc_slab=2"),
      )),
    Row("cpu_slab_locked", "nmi", cpu_partial, PLAN, BUSY,
        "alloc_slowpath=1 cpu_slab_busy=1 deactivate_bypass=1 cpu_partial_alloc=1", "A: B",
        f"{SECOND} deactivate_bypass=1 cpu_partial_alloc=1 alloc_slab=1", nth=2),
    Row("cpu_slab_editing", "nmi", cpu_partial, PLAN, BUSY,
        "alloc_slowpath=1 cpu_slab_busy=1 deactivate_bypass=1 cpu_partial_alloc=1", "A: B",
        f"{SECOND} deactivate_bypass=1 cpu_partial_alloc=1 alloc_slab=1", nth=2),
    Row("cpu_slab_locked", "nmi", no_slab, PLAN, BUSY, "alloc_slowpath=1 alloc_slab=1 cpu_slab_busy=1",
        "A: B", f"{SECOND} alloc_slab=2"),
    # a probe tries the fast path, finds nothing there, and then the lock held
    Row("cpu_slab_locked", "probe", remote_frees, PLAN, BUSY, "alloc_slowpath=2 alloc_refill=1 cpu_slab_busy=1",
        "A: B", f"{SECOND} alloc_refill=1 alloc_slab=1"),
    # ... here after it has got a slab, which it gives back: the plan's lock is tried only where it is needed
    Row("cpu_slab_locked", "probe", no_slab, PLAN, BUSY,
        "alloc_slowpath=2 alloc_slab=2 free_slab=1 cpu_slab_busy=1", "A: B", f"{SECOND} alloc_slab=2"),
    Row("cpu_slab_locked", "irq", remote_frees, PLAN, "A: A", LATER),
    Row("cpu_slab_editing", "irq", remote_frees, PLAN, "A: A", LATER),
    # --- the lock is free again ----
    Row("cpu_slab_unlocked", ANY, remote_frees, PLAN, "A: A", LATER),
    # --- between the locked sections ----
    *(Row(site, ANY, given, PLAN, "A: A", f"alloc_slowpath=2 alloc_slab=2 free_slab=1 {counts}")
      for site in ("before_new_slab", "before_install")
      for given, counts in ((no_slab, ""), (full_slab, "deactivate_bypass=1"))),
    *(Row(site, ANY, full_slab, "kmalloc", "A: A",
          f"alloc_slowpath=2 alloc_slab=2 deactivate_bypass=1 {FLUSHED}")
      for site in ("before_get_partial", "before_new_slab", "before_install")),
    # --- list_lock: the plan does not look at the node's lists, so that it does not meet it ----
    Row("list_lock_held", NESTS, node_partial, "kmalloc", "A: A",
        f"alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1 {FLUSHED}", "A: A",
        f"alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1 list_lock_busy=1 {FLUSHED}"),
    Row("list_lock_held", "irq", node_partial, "kmalloc", "A: A",
        f"alloc_slowpath=2 alloc_from_partial=1 alloc_slab=1 {FLUSHED}"),
    Row("list_lock_and_cpu_slab", "nmi", node_partials, "kmalloc", BUSY,
        "alloc_slowpath=1 alloc_from_partial=1 cpu_partial_node=2 cpu_slab_busy=1", "A: B",
        f"{SECOND} alloc_from_partial=1 cpu_partial_node=2 alloc_slab=1"),
    Row("list_lock_and_cpu_slab", "probe", node_partials, "kmalloc", BUSY,
        "alloc_slowpath=2 alloc_from_partial=1 cpu_partial_node=2 alloc_slab=1 free_slab=1 cpu_slab_busy=1", "A: B",
        f"{SECOND} alloc_from_partial=1 cpu_partial_node=2 alloc_slab=1"),
    Row("list_lock_and_cpu_slab", "irq", node_partials, "kmalloc", "A: A",
        "alloc_slowpath=2 alloc_from_partial=1 cpu_partial_node=2 cpu_partial_alloc=1 cpuslab_flush=1"
        " deactivate_full=1"),
    # --- the nodes of a task, its random numbers: neither is asked for by who may not wait ----
    Row("random_locked", NESTS, no_slab, "kmalloc", "A: A",
        f"alloc_slowpath=2 alloc_slab=2 {FLUSHED}", geometry={"freelist_random": True}),
    Row("mems_allowed_writing", ANY, full_slab, "set_mems_allowed", "freed: A",
        "alloc_slowpath=1 alloc_slab=1 deactivate_bypass=1", geometry={"nr_nodes": 2}),
    Row("slab_free_cmpxchg", ANY, cpu_slab, "kfree elsewhere", "freed: A",
        "alloc_fastpath=1 free_slowpath=1 cpu_partial_free=1"),
    # --- debug caches: list_lock by trylock; the plan takes a new slab each time ----
    Row("debug_list_lock_held", NESTS, debug_partial, "kfree elsewhere", "freed: list_lock_busy",
        "free_slowpath=1 alloc_slowpath=1 alloc_slab=1 list_lock_busy=1 defer_deactivate=1 irq_work_runs=1",
        "freed: list_lock_busy",
        "free_slowpath=1 alloc_slowpath=1 alloc_slab=1 list_lock_busy=2 defer_deactivate=1 irq_work_runs=1",
        geometry=DEBUG),
    Row("debug_list_lock_held", "irq", debug_partial, "kfree elsewhere", "freed: A",
        "free_slowpath=1 alloc_slowpath=1 alloc_slab=1", "freed: A", "free_slowpath=1 alloc_slowpath=1",
        geometry=DEBUG),
    *(Row("debug_new_slab_locked", NESTS, no_slab, outer, "A: list_lock_busy",
          "alloc_slowpath=2 alloc_slab=2 list_lock_busy=1 defer_deactivate=1 irq_work_runs=1", geometry=DEBUG)
      for outer in (PLAN, "kmalloc")),
    # --- pages: by the same trylocks ----
    Row("pcp_locked", ANY, no_slab, PLAN, "A: A", "alloc_slowpath=2 alloc_slab=2 free_slab=1 pcp_busy=1"),
    Row("pcp_locked", ANY, no_slab, "alloc_pages", "zone 0: A", "alloc_slowpath=1 alloc_slab=1 pcp_busy=1"),
    Row("pcp_editing", ANY, no_slab, PLAN, "A: A", "alloc_slowpath=2 alloc_slab=2 free_slab=1 pcp_busy=1"),
    Row("zone_locked_bulk", NESTS, no_slab, PLAN, "A: zone_busy",
        "alloc_slowpath=2 alloc_slab=1 pcp_busy=2 zone_busy=2"),
    Row("zone_locked_bulk", NESTS, no_slab, "alloc_pages", "zone 0: zone_busy",
        "alloc_slowpath=1 pcp_busy=2 zone_busy=2"),
    Row("zone_locked_bulk", "irq", no_slab, "alloc_pages", "zone 0: A", "alloc_slowpath=1 alloc_slab=1 pcp_busy=1"),
    Row("zone_locked", NESTS, no_slab, "alloc_pages(4)", "zone 0: zone_busy", "alloc_slowpath=1 zone_busy=4"),
    Row("zone_locked", "irq", no_slab, "alloc_pages(4)", "zone 0: A", "alloc_slowpath=1 alloc_slab=1"),
    Row("free_pcp_locked", ANY, pages_held, "free_pages", "freed: A", "alloc_slowpath=1 alloc_slab=1 pcp_busy=1"),
    Row("free_zone_locked", NESTS, pages_held, "free_pages(4)", "freed: zone_busy", "alloc_slowpath=1 zone_busy=4"),
    Row("free_zone_locked", "irq", pages_held, "free_pages(4)", "freed: A", "alloc_slowpath=1 alloc_slab=1"),
    # --- irq_work ----
    Row("irq_work_detached", ANY, cpu_slab, "kfree_nolock elsewhere", "freed: A",
        "alloc_fastpath=1 cpu_partial_free=1 defer_free=1 free_slowpath=1 irq_work_runs=1"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("row", "by"),
    [
        pytest.param(row, by, id=f"{at}-{row.site}-{by}")
        for at, row in enumerate(ROWS)
        for by in row.by.split()
    ],
)
@pytest.mark.parametrize("design", [PLAN, NOLOCK])
def test_a_nested_allocation(row: Row, by: str, design: str) -> None:
    window = row.window(design)
    with window.experiment(by) as (rig, outcome):
        assert str(outcome) == window.gives
        assert outcome.counters == window.expected()
        rig.settle()


STATES = (cpu_slab, full_slab, remote_frees, cpu_partial, no_slab, node_partial, node_partials)


@pytest.mark.parametrize("design", [PLAN, NOLOCK, "kmalloc"])
def test_every_site_that_an_allocation_passes_is_in_the_table(design: str) -> None:
    passed: set[str] = set()
    for given in STATES:
        with Rig.create() as rig:
            given(rig)
            with rig.watching():
                rig.alloc(design)
                passed |= {site for site in rig.arena.core.names("probe") if rig.hits(site)}
            rig.settle()
    assert passed - {row.site for row in ROWS} == set()


def test_a_nested_free_is_the_merged_one() -> None:
    """The slides say nothing of freeing: an object of another slab is deferred to irq_work, whoever frees it."""
    with Rig.create() as rig:
        state = cpu_slab(rig)
        program = rig.program("free", holds=[state.elsewhere[-1]], design=PLAN)
        outcome = rig.experiment("alloc_fastpath", "nmi", lambda: rig.alloc(PLAN), program)
        assert str(outcome) == "A: freed"
        assert outcome.counters == {
            "alloc_fastpath": 1, "cpu_partial_free": 1, "defer_free": 1, "free_slowpath": 1, "irq_work_runs": 1,
        }  # fmt: skip
        rig.settle()
