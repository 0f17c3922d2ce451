# SPDX-License-Identifier: MIT
"""Bugs of pools and maps: each is caught by the checker that is meant for it, its fixed twin is silent."""

from contextlib import AbstractContextManager

import pytest
from rig import Rig

from shmalloc import AllocationFailed, DeadlockProved


def pool_rig(broken: str, **keys: object) -> AbstractContextManager[Rig]:
    settings = {"cpus": 2, "pool_size": 64, "pool_entries": 8} | keys
    return Rig.create(broken=broken, **settings)  # type: ignore[arg-type]


def checkers(rig: Rig) -> list[tuple[str, str]]:
    return [(violation.verdict, violation.checker) for violation in rig.violations()]


# --- k35: raw spinlocks in the heads ---------------------------------------------------------------


@pytest.mark.parametrize("site", ["freelist_pop_locked", "freelist_push_locked"])
def test_k35_a_probe_in_the_locked_section_spins_for_ever(site: str) -> None:
    with pool_rig("k35") as rig:
        design = rig.cpu.design("prealloc")
        design.setup()
        offset = design.alloc(8)
        rig.interrupt(site, "probe", ("alloc", {"size": 8}), design="prealloc")
        if site == "freelist_push_locked":
            design.free(offset)  # it is the probe that waits, and gives up
        else:
            design.alloc(8)
        assert rig.fired() == 1
        assert checkers(rig) == [("broken_rule", "lock_rules"), ("deadlock", "deadlock")]
        assert rig.violations()[1].lock_class == "freelist"


@pytest.mark.parametrize("site", ["freelist_pop_locked", "freelist_push_locked"])
def test_with_rqspinlock_the_probe_goes_to_another_cpus_freelist(site: str) -> None:
    with pool_rig("none") as rig:
        design = rig.cpu.design("prealloc")
        design.setup()
        offset = design.alloc(8)
        rig.interrupt(site, "probe", ("alloc", {"size": 8}), design="prealloc")
        if site == "freelist_push_locked":
            design.free(offset)
        else:
            rig.held[design.alloc(8)] = None
        assert rig.fired() == 1
        assert rig.counters()["freelist_steals"] == 1
        rig.assert_clean()


def test_a_push_goes_elsewhere_if_the_own_freelist_is_locked() -> None:
    with pool_rig("none") as rig:
        design = rig.cpu.design("prealloc")
        design.setup()
        first, second = design.alloc(8), design.alloc(8)
        program = rig.program("free", holds=[])
        program.slots[0] = second | rig.arena.core.names("design").index("prealloc") << 56
        rig.arm("freelist_push_locked", "nmi", program)
        design.free(first)
        assert rig.counters()["freelist_strays"] == 0  # the program has another design: it keeps the object
        rig.disarm()
        program = rig.program("free", design="prealloc")
        program.slots[0] = second | rig.arena.core.names("design").index("prealloc") << 56
        rig.arm("freelist_push_locked", "nmi", program)
        design.free(design.alloc(8))
        assert rig.counters()["freelist_strays"] == 1
        rig.assert_clean()


def test_with_one_cpu_a_push_in_nmi_has_nowhere_to_go() -> None:
    """The kernel's loop over the other CPUs never ends there: a deadlock that the rqspinlock does not save."""
    with pool_rig("none", cpus=1) as rig:
        design = rig.cpu.design("prealloc")
        design.setup()
        first, second = design.alloc(8), design.alloc(8)
        program = rig.program("free", design="prealloc")
        program.slots[0] = second | rig.arena.core.names("design").index("prealloc") << 56
        rig.arm("freelist_push_locked", "nmi", program)
        design.free(first)
        assert checkers(rig) == [("deadlock", "deadlock")]
        assert "every freelist locked by outer contexts" in rig.violations()[0].text


# --- k36: uneven populate --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "shares"), [("k36", [9] * 28 + [4] + [0] * 3), ("none", [8] * 32)], ids=["k36", "fixed"]
)
def test_k36_the_last_cpus_get_nothing(broken: str, shares: list[int]) -> None:
    with pool_rig(broken, cpus=32, bind=1, pool_entries=256) as rig:
        rig.cpu.design("prealloc").setup()
        heads = [rig.arena.item("struct pcpu_freelist_head", "freelists", cpu) for cpu in range(32)]
        assert [head.nr_populated for head in heads] == shares
        rig.assert_clean()


# --- extra_swap: the spare element ------------------------------------------------------------------


