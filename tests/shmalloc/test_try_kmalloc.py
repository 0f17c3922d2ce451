# SPDX-License-Identifier: MIT
"""The plan of the talk, line by line, each beside what was merged; and why its letter is not enough in NMI."""

from collections.abc import Callable

import pytest
from rig import A_BYTES, PER_SLAB, Rig
from windows import NOLOCK, PLAN, cpu_slab, debug_partial, full_slab, node_partial, remote_frees

from shmalloc import AllocationFailed

DESIGNS = (PLAN, NOLOCK)


def moved(rig: Rig, design: str, count: int, **keys: int) -> dict[str, int]:
    """Allocate so many objects of bucket A; returns the counters that moved."""
    before = rig.counters()
    for _ in range(count):
        rig.alloc(design, **keys)
    return rig.telling(before)


def refused(rig: Rig, design: str, **keys: int) -> str:
    with pytest.raises(AllocationFailed) as caught:
        rig.alloc(design, **keys)
    return caught.value.reason


def test_no_get_partial() -> None:
    """The node has a slab with a free object: the merge takes it, the plan takes pages."""
    expected = {
        PLAN: {"alloc_slowpath": 1, "alloc_slab": 1},
        NOLOCK: {"alloc_slowpath": 1, "alloc_from_partial": 1},
    }
    for design, counts in expected.items():
        with Rig.create() as rig:
            node_partial(rig)
            assert moved(rig, design, 1) == counts
            assert rig.cache_node().nr_partial == (design == PLAN)
            rig.settle()


def test_partial_slabs_pile_up() -> None:
    """Five slabs with one object left in each, flushed: the next 23 objects need new slabs only by the plan."""
    slabs = {}
    for design in DESIGNS:
        with Rig.create() as rig:
            objects = rig.take(5 * PER_SLAB)
            for at, offset in enumerate(objects):
                if at % PER_SLAB:
                    rig.free(offset)
            rig.cpu.flush_all()
            assert rig.cache_node().nr_partial == 5
            slabs[design] = moved(rig, design, 23).get("alloc_slab", 0), int(rig.cache_node().nr_slabs)
            rig.settle()
    assert slabs == {PLAN: (2, 7), NOLOCK: (0, 5)}


