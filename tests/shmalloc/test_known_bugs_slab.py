# SPDX-License-Identifier: MIT
"""Known bugs of the slab allocator with cpu slabs, each met by an exact interleaving; see also test_broken.py."""

from contextlib import suppress

import pytest
from controls import Control, assert_caught, assert_silent, name_of
from rig import A_BYTES, B_BYTES, PER_SLAB, Rig
from windows import PLAN, SPINNING, cpu_slab, node_partial

from shmalloc import DeadlockProved, ShmallocError

A = {"size": A_BYTES}
UP = {"up": True, "cpus": 1}


def overtaken_free(rig: Rig) -> None:
    """An NMI frees to the cpu slab; before its exchange a probe uses that slab up and installs another."""
    state = cpu_slab(rig)
    use_up = rig.program(*[("alloc", {**A, "slot": slot}) for slot in range(11)])
    rig.arm("free_fastpath", "probe", use_up)
    rig.arm("pcp_locked", "nmi", rig.program("free", holds=[state.ready[-1]]))
    rig.pages()
    assert rig.fired() == 2


def preempted_put(rig: Rig) -> None:
    """A second slab goes to the cpu partial list, and in the middle of that the first one becomes the cpu slab.

    On PREEMPT_RT another task of this CPU would do it: it runs where here an irq does.
    """
    first, second = rig.take(PER_SLAB), rig.take(PER_SLAB)
    rig.take(PER_SLAB)
    rig.free(first.pop())
    rig.arm(
        "list_lock_and_cpu_slab", "irq", rig.program(("alloc", {**A, "gfp": "GFP_ATOMIC"}), design=SPINNING)
    )
    rig.free(second.pop())
    assert rig.fired() == 1


def nmi_under_list_lock(rig: Rig) -> None:
    """Without SMP the NMI's trylock of the lock that it has interrupted succeeds."""
    node_partial(rig)
    rig.arm("list_lock_held", "nmi", rig.program(("alloc", A)))
    rig.alloc()
    assert rig.fired() == 1


def nmi_under_list_lock_by_the_plan(rig: Rig) -> None:
    """The same in a debug cache, for whose new slab the plan tries list_lock."""
    rig.arm("debug_new_slab_locked", "nmi", rig.program(("alloc", A), design=PLAN))
    rig.alloc()
    assert rig.fired() == 1


def free_from_a_task(rig: Rig) -> None:
    """A task, irqs and preemption on, frees an object of another slab."""
    rig.free(cpu_slab(rig).elsewhere[0], "kfree_nolock")


def nmi_into_the_writer(rig: Rig) -> None:
    """The task's nodes are being changed; an NMI finds no partial slab here and looks at the other nodes."""
    far = rig.take(7 * PER_SLAB, node=1)
    for slab in range(7):
        rig.free(far[slab * PER_SLAB])
    rig.cpu.flush_all()
    rig.arm("mems_allowed_writing", "nmi", rig.program(("alloc", A)))
    rig.cpu.set_mems_allowed([0, 1])
    assert rig.fired() == 1


def nmi_into_get_random(rig: Rig) -> None:
    """A slab is being shuffled; an NMI makes one too."""
    rig.arm("random_locked", "nmi", rig.program(("alloc", {"size": B_BYTES})))
    rig.alloc()
    assert rig.fired() == 1


def two_barriers(rig: Rig) -> None:
    """CPU 2 holds its deferred free back; CPU 0 sleeps until it is done, CPU 1 is about to, and CPU 2 does it."""
    (offset,) = rig.take(1)
    with rig.cpus[2].irq_save():
        rig.free(offset, "kfree_nolock", cpu=2)
        rig.arm("irq_work_sleeping", "other_cpu", rig.program("defer_barrier"), other=1)
        rig.arm("irq_work_waiter", "other_cpu", rig.program("irq_on"), other=2, nth=2)
        with suppress(DeadlockProved):  # a wait that does not end
            rig.cpu.defer_free_barrier()
    assert rig.fired() in (0, 2)  # the correct core does not sleep


def aba_of_a_bulk_call(rig: Rig) -> None:
    """Two objects by one bulk call, in an irq between read and exchange of a fast path; one of them goes back.

    Then the freelist begins as before and goes on otherwise: requests for two nodes in turn have the slab given up
    and taken back, so that no fast path of the irq moves the tid.  W is put before X, the first free one.
    """
    first = cpu_slab(rig).ready[-1]
    atomic = {**A, "gfp": "GFP_ATOMIC"}
    irq = rig.program(
        ("bulk_alloc", {"cache": rig.cache_index(), "size": 2, "slot": 1}),  # X, and Y, which is believed to be next
        ("alloc", {**atomic, "node": 1, "slot": 3}),  # the slab is given up
        ("free", {"slot": 1}), ("free", {"slot": 0}),  # X and W go back, W in front
        ("alloc", {**atomic, "node": 0, "slot": 4}),  # W: and X is the first free one again
        holds=[first],
        design=SPINNING,
    )  # fmt: skip
    rig.arm("alloc_fastpath", "irq", irq)
    rig.alloc(node=0)
    assert rig.fired() == 1
    rig.alloc(node=0)


