# SPDX-License-Identifier: MIT
"""Allocating and freeing pages: page lists, the buddy, pageblocks of other types, blocks that are parked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.atlas.operations import operation
from harness.atlas.staging import Request, Staging
from shmalloc.errors import AllocationFailed

PAGES = ("kmalloc", "kmalloc_nolock")
SPINS = ("kmalloc",)
NOLOCK = ("kmalloc_nolock",)
MOVABLE = "GFP_HIGHUSER_MOVABLE"
PAGEBLOCK_ORDER = 4
PAGE_SHIFT = 12
MOVABLE_BLOCKS = 2
REFILLS = 2  # in a row: the next one takes four pages


# --- start states -----------------------------------------------------------------------------------


def no_refills(stage: Staging) -> None:
    """Have the next refill of this CPU's lists take a single page, as if none had come shortly before."""
    stage.pageset().alloc_factor = 0


def drained(stage: Staging) -> None:
    """Leave nothing on this CPU's lists, and in the buddy no block smaller than a pageblock."""
    stage.cpus[0].drain_pages()
    while sum(stage.free_blocks("UNMOVABLE")[:PAGEBLOCK_ORDER]):
        stage.pages()
        stage.cpus[0].drain_pages()
    no_refills(stage)


def cached_page(stage: Staging) -> None:
    """Leave one page on this CPU's lists."""
    drained(stage)
    stage.free(stage.pages())


def block_of(offset: int) -> int:
    """Tell the pageblocks of pages apart."""
    return offset >> PAGE_SHIFT + PAGEBLOCK_ORDER


def single_pages(stage: Staging) -> None:
    """Leave nothing on this CPU's lists, and single pages in the buddy, for a refill of more than one."""
    drained(stage)
    taken = sorted(stage.pages() for _ in range(1 << PAGEBLOCK_ORDER))
    no_refills(stage)
    for offset in taken[1::2]:
        stage.free(offset)
    stage.cpus[0].drain_pages()
    while stage.pageset().alloc_factor < REFILLS:
        stage.pages()
    stage.cpus[0].drain_pages()


def no_unmovable(stage: Staging) -> None:
    """Leave free pages only in pageblocks of movable ones."""
    stage.cpus[0].drain_pages()
    for offset in [stage.pages(PAGEBLOCK_ORDER, gfp=MOVABLE) for _ in range(MOVABLE_BLOCKS)]:
        stage.free(offset)  # it was claimed
    for order in reversed(range(stage.lib.SHM_NR_ORDERS)):
        while stage.free_blocks("UNMOVABLE")[order]:
            no_refills(stage)
            stage.pages(order)
    stage.cpus[0].drain_pages()
    no_refills(stage)


def mixed_pageblocks(stage: Staging, free_pages: int) -> None:
    """Leave so many free pages in each of two pageblocks that movable pages otherwise fill, and no other."""
    no_unmovable(stage)
    taken = []
    while stage.free_pages_of("MOVABLE") > free_pages:
        no_refills(stage)
        taken.append(stage.pages(gfp=MOVABLE))
    last = block_of(taken[-1])
    other = next(block_of(each) for each in taken if block_of(each) != last)
    for offset in [each for each in taken if block_of(each) == other][:free_pages]:
        stage.free(offset)
    stage.cpus[0].drain_pages()
    no_refills(stage)


def whole_pageblock(stage: Staging) -> list[int]:
    """Allocate the pages of a pageblock one by one. Returns: all of them; this CPU's lists are empty."""
    drained(stage)
    whole: list[int] = []
    while len(whole) < 1 << PAGEBLOCK_ORDER:
        offset = stage.pages()
        whole = [each for each in (*whole, offset) if block_of(each) == block_of(offset)]
    stage.cpus[0].drain_pages()
    return whole


