# SPDX-License-Identifier: MIT
"""What a nested request for pages does, by where it interrupts: appendix A.1, the rows of the page allocator.

The tables are read as those of test_windows_alloc.py.  "zone 0: zone 1" is a page from zone 0 for the outer operation
and one from zone 1 for the nested one.
"""

import pytest
from rig import Rig
from windows import SPINNING, Given, Window, cases, cpu_slab, full_slab, no_slab, pages_held, pcp_filled

ANY = "probe irq nmi"
TWO_NODES = {"nr_nodes": 2}  # zone 0 is node 0's, zone 1 is node 1's
TWO_ZONES = {"zone_permille": [[0, 400, 600, 0]]}  # zone 0 is DMA32, zone 1 is NORMAL

PCP = "pcp lock of the zone: pcp trylock fails -> zone->lock trylock -> buddy page directly"
ZONE = "zone->lock inside pcp lock: both fail on this zone -> next zone in zonelist -> else NULL"
ZONE_ALONE = "zone->lock alone: the page lists still serve, if they hold a page"
PARKED = "a free finds pcp and zone lock held: the block is parked on the zone"
HELD_BACK = "irqs are off under zone->lock: an irq waits until it is released, and meets the pcp lock at most"
OTHER_CPU = "another CPU has page lists of its own, and meets zone->lock alone"

BUSY = "pcp_busy=1 zone_busy=1"


def pages_held_pcp_filled(rig: Rig) -> Given:
    state = pages_held(rig)
    pcp_filled(rig)
    return state