CONTROLS = (
    Control("k07", "lock_rules", "broken_rule", overtaken_free, "waited for in NMI"),
    Control("k11", "lock_rules", "broken_rule", free_from_a_task, "may be preempted and moved"),
    Control(
        "k17",
        "deadlock",
        "deadlock",
        nmi_into_the_writer,
        "has interrupted its writer",
        {"nr_nodes": 2, "seed": 1},
    ),
    Control(
        "k18",
        "deadlock",
        "deadlock",
        nmi_into_get_random,
        "a local lock is taken again",
        {"freelist_random": True},
    ),
    Control("k28", "retry_bound", "stall", two_barriers, "the one wake-up went to another", {"cpus": 3}),
    Control(
        "k23", "lock_rules", "broken_rule", nmi_under_list_lock, "without SMP nothing keeps that out", UP
    ),
    Control(
        "k23",
        "lock_rules",
        "broken_rule",
        nmi_under_list_lock_by_the_plan,
        "without SMP nothing keeps that out",
        {**UP, "slab_debug": 0x1},
    ),
    Control("k41", "audit", "corruption", preempted_put, "cpu slab of CPU 0 and cpu partial list"),
    Control("k43", "oracle", "corruption", aba_of_a_bulk_call, "already owned", {"nr_nodes": 2}),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)


@pytest.mark.parametrize("design", [PLAN, "kmalloc_nolock"])
def test_without_smp_an_nmi_is_refused(design: str) -> None:
    for scenario, debug in ((node_partial, 0), (cpu_slab, 0x1)):
        with Rig.create(up=True, cpus=1, slab_debug=debug) as rig:
            scenario(rig)
            program = rig.program(("alloc", A), design=design)
            rig.arm("debug_list_lock_held" if debug else "list_lock_held", "nmi", program)
            if debug:
                rig.free(next(iter(rig.held)))
            else:
                rig.alloc()
            assert rig.fired() == 1
            assert rig.cpu.contexts(design)["nmi"]["failures"] == {"context_refused": 1}
            rig.settle()


# --- what the correct core has instead --------------------------------------------------------------------


def test_a_cache_is_destroyed_though_objects_of_it_are_deferred() -> None:
    """K-39: CPU 1 has its irqs off, and an object of the cache on its list; the barrier comes before the flush."""
    with Rig.create() as rig:
        cache = rig.cpu.kmem_cache_create("doomed", 96)
        other, objects = rig.cpus[1].cache("doomed"), [cache.alloc() for _ in range(23)]
        with rig.cpus[1].irq_save():
            for offset in objects:
                other.free_nolock(offset)
            assert rig.counters()["defer_free"] == 23
            cache.destroy()
        assert rig.arena.header.slab_mutex.word == 0
        rig.settle()


def test_the_mutex_is_free_after_a_cache_with_objects_was_destroyed() -> None:
    with Rig.create() as rig:
        cache = rig.cpu.kmem_cache_create("busy", 96)
        cache.alloc()
        with pytest.raises(ShmallocError, match="objects are still in use"):
            cache.destroy()
        assert rig.arena.header.slab_mutex.word == 0
        rig.cpu.kmem_cache_create("next", 96).destroy()


def test_the_barrier_waits_for_what_is_deferred() -> None:
    with Rig.create() as rig:
        (offset,) = rig.take(1)
        with rig.cpus[1].irq_save():
            rig.free(offset, "kfree_nolock", cpu=1)
            assert rig.cpu_state(1).defer_objects.first
            rig.cpu.defer_free_barrier()
            assert not rig.cpu_state(1).defer_objects.first
        rig.settle()


def test_nodes_that_a_task_may_not_use_are_passed_over() -> None:
    with Rig.create(nr_nodes=2, seed=1) as rig:
        far = rig.take(7 * PER_SLAB, node=1)
        for slab in range(7):
            rig.free(far[slab * PER_SLAB])
        rig.cpu.flush_all()
        rig.cpu.set_mems_allowed([0])
        before = rig.counters()
        rig.alloc()
        assert rig.telling(before) == {"alloc_slowpath": 1, "alloc_slab": 1}
        rig.cpu.flush_all()
        for nodes in ([], [2], [-1]):
            with pytest.raises(ValueError, match=r"nodes = none|node = 2"):
                rig.cpu.set_mems_allowed(nodes)
        rig.settle()


def test_random_numbers_come_in_batches_to_those_who_may_wait() -> None:
    """Four to a batch; a new slab takes one, by kmalloc_nolock none."""
    for design, batches in (("kmalloc", 5), ("kmalloc_nolock", 0)):
        with Rig.create(freelist_random=True) as rig:
            for _ in range(17):
                for _ in range(PER_SLAB):
                    rig.alloc(design)
            assert rig.counters()["alloc_slab"] == 17
            assert rig.cpu_state().entropy.made == batches
            rig.settle()
