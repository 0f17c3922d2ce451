# SPDX-License-Identifier: MIT
"""Memory cgroups: what a charge costs and where it is kept, limits, hierarchy, and a memcg's life."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shmalloc import AllocationFailed, Arena, Cpu, MemCgroup, ShmallocError
from shmalloc.audit import audit
from shmalloc.memcg import memcg_of, memcgs

PAGE = 4096
KERNEL, ATOMIC = "GFP_KERNEL|__GFP_ACCOUNT", "GFP_ATOMIC|__GFP_ACCOUNT"
NOWAIT, NOLOCK = "GFP_NOWAIT|__GFP_ACCOUNT", "__GFP_ACCOUNT"


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.create(size="8MiB", nr_cpus=2, nr_nodes=2, pageblock_order=5, flavour="checked") as made:
        yield made
        assert not made.violations()
        report = audit(made)
        assert report.ok, report.problems


@pytest.fixture
def cpu(arena: Arena) -> Iterator[Cpu]:
    with Cpu(arena, 0, handlers=False) as made:
        yield made
        made.memcg_drain()


@pytest.fixture
def memcg(cpu: Cpu) -> MemCgroup:
    made = cpu.memcg_create("shop")
    cpu.memcg_enter(made)
    return made


# --- objects ---------------------------------------------------------------------------------------


def test_the_first_object_charges_a_batch_and_leaves_the_rest_to_the_stocks(
    cpu: Cpu, memcg: MemCgroup
) -> None:
    cpu.kmalloc(100, KERNEL)  # of kmalloc-cg-128: 128 bytes and 8 for the pointer
    stock = cpu.memcg_stocks()
    assert (memcg.usage_pages, stock.pages, stock.objcg) == (64, {memcg.id: 63}, memcg.id)
    assert (stock.nr_bytes, stock.slab_bytes, memcg.kmem_pages) == (PAGE - 136, (0, 136), 1)


@pytest.mark.parametrize("size", [8, 64, 100, 192, 1000, 4096, 8192])
def test_so_many_objects_take_so_many_pages(cpu: Cpu, memcg: MemCgroup, size: int) -> None:
    for _ in range(101):
        cpu.kmalloc(size, KERNEL)
    slot = cpu.cache(f"kmalloc-cg-{_class(size)}").info().size + 8
    taken, rest = 0, 0
    for _ in range(101):  # a page's rest that does not hold the next object stays where it is, and counts
        if rest < slot:
            pages = -(-slot // PAGE)
            taken, rest = taken + pages, rest + pages * PAGE
        rest -= slot
    assert (memcg.kmem_pages, cpu.memcg_stocks().nr_bytes) == (taken, rest)
    assert memcg.usage_pages == -(-taken // 64) * 64


def _class(size: int) -> str:
    bucket = next(
        bucket for bucket in (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 4096, 8192) if bucket >= size
    )
    return f"{bucket >> 10}k" if bucket >= 1024 else str(bucket)


def test_a_nolock_charge_takes_no_batch(cpu: Cpu, memcg: MemCgroup) -> None:
    for _ in range(31):  # 30 objects of 136 bytes fit a page
        cpu.kmalloc_nolock(100, NOLOCK)
    assert (memcg.usage_pages, cpu.memcg_stocks().pages) == (2, {})


def test_an_object_that_is_freed_gives_its_bytes_to_the_stock_and_whole_pages_beyond(
    cpu: Cpu, memcg: MemCgroup
) -> None:
    held = [cpu.kmalloc(4000, KERNEL) for _ in range(3)]  # 4104 bytes each: two pages the first time
    assert (memcg.kmem_pages, cpu.memcg_stocks().nr_bytes) == (4, 4 * PAGE - 3 * 4104)
    for offset in held:
        cpu.kfree(offset)
    # more than a page is there after each of them, and after the last no more than whole pages
    assert (memcg.kmem_pages, cpu.memcg_stocks().nr_bytes) == (0, 0)
    cpu.memcg_drain()
    assert (memcg.usage_pages, memcg.kmem_pages, memcg.slab_bytes()) == (0, 0, (0, 0))


def test_only_what_asks_for_it_is_charged(cpu: Cpu, memcg: MemCgroup) -> None:
    cpu.kmalloc(100)
    cpu.kmalloc_nolock(100)
    cpu.alloc_pages(0)
    assert memcg.usage_pages == 0
    cache = cpu.kmem_cache_create("always", 100, flags="SLAB_ACCOUNT")
    cache.alloc()
    assert memcg.usage_pages == 64


def test_outside_of_any_memcg_nothing_is_charged(cpu: Cpu, memcg: MemCgroup) -> None:
    cpu.memcg_enter(None)
    cpu.kmalloc(100, KERNEL)
    assert memcg.usage_pages == 0


def test_another_memcg_may_pay_for_a_while(cpu: Cpu, memcg: MemCgroup) -> None:
    other = cpu.memcg_create("other")
    with cpu.memcg_active(other):
        cpu.kmalloc(100, KERNEL)
    assert (memcg.usage_pages, other.usage_pages) == (0, 64)
    cpu.kmalloc(100, KERNEL)
    assert (memcg.usage_pages, other.usage_pages) == (64, 64)


def test_bytes_in_slabs_are_known_by_node_and_kind(cpu: Cpu, memcg: MemCgroup) -> None:
    for node in (0, 1):
        cpu.kmalloc(100, KERNEL, node)
        cpu.kmalloc(200, KERNEL + "|__GFP_RECLAIMABLE", node)
    assert memcg.slab_bytes(0) == (264, 136)  # told when the stock turned to node 1
    assert (memcg.slab_bytes(1), cpu.memcg_stocks().slab_bytes) == ((0, 0), (264, 136))
    cpu.memcg_drain()
    assert memcg.slab_bytes() == (528, 272)


def test_the_rest_that_another_cpu_left_is_found_again(arena: Arena, cpu: Cpu, memcg: MemCgroup) -> None:
    cpu.kmalloc(100, KERNEL)
    cpu.memcg_drain()
    assert memcg.pending_bytes == PAGE - 136
    with Cpu(arena, 1, handlers=False) as second:
        second.memcg_enter(memcg)
        second.kmalloc(
            100, KERNEL
        )  # charges a page of its own, takes over what is pending, gives a page back
        assert (memcg.pending_bytes, second.memcg_stocks().nr_bytes) == (0, PAGE - 2 * 136)
        assert memcg.kmem_pages == 1
        second.memcg_enter(None)


# --- blocks of pages -------------------------------------------------------------------------------


def test_a_block_is_charged_and_its_pages_are_stocked_when_it_goes(cpu: Cpu, memcg: MemCgroup) -> None:
    block = cpu.alloc_pages(2, KERNEL)
    assert (memcg.usage_pages, memcg.kmem_pages, cpu.memcg_stocks().pages) == (64, 4, {memcg.id: 60})
    cpu.free_pages(block, 2)
    assert (memcg.usage_pages, memcg.kmem_pages, cpu.memcg_stocks().pages) == (64, 0, {memcg.id: 64})


def test_a_slot_that_holds_more_than_a_batch_is_emptied(cpu: Cpu, memcg: MemCgroup) -> None:
    blocks = [cpu.alloc_pages(0, KERNEL), *(cpu.alloc_pages_nolock(0, NOLOCK) for _ in range(64))]
    assert (memcg.usage_pages, cpu.memcg_stocks().pages) == (65, {memcg.id: 0})
    for block in blocks[:64]:
        cpu.free_pages(block)
    assert (memcg.usage_pages, cpu.memcg_stocks().pages) == (65, {memcg.id: 64})
    cpu.free_pages(blocks[64])  # 65 are too many: all of them go back
    assert (memcg.usage_pages, cpu.memcg_stocks().pages) == (0, {})


def test_a_block_larger_than_a_batch_is_charged_and_uncharged_directly(cpu: Cpu, memcg: MemCgroup) -> None:
    block = cpu.alloc_pages(5, KERNEL)
    large = cpu.kmalloc(7 << PAGE.bit_length() - 1, KERNEL)
    assert memcg.kmem_pages == 32 + 8
    cpu.free_pages(block, 5)
    cpu.kfree(large)
    assert memcg.kmem_pages == 0


def test_an_eighth_memcg_evicts_one_of_seven(cpu: Cpu) -> None:
    groups = [cpu.memcg_create(f"g{number}") for number in range(9)]
    for group in groups[:7]:
        with cpu.memcg_active(group):
            cpu.alloc_pages(0, KERNEL)
    assert cpu.memcg_stocks().pages == {group.id: 63 for group in groups[:7]}
    for group in groups[7:]:
        with cpu.memcg_active(group):
            cpu.alloc_pages(0, KERNEL)
    assert cpu.memcg_stocks().pages == {group.id: 63 for group in [*groups[7:], *groups[2:7]]}
    assert [group.usage_pages for group in groups] == [1, 1, 64, 64, 64, 64, 64, 64, 64]
    assert cpu.counters()["memcg_stock_evict"] == 2


# --- limits ----------------------------------------------------------------------------------------


def until_refused(cpu: Cpu, gfp: str, *, nolock: bool = False) -> tuple[int, str]:
    for count in range(10_000):
        try:
            cpu.alloc_pages_nolock(0, gfp) if nolock else cpu.alloc_pages(0, gfp)
        except AllocationFailed as failed:
            return count, failed.reason
    return 10_000, "never"


@pytest.mark.parametrize("pages", [1, 63, 64, 65, 101])
def test_a_limit_is_exact_whoever_asks(cpu: Cpu, memcg: MemCgroup, pages: int) -> None:
    cpu.memcg_limit(memcg, max_bytes=pages * PAGE)
    assert until_refused(cpu, KERNEL) == (pages, "memcg_limit")
    assert until_refused(cpu, NOWAIT) == (0, "memcg_limit")
    assert until_refused(cpu, NOLOCK, nolock=True) == (0, "memcg_limit")
    assert memcg.usage_pages == memcg.watermark_pages == pages


def test_who_may_block_is_refused_after_sixteen_rounds(cpu: Cpu, memcg: MemCgroup) -> None:
    cpu.memcg_limit(memcg, max_bytes=0)
    assert until_refused(cpu, KERNEL) == (0, "memcg_limit")
    # once, once more after the stocks were drained, and 16 retries; the batch was refused before
    assert (memcg.events()["max"], memcg.events()["oom"], memcg.failcnt) == (18, 1, 19)
    assert cpu.counters()["memcg_drain_all"] == 1


@pytest.mark.parametrize(
    ("gfp", "events"),
    [(NOWAIT, {}), (KERNEL + "|__GFP_NORETRY", {"max": 2}), (KERNEL + "|__GFP_RETRY_MAYFAIL", {"max": 18})],
)
def test_events_by_kind_of_request(cpu: Cpu, memcg: MemCgroup, gfp: str, events: dict[str, int]) -> None:
    cpu.memcg_limit(memcg, max_bytes=0)
    assert until_refused(cpu, gfp) == (0, "memcg_limit")
    assert {name: count for name, count in memcg.events().items() if count} == events


@pytest.mark.parametrize("flag", ["GFP_ATOMIC", "GFP_KERNEL|__GFP_NOFAIL", "GFP_NOWAIT|__GFP_NOFAIL"])
def test_some_requests_exceed_the_limit(cpu: Cpu, memcg: MemCgroup, flag: str) -> None:
    cpu.memcg_limit(memcg, max_bytes=0)
    for _ in range(3):
        cpu.alloc_pages(0, flag + "|__GFP_ACCOUNT")
    assert memcg.usage_pages == 3
    assert memcg.events()["max"] >= 3
    assert memcg.notifications == (memcg.events()["max"] + memcg.events()["oom"], 0)


def test_a_refused_object_is_free_again(cpu: Cpu, memcg: MemCgroup) -> None:
    cpu.memcg_limit(memcg, max_bytes=0)
    for gfp in (KERNEL, NOWAIT):
        with pytest.raises(AllocationFailed, match="memcg_limit"):
            cpu.kmalloc(100, gfp)
    with pytest.raises(AllocationFailed, match="memcg_limit"):
        cpu.kmalloc_nolock(100, NOLOCK)
    assert cpu.counters()["memcg_abort"] == 3
    assert audit(cpu.arena, expect_live=False).ok


def test_what_stocks_hold_is_drained_before_a_charge_is_refused(
    arena: Arena, cpu: Cpu, memcg: MemCgroup
) -> None:
    cpu.memcg_limit(memcg, max_bytes=65 * PAGE)
    with Cpu(arena, 1, handlers=False) as second:
        second.memcg_enter(memcg)
        second.alloc_pages(0, KERNEL)
        assert second.memcg_stocks().pages == {memcg.id: 63}
        assert until_refused(cpu, KERNEL) == (64, "memcg_limit")
        assert second.memcg_stocks().pages == {}
        second.memcg_enter(None)


def test_the_error_of_usage_is_bounded_by_the_stocks(arena: Arena, cpu: Cpu) -> None:
    groups = [cpu.memcg_create(f"g{number}") for number in range(7)]
    with Cpu(arena, 1, handlers=False) as second:
        for group in groups:
            for each in (cpu, second):
                with each.memcg_active(group):
                    blocks = [each.alloc_pages(0, KERNEL)]
                    each.free_pages(blocks.pop())
        assert sum(group.usage_pages for group in groups) == 64 * 7 * 2
        assert sum(group.kmem_pages for group in groups) == 0


# --- hierarchy -------------------------------------------------------------------------------------


def test_a_charge_counts_at_every_level_and_any_level_may_refuse_it(cpu: Cpu) -> None:
    top = cpu.memcg_create("top", max_bytes=100 * PAGE)
    left, right = cpu.memcg_create("left", top), cpu.memcg_create("right", top, max_bytes=30 * PAGE)
    cpu.memcg_enter(right)
    assert until_refused(cpu, NOLOCK, nolock=True) == (30, "memcg_limit")
    cpu.memcg_enter(left)
    assert until_refused(cpu, NOLOCK, nolock=True) == (70, "memcg_limit")
    assert [group.usage_pages for group in (top, left, right)] == [100, 70, 30]
    assert [group.failcnt for group in (top, left, right)] == [1, 0, 1]
    cpu.alloc_pages(0, ATOMIC)
    assert [group.events()["max"] for group in (top, left, right)] == [1, 0, 0]
    assert top.events(local=True)["max"] == 1
    assert [group.usage_pages for group in (top, left, right)] == [101, 71, 30]


def test_above_high_a_task_pays_and_an_interrupt_leaves_it_to_a_worker(cpu: Cpu, memcg: MemCgroup) -> None:
    cpu.memcg_limit(memcg, high_bytes=PAGE)
    cpu.alloc_pages(0, KERNEL)  # 64 pages over: not yet too many to be paid for later
    assert cpu.counters()["memcg_high_throttle"] == 0
    cpu.memcg_run_work()  # on the return to user space
    assert (cpu.counters()["memcg_high_throttle"], memcg.events()["high"]) == (1, 1)


# --- lives -----------------------------------------------------------------------------------------


def test_a_destroyed_memcg_lives_on_until_the_last_object(cpu: Cpu) -> None:
    top = cpu.memcg_create("top")
    below = cpu.memcg_create("below", top)
    with cpu.memcg_active(below):
        first, second = cpu.kmalloc(100, KERNEL), cpu.kmalloc(100, KERNEL)
    cpu.memcg_destroy(below)
    assert below.is_dying
    assert (top.usage_pages, cpu.memcg_stocks().pages) == (1, {})
    cpu.kfree(first)
    cpu.kfree(second)
    assert below.is_dying  # this CPU's obj_stock still refers to it
    cpu.memcg_drain()
    assert [group.name for group in memcgs(cpu.arena)] == ["top"]
    assert top.usage_pages == top.kmem_pages == 0


def test_what_is_in_use_is_not_destroyed(cpu: Cpu, memcg: MemCgroup) -> None:
    below = cpu.memcg_create("below", memcg)
    for group in (memcg, below):
        cpu.memcg_enter(below)
        with pytest.raises(ShmallocError, match="memcgs below it, or some CPU runs in it"):
            cpu.memcg_destroy(group)
    cpu.memcg_enter(None)
    cpu.memcg_destroy(below)
    cpu.memcg_destroy(memcg)
    assert memcgs(cpu.arena) == []


@pytest.mark.parametrize("name", ["", "two words", "x" * 32])
def test_a_bad_name_is_refused(cpu: Cpu, name: str) -> None:
    with pytest.raises(ShmallocError, match="more than 31 bytes"):
        cpu.memcg_create(name)


def test_names_and_the_table_are_limited(cpu: Cpu, memcg: MemCgroup) -> None:
    with pytest.raises(ShmallocError, match="a memcg has that name"):
        cpu.memcg_create("shop")
    for number in range(15):
        cpu.memcg_create(f"g{number}")
    with pytest.raises(ShmallocError, match="max_memcgs"):
        cpu.memcg_create("one-too-many")
    assert memcg_of(cpu.arena, "g3").path == "/g3"
    with pytest.raises(ShmallocError, match="there are shop, g0"):
        memcg_of(cpu.arena, "g99")


def test_without_a_table_accounting_is_nothing(flavour: str) -> None:
    with (
        Arena.create(size="8MiB", nr_cpus=1, pageblock_order=5, max_memcgs=0, flavour=flavour) as made,
        Cpu(made, 0, handlers=False) as cpu,
    ):
        with pytest.raises(ShmallocError, match="max_memcgs"):
            cpu.memcg_create("none")
        cpu.kfree(cpu.kmalloc(100, KERNEL))
        cpu.free_pages(cpu.alloc_pages(0, KERNEL))
        assert audit(made, expect_live=False).ok
