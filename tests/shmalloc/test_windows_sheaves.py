# SPDX-License-Identifier: MIT
"""What a nested call does in an arena of Linux 7.x, by where it interrupts: appendix A.3.

The lock of a CPU's sheaves leaves irqs on, so an IRQ may land in its section as well as an NMI or a probe: it does
without sheaves. A is the bucket that is interrupted, B the next larger one.
"""

from collections.abc import Callable

import pytest
from rig import A_BYTES, PER_SLAB, Rig
from windows import NOLOCK, SHEAF, SHEAVES, SPINNING, barn_filled

A = {"size": A_BYTES}
ATOMIC = {**A, "gfp": "GFP_ATOMIC"}


def warm(rig: Rig, cpu: int = 0) -> int:
    """Objects in the CPU's main sheaf, an empty spare, and a slab with four free objects on the node's list."""
    return rig.alloc(cpu=cpu)


def cold(rig: Rig) -> None:
    """Nothing in sheaves; five objects free in slabs on the node's list."""
    for offset in rig.take(3 * PER_SLAB)[:5]:
        rig.free(offset)
    rig.cpu.flush_all()


# --- the CPU's sheaves are locked, irqs on ------------------------------------------------------------


@pytest.mark.parametrize("by", ["nmi", "probe", "irq"])
def test_sheaves_locked_a_nolock_allocation_takes_one_object_off_the_nodes_list(by: str) -> None:
    with Rig.create(**SHEAVES) as rig:
        warm(rig)
        result = rig.experiment("sheaves_locked", by, rig.alloc, rig.program(("alloc", A)))
        assert str(result) == "A: A"
        assert result.counters == {"alloc_fastpath": 1, "alloc_slowpath": 1, "sheaves_busy": 1}
        rig.settle()


@pytest.mark.parametrize("by", ["nmi", "probe", "irq"])
def test_sheaves_locked_a_nolock_free_is_deferred(by: str) -> None:
    with Rig.create(**SHEAVES) as rig:
        program = rig.program("free", holds=[warm(rig)])
        result = rig.experiment("sheaves_locked", by, rig.alloc, program)
        assert str(result) == "A: freed"
        assert result.counters["sheaves_busy"] == result.counters["defer_free"] == 1
        assert result.counters["free_slowpath"] == 1  # by irq_work
        rig.settle()


def test_sheaves_locked_an_irqs_ordinary_calls_spin_for_list_lock_instead() -> None:
    """Legal: whoever holds list_lock has irqs off."""
    with Rig.create(**SHEAVES) as rig:
        given = warm(rig)
        program = rig.program("free", ("alloc", {**ATOMIC, "slot": 1}), holds=[given], design=SPINNING)
        result = rig.experiment("sheaves_locked", "irq", rig.alloc, program)
        assert str(result) == "A: freed, A"
        assert result.counters["sheaves_busy"] == 2
        assert (result.counters["free_slowpath"], result.counters["alloc_slowpath"]) == (1, 1)
        assert "defer_free" not in result.counters
        rig.settle()


def test_sheaves_locked_and_nothing_on_the_list_a_new_slab_is_made() -> None:
    with Rig.create(**SHEAVES) as rig:
        rig.take(PER_SLAB * 3 - 1)  # the last one of four sheaves is left
        result = rig.experiment("sheaves_locked", "nmi", rig.alloc, rig.program(("alloc", A)))
        assert str(result) == "A: A"
        assert result.counters["alloc_slab"] == 1
        rig.settle()


def test_sheaves_locked_any_null_is_tried_once_more_in_the_next_bucket() -> None:
    with Rig.create(**SHEAVES) as rig:
        rig.alloc(size=2048)
        rig.take(PER_SLAB * 3 - 1)
        rig.exhaust(0)
        result = rig.experiment("sheaves_locked", "nmi", rig.alloc, rig.program(("alloc", A)))
        assert str(result) == "A: B"
        assert (result.counters["bucket_retry"], result.counters["alloc_fastpath"]) == (1, 2)
        rig.settle()


@pytest.mark.parametrize("by", ["nmi", "irq"])
def test_sheaves_locked_kfree_rcu_nolock_goes_by_the_objects_head(by: str) -> None:
    with Rig.create(**SHEAVES) as rig:
        program = rig.program("free_rcu", holds=[warm(rig)], design=NOLOCK)
        result = rig.experiment("sheaves_locked", by, rig.alloc, program)
        assert result.outer == "A" and not program.slots[0]
        # irq_work, an irq, lands in the same section: there is no sheaf for it either
        assert result.counters["free_rcu_sheaf_fail"] == 2
        assert rig.lib.shm_rcu_pending() == 1
        rig.settle()


# --- a barn is locked -----------------------------------------------------------------------------------


def test_barn_locked_another_cpus_sheaf_is_still_usable() -> None:
    with Rig.create(**SHEAVES) as rig:
        warm(rig, cpu=1)
        barn_filled(rig)
        result = rig.experiment("barn_locked", "other_cpu", rig.alloc, rig.program(("alloc", A)))
        assert str(result) == "A: A"
        assert result.counters == {"alloc_fastpath": 2, "barn_get": 1}
        rig.settle()


def test_barn_locked_a_nolock_allocation_passes_it_over() -> None:
    with Rig.create(**SHEAVES) as rig:
        barn_filled(rig)
        result = rig.experiment("barn_locked", "other_cpu", rig.alloc, rig.program(("alloc", A)))
        assert str(result) == "A: A"
        assert result.counters["barn_busy"] == result.counters["alloc_slowpath"] == 1
        rig.settle()


