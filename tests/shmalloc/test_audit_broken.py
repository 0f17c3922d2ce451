# SPDX-License-Identifier: MIT
"""The audit on trial: each broken variant leaves something that it must find, the correct code nothing."""

from collections.abc import Callable

import pytest

from shmalloc import Arena, Cpu, probes
from shmalloc.audit import Problem, audit
from shmalloc.program import ops

Scenario = Callable[[Cpu], None]


def free_two_large_buddies(cpu: Cpu) -> None:
    first, second = cpu.alloc_pages(5), cpu.alloc_pages(5)
    cpu.free_pages(first, 5)
    cpu.free_pages(second, 5)


def nolock_page(cpu: Cpu) -> None:
    cpu.free_pages(cpu.alloc_pages_nolock(0), 0)


def nolock_free_of_another_slab(cpu: Cpu) -> None:
    objects = [cpu.kmalloc(2048) for _ in range(23)]  # more than a slab holds
    cpu.kfree_nolock(objects[0])
    for offset in objects[1:]:
        cpu.kfree(offset)


def nmi_installs_a_slab_first(cpu: Cpu) -> None:
    program = probes.arm(cpu, "before_install", ops(("alloc", {"size": 64}), "free"), action="nmi")
    cpu.kfree_nolock(cpu.kmalloc_nolock(64))
    assert probes.fired(cpu) == 1 and not program.held()


def nmi_needs_a_debug_slab_under_list_lock(cpu: Cpu) -> None:
    objects = [cpu.kmalloc(64) for _ in range(3)]
    program = probes.arm(cpu, "debug_list_lock_held", ops(("alloc", {"size": 64})), action="nmi")
    for offset in objects:
        cpu.kfree(offset)
    assert probes.fired(cpu) == 1 and not program.held()  # a debug cache without its lock has nothing to give


def nmi_frees_a_page_under_both_locks(cpu: Cpu) -> None:
    taken = probes.arm(cpu, "before_get_partial", ops(("pages_alloc", {"order": 0})), action="nmi")
    cpu.kfree(cpu.kmalloc(64))
    program = probes.arm(cpu, "zone_locked_bulk", ops("free"), action="nmi", slots=taken.slots)
    cpu.alloc_pages(3)
    assert probes.fired(cpu) == 2 and not program.held()


CASES: list[tuple[str, Scenario, dict[str, int], str, str]] = [
    ("no_merge", free_two_large_buddies, {}, "broken_rule", "buddies not merged"),
    ("trylock_leak", nolock_page, {}, "broken_rule", "lock never released: pcp, CPU 0 took it at level 0"),
    ("k06", nolock_free_of_another_slab, {}, "lost_memory", "no irq_work is queued"),
    ("k08", nmi_installs_a_slab_first, {}, "lost_memory", "is frozen, and no CPU has it"),
    ("k12", nmi_needs_a_debug_slab_under_list_lock, {"slab_debug": 0xF}, "corruption", "nr_slabs is"),
    ("lost_page", nmi_frees_a_page_under_both_locks, {}, "lost_memory", "nowhere"),
]


def found_after(scenario: Scenario, broken: str, geometry: dict[str, int]) -> list[Problem]:
    with Arena.create(size="8MiB", flavour="checked", broken=broken, **geometry) as arena:
        with Cpu(arena, 0) as cpu:
            scenario(cpu)
            report = audit(arena, expect_live=True)
            cpu.arena.header.stop = 1
        return report.problems


@pytest.mark.parametrize(
    ("broken", "scenario", "geometry", "verdict", "text"), CASES, ids=[c[0] for c in CASES]
)
def test_broken_variant_is_caught(
    broken: str, scenario: Scenario, geometry: dict[str, int], verdict: str, text: str
) -> None:
    found = found_after(scenario, broken, geometry)
    assert found and {problem.verdict for problem in found} == {verdict}, found
    assert any(text in problem.text for problem in found), found


@pytest.mark.parametrize(
    ("broken", "scenario", "geometry", "verdict", "text"), CASES, ids=[c[0] for c in CASES]
)
def test_correct_code_is_not(
    broken: str, scenario: Scenario, geometry: dict[str, int], verdict: str, text: str
) -> None:
    assert found_after(scenario, "none", geometry) == []


def test_page_that_found_both_locks_taken_is_parked_and_named() -> None:
    with Arena.create(size="8MiB", flavour="checked") as arena, Cpu(arena, 0) as cpu:
        nmi_frees_a_page_under_both_locks(cpu)
        report = audit(arena)
        assert report.ok and report.totals["pages_deferred"] == 1
        assert any("wait on trylock_free_pages" in note for note in report.notes)
        cpu.free_pages(cpu.alloc_pages(5), 5)  # a free that may take the lock takes the parked ones along
        assert audit(arena).totals["pages_deferred"] == 0
