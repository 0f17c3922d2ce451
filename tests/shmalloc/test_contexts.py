# SPDX-License-Identifier: MIT
"""Task, softirq, irq and nmi: what masks what, who may call, where it is counted, and that nothing gets lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from rig import A_BYTES, Rig
from windows import SPINNING, cpu_slab, remote_frees

from shmalloc import ops

ALLOC_FREE = ("alloc", {"size": 64}), "free"
IRQ_SIGNAL, NMI_SIGNAL = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
def rig(flavour: str) -> Iterator[Rig]:
    with Rig.create(flavour=flavour) as made:
        yield made


# --- masking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [1, 23])
def test_irqs_sent_while_masked_are_one_at_the_restore(rig: Rig, sent: int) -> None:
    rig.cpu.set_program("irq", ops(*ALLOC_FREE), design=SPINNING)
    with rig.cpu.irq_save():
        for _ in range(sent):
            rig.cpu.interrupt("irq")
        assert rig.cpu.irq_pending()
        assert rig.allocs() == {}
    assert not rig.cpu.irq_pending()
    assert rig.allocs() == {"irq": 1}
    interrupts = rig.cpu.interrupts()["irq"]
    assert (interrupts["sent"], interrupts["masked"], interrupts["handled"]) == (sent, sent, 1)
    rig.settle()


def test_only_the_outermost_restore_takes_what_is_pending(rig: Rig) -> None:
    rig.cpu.set_program("irq", ops(*ALLOC_FREE))
    with rig.cpu.irq_save():
        with rig.cpu.irq_save():
            rig.cpu.interrupt("irq")
        assert rig.allocs() == {}
        rig.cpu.run_irq_work()  # irqs are off: it must not
        assert rig.allocs() == {}
    assert rig.allocs() == {"irq": 1}


def test_windows_of_an_op_array(rig: Rig) -> None:
    rig.cpu.set_program("irq", ops(*ALLOC_FREE))
    rig.replay("irq", "irq_off", "irq", "irq", "irq", "irq_on", "irq")
    assert rig.allocs() == {"irq": 3}
    assert rig.cpu.interrupts()["irq"]["masked"] == 3


def test_a_window_that_an_array_leaves_open_ends_with_it(rig: Rig) -> None:
    rig.cpu.set_program("irq", ops(*ALLOC_FREE))
    rig.replay("bh_off", "irq_off", "irq")
    assert rig.allocs() == {"irq": 1}
    assert rig.cpu_state().irqs_disabled == rig.cpu_state().bh_count == 0
    rig.free(rig.alloc())
    assert rig.allocs() == {"irq": 1, "task": 1}


def test_an_nmi_is_not_masked(rig: Rig) -> None:
    rig.cpu.set_program("nmi", ops(*ALLOC_FREE))
    with rig.cpu.irq_save():
        rig.cpu.interrupt("nmi")
        assert rig.allocs() == {"nmi": 1}
    assert rig.cpu.interrupts()["nmi"]["masked"] == 0


def test_irq_work_raised_by_an_nmi_waits_for_the_mask(rig: Rig) -> None:
    objects = rig.take(3, cpu=1)  # not of CPU 0's slabs: a free of theirs is deferred
    program = rig.program("free", holds=objects[:1])
    assert rig.lib.shm_set_program(rig.lib.KIND_NMI, program.c) == 0
    before = rig.counters()
    with rig.cpu.irq_save():
        rig.cpu.interrupt("nmi")
        assert rig.telling(before) == {"defer_free": 1}
    assert rig.telling(before) == {"defer_free": 1, "irq_work_runs": 1, "free_slowpath": 1, "free_frozen": 1}
    rig.settle()


def test_irq_work_raised_by_an_nmi_with_irqs_on_runs_when_the_nmi_has_returned(rig: Rig) -> None:
    objects = rig.take(3, cpu=1)
    program = rig.program("free", holds=objects[:1])
    assert rig.lib.shm_set_program(rig.lib.KIND_NMI, program.c) == 0
    before = rig.counters()
    rig.cpu.interrupt("nmi")
    assert rig.telling(before) == {"defer_free": 1, "irq_work_runs": 1, "free_slowpath": 1, "free_frozen": 1}
    assert not rig.cpu.irq_pending()
    rig.settle()


@pytest.mark.parametrize("outer", ["kmalloc", "kmalloc_nolock"])
def test_an_irq_raised_at_the_very_end_of_the_masked_section_is_not_lost(outer: str) -> None:
    """The lock is free, the mask about to be cleared: the restore clears it first, and then looks."""
    with Rig.create() as rig:
        remote_frees(rig)
        foreign = rig.take(1, cpu=1)
        program = rig.program("free", holds=foreign)
        before = rig.counters()
        outcome = rig.experiment("cpu_slab_unlocked", "nmi", lambda: rig.alloc(outer), program)
        assert str(outcome) == "A: freed"
        moved = rig.telling(before)
        assert (moved["defer_free"], moved["irq_work_runs"], moved["free_frozen"]) == (1, 1, 1)
        assert not rig.cpu.irq_pending()
        rig.settle()


def test_a_deferred_deactivation_waits_for_the_mask() -> None:
    with Rig.create() as rig, ExitStack() as stack:
        stack.enter_context(rig.cpu.irq_save())
        program = rig.program(("alloc", {"size": A_BYTES}))
        outcome = rig.experiment("before_install", "nmi", lambda: rig.alloc("kmalloc_nolock"), program)
        assert outcome.counters == {
            "alloc_slowpath": 2,
            "alloc_slab": 2,
            "cpuslab_flush": 1,
            "defer_deactivate": 1,
        }
        before = rig.counters()
        stack.close()
        assert rig.telling(before) == {"irq_work_runs": 1, "deactivate_to_head": 1}
        rig.settle()


# --- levels -------------------------------------------------------------------------------------------------


def test_an_nmi_in_an_irq_in_the_task(rig: Rig) -> None:
    rig.cpu.set_program("irq", ops(("alloc", {"size": 64}), "nmi", "free"))
    rig.cpu.set_program("nmi", ops(*ALLOC_FREE))
    rig.replay(("alloc", {"size": 64}), "irq", "free")
    assert rig.allocs() == {"task": 1, "irq": 1, "nmi": 1}
    interrupts = rig.cpu.interrupts()
    assert (interrupts["irq"]["handled"], interrupts["irq"]["nested"]) == (1, 0)
    assert (interrupts["nmi"]["handled"], interrupts["nmi"]["nested"]) == (1, 1)
    assert rig.cpu_state().level == 0
    rig.settle()


def test_an_nmi_does_not_nest_in_itself(rig: Rig) -> None:
    """The second one is taken when the first has returned."""
    rig.cpu.set_program("nmi", ops("nmi", ("alloc", {"size": 64})), per_interrupt=1)
    rig.cpu.interrupt("nmi")
    interrupts = rig.cpu.interrupts()["nmi"]
    assert (interrupts["sent"], interrupts["handled"], interrupts["nested"]) == (2, 2, 0)
    assert rig.allocs() == {"nmi": 1}


def test_an_irq_does_not_nest_in_itself(rig: Rig) -> None:
    rig.cpu.set_program("irq", ops("irq", ("alloc", {"size": 64})), per_interrupt=1)
    rig.cpu.interrupt("irq")
    interrupts = rig.cpu.interrupts()["irq"]
    assert (interrupts["sent"], interrupts["handled"], interrupts["nested"]) == (2, 2, 0)
    assert rig.allocs() == {"irq": 1}


def test_an_irq_sent_by_an_nmi_comes_after_it(rig: Rig) -> None:
    """The NMI allocates into a shared slot after it has sent the IRQ, and the IRQ finds it filled."""
    rig.cpu.set_program("nmi", ops("irq", ("alloc", {"size": 64, "flags": "shared"})))
    rig.cpu.set_program("irq", ops(("free", {"flags": "shared"})))
    rig.cpu.interrupt("nmi")
    assert rig.cpu.contexts()["irq"]["frees"] == 1
    assert rig.cpu.interrupts()["irq"]["nested"] == 0
    assert rig.cpu.counters()["skipped_frees"] == 0
    rig.settle()


def test_bottom_halves_off_count_as_softirq(rig: Rig) -> None:
    rig.cpu.set_program("irq", ops(*ALLOC_FREE))
    rig.cpu.set_program("nmi", ops(*ALLOC_FREE))
    rig.free(rig.alloc())
    with rig.cpu.bh_disable():
        rig.free(rig.alloc())
        with rig.cpu.bh_disable(), rig.cpu.irq_save():
            rig.free(rig.alloc())
        rig.free(rig.alloc())
        rig.cpu.interrupt("irq")
        rig.cpu.interrupt("nmi")
    rig.free(rig.alloc())
    assert rig.allocs() == {"task": 2, "softirq": 3, "irq": 1, "nmi": 1}
    rig.settle()


def test_bottom_halves_of_an_op_array(rig: Rig) -> None:
    rig.replay("bh_off", "bh_off", *ALLOC_FREE, "bh_on", *ALLOC_FREE, "bh_on", *ALLOC_FREE)
    assert rig.allocs() == {"softirq": 2, "task": 1}


def test_an_unbalanced_enable_is_refused(rig: Rig) -> None:
    assert rig.lib.shm_bh_enable() == -22  # EINVAL
    assert rig.allocs() == {}


def test_irqs_off_in_a_task_are_still_a_task(rig: Rig) -> None:
    with rig.cpu.irq_save():
        rig.free(rig.alloc())
    assert rig.allocs() == {"task": 1}


# --- programs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nmi", "irq"])
def test_ops_interrupt_their_own_cpu(rig: Rig, kind: str) -> None:
    rig.cpu.set_program(kind, ops(*ALLOC_FREE))
    rig.replay(kind, max_ops=101)
    assert rig.cpu.interrupts()[kind]["sent"] == rig.cpu.interrupts()[kind]["handled"] == 101
    assert rig.allocs() == {kind: 101}
    rig.settle()


def test_an_interrupt_runs_its_share_and_the_next_one_goes_on(rig: Rig) -> None:
    sizes = (8, 64, 96, 1024, 4096)
    program = rig.cpu.set_program(
        "nmi", ops(*(("alloc", {"size": size, "slot": at}) for at, size in enumerate(sizes))), per_interrupt=2
    )
    assert program is not None
    got = []
    for _ in range(3):
        rig.cpu.interrupt("nmi")
        got.append(len(program.held()))
    assert got == [2, 4, 5]  # the sixth op is the first again: its slot is taken, so free and alloc
    assert [rig.cpu.ksize(offset) for offset in program.held()] == list(sizes)
    assert rig.cpu.drain(program) == 5
    rig.settle()


@pytest.mark.parametrize("size", [8, 96, 4096])
def test_the_same_size_as_the_interrupted_op(size: int) -> None:
    with Rig.create() as rig:
        rig.take(1, size)
        program = rig.program(("alloc", {"size": 64, "flags": "same"}))
        rig.arm("alloc_fastpath", "nmi", program)
        rig.replay(("alloc", {"size": size, "gfp": "GFP_KERNEL"}), "free", design=SPINNING)
        assert rig.fired() == 1
        assert [rig.cpu.ksize(offset) for offset in program.held()] == [size]
        rig.settle()


def test_the_same_cache_as_the_interrupted_op() -> None:
    with Rig.create() as rig:
        cache = rig.cpu.kmem_cache_create("mine", 72)
        rig.held[cache.alloc()] = None
        program = rig.program(("alloc", {"size": 1024, "flags": "same"}))
        rig.arm("alloc_fastpath", "nmi", program)
        rig.replay(("cache_alloc", {"cache": cache.index, "gfp": "GFP_KERNEL"}), "free", design=SPINNING)
        assert rig.fired() == 1
        assert [rig.origin(offset) for offset in program.held()] == ["mine"]
        rig.settle()


def test_the_same_as_no_allocation_is_its_own_size(rig: Rig) -> None:
    program = rig.cpu.set_program("nmi", ops(("alloc", {"size": 1024, "flags": "same"})))
    assert program is not None
    rig.replay("nmi")
    assert [rig.origin(offset) for offset in program.held()] == ["A"]
    rig.cpu.drain(program)


@pytest.mark.parametrize("kind", ["nmi", "irq"])
def test_what_a_handler_allocates_the_task_frees(rig: Rig, kind: str) -> None:
    fills = [("alloc", {"size": 64, "slot": slot, "flags": "shared"}) for slot in range(23)]
    empties = [("free", {"slot": slot, "flags": "shared"}) for slot in range(23)]
    rig.cpu.set_program(kind, ops(*fills))
    rig.replay(kind, *empties)
    contexts = rig.cpu.contexts()
    assert (contexts[kind]["allocs"], contexts["task"]["frees"]) == (23, 23)
    rig.cpu.set_program(kind, ops(*empties))
    rig.replay(*fills, kind)
    contexts = rig.cpu.contexts()
    assert (contexts["task"]["allocs"], contexts[kind]["frees"]) == (23, 23)
    assert rig.cpu.counters()["skipped_frees"] == 0
    rig.settle()


def test_a_shared_slot_has_one_holder() -> None:
    """The NMI fills the slot that the task is about to fill: the task's exchange gets the other's, and frees it."""
    with Rig.create() as rig:
        cpu_slab(rig)
        program = rig.program(("alloc", {"size": A_BYTES, "flags": "shared"}))
        rig.arm("alloc_fastpath", "nmi", program)
        task = ("alloc", {"size": A_BYTES, "flags": "shared", "gfp": "GFP_KERNEL"})
        rig.replay(task, design=SPINNING)
        assert rig.fired() == 1
        contexts = rig.cpu.contexts()
        assert (contexts["nmi"]["allocs"], contexts["task"]["frees"]) == (1, 1)
        assert rig.lib.shm_drain_shared_slots(0, 23) == 1
        rig.settle()


def test_a_shared_slot_that_an_nmi_empties_is_nothing_to_free() -> None:
    """The task's free takes the word first: the NMI in the middle of it finds an empty slot."""
    with Rig.create() as rig:
        cpu_slab(rig)
        rig.replay(("alloc", {"size": A_BYTES, "flags": "shared"}))
        rig.arm("free_fastpath", "nmi", rig.program(("free", {"flags": "shared"})))
        rig.replay(("free", {"flags": "shared"}))
        assert rig.fired() == 1
        contexts = rig.cpu.contexts()
        assert (contexts["task"]["frees"], contexts["nmi"]["frees"]) == (1, 0)
        assert rig.cpu.counters()["skipped_frees"] == 1
        rig.settle()