def full_page_lists(stage: Staging) -> None:
    """Fill this CPU's lists with pages of a pageblock that is otherwise free: one more, and all go back."""
    whole = whole_pageblock(stage)
    kept = int(stage.pageset().high) - 1
    for offset in whole[kept:]:
        stage.free(offset)
        stage.cpus[0].drain_pages()
    for offset in whole[:kept]:
        stage.free(offset)


def lone_page(stage: Staging) -> int:
    """Allocate a page of a pageblock that is otherwise free. Returns: it."""
    first, *others = whole_pageblock(stage)
    for offset in others:
        stage.free(offset)
    stage.cpus[0].drain_pages()
    return first


def taken_elsewhere(stage: Staging, *locks: Any) -> Callable[[], None]:
    """Have CPU 1 hold locks, as if it were just at work there. Returns: what lets go of them."""
    for lock in locks:
        lock.word = stage.cpus[1].number + 1  # at task level

    def release() -> None:
        for lock in locks:
            lock.word = 0

    return release


# --- allocating -------------------------------------------------------------------------------------


@operation(
    "pages_pcp",
    "a page from the page lists",
    group="pages",
    designs=PAGES,
    path={"pcp_alloc": "== 1", "pcp_refill": "== 0", "pgalloc": "== 1"},
    in_irq=True,
)
def pages_pcp(stage: Staging) -> Request:
    """A page on the CPU's list."""
    cached_page(stage)
    return stage.ask_pages()


@operation(
    "pages_refill",
    "a page, and the page lists are filled in bulk from the buddy's single pages",
    group="pages",
    designs=PAGES,
    path={"pcp_refill": "== 1", "nr_free_0": "== -4", "nr_free_1": "== 0"},
    in_irq=True,
)
def pages_refill(stage: Staging) -> Request:
    """Single pages in the buddy."""
    single_pages(stage)
    return stage.ask_pages()


@operation(
    "pages_split",
    "a page, for which the buddy splits a large block",
    group="pages",
    designs=PAGES,
    path={"pcp_refill": "== 1", "nr_free_0": "== 1", "nr_free_3": "== 1"},
)
def pages_split(stage: Staging) -> Request:
    """Nothing smaller than a pageblock."""
    drained(stage)
    return stage.ask_pages()


@operation(
    "pages_order_1",
    "two pages in a row, through the page lists, split off a large block",
    group="pages",
    designs=PAGES,
    path={"pcp_refill": "== 1", "pgalloc": "== 2", "nr_free_1": "== 1", "nr_free_0": "== 0"},
)
def pages_order_1(stage: Staging) -> Request:
    """Nothing smaller than a pageblock."""
    drained(stage)
    return stage.ask_pages(1)


@operation(
    "pages_buddy",
    "the page lists are locked, as another CPU drains them: a page from the buddy, split off a large block",
    group="pages",
    designs=PAGES,
    path={
        "pcp_busy": "== 1",
        "pcp_alloc": "== 0",
        "pgalloc": "== 1",
        "nr_free_0": "== 1",
        "nr_free_3": "== 1",
    },
    functions=("rmqueue_buddy",),
    in_irq=True,
)
def pages_buddy(stage: Staging) -> Request:
    """CPU 1 has the lists' lock; nothing is smaller than a pageblock."""
    drained(stage)
    stage.at_release.append(taken_elsewhere(stage, stage.pageset().lock))
    return stage.ask_pages()


@operation(
    "pages_claim",
    "a page, for which a pageblock of another type is claimed",
    group="pages",
    designs=PAGES,
    path={"fallback_claim": "== 1", "fallback_steal": "== 0"},
)
def pages_claim(stage: Staging) -> Request:
    """Free pageblocks, of movable pages."""
    no_unmovable(stage)
    return stage.ask_pages()


@operation(
    "pages_steal",
    "a page that is stolen from a pageblock that stays another type's",
    group="pages",
    designs=PAGES,
    path={"fallback_steal": "== 1", "fallback_claim": "== 0"},
)
def pages_steal(stage: Staging) -> Request:
    """Free pages in a pageblock that movable ones fill."""
    mixed_pageblocks(stage, 6)
    return stage.ask_pages()


