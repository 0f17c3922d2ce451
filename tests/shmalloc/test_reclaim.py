# SPDX-License-Identifier: MIT
"""Page cache, direct reclaim, kswapd, reserves: who is woken, what is given back, what fails and why."""

from contextlib import suppress

import pytest
from rig import Rig

from shmalloc import AllocationFailed, CpuBusy, ShmallocError
from shmalloc.kswapd import Kswapd

MIN, LOW, HIGH = range(3)
CACHE = "GFP_NOWAIT|__GFP_MOVABLE"  # reads in without reclaiming: stops at the min watermark


def fill(rig: Rig, pages: int = 1 << 20) -> int:
    """Fill memory with page cache."""
    return rig.cpu.page_cache_add(pages, CACHE)


def take_all(rig: Rig, gfp: str = "GFP_NOWAIT", most: int = 1 << 20) -> list[int]:
    """Take pages until there are none, or so many."""
    taken: list[int] = []
    with suppress(AllocationFailed):
        while len(taken) < most:
            taken.append(rig.cpu.alloc_pages(0, gfp))
    rig.held.update(dict.fromkeys(taken, 0))
    return taken


def node(rig: Rig, number: int = 0) -> object:
    return rig.arena.item("struct node", "nodes", number)


def events(rig: Rig, number: int = 0) -> dict[str, int]:
    """Events of a node that are not 0."""
    row = node(rig, number)
    names = (
        "kswapd_woken",
        "pageoutrun",
        "pgsteal_kswapd",
        "pgsteal_direct",
        "allocstall",
        "drain_all",
        "oom",
    )
    return {name: int(getattr(row, name)) for name in names if getattr(row, name)}


def test_page_cache_fills_memory_down_to_min_and_comes_back() -> None:
    with Rig.create() as rig:
        added = fill(rig)
        assert node(rig).nr_lru == rig.zone().nr_lru == added
        assert added + rig.free_pages() == rig.free_at_start
        assert rig.zone().free_pages <= rig.zone().wmark[MIN] + 1
        report = rig.report()
        assert report.ok and report.totals["pages_page_cache"] == added
        assert rig.cpu.page_cache_drop() == added
        rig.settle()


def test_direct_reclaim_gives_32_pages_back() -> None:
    with Rig.create() as rig:
        added = fill(rig)
        rig.pages()
        assert events(rig)["pgsteal_direct"] == added - node(rig).nr_lru
        assert events(rig)["allocstall"] == 1
        assert added - node(rig).nr_lru >= 32
        rig.settle()


@pytest.mark.parametrize("gfp", ["GFP_NOWAIT", "GFP_KERNEL|__GFP_NORETRY"])
def test_who_may_not_wait_reclaims_nothing(gfp: str) -> None:
    with Rig.create() as rig:
        fill(rig)
        blocking = "KERNEL" in gfp
        assert (len(take_all(rig, gfp, 3)) == 3) == blocking
        assert ("allocstall" in events(rig)) == blocking
        rig.settle()


def test_nolock_wakes_and_reclaims_nothing() -> None:
    with Rig.create() as rig, Kswapd(rig.arena, 0) as kswapd:
        taken = rig.cpu.page_cache_add(1 << 20, "__GFP_MOVABLE")  # no reclaim flag at all
        with suppress(AllocationFailed):
            while True:
                rig.pages("alloc_pages_nolock")
        assert rig.cpu.last_reason == "below_watermark"
        assert node(rig).nr_lru == taken and not kswapd.awake
        assert node(rig).kswapd_wakeups == 0 and events(rig) == {}
        rig.settle()


def test_kswapd_is_woken_below_low_and_works_up_to_high() -> None:
    with Rig.create() as rig, Kswapd(rig.arena, 0) as kswapd:
        fill(rig)
        assert kswapd.awake and node(rig).kswapd_woken == 1
        before = node(rig).nr_lru
        freed = kswapd.step()
        assert freed == before - node(rig).nr_lru == events(rig)["pgsteal_kswapd"] > 0
        assert rig.zone().free_pages > rig.zone().wmark[HIGH]
        assert not kswapd.awake and kswapd.step() == 0
        assert rig.zone().wmark_boost == 0
        rig.settle()


def test_kswapd_gives_pages_to_the_buddy_not_to_a_pageset() -> None:
    with Rig.create() as rig, Kswapd(rig.arena, 0) as kswapd:
        fill(rig)
        rig.cpu.drain_pages()
        free = rig.zone().free_pages
        freed = kswapd.step()
        assert rig.zone().free_pages == free + freed
        rig.settle()


def test_a_node_without_page_cache_is_hopeless_after_16_passes() -> None:
    with Rig.create() as rig, Kswapd(rig.arena, 0) as kswapd:
        for _ in range(23):
            take_all(rig)
            kswapd.step()
        assert node(rig).kswapd_failures == 16
        assert not kswapd.awake
        rig.settle()


def test_what_is_reclaimed_gives_a_hopeless_node_hope() -> None:
    with Rig.create() as rig:
        fill(rig)
        node(rig).kswapd_failures = 16
        rig.pages()
        assert node(rig).kswapd_failures == 0
        rig.settle()


