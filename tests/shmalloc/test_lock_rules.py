# SPDX-License-Identifier: MIT
"""What could deadlock is reported though nothing has collided; and what cannot, is not."""

from __future__ import annotations

from typing import Any

import pytest
from rig import A_BYTES, B_BYTES, Rig
from windows import SPINNING, cpu_slab, full_slab, no_slab, node_partial, pages_held

from shmalloc import ops
from shmalloc.violations import Violation

MAY_WAIT: dict[str, Any] = {"gfp": "GFP_KERNEL"}
ALLOC_A, ALLOC_B = (("alloc", MAY_WAIT | {"size": size}) for size in (A_BYTES, B_BYTES))
PAGES_4 = ("pages_alloc", MAY_WAIT | {"order": 4})

IN_NMI = "waited for in NMI context: only a trylock may be used"
ORDER = "waited for while a lock is held that elsewhere is waited for in the other order"
RECURSION = "waited for while a lock of its class is held"
INVERSION = "waited for in irq context, but elsewhere held with irqs enabled"


def the_reports(rig: Rig) -> list[Violation]:
    """The violations there are, which have stopped nothing."""
    assert rig.arena.header.stop == 0
    assert {(report.verdict, report.checker) for report in rig.violations()} == {
        ("broken_rule", "lock_rules")
    }
    return rig.violations()


def the_report(rig: Rig) -> Violation:
    """The only one."""
    (report,) = the_reports(rig)
    return report


def in_nmi(rig: Rig, *lines: Any, **keys: Any) -> None:
    """Do something spinning in an NMI that interrupts nothing."""
    program = rig.program(*lines, design=SPINNING, **keys)
    assert rig.lib.shm_set_program(rig.lib.KIND_NMI, program.c) == 0
    rig.cpu.interrupt("nmi")
    assert rig.cpu.interrupts()["nmi"]["handled"] >= 1


def test_list_lock_in_nmi() -> None:
    with Rig.create() as rig:
        node_partial(rig)
        in_nmi(rig, ALLOC_A)
        reports = the_reports(rig)
        assert [report.lock_class for report in reports] == ["cpu_slab", "list_lock"]
        assert {(report.text, report.context) for report in reports} == {(IN_NMI, "nmi")}
        assert reports[0].lock == rig.offset_of(rig.cache_cpu().lock)
        assert reports[1].lock == rig.offset_of(rig.cache_node().list_lock)


@pytest.mark.parametrize(("nested", "locks"), [(PAGES_4, ["zone"]), (ALLOC_A, ["cpu_slab", "zone"])])
def test_the_zones_lock_in_nmi(nested: Any, locks: list[str]) -> None:
    with Rig.create() as rig:
        no_slab(rig)
        in_nmi(rig, nested)
        reports = the_reports(rig)
        assert [report.lock_class for report in reports] == locks
        assert {(report.text, report.context) for report in reports} == {(IN_NMI, "nmi")}


def test_the_zones_lock_in_nmi_for_a_free() -> None:
    with Rig.create() as rig:
        in_nmi(rig, "free", holds=[pages_held(rig).elsewhere[0]], orders=[4])
        assert the_report(rig).text == IN_NMI


def test_a_rule_is_reported_once_for_each_class() -> None:
    with Rig.create() as rig:
        node_partial(rig)
        for _ in range(3):
            in_nmi(rig, ALLOC_A, ("free", {}))
            rig.cpu.flush_all()
        assert [report.lock_class for report in the_reports(rig)] == ["cpu_slab", "list_lock"]
        in_nmi(rig, PAGES_4, ("free", {}))
        assert [report.lock_class for report in the_reports(rig)] == ["cpu_slab", "list_lock", "zone"]


@pytest.mark.parametrize("kind", ["nmi", "irq"])
def test_nolock_calls_break_no_rule(kind: str) -> None:
    with Rig.create() as rig:
        node_partial(rig)
        lines = (ALLOC_A, ("alloc", {"size": 64, "slot": 1}), ("pages_alloc", {"slot": 2}))
        rig.cpu.set_program(
            kind, ops(*lines, ("free", {"slot": 0}), ("free", {"slot": 1}), ("free", {"slot": 2}))
        )
        for _ in range(23):
            rig.cpu.interrupt(kind)
        assert rig.cpu.interrupts()[kind]["handled"] == 23
        rig.settle()