def node_of(rig: Rig, offset: int) -> int:
    memory = rig.arena.header.regions[rig.lib.REGION_MEMORY].offset
    return int(offset - memory >= rig.arena.header.nr_pages // 2 * rig.lib.SHM_PAGE_SIZE)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_node_is_ignored(design: str) -> None:
    """The merge ignores the node where a cpu slab stands in the way, and asks for it otherwise; the plan never asks."""
    with Rig.create(nr_nodes=2) as rig:
        assert node_of(rig, rig.alloc(design, node=1)) == (design == NOLOCK)
        rig.cpu.flush_all()
        rig.free(rig.alloc(node=0))  # now there is a cpu slab, of node 0
        assert [node_of(rig, rig.alloc(design, node=1)) for _ in range(17)] == [0] * 17
        assert rig.counters()["alloc_node_mismatch"] == 0
        rig.settle()


def test_pfmemalloc_mismatch_is_enomem() -> None:
    """A cpu slab of the reserves, used up and refilled by a remote free: the merge uses it all the same."""
    for design in DESIGNS:
        with Rig.create() as rig:
            state = remote_frees(rig)
            page = rig.page_of(state.ready[0])
            page.flags |= rig.lib.PG_pfmemalloc
            if design == PLAN:
                assert refused(rig, design) == "pfmemalloc"
            else:
                assert moved(rig, design, 1) == {"alloc_slowpath": 1, "alloc_refill": 1}
            page.flags &= ~rig.lib.PG_pfmemalloc
            rig.settle()


def test_a_pfmemalloc_slab_of_the_cpu_partial_list_is_enomem_and_stays_there() -> None:
    with Rig.create() as rig:
        state = full_slab(rig)
        rig.free(state.elsewhere.pop())
        page = rig.page_of(state.elsewhere[0])
        page.flags |= rig.lib.PG_pfmemalloc
        assert refused(rig, PLAN) == "pfmemalloc"
        page.flags &= ~rig.lib.PG_pfmemalloc
        assert moved(rig, PLAN, 1) == {"alloc_slowpath": 1, "cpu_partial_alloc": 1}
        rig.settle()


def test_debug_caches_work_with_a_slab_for_each_object() -> None:
    """Only get_partial() would look at the slabs that there are."""
    expected = {
        PLAN: ({"alloc_slowpath": 23, "alloc_slab": 23}, 24),
        NOLOCK: ({"alloc_slowpath": 23, "alloc_slab": 1}, 2),
    }
    for design, (counts, slabs) in expected.items():
        with Rig.create(size="8MiB", slab_debug=0x1) as rig:
            debug_partial(rig)
            assert moved(rig, design, 23) == counts
            assert rig.cache_node().nr_slabs == slabs
            rig.settle()


@pytest.mark.parametrize("size", [8, 96, 1024, 8192])
def test_without_cmpxchg_double_both_refuse(size: int) -> None:
    with Rig.create(cmpxchg_double=False) as rig:
        for design in DESIGNS:
            assert refused(rig, design, size=size) == "context_refused"
        rig.settle()


def test_without_cmpxchg_double_the_plan_s_fast_path_is_as_ever() -> None:
    """get_freelist() is what needs it: objects that somebody else has left on the cpu slab are there for all."""
    with Rig.create(cmpxchg_double=False) as rig:
        cpu_slab(rig)  # ten are left
        assert moved(rig, PLAN, 10) == {"alloc_fastpath": 10}
        assert refused(rig, PLAN) == "context_refused"
        assert refused(rig, NOLOCK) == "context_refused"
        rig.settle()


def test_debug_caches_need_no_cmpxchg_double() -> None:
    with Rig.create(slab_debug=0x1, cmpxchg_double=False) as rig:
        assert moved(rig, PLAN, 2) == {"alloc_slowpath": 2, "alloc_slab": 2}
        rig.settle()


def test_an_arena_without_cpu_slabs_is_refused() -> None:
    with Rig.create(kernel="7.0") as rig:
        assert refused(rig, PLAN) == "context_refused"
        rig.settle()


def test_sizes() -> None:
    with Rig.create() as rig:
        assert rig.cpu.design(PLAN).alloc(0) == 16
        rig.alloc(PLAN, size=8192)
        assert refused(rig, PLAN, size=8193) == "size_limit"
        rig.settle()


def test_orders_above_three_are_not_for_try_alloc_pages() -> None:
    """A cache whose usual slab is of order 4 falls back to the smallest order that holds an object."""
    with Rig.create(slab_min_order=4, slab_max_order=4) as rig:
        assert moved(rig, PLAN, 1, size=64) == {"alloc_slowpath": 1, "alloc_slab": 1, "order_fallback": 1}
        cache = rig.cpu.kmem_cache_create("large", 40_000)
        with pytest.raises(AllocationFailed, match="order_limit"):
            rig.cpu.design(PLAN).cache_alloc(cache)
        cache.destroy()
        rig.settle()


def test_zeroed_and_named_caches() -> None:
    with Rig.create() as rig, rig.cpu.kmem_cache_create("named", 96) as cache:
        plan = rig.cpu.design(PLAN)
        offset = plan.cache_alloc(cache)
        rig.cpu.view(offset)[:] = b"x" * 96
        plan.free(offset)
        offset = plan.cache_alloc(cache, "__GFP_ZERO")
        assert bytes(rig.cpu.view(offset)) == bytes(96)
        plan.free(offset)
        plan.pages_free(plan.pages_alloc(2), 2)


# --- the fast path in NMI -----------------------------------------------------------------------------------


def taken_twice(rig: Rig) -> None:
    """While the slow path has its lock, one NMI frees an object to the cpu slab and the next one takes it."""
    state = remote_frees(rig)
    rig.arm("cpu_slab_irq_off", "nmi", rig.program("free", holds=[state.ready[-1]], design=PLAN))
    rig.arm("cpu_slab_editing", "nmi", rig.program(("alloc", {"size": A_BYTES}), design=PLAN))
    rig.alloc(PLAN)
    assert rig.fired() == 2


def given_back_and_overwritten(rig: Rig) -> None:
    """The freelist is in the slow path's hands, the cpu slab's is empty: what an NMI puts there is overwritten."""
    state = remote_frees(rig)
    rig.arm("cpu_slab_editing", "nmi", rig.program("free", holds=[state.ready[-1]], design=PLAN))
    rig.alloc(PLAN)
    assert rig.fired() == 1


def test_the_letter_of_the_plan_hands_out_an_object_twice() -> None:
    with Rig.create(broken="k42") as rig:
        taken_twice(rig)
        (violation,) = rig.violations()
        assert (violation.verdict, violation.checker) == ("corruption", "oracle")


def test_the_letter_of_the_plan_loses_an_object() -> None:
    with Rig.create(broken="k42") as rig:
        given_back_and_overwritten(rig)
        (problem,) = rig.report().problems
        assert problem.verdict == "lost_memory"


@pytest.mark.parametrize("scenario", [taken_twice, given_back_and_overwritten])
def test_the_design_is_safe(scenario: Callable[[Rig], None]) -> None:
    with Rig.create() as rig:
        scenario(rig)
        rig.settle()