def test_rather_another_node_than_one_whose_kswapd_is_awake() -> None:
    with Rig.create(nr_nodes=2) as rig, Kswapd(rig.arena, 0):
        offset = rig.pages()
        assert rig.page_of(offset) and rig.origin(offset) == "zone 0"
        node(rig).kswapd_state = rig.lib.KSWAPD_AWAKE
        assert rig.origin(rig.pages(order=4)) == "zone 1"
        node(rig, 1).kswapd_state = rig.lib.KSWAPD_AWAKE  # all are: then it does not matter
        assert rig.origin(rig.pages(order=4)) == "zone 0"
        node(rig).kswapd_state = node(rig, 1).kswapd_state = rig.lib.KSWAPD_ASLEEP
        node(rig, 1).kswapd_state = rig.lib.KSWAPD_NONE
        rig.settle()


def test_direct_reclaim_drains_the_lists_of_all_cpus() -> None:
    """What is left is on CPU 1's lists; a block of 16 pages can be had only when they are in the buddy."""
    with Rig.create() as rig:
        for offset in take_all(rig)[:-64]:
            rig.cpus[1].free_pages_nolock(offset)  # stays on the lists, however many there are
            rig.held.pop(offset)
        assert rig.cpu.page_cache_add(5, "GFP_KERNEL|__GFP_MEMALLOC|__GFP_MOVABLE") == 5
        rig.pages(order=4)
        assert events(rig)["drain_all"] == 1
        rig.settle()