def replaced_in_nmi(broken: str) -> list[tuple[str, str]]:
    """Replace a key; in between, an NMI replaces another one."""
    with pool_rig(broken) as rig:
        made = rig.cpu.map_create("prealloc", 4, 8, 64)
        for key in range(64):
            made.update(key, key)
        rig.interrupt("elem_replacing", "nmi", *[("map_update", {"slot": key}) for key in range(8)])
        made.update(63, 5)
        assert rig.fired() == 1
        found = checkers(rig)
        if not found:
            assert made.lookup(63) == (5).to_bytes(8, "little")
            rig.assert_clean()
        return found


def test_extra_swap_an_nmi_takes_an_element_that_is_still_linked() -> None:
    assert replaced_in_nmi("extra_swap") == [("corruption", "oracle")]


def test_the_old_element_is_spare_when_it_is_out_of_its_bucket() -> None:
    assert replaced_in_nmi("none") == []


# --- k50: an NMI's push inside a push ----------------------------------------------------------------


def push_in_push(rig: Rig) -> tuple[int, int]:
    """Free an object; between the two steps an NMI frees another, and CPU 1 allocates before it returns.

    Returns: what CPU 1 got, and the object that nobody has freed, whose offset lies in the place.
    """
    design, number = rig.cpu.design("objpool"), rig.arena.core.names("design").index("objpool")
    design.setup()
    held = [design.alloc(8) for _ in range(4)]  # all; now the place that is written next holds held[0]
    for offset in held:  # once round the ring: every place holds what was there before
        design.free(offset)
    held = [design.alloc(8) for _ in range(4)]
    nmi = rig.program("free", design="objpool")
    nmi.slots[0] = held[2] | number << 56
    other = rig.program(("alloc", {"size": 8}), design="objpool")
    rig.arm("objpool_reserved", "nmi", nmi)
    rig.arm("objpool_published", "other_cpu", other)
    design.free(held[1])
    assert rig.fired() == 2
    return other.slots[0] & ((1 << 48) - 1), held[0]


def test_k50_another_cpu_pops_a_place_that_is_not_written() -> None:
    with pool_rig("k50", pool_entries=4) as rig:
        _, stale = push_in_push(rig)
        assert checkers(rig) == [("corruption", "oracle")]
        assert rig.violations()[0].object == stale  # it was live: two owners now


def test_k50_the_nmis_object_is_hidden_until_the_next_push() -> None:
    with pool_rig("k50", pool_entries=4) as rig:
        design, number = rig.cpu.design("objpool"), rig.arena.core.names("design").index("objpool")
        design.setup()
        held = [design.alloc(8) for _ in range(4)]
        nmi = rig.program("free", design="objpool")
        nmi.slots[0] = held[1] | number << 56
        rig.arm("objpool_reserved", "nmi", nmi)
        design.free(held[0])
        assert [problem.verdict for problem in rig.report().problems] == ["lost_memory"] * 2
        assert design.alloc(8) == held[0]
        with pytest.raises(AllocationFailed, match="freelist_empty"):
            design.alloc(8)  # though held[1] is free
        design.free(held[2])
        assert design.alloc(8) == held[1]
        assert not rig.violations()


def test_without_k50_the_outermost_push_tells_of_both() -> None:
    with pool_rig("none", pool_entries=4) as rig:
        got, _ = push_in_push(rig)
        assert got == 0  # nothing was published yet: CPU 1 finds the pool empty
        assert rig.cpus[1].contexts("objpool")["task"]["failures"] == {"freelist_empty": 1}
        design = rig.cpu.design("objpool")
        assert len({design.alloc(8), design.alloc(8)}) == 2
        rig.assert_clean()


# --- k45: one list for all ---------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["k45", "none"])
def test_k45_serves_and_takes_back_all_the_same(broken: str) -> None:
    with pool_rig(broken, pool_entries=23) as rig:
        design = rig.cpu.design("objpool")
        design.setup()
        for _ in range(3):
            held = [rig.cpus[at % 2].design("objpool").alloc(8) for at in range(23)]
            assert len(set(held)) == 23
            with pytest.raises(AllocationFailed, match="freelist_empty"):
                design.alloc(8)
            for offset in held:
                design.free(offset)
            rig.assert_clean()
        assert (rig.counters()["objpool_steals"] > 0) == (broken == "none")
        design.teardown()
        rig.settle()


def test_a_deadlock_of_the_task_itself_is_raised() -> None:
    with pool_rig("k35") as rig:
        design = rig.cpu.design("prealloc")
        design.setup()
        rig.arena.item("struct pcpu_freelist_head", "freelists", 0).lock.word = 1
        with pytest.raises(DeadlockProved):
            design.alloc(8)
