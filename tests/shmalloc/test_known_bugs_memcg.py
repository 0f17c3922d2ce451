# SPDX-License-Identifier: MIT
"""Known bugs of memcg charging (K-05, K-15, K-21, K-25, K-26, K-27, one of ours), and the two hypotheses about it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from controls import Control, assert_caught, assert_silent, name_of, nmi
from rig import Rig

from shmalloc import MemCgroup, ShmallocError
from shmalloc.memcg import memcgs

ACCOUNT, NOLOCK = "GFP_KERNEL|__GFP_ACCOUNT", "__GFP_ACCOUNT"
CHARGED_PAGES = ("pages_alloc", {"order": 0, "gfp": NOLOCK})
CHARGED = ("alloc", {"size": 100, "gfp": NOLOCK})


def interrupts_pay(rig: Rig, name: str = "nmi", **limits: int) -> MemCgroup:
    """A memcg that this CPU's interrupts are charged to."""
    made = rig.cpu.memcg_create(name, **limits)
    rig.cpu.memcg_interrupts(made)
    return made


def warm(rig: Rig, size: int = 100) -> None:
    """Have a slab with a vector, and free objects on it."""
    rig.cpu.kfree(rig.cpu.kmalloc(size, ACCOUNT))


def failed_vector(rig: Rig) -> None:
    """A slab without a vector, and no memory for one: an object stays uncharged, and all objects go."""
    objects = [rig.cpu.kmalloc(1000, ACCOUNT)]  # before there is any memcg
    rig.cpu.memcg_enter(rig.cpu.memcg_create("late"))
    pages = rig.exhaust(0)
    objects.append(rig.cpu.kmalloc_nolock(1000, NOLOCK))
    assert rig.cpu.counters()["memcg_vector_failed"] == rig.cpu.counters()["memcg_unaccounted"] == 1
    for page in pages:
        rig.free(page)
    for offset in objects:
        rig.cpu.kfree(offset)
    rig.cpu.cache("kmalloc-cg-1k").shrink()


def vector_of_the_same_class(rig: Rig) -> None:
    """A slab of kmalloc-cg-192 has 21 objects: its vector, too, is of the class 192."""
    rig.cpu.memcg_enter(rig.cpu.memcg_create("one"))
    for offset in [rig.cpu.kmalloc(192, ACCOUNT) for _ in range(3)]:
        rig.cpu.kfree(offset)


def busy_obj_stock(rig: Rig) -> None:
    """An NMI allocates while the task's charge has this CPU's obj_stock locked."""
    rig.cpu.memcg_enter(interrupts_pay(rig))
    warm(rig)
    nmi(rig, "obj_stock_locked", lambda: rig.cpu.kfree(rig.cpu.kmalloc(100, ACCOUNT)), CHARGED)
    assert rig.cpu.counters()["memcg_obj_fallback"] == 1


def eviction_during_a_random_number(rig: Rig) -> None:
    """Seven slots are taken; an NMI frees a page of an eighth memcg while the task draws a random number."""
    groups = [rig.cpu.memcg_create(f"g{number}") for number in range(8)]
    for group in groups:
        with rig.cpu.memcg_active(group):
            block = (
                rig.cpu.alloc_pages_nolock(0, NOLOCK)
                if group is groups[7]
                else rig.cpu.alloc_pages(0, ACCOUNT)
            )
        rig.held[block] = 0
    nmi(rig, "random_locked", rig.alloc, ("free", {"slot": 0}), holds=[block], orders=[0])
    assert rig.cpu.counters()["memcg_stock_evict"] == 1


def last_reference_in_the_stock(rig: Rig) -> None:
    """This CPU's obj_stock has the last reference to a dead memcg; an NMI charges another one."""
    dead = rig.cpu.memcg_create("dead")
    with rig.cpu.memcg_active(dead):
        offset = rig.cpu.kmalloc(100, ACCOUNT)
    rig.cpu.memcg_destroy(dead)
    rig.cpu.kfree(offset)
    assert (rig.cpu.memcg_stocks().objcg, dead.is_dying) == (dead.id, True)
    interrupts_pay(rig)
    nmi(rig, "objcg_locked", lambda: rig.cpu.memcg_create("born"), CHARGED)


def event_while_kernfs_is_locked(rig: Rig) -> None:
    """A charge of the task notifies; an NMI there charges beyond the limit, as the task frees memory (PF_MEMALLOC)."""
    group = interrupts_pay(rig, max_bytes=0)
    rig.cpu.memcg_enter(group)
    with rig.cpu.memalloc():
        rig.held[rig.cpu.kmalloc(100, ACCOUNT)] = None
        nmi(rig, "kernfs_locked", lambda: rig.cpu.kfree(rig.cpu.kmalloc(5000, ACCOUNT)), CHARGED_PAGES)


def charged_while_the_vector_is_new(rig: Rig) -> None:
    """A slab is given its vector; an NMI charges an object of it, and frees that again."""
    rig.cpu.memcg_enter(interrupts_pay(rig))
    cache = rig.cpu.kmem_cache_create("named", 200)
    fields = {"cache": cache.index, "gfp": NOLOCK}
    nmi(
        rig,
        "memcg_vector",
        lambda: cache.free(cache.alloc(ACCOUNT)),
        ("cache_alloc", fields),
        ("free", {"slot": 0}),
    )