def test_costly_requests_do_not_loop_unless_they_may_fail() -> None:
    with Rig.create() as rig:
        fill(rig)
        rig.cpu.page_cache_drop()
        held = [rig.cpu.alloc_pages(0, "GFP_NOWAIT") for _ in range(rig.free_at_start // 2)]
        for offset in held[::2]:
            rig.cpu.free_pages(offset)
        rig.held.update(dict.fromkeys(held[1::2], 0))
        fill(rig)
        with pytest.raises(AllocationFailed, match="below_watermark"):
            rig.cpu.alloc_pages(10)
        once = events(rig)["allocstall"]
        with pytest.raises(AllocationFailed, match="below_watermark"):
            rig.cpu.alloc_pages(10, "GFP_KERNEL|__GFP_RETRY_MAYFAIL")
        assert events(rig)["allocstall"] - once >= 1
        assert "oom" not in events(rig)
        rig.settle()


def test_failing_where_the_kernel_would_kill_is_counted() -> None:
    with Rig.create() as rig:
        rig.exhaust(0)
        oom = events(rig).get("oom", 0)
        with pytest.raises(AllocationFailed, match="below_watermark"):
            rig.cpu.alloc_pages(0)
        assert events(rig)["oom"] == oom + 1
        for gfp in ("GFP_ATOMIC", "GFP_KERNEL|__GFP_RETRY_MAYFAIL", "GFP_KERNEL|__GFP_NORETRY"):
            take_all(rig, gfp)
        assert events(rig)["oom"] == oom + 1
        rig.settle()


def test_a_request_that_must_not_fail_waits_until_somebody_frees() -> None:
    with Rig.create() as rig:
        block = rig.pages(order=4)  # too large for a page list
        rig.exhaust(0)
        mark = rig.zone().wmark[MIN]
        while rig.zone().free_pages > mark - mark // 2:
            rig.held[rig.cpu.alloc_pages(0, "GFP_KERNEL|__GFP_NOFAIL")] = 0
        program = rig.program("free", holds=[block], orders=[4], design="kmalloc")
        rig.arm("reclaim_retry", "other_cpu", program, nth=3)
        rig.held[rig.cpu.alloc_pages(0, "GFP_KERNEL|__GFP_NOFAIL")] = 0
        assert rig.fired() == 1
        rig.disarm()
        rig.settle()


# --- the reserves -----------------------------------------------------------------------------------------


def test_a_task_that_frees_memory_may_use_all_of_it_and_the_slab_knows() -> None:
    with Rig.create() as rig:
        rig.exhaust(0)
        with pytest.raises(AllocationFailed):
            rig.alloc()
        with rig.cpu.memalloc():
            offset = rig.alloc()
        assert rig.page_of(offset).flags & rig.lib.PG_pfmemalloc
        rig.alloc()  # the fast path does not ask who is entitled
        rig.cpu.flush_all()
        with pytest.raises(AllocationFailed, match="pfmemalloc"):
            rig.alloc()
        with rig.cpu.memalloc():
            rig.alloc()
        rig.settle()


def test_nolock_uses_a_cpu_slab_of_the_reserves_but_no_partial_one() -> None:
    with Rig.create() as rig:
        rig.exhaust(0)
        with rig.cpu.memalloc():
            rig.alloc()
        rig.alloc("kmalloc_nolock")
        rig.cpu.flush_all()
        with pytest.raises(AllocationFailed, match="pfmemalloc"):
            rig.alloc("kmalloc_nolock")
        rig.settle()


def test_nomemalloc_outweighs_everything() -> None:
    with Rig.create() as rig:
        rig.exhaust(0)
        with rig.cpu.memalloc(), pytest.raises(AllocationFailed, match="below_watermark"):
            rig.cpu.alloc_pages(0, "GFP_KERNEL|__GFP_MEMALLOC|__GFP_NOMEMALLOC")
        rig.settle()


def test_the_interrupts_of_such_a_task_are_not_entitled() -> None:
    with Rig.create() as rig:
        rig.exhaust(0)
        page = ("pages_alloc", {"order": 0, "gfp": "GFP_NOWAIT"})
        with rig.cpu.memalloc():
            rig.arm("pcp_locked", "irq", rig.program(page, design="kmalloc"))
            rig.pages()
        assert rig.cpu.contexts()["irq"]["failures"] == {"below_watermark": 1}
        rig.settle()


def test_urgent_blocks_keep_a_pageblock() -> None:
    """One hundredth of the zone at most, in whole pageblocks; forced out only where nothing else helps."""
    with Rig.create(size="24MiB") as rig:
        fill(rig)
        rig.held[rig.cpu.alloc_pages(1, "GFP_ATOMIC")] = 1
        zone = rig.zone()
        block, hundredth = 1 << 5, int(zone.managed_pages) // 100
        assert hundredth >= block
        assert zone.nr_reserved_highatomic == block
        rig.settle()


# --- ops of a workload ------------------------------------------------------------------------------------


def test_an_op_reads_page_cache_in_for_which_older_page_cache_is_reclaimed() -> None:
    with Rig.create() as rig:
        read = ("page_cache", {"size": 101, "gfp": "GFP_HIGHUSER_MOVABLE"})
        rig.replay(read, max_ops=1)
        assert node(rig).nr_lru == 101
        rounds = rig.free_at_start // 101 + 23
        rig.replay(read, max_ops=rounds)
        assert node(rig).page_cache_added == 101 * (rounds + 1)
        assert node(rig).nr_lru == node(rig).page_cache_added - node(rig).pgsteal_direct
        assert node(rig).pgsteal_direct > 0
        rig.settle()


def test_with_irqs_off_and_in_handlers_nothing_is_read() -> None:
    with Rig.create() as rig:
        read = ("page_cache", {"size": 23, "gfp": "GFP_HIGHUSER_MOVABLE"})
        rig.replay("irq_off", read, "irq_on", max_ops=3)
        rig.arm("zone_locked", "nmi", rig.program(read))
        rig.pages(order=4)
        assert rig.fired() == 1 and node(rig).nr_lru == 0
        rig.settle()


def test_no_memcg_is_charged_for_page_cache() -> None:
    """So kswapd, which has no stocks, has nothing to uncharge."""
    with Rig.create(max_memcgs=2) as rig, Kswapd(rig.arena, 0) as kswapd:
        memcg = rig.cpu.memcg_create("shop")
        rig.cpu.memcg_enter(memcg)
        rig.cpu.page_cache_add(1 << 20, f"{CACHE}|__GFP_ACCOUNT")
        assert memcg.usage_pages == 0
        assert kswapd.step() > 0
        rig.cpu.page_cache_drop()
        rig.cpu.memcg_enter(None)
        rig.settle()


def test_more_than_all_memory_is_not_read() -> None:
    with Rig.create() as rig:
        most = int(rig.arena.header.nr_pages)
        with pytest.raises(ValueError, match=f"op 0: size = {most + 1}: allowed is less than {most + 1}"):
            rig.program(("page_cache", {"size": most + 1}))
        rig.settle()


# --- misuse -----------------------------------------------------------------------------------------------


def test_a_node_has_one_kswapd() -> None:
    with Rig.create() as rig:
        first = Kswapd(rig.arena, 0)
        with pytest.raises(CpuBusy, match="has a kswapd"):
            Kswapd(rig.arena, 0)
        first.close()
        first.close()
        with pytest.raises(ShmallocError, match="kswapd of node 1"):
            Kswapd(rig.arena, 1)
        with pytest.raises(ShmallocError, match="kswapd of node -1"):
            Kswapd(rig.arena, -1)
        Kswapd(rig.arena, 0).close()
        with pytest.raises(ShmallocError):
            first.step()


def test_a_page_that_has_left_the_lru_list_is_found() -> None:
    with Rig.create() as rig:
        fill(rig, 23)
        lost = rig.arena.region("pages")
        pfn = int((lost["flags"] & rig.lib.PG_lru).argmax())
        lost["flags"][pfn] = rig.lib.PG_allocated
        report = rig.report()
        assert report.verdict == "corruption"
        assert any("nr_lru" in problem.text or "LRU" in problem.text for problem in report.problems)
        lost["flags"][pfn] = rig.lib.PG_lru
        node(rig).nr_lru += 1
        assert any("nr_lru is 24, counted are 23" in problem.text for problem in rig.report().problems)
        node(rig).nr_lru -= 1
        rig.settle()
