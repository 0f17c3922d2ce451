# SPDX-License-Identifier: MIT
"""failslab and fail_page_alloc: who may be made to fail, when, and in which order that is decided."""

from collections.abc import Callable

import pytest
from rig import Rig

from shmalloc import AllocationFailed
from shmalloc.faults import FaultAttr

ALWAYS = FaultAttr(probability=100, times=-1, ignore_gfp_wait=False, min_order=0)


def outcomes(count: int, call: Callable[[], int], rig: Rig, order: int | None = None) -> str:
    """Do it so often: + for each success, - for each that was made to fail."""
    text = ""
    for _ in range(count):
        try:
            rig.held[call()] = order
            text += "+"
        except AllocationFailed as failed:
            text += {"injected": "-"}.get(failed.reason, failed.reason)
    return text


def kmalloc(rig: Rig, count: int, gfp: str = "GFP_KERNEL") -> str:
    return outcomes(count, lambda: rig.cpu.kmalloc(64, gfp), rig)


def attr(**keys: int | bool) -> FaultAttr:
    settings = {"probability": 100, "times": -1, "ignore_gfp_wait": False} | keys
    return FaultAttr(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "-----------"),
        ({"probability": 0}, "+++++++++++"),
        ({"times": 3}, "---++++++++"),
        ({"times": 0}, "+++++++++++"),
        ({"interval": 3}, "++-++-++-++"),
        ({"interval": 3, "times": 2}, "++-++-+++++"),
        ({"space": 200}, "+++--------"),  # 200 > 64, 136 > 64, 72 > 64, 8
        ({"space": 64}, "-----------"),
        ({"space": 200, "interval": 2}, "++++-+-+-+-"),  # space passes before the interval counts
        ({"ignore_gfp_wait": True}, "+++++++++++"),
        ({"task_filter": True}, "+++++++++++"),
        ({"cache_filter": True}, "+++++++++++"),
    ],
)
def test_attributes(flavour: str, keys: dict[str, int], expected: str) -> None:
    with Rig.create(flavour=flavour) as rig:
        rig.arena.failslab(attr(**keys))
        assert kmalloc(rig, 11) == expected
        assert rig.telemetry().failslab == expected.count("-")
        rig.arena.failslab(None)
        rig.settle()


def test_requests_that_cannot_wait_fail_by_default() -> None:
    with Rig.create() as rig:
        rig.arena.failslab("1,100,0,-1")
        assert kmalloc(rig, 3) == "+++"
        assert kmalloc(rig, 3, "GFP_ATOMIC") == "---"
        assert kmalloc(rig, 3, "GFP_ATOMIC|__GFP_NOFAIL") == "+++"
        rig.settle()


def test_marked_tasks_and_caches() -> None:
    with Rig.create() as rig:
        rig.arena.failslab(attr(task_filter=True))
        rig.cpu.make_it_fail(True)
        assert kmalloc(rig, 2) == "--"
        rig.cpu.make_it_fail(False)
        rig.arena.failslab(attr(cache_filter=True))
        assert kmalloc(rig, 2) == "++"
        assert rig.lib.shm_fault_mark_cache(rig.cache_index(64), 1) == 0
        assert kmalloc(rig, 2) == "--"
        rig.settle()


def test_nowarn_suppresses_the_dump_not_the_fault() -> None:
    with Rig.create() as rig:
        rig.arena.failslab(attr())
        kmalloc(rig, 3)
        kmalloc(rig, 2, "GFP_KERNEL|__GFP_NOWARN")
        assert (rig.telemetry().failslab, rig.telemetry().fault_dumps) == (5, 3)
        rig.settle()


def test_fail_nth_comes_before_everything() -> None:
    """Probability 0, and a task filter: the third request fails all the same, once."""
    with Rig.create() as rig:
        rig.arena.failslab(attr(probability=0, task_filter=True))
        rig.cpu.fail_nth(3)
        assert kmalloc(rig, 5) == "++-++"
        rig.arena.failslab(attr())
        rig.cpu.fail_nth(2)
        assert kmalloc(rig, 4) == "+---"  # while it counts nothing else is asked
        rig.arena.failslab(None)
        rig.settle()