WINDOWS = (
    # --- pcp lock ----------------------------------------------------------------------------------------------
    *(Window(PCP, "pcp_locked", ANY, given, outer, "pages", "zone 0: zone 0", "pcp_busy=1")
      for outer in ("alloc_pages", "alloc_pages_nolock") for given in (no_slab, pcp_filled)),
    Window(PCP, "pcp_locked", ANY, no_slab, "alloc_pages", "pages(2)", "zone 0: zone 0", "pcp_busy=1"),
    Window(PCP, "pcp_locked", ANY, no_slab, "alloc_pages", "pages, pages", "zone 0: zone 0, zone 0", "pcp_busy=2"),
    Window(PCP, "pcp_locked", ANY, no_slab, "alloc_pages", "alloc A", "zone 0: A",
           "pcp_busy=1 alloc_slowpath=1 alloc_slab=1"),
    Window(PCP, "pcp_locked", ANY, no_slab, "kmalloc", "alloc B", "A: B",
           "pcp_busy=1 alloc_slowpath=2 alloc_slab=2"),
    *(Window(PCP, "free_pcp_locked", ANY, pages_held, outer, "pages", "freed: zone 0", "pcp_busy=1")
      for outer in ("free_pages", "free_pages_nolock")),
    # a free that misses the page lists goes to the buddy
    *(Window(PCP, "free_pcp_locked", ANY, pages_held, outer, "free pages", "freed: freed", "pcp_busy=1")
      for outer in ("free_pages", "free_pages_nolock")),
    Window(PCP, "pcp_locked", ANY, pages_held, "alloc_pages", "free pages", "zone 0: freed", "pcp_busy=1"),
    Window(OTHER_CPU, "pcp_locked", "other_cpu", no_slab, "alloc_pages", "pages", "zone 0: zone 0"),
    Window(OTHER_CPU, "free_pcp_locked", "other_cpu", pages_held, "free_pages", "free pages", "freed: freed"),
    # --- zone->lock, usually inside pcp lock ---------------------------------------------------------------------
    *(Window(ZONE, "zone_locked_bulk", "nmi probe", no_slab, outer, "pages", "zone 0: zone_busy", BUSY)
      for outer in ("alloc_pages", "alloc_pages_nolock")),
    Window(ZONE, "zone_locked_bulk", "nmi probe", no_slab, "alloc_pages", "pages", "zone 0: zone 1", BUSY,
           geometry=TWO_NODES),
    Window(ZONE, "zone_locked_bulk", "nmi probe", no_slab, "alloc_pages", "pages", "zone 1: zone 0", BUSY,
           geometry=TWO_ZONES),
    # a slab: first its own order, then the smallest one
    Window(ZONE, "zone_locked_bulk", "nmi probe", no_slab, "alloc_pages", "alloc A", "zone 0: zone_busy",
           "pcp_busy=2 zone_busy=2 alloc_slowpath=1"),
    Window(ZONE, "zone_locked_bulk", "nmi probe", no_slab, "alloc_pages", "alloc 64", "zone 0: zone_busy",
           "pcp_busy=2 zone_busy=2 alloc_slowpath=1"),  # the usual order, then the smallest: both are 0
    Window(ZONE, "zone_locked_bulk", "nmi probe", no_slab, "kmalloc", "alloc B", "A: B",
           f"{BUSY} alloc_slowpath=2 alloc_slab=2", geometry=TWO_NODES),
    # what needs no page does not notice
    Window(ZONE, "zone_locked_bulk", ANY, cpu_slab, "alloc_pages", "alloc A", "zone 0: A", "alloc_fastpath=1"),
    Window(HELD_BACK, "zone_locked_bulk", "irq", no_slab, "alloc_pages", "pages", "zone 0: zone 0", "pcp_busy=1"),
    Window(HELD_BACK, "zone_locked_bulk", "irq", no_slab, "alloc_pages", "pages", "zone 0: zone 0", "pcp_busy=1",
           design=SPINNING),
    Window(HELD_BACK, "zone_locked", "irq", no_slab, "alloc_pages(4)", "pages", "zone 0: zone 0"),
    Window(HELD_BACK, "free_zone_locked", "irq", pages_held, "free_pages(4)", "free pages(4)", "freed: freed"),
    Window(OTHER_CPU, "zone_locked_bulk", "other_cpu", no_slab, "alloc_pages", "pages", "zone 0: zone_busy",
           "zone_busy=2"),
    # --- zone->lock alone --------------------------------------------------------------------------------------
    Window(ZONE_ALONE, "zone_locked", "nmi probe", no_slab, "alloc_pages(4)", "pages", "zone 0: zone_busy",
           "zone_busy=2"),
    Window(ZONE_ALONE, "zone_locked", "nmi probe", pcp_filled, "alloc_pages(4)", "pages", "zone 0: zone 0"),
    Window(ZONE_ALONE, "zone_locked", "nmi probe", pages_held, "alloc_pages(4)", "free pages", "zone 0: freed"),
    Window(ZONE_ALONE, "zone_locked", "nmi probe", no_slab, "alloc_pages(4)", "pages", "zone 0: zone 1",
           "zone_busy=2", geometry=TWO_NODES),
    Window(ZONE_ALONE, "free_zone_locked", "nmi probe", pages_held, "free_pages(4)", "pages", "freed: zone_busy",
           "zone_busy=2"),
    Window(ZONE_ALONE, "free_zone_locked", "nmi probe", pages_held_pcp_filled, "free_pages(4)", "pages",
           "freed: zone 0"),
    # --- frees without any lock ---------------------------------------------------------------------------------
    *(Window(PARKED, "zone_locked_bulk", "nmi probe", pages_held, outer, "free pages", "zone 0: freed",
             f"{BUSY} nr_deferred_free=1") for outer in ("alloc_pages", "alloc_pages_nolock")),
    Window(PARKED, "zone_locked_bulk", "nmi probe", pages_held, "alloc_pages", "free pages, free pages",
           "zone 0: freed, freed", "pcp_busy=2 zone_busy=2 nr_deferred_free=2"),
    Window(PARKED, "zone_locked", "nmi probe", pages_held, "alloc_pages(4)", "free pages(4)", "zone 0: freed",
           "zone_busy=1 nr_deferred_free=1"),
    Window(PARKED, "zone_locked", "other_cpu", pages_held, "alloc_pages(4)", "free pages(4)", "zone 0: freed",
           "zone_busy=1 nr_deferred_free=1"),
    # one that is spinning has looked at the list already, and does not see what is parked under its lock
    Window(PARKED, "free_zone_locked", "nmi probe", pages_held, "free_pages(4)", "free pages(4)", "freed: freed",
           "zone_busy=1 nr_deferred_free=1"),
)  # fmt: skip