CONTROLS = (
    Control(
        "k05",
        "deadlock",
        "deadlock",
        event_while_kernfs_is_locked,
        "an outer context of this CPU holds the lock",
    ),
    Control("k15", "memcg", "corruption", failed_vector, "still charged to a memcg, or says so"),
    Control("k21", "audit", "lost_memory", vector_of_the_same_class, "it can never be freed"),
    Control("k25", "audit", "corruption", busy_obj_stock, "slab_unreclaimable of node 0 is"),
    Control(
        "k26",
        "deadlock",
        "deadlock",
        eviction_during_a_random_number,
        "taken again by the CPU that holds it",
        {"freelist_random": True},
    ),
    Control(
        "k27",
        "deadlock",
        "deadlock",
        last_reference_in_the_stock,
        "an outer context of this CPU holds the lock",
    ),
    Control(
        "late_words",
        "audit",
        "corruption",
        charged_while_the_vector_is_new,
        "is free, and its slab's vector names",
    ),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)


def test_k05_an_event_that_cannot_be_told_is_counted_all_the_same() -> None:
    with Rig.create() as rig:
        event_while_kernfs_is_locked(rig)
        group = memcgs(rig.arena)[0]
        told, not_told = group.notifications
        assert (told + not_told, not_told) == (group.events()["max"], 1)


# --- the hypotheses: what the kernel does here is what the correct core does ------------------------


def test_k48_an_nmi_above_high_takes_the_workqueue_pool_lock() -> None:
    """queue_work has the pool's lock; an NMI's charge above memory.high queues another memcg's high_work."""
    with Rig.create() as rig:
        rig.cpu.kfree(rig.cpu.kmalloc(64))
        other = rig.cpu.memcg_create("other", high_bytes=0)
        interrupts_pay(rig, "irq", high_bytes=0)
        rig.interrupt("wq_pool_locked", "nmi", ("memcg", {"size": other.id}), CHARGED)
        rig.interrupt("alloc_fastpath", "irq", CHARGED)
        rig.cpu.kmalloc(64)
        assert rig.fired() == 2
        deadlock = rig.violations()[-1]
        assert (deadlock.verdict, deadlock.checker, deadlock.lock_class) == (
            "deadlock",
            "deadlock",
            "wq_pool",
        )


def test_k48_the_same_memcg_queues_nothing_twice() -> None:
    """The item that is being queued is pending already: the NMI finds it so, and takes no lock."""
    with Rig.create() as rig:
        rig.cpu.kfree(rig.cpu.kmalloc(64))
        group = interrupts_pay(rig, high_bytes=0)
        rig.interrupt("wq_pool_locked", "nmi", CHARGED)
        rig.interrupt("alloc_fastpath", "irq", CHARGED)
        rig.held[rig.cpu.kmalloc(64)] = None
        assert (rig.fired(), group.high_work_queued) == (2, 1)
        rig.cpu.memcg_run_work()
        rig.settle()


SIZE, PER_SLAB = 1000, 16  # of kmalloc-cg-1k


def full_list_and_an_empty_slab(rig: Rig) -> int:
    """A cpu slab with one free object left; the return value is an object whose free empties its slab."""
    rich = rig.cpu.memcg_create("rich")
    with rig.cpu.memcg_active(rich):
        held = [rig.cpu.kmalloc(SIZE, ACCOUNT) for _ in range(2 * PER_SLAB - 1)]
    for offset in held:
        rig.held[offset] = None
    for offset in held[1:PER_SLAB]:
        rig.free(offset)  # the first slab: on the cpu partial list, and then
    rig.cpu.memcg_enter(rig.cpu.memcg_create("poor", max_bytes=0))
    rig.cpu.memcg_interrupts(rich)
    return held[0]


def test_k46_in_an_nmi_the_object_goes_back_to_the_cpu_slab() -> None:
    """Nothing on this CPU runs between allocation and abort: the slab is still the cpu slab, no lock is asked for."""
    with Rig.create() as rig:
        last = full_list_and_an_empty_slab(rig)
        poor = next(group for group in memcgs(rig.arena) if group.name == "poor")
        rig.cpu.memcg_interrupts(poor)
        rig.interrupt("slab_free_cmpxchg", "nmi", ("alloc", {"size": SIZE, "gfp": NOLOCK}))
        rig.free(last)
        assert rig.fired() == 1
        assert rig.cpu.counters()["memcg_abort"] == 1
        rig.settle()


def test_k46_deadlocks_if_the_cpu_slab_is_replaced_before_the_abort() -> None:
    """Task: list_lock.  Probe: takes the last object of the cpu slab, its charge fails.  NMI: replaces the cpu slab.

    Meanwhile another CPU frees all other objects of that slab: the abort's free empties it, and spins on list_lock.
    """
    with Rig.create() as rig:
        last = full_list_and_an_empty_slab(rig)
        others = list(rig.held)[1:]
        take = ("alloc", {"size": SIZE, "gfp": NOLOCK, "slot": 20})
        frees = [("free", {"slot": slot}) for slot in range(len(others))]
        rig.interrupt("slab_free_cmpxchg", "probe", take)
        rig.interrupt("memcg_abort", "nmi", take)
        # the NMI gives the cpu slab up when it locks it for the first time, and then takes the one that is partial
        program = rig.program(*frees, holds=others, design="kmalloc")
        rig.arm("cpu_slab_locked", "other_cpu", program, nth=2)
        rig.held.pop(last)
        with suppress(ShmallocError):
            rig.cpu.kfree(last)
        assert rig.fired() == 3
        deadlock = rig.violations()[-1]  # that it waits for a lock of a class it holds breaks a rule before
        assert (deadlock.verdict, deadlock.lock_class) == ("deadlock", "list_lock")
