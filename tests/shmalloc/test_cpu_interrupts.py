# SPDX-License-Identifier: MIT
"""Interrupts of a CPU, its contexts, and what it has counted."""

import pytest
from auditing import clean

from shmalloc import (
    AllocationFailed,
    Arena,
    Cpu,
    ShmallocError,
    ops,
)


def test_an_nmi_runs_its_program(cpu: Cpu) -> None:
    program = cpu.set_program(
        "nmi", ops(("alloc", {"size": 64, "slot": 0}), ("alloc", {"size": 96, "slot": 1}))
    )
    assert program is not None
    assert program.held() == []
    cpu.interrupt("nmi")
    held = program.held()
    assert len(set(held)) == 2
    assert [cpu.ksize(offset) for offset in held] == [64, 96]
    assert cpu.interrupts()["nmi"]["sent"] == cpu.interrupts()["nmi"]["handled"] == 1
    assert cpu.contexts("kmalloc_nolock")["nmi"] == {"allocs": 2, "frees": 0, "failures": {}}
    cpu.set_program("nmi", None)
    cpu.interrupt("nmi")
    assert program.held() == held
    assert cpu.drain(program) == 2
    assert program.held() == []
    assert clean(cpu.arena)


def test_the_memory_of_a_program_is_kept(cpu: Cpu) -> None:
    for round_ in range(23):
        slots = bytearray(8)
        cpu.set_program("nmi", ops(("alloc", {"size": 8 + round_}), ("free", {})), slots=slots)
        del slots
        cpu.interrupt("nmi")
    assert cpu.contexts()["nmi"]["allocs"] == cpu.contexts()["nmi"]["frees"] == 23


def test_an_irq_waits_for_irqs_to_be_enabled(cpu: Cpu) -> None:
    program = cpu.set_program("irq", ops(("alloc", {"size": 64})), design="kmalloc")
    assert program is not None
    with cpu.irq_save():
        with cpu.irq_save():
            cpu.interrupt("irq")
        assert cpu.irq_pending()
        assert program.held() == []
    assert not cpu.irq_pending()
    assert len(program.held()) == 1
    assert cpu.interrupts()["irq"]["masked"] == 1
    cpu.drain(program)


def test_an_nmi_does_not_wait(cpu: Cpu) -> None:
    program = cpu.set_program("nmi", ops(("alloc", {"size": 64})))
    assert program is not None
    with cpu.irq_save():
        cpu.interrupt("nmi")
        assert len(program.held()) == 1
    cpu.drain(program)


def test_irqs_come_back_after_an_exception(cpu: Cpu) -> None:
    with pytest.raises(KeyError), cpu.irq_save():
        raise KeyError
    cpu.set_program("irq", ops(("alloc", {"size": 64}), "free"))
    cpu.interrupt("irq")
    assert cpu.interrupts()["irq"]["handled"] == 1


def test_softirq_context(cpu: Cpu) -> None:
    with cpu.bh_disable(), cpu.bh_disable():
        cpu.kfree(cpu.kmalloc(64))
    cpu.kfree(cpu.kmalloc(64))


def test_interrupts_can_come_from_elsewhere(arena: Arena, cpu: Cpu) -> None:
    cpu.set_program("nmi", ops(("alloc", {"size": 64}), "free"))
    with Arena.attach(arena.name, flavour=arena.flavour):
        arena.send_interrupt(0, "nmi")
    assert cpu.interrupts()["nmi"]["handled"] == 1
    with pytest.raises(ShmallocError, match=r"CPU 1 gets no nmi interrupt"):
        arena.send_interrupt(1, "nmi")
    with pytest.raises(ValueError, match=r"kind = 'smi': allowed are nmi, irq"):
        arena.send_interrupt(0, "smi")


def test_a_timer_interrupts(cpu: Cpu) -> None:
    cpu.set_program("nmi", ops(("alloc", {"size": 64}), "free"))
    cpu.set_timer("nmi", 1000.0, 0.5)
    while cpu.interrupts()["nmi"]["handled"] < 5:
        cpu.kfree(cpu.kmalloc(64))
    cpu.set_timer("nmi", 0)
    assert cpu.contexts()["nmi"]["allocs"] + sum(cpu.contexts()["nmi"]["failures"].values()) >= 5


def test_counters_have_the_kernels_names(cpu: Cpu) -> None:
    before = cpu.counters()
    for offset in [cpu.kmalloc(64) for _ in range(101)]:
        cpu.kfree(offset)
    after = cpu.counters()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["alloc_fastpath"] + grown["alloc_slowpath"] == 101
    assert grown["free_fastpath"] + grown["free_slowpath"] == 101
    assert grown["alloc_slab"] >= 1
    assert grown["numa_hit"] >= 1
    assert {"irq_work_runs", "pcp_refill", "cmpxchg_double_fail"} <= set(after)
    assert "pad" not in after


def test_the_reason_of_the_last_failure(cpu: Cpu) -> None:
    assert cpu.last_reason == "none"
    with pytest.raises(AllocationFailed):
        cpu.alloc_pages(11)
    assert cpu.last_reason == "order_limit"