@pytest.mark.parametrize(("window", "by"), cases(*WINDOWS))
def test_a_nested_request_for_pages(window: Window, by: str) -> None:
    with window.experiment(by) as (rig, outcome):
        assert str(outcome) == window.gives
        assert outcome.counters == window.expected()
        rig.settle()


def park_one(rig: Rig) -> int:
    """Have a block of order 4 parked on the zone; returns its offset."""
    state = pages_held(rig)
    parked = state.elsewhere[-1]
    rig.experiment(
        "zone_locked", "nmi", lambda: rig.pages(order=4), rig.program("free", holds=[parked], orders=[4])
    )
    assert rig.zone().trylock_free_pages.first
    return parked


def test_parked_pages_are_free_to_nobody_until_a_spinning_free_finds_them() -> None:
    """K-44: allocations, page list traffic, drains and nolock frees all pass them by."""
    with Rig.create() as rig:
        park_one(rig)
        before, free = rig.counters(), rig.free_pages()
        offset = rig.pages()
        rig.free(offset)
        rig.free(rig.pages(order=4), "free_pages_nolock")
        rig.cpu.drain_pages()
        assert rig.telling(before) == {}
        assert rig.zone().trylock_free_pages.first
        report = rig.report()
        assert report.ok
        assert report.notes  # parked pages are named
        rig.free(rig.pages(order=4))
        assert rig.telling(before) == {"nr_deferred_drained": 1}
        assert not rig.zone().trylock_free_pages.first
        assert rig.free_pages() >= free + 16
        rig.settle()


def test_parked_pages_are_not_live() -> None:
    with Rig.create() as rig:
        parked = park_one(rig)
        assert not rig.lib.shm_oracle_is_live(parked)
        assert rig.page_of(parked).flags == rig.lib.PG_deferred
        rig.settle()


def test_an_order_that_the_page_lists_do_not_take_is_refused_nested_as_anywhere() -> None:
    with Rig.create() as rig:
        program = rig.program(("pages_alloc", {"order": 4}))
        outcome = rig.experiment("pcp_locked", "nmi", rig.pages, program)
        assert str(outcome) == "zone 0: order_limit"
        rig.settle()


def test_contention_outlasts_shortage_as_the_reason() -> None:
    """Zone 1 is locked, zone 0 below its watermark: with another timing there might have been a page."""
    with Rig.create(nr_nodes=2) as rig:
        far = rig.exhaust(node=1)
        assert far
        program = rig.program(("pages_alloc", {"order": 0}))
        outcome = rig.experiment("zone_locked_bulk", "nmi", rig.pages, program)
        assert str(outcome) == "zone 0: zone_busy"
        rig.settle()


def test_the_busy_slab_of_one_bucket_and_no_page_for_the_next() -> None:
    """A's lock is held, B needs a slab, and the zone is locked: the last obstacle is the reason."""
    with Rig.create() as rig:
        full_slab(rig)
        probe, nmi = (
            rig.program(("pages_alloc", {"order": 4}), design=SPINNING),
            rig.program(("alloc", {"size": 1024})),
        )
        rig.arm("cpu_slab_locked", "probe", probe)
        rig.arm("zone_locked", "nmi", nmi)
        rig.alloc()
        assert rig.fired() == 2
        assert rig.cpu.contexts()["nmi"]["failures"] == {"zone_busy": 1}
        rig.settle()