@operation(
    "pages_wakes_kswapd",
    "a page below the low watermark: kswapd is woken",
    group="pages",
    designs=SPINS,
    path={"nr_kswapd_wakeups": ">= 1", "pgalloc": "== 1"},
)
def pages_wakes_kswapd(stage: Staging) -> Request:
    """As many free pages as the low watermark has."""
    until_low(stage)
    return stage.ask_pages()


@operation(
    "pages_refused",
    "no page above the watermark: NULL",
    group="pages",
    designs=PAGES,
    path={"null_below_watermark": "== 1", "pgalloc": "== 0"},
)
def pages_refused(stage: Staging) -> Request:
    """As few free pages as a request that cannot wait may take."""
    until_low(stage)
    stage.gfp = "GFP_ATOMIC"
    try:
        while True:
            stage.pages()
    except AllocationFailed:
        return stage.ask_pages()


def until_low(stage: Staging) -> None:
    """Leave as many free pages as the low watermark has, and none on this CPU's lists."""
    drained(stage)
    low = int(stage.zone().wmark[1])
    while int(stage.zone().free_pages) > low:
        no_refills(stage)
        stage.pages()


# --- freeing ----------------------------------------------------------------------------------------


@operation(
    "pages_free_pcp",
    "a page goes to the page lists",
    group="pages",
    designs=PAGES,
    path={"pgfree": "== 1", "pcp_drain": "== 0"},
    in_irq=True,
)
def pages_free_pcp(stage: Staging) -> Request:
    """Room on the CPU's list."""
    drained(stage)
    return stage.ask_free(stage.pages())


@operation(
    "pages_free_overflow",
    "a page, and the page lists overflow: pages go to the buddy, where they merge",
    group="pages",
    designs=SPINS,
    path={"pgfree": "== 1", "pcp_drain": "== 1", "nr_free_3": "== -1"},
    in_irq=True,
)
def pages_free_overflow(stage: Staging) -> Request:
    """Page lists that are full."""
    mine = stage.pages()
    full_page_lists(stage)
    return stage.ask_free(mine)


@operation(
    "pages_free_merge",
    "the page lists are locked, as another CPU drains them: a page goes to the buddy, where it merges",
    group="pages",
    designs=PAGES,
    path={"pcp_busy": "== 1", "pgfree": "== 1", "nr_free_0": "== -1", "nr_free_3": "== -1"},
    in_irq=True,
)
def pages_free_merge(stage: Staging) -> Request:
    """CPU 1 has the lists' lock; the page's pageblock is otherwise free."""
    offset = lone_page(stage)
    stage.at_release.append(taken_elsewhere(stage, stage.pageset().lock))
    return stage.ask_free(offset)


@operation(
    "pages_free_parked",
    "the page lists and the zone are locked by another CPU: a page is parked on the zone",
    group="deferred",
    designs=NOLOCK,
    path={"nr_deferred_free": "== 1", "zone_busy": "== 1", "pcp_busy": "== 1"},
)
def pages_free_parked(stage: Staging) -> Request:
    """CPU 1 has both locks."""
    offset = lone_page(stage)
    stage.at_release.append(taken_elsewhere(stage, stage.pageset().lock, stage.zone().lock))
    return stage.ask_free(offset)


@operation(
    "pages_free_unparks",
    "a page goes to the buddy, and with it what was parked on the zone",
    group="deferred",
    designs=SPINS,
    path={"nr_deferred_drained": "== 2", "pgfree": "== 1", "pcp_busy": "== 1"},
)
def pages_free_unparks(stage: Staging) -> Request:
    """Two pages parked."""
    first, *parked = whole_pageblock(stage)[:3]
    release = taken_elsewhere(stage, stage.pageset().lock, stage.zone().lock)
    for offset in parked:
        stage.free(offset, design="kmalloc_nolock")
    release()
    stage.at_release.append(taken_elsewhere(stage, stage.pageset().lock))
    return stage.ask_free(first)