def test_barn_locked_and_both_sheaves_full_a_nolock_free_is_deferred() -> None:
    with Rig.create(**SHEAVES) as rig:
        taken = rig.take(10 * SHEAF)
        for offset in taken[SHEAF:]:
            rig.free(offset)
        for offset in rig.take(2 * SHEAF, cpu=1):
            rig.free(offset, cpu=1)
        assert rig.sheaf(rig.sheaves(cpu=1).main).size == rig.sheaf(rig.sheaves(cpu=1).spare).size == SHEAF
        rig.take(2 * SHEAF)
        program = rig.program("free", holds=[taken[0]])
        result = rig.experiment("barn_locked", "other_cpu", rig.alloc, program)
        assert str(result) == "A: freed"
        assert result.counters["barn_busy"] == result.counters["defer_free"] == 1
        rig.settle()


# --- list_lock of the local node is held ----------------------------------------------------------------


def test_list_lock_held_a_miss_ends_in_the_next_bucket() -> None:
    """A new slab would have to be listed: it is given back, untouched."""
    with Rig.create(**SHEAVES) as rig:
        cold(rig)
        result = rig.experiment("list_lock_held", "nmi", rig.alloc, rig.program(("alloc", A)))
        assert str(result) == "A: B"
        assert result.counters["bucket_retry"] == 1
        assert result.counters["list_lock_busy"] == 2  # the partial list, and the new slab
        assert "defer_deactivate" not in result.counters
        rig.settle()


def test_list_lock_held_a_sheaf_is_hit_and_pushed_to() -> None:
    with Rig.create(**SHEAVES) as rig:
        cold(rig)
        given = warm(rig, cpu=1)
        program = rig.program("free", ("alloc", {**A, "slot": 1}), holds=[given])
        result = rig.experiment("list_lock_held", "other_cpu", rig.alloc, program)
        assert str(result) == "A: freed, A"
        # the outer one's hit, that for the sheaf which it fills, and the nested one's
        assert (result.counters["free_fastpath"], result.counters["alloc_fastpath"]) == (1, 3)
        rig.settle()


def test_list_lock_held_a_remote_object_is_deferred() -> None:
    with Rig.create(nr_nodes=2, **SHEAVES) as rig:
        far = rig.alloc(node=1)
        cold(rig)
        result = rig.experiment("list_lock_held", "nmi", rig.alloc, rig.program("free", holds=[far]))
        assert str(result) == "A: freed"
        assert result.counters["defer_free"] == 1
        rig.settle()


# --- between the locked sections -------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["nmi", "probe", "irq"])
def test_while_a_sheaf_is_being_refilled_everything_is_open(by: str) -> None:
    with Rig.create(**SHEAVES) as rig:
        result = rig.experiment("sheaf_in_hand", by, rig.alloc, rig.program(("alloc", A)))
        assert str(result) == "A: A"
        assert "sheaves_busy" not in result.counters
        rig.settle()


def test_an_irq_that_fills_the_sheaf_meanwhile_leaves_the_outer_one_its_own() -> None:
    """Both refill: the irq's becomes main, the outer one's spare."""
    with Rig.create(**SHEAVES) as rig:
        program = rig.program(("alloc", ATOMIC), design=SPINNING)
        result = rig.experiment("sheaf_in_hand", "irq", rig.alloc, program)
        assert str(result) == "A: A"
        assert result.counters["sheaf_refill"] == 2 * SHEAF
        sizes = [rig.sheaf(at).size for at in (rig.sheaves().main, rig.sheaves().spare)]
        assert sizes == [SHEAF - 2, SHEAF]
        rig.settle()


# --- every section that is entered with a slab lock --------------------------------------------------------


def churn(rig: Rig) -> None:
    for offset in rig.take(4 * SHEAF)[::2]:
        rig.free(offset)


def rcu(rig: Rig) -> None:
    for offset in rig.take(2 * SHEAF):
        rig.held.pop(offset)
        rig.cpu.kfree_rcu(offset)
    rig.cpu.rcu_barrier()


def nolock(rig: Rig) -> None:
    for offset in [rig.alloc("kmalloc_nolock") for _ in range(2 * SHEAF)]:
        rig.free(offset, "kfree_nolock")


@pytest.mark.parametrize("outer", [churn, rcu, nolock])
@pytest.mark.parametrize("by", ["nmi", "probe"])
def test_a_handler_in_every_locked_section(outer: Callable[[Rig], None], by: str) -> None:
    """As slub_kunit's test with a kprobe: allocations, frees and kfree_rcu_nolock, at each passing once."""
    with Rig.create(**SHEAVES) as rig:
        with rig.watching():
            outer(rig)
            passed = rig.hits("slab_attach_kprobe_locked")
        assert passed > 2 * SHEAF
    for nth in range(1, passed + 1, 11):
        with Rig.create(**SHEAVES) as rig:
            slots = [("alloc", {**A, "slot": 0}), ("alloc", {**A, "slot": 1}), ("free", {"slot": 0})]
            program = rig.program(*slots, ("free_rcu", {"slot": 1}))
            rig.arm("slab_attach_kprobe_locked", by, program, nth=nth)
            outer(rig)
            assert rig.fired() == 1
            rig.assert_clean() if nth % 5 else rig.settle()