def test_spinning_calls_break_no_rule_in_irq() -> None:
    with Rig.create() as rig:
        node_partial(rig)
        lines = (ALLOC_A, ("alloc", {"size": 64, "slot": 1}), ("pages_alloc", {"order": 4, "slot": 2}))
        frees = [("free", {"slot": slot}) for slot in range(3)]
        rig.cpu.set_program("irq", ops(*lines, *frees), design=SPINNING)
        for _ in range(23):
            rig.cpu.interrupt("irq")
        rig.settle()


def test_a_spinning_free_in_nmi_takes_the_cpu_slabs_lock_without_a_look() -> None:
    """kfree_nolock looks whether it is held, and defers; kfree does not."""
    with Rig.create() as rig:
        in_nmi(rig, "free", holds=[cpu_slab(rig).elsewhere[0]])
        report = the_report(rig)
        assert (report.lock_class, report.context) == ("cpu_slab", "nmi")


def test_a_spinning_allocation_in_nmi_takes_the_cpu_slabs_lock_without_a_look() -> None:
    with Rig.create() as rig:
        state = full_slab(rig)
        rig.free(state.ready[0], cpu=1)
        in_nmi(rig, ALLOC_A)
        report = the_report(rig)
        assert (report.lock_class, report.context) == ("cpu_slab", "nmi")


def test_the_slab_bit_lock_is_not_for_nmi() -> None:
    with Rig.create(cmpxchg_double=False) as rig:
        in_nmi(rig, "free", holds=[cpu_slab(rig).elsewhere[0]])
        found = {(report.lock_class, report.text) for report in rig.violations()}
        assert ("slab_lock", IN_NMI) in found
        assert ("slab_lock", "of a class that may not be used in NMI, not even by trylock") in found


# --- order --------------------------------------------------------------------------------------------


def list_then_zone(rig: Rig) -> None:
    node_partial(rig)
    rig.experiment("list_lock_held", "probe", rig.alloc, rig.program(PAGES_4, design=SPINNING))


def zone_then_list(rig: Rig) -> None:
    node_partial(rig)
    rig.experiment("zone_locked", "probe", lambda: rig.pages(order=4), rig.program(ALLOC_A, design=SPINNING))


def test_one_order_is_no_inversion() -> None:
    for only in (list_then_zone, zone_then_list):
        with Rig.create() as rig:
            only(rig)
            rig.settle()


@pytest.mark.parametrize(
    ("first", "second", "lock"),
    [(list_then_zone, zone_then_list, "list_lock"), (zone_then_list, list_then_zone, "zone")],
)
def test_the_other_order_is_one(first: Any, second: Any, lock: str) -> None:
    with Rig.create() as rig:
        first(rig)
        assert rig.violations() == []
        second(rig)
        report = the_report(rig)
        assert (report.text, report.lock_class) == (ORDER, lock)


def test_a_second_lock_of_a_class() -> None:
    """Which of two caches' list_locks comes first, nothing says."""
    with Rig.create() as rig:
        node_partial(rig)
        node_partial(rig, 1, B_BYTES)
        rig.experiment("list_lock_held", "probe", rig.alloc, rig.program(ALLOC_B, design=SPINNING))
        report = the_report(rig)
        assert (report.text, report.lock_class) == (RECURSION, "list_lock")


# --- irq inversion: no op waits for a pageset's lock in irq context, so the context is written by hand --------


def drain_as_if_in_irq(rig: Rig) -> None:
    level = rig.cpu_state().levels[0]
    level.ctx = rig.lib.CTX_IRQ
    assert rig.lib.shm_drain_pages() == 0
    level.ctx = rig.lib.CTX_TASK


@pytest.mark.parametrize("waits_first", [False, True])
def test_an_irq_that_waits_for_what_a_task_holds_with_irqs_on(waits_first: bool) -> None:
    with Rig.create() as rig:
        steps = [lambda: rig.pages(), lambda: drain_as_if_in_irq(rig)]
        first, second = reversed(steps) if waits_first else steps
        first()
        assert rig.violations() == []
        second()
        report = the_report(rig)
        assert (report.text, report.lock_class) == (INVERSION, "pcp")


def test_the_checker_can_be_switched_off() -> None:
    with Rig.create() as rig:
        rig.arena.header.lock_rules = 0
        node_partial(rig)
        in_nmi(rig, ALLOC_A)
        rig.settle()


def test_the_release_flavour_has_no_checker() -> None:
    with Rig.create(flavour="release") as rig:
        node_partial(rig)
        in_nmi(rig, ALLOC_A)
        rig.settle()