def test_a_handler_does_not_count_for_fail_nth() -> None:
    with Rig.create() as rig:
        rig.arena.failslab(attr(probability=0))
        rig.cpu.fail_nth(2)
        alloc = ("alloc", {"size": 64, "gfp": "GFP_ATOMIC"})
        rig.arm("alloc_fastpath", "irq", rig.program(alloc, design="kmalloc"))
        kmalloc(rig, 1)  # the first slab
        rig.cpu.fail_nth(2)
        assert kmalloc(rig, 2) == "+-"
        assert rig.fired() == 1
        assert rig.cpu.contexts()["irq"]["failures"] == {}
        rig.settle()


def test_nolock_objects_are_never_made_to_fail(flavour: str) -> None:
    with Rig.create(flavour=flavour) as rig:
        rig.arena.failslab(ALWAYS)
        rig.cpu.fail_nth(1)
        assert outcomes(23, lambda: rig.cpu.kmalloc_nolock(64), rig) == "+" * 23
        assert rig.cpu_state().fail_nth == 1
        rig.settle()


def test_nolock_pages_are_never_made_to_fail(flavour: str) -> None:
    with Rig.create(flavour=flavour) as rig:
        rig.arena.fail_page_alloc(ALWAYS)
        assert outcomes(5, rig.cpu.alloc_pages_nolock, rig, 0) == "+++++"
        assert outcomes(5, rig.cpu.alloc_pages, rig, 0) == "-----"
        assert rig.telemetry().fail_page_alloc == 5
        rig.settle()


def test_pages_by_order_and_highmem() -> None:
    with Rig.create() as rig:
        rig.arena.fail_page_alloc(attr(min_order=2, space=0))
        assert outcomes(2, lambda: rig.cpu.alloc_pages(1), rig, 1) == "++"
        assert outcomes(2, lambda: rig.cpu.alloc_pages(2), rig, 2) == "--"
        assert outcomes(2, lambda: rig.cpu.alloc_pages(2, "GFP_HIGHUSER"), rig, 2) == "++"
        rig.arena.fail_page_alloc(attr(space=10, min_order=0))
        assert outcomes(4, lambda: rig.cpu.alloc_pages(2), rig, 2) == "++--"  # 10 > 4, 6 > 4, 2
        rig.settle()


def test_a_slab_that_gets_no_pages_falls_back_and_then_fails() -> None:
    """The large order is made to fail, the smallest is not."""
    with Rig.create() as rig:
        rig.arena.fail_page_alloc(attr(min_order=1))
        rig.alloc()
        assert rig.counters()["order_fallback"] == 1
        rig.arena.fail_page_alloc(ALWAYS)
        rig.cpu.flush_all()
        with pytest.raises(AllocationFailed, match="injected"):
            rig.alloc(size=2048)
        rig.arena.fail_page_alloc(None)
        rig.settle()


def test_probability_is_a_share() -> None:
    with Rig.create(seed=1) as rig:
        rig.arena.failslab(attr(probability=30))
        failed = kmalloc(rig, 1009).count("-")
        assert 200 < failed < 400
        rig.settle()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2,3", r"'1,2,3': allowed is \"<interval>,<probability>,<space>,<times>\""),
        ("a,b,c,d", r"allowed is \"<interval>,<probability>"),
        ("", r"allowed is \"<interval>,<probability>"),
        ("1,101,0,1", r"probability = 101: allowed is an integer from 0 to 100"),
        ("0,10,0,1", r"interval = 0: allowed is an integer from 1"),
        ("1,10,-1,1", r"space = -1"),
        ("1,10,0,-2", r"times = -2"),
    ],
)
def test_bad_syntax_shows_the_form(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FaultAttr.parse(text)


def test_a_cache_made_while_faults_are_armed_fails_as_well(flavour: str) -> None:
    with Rig.create(flavour=flavour) as rig:
        rig.arena.failslab(ALWAYS)
        cache = rig.cpu.kmem_cache_create("late", 64)
        assert outcomes(3, cache.alloc, rig) == "---"
        rig.arena.failslab(None)
        assert outcomes(1, cache.alloc, rig) == "+"
        for offset in rig.held:
            cache.free(offset)
        rig.held.clear()
        cache.destroy()
        rig.settle()
