# SPDX-License-Identifier: MIT
"""Known bugs of the page allocator, each met by an exact interleaving; see also test_broken.py."""

import pytest
from controls import Control, assert_caught, assert_silent, name_of, nmi
from rig import Rig
from windows import SPINNING, pages_held

from shmalloc import AllocationFailed, Arena, Geometry

PAGE = ("pages_alloc", {"order": 0})
ATOMIC_PAGE = ("pages_alloc", {"order": 0, "gfp": "GFP_ATOMIC"})
UP = {"up": True, "cpus": 1}


def free_what_nolock_gave(rig: Rig) -> None:
    """A page of alloc_pages_nolock goes back by the normal free."""
    rig.free(rig.pages("alloc_pages_nolock"), "free_pages")


def nmi_under_the_object_hash(rig: Rig) -> None:
    """A free looks for live objects in its page; an NMI frees another page."""
    state = pages_held(rig)
    page = state.ready[-1]
    nmi(rig, "obj_hash_locked", lambda: rig.free(state.ready[0]), "free", holds=[page], orders=[0])


def irq_into_a_drain(rig: Rig) -> None:
    """A task empties its pageset; an irq wants a page."""
    rig.free(rig.pages())
    rig.arm("pcp_draining", "irq", rig.program(ATOMIC_PAGE, design=SPINNING))
    rig.cpu.drain_pages()
    assert rig.fired() == 1


def nmi_takes_the_chosen_page(rig: Rig) -> None:
    """The task has chosen a page that is still on its list; an NMI wants one, too."""
    rig.free(rig.pages())
    nmi(rig, "pcp_editing", rig.pages, PAGE)


def nmi_frees_under_the_pageset(rig: Rig) -> None:
    page = pages_held(rig).ready[-1]
    nmi(rig, "pcp_locked", rig.pages, "free", holds=[page], orders=[0])


def nmi_frees_under_the_zone(rig: Rig) -> None:
    """A block that the pagesets do not take."""
    block = pages_held(rig).elsewhere[-1]
    nmi(rig, "zone_locked", lambda: rig.pages(order=4), "free", holds=[block], orders=[4])


CONTROLS = (
    Control("k01", "page", "corruption", free_what_nolock_gave, "reference count is 0"),
    Control(
        "k19",
        "deadlock",
        "deadlock",
        nmi_under_the_object_hash,
        "an outer context of this CPU holds",
        {"debug_objects": True},
    ),
    Control("k22", "lock_rules", "broken_rule", irq_into_a_drain, "without SMP nothing keeps that out", UP),
    Control("k23", "oracle", "corruption", nmi_takes_the_chosen_page, "already owned", UP),
    Control(
        "k24",
        "lock_rules",
        "broken_rule",
        nmi_frees_under_the_pageset,
        "without SMP nothing keeps that out",
        UP,
    ),
    Control(
        "k24", "lock_rules", "broken_rule", nmi_frees_under_the_zone, "without SMP nothing keeps that out", UP
    ),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)


def nested_kmalloc_under_zone_lock(rig: Rig) -> None:
    """A probe in a locked region of the zone asks for an object that needs a slab from that zone."""
    rig.experiment(
        "zone_locked",
        "probe",
        lambda: rig.pages("alloc_pages", 4),
        rig.program(("alloc", {"size": 1024, "gfp": "GFP_ATOMIC"}), design=SPINNING),
    )


def test_masked_flags_make_an_ordinary_request_fail_for_a_lock() -> None:
    """K-30: it looks as if it must not wait, tries the zone's lock once, and gives up."""
    with Rig.create(broken="k30") as rig:
        nested_kmalloc_under_zone_lock(rig)
        caught = [v for v in rig.violations() if v.checker == "api"]
        assert ["refused because a lock was held" in v.text for v in caught] == [True]


def test_with_its_flags_the_request_waits() -> None:
    """Here for ever, as its own CPU holds the lock: that is what the correct core says."""
    with Rig.create() as rig:
        nested_kmalloc_under_zone_lock(rig)
        assert {v.checker for v in rig.violations()} <= {"deadlock", "lock_rules"}
        assert any(v.verdict == "deadlock" for v in rig.violations())


# --- what the correct core does without SMP ----------------------------------------------------------------


@pytest.mark.parametrize("line", [PAGE, ("alloc", {"size": 1024})])
def test_without_smp_an_nmi_gets_nothing(line: tuple[str, dict[str, int]]) -> None:
    """Nothing is held: a trylock would still tell nothing, so it is not even tried."""
    with Rig.create(**UP) as rig:
        program = rig.program(line)
        rig.experiment("pcp_locked", "nmi", rig.pages, program)
        assert rig.cpu.contexts()["nmi"]["failures"] == {"context_refused": 1}
        rig.settle()


def test_without_smp_an_nmi_parks_what_it_frees() -> None:
    with Rig.create(**UP) as rig:
        nmi_frees_under_the_pageset(rig)
        assert rig.zone().nr_deferred_free == 1
        rig.settle()


def test_without_smp_a_task_has_everything() -> None:
    with Rig.create(**UP) as rig:
        rig.pages("alloc_pages_nolock")
        rig.alloc("kmalloc_nolock")
        rig.settle()


def test_without_smp_there_is_one_cpu() -> None:
    with pytest.raises(Exception, match=r"up = True: allowed only with nr_cpus = 1, not 4"):
        Arena.create(Geometry(4 << 20, pageblock_order=5, up=True))


def test_a_kprobe_in_a_locked_section_is_the_hole_that_is_left() -> None:
    """Known leftover of K-23: it runs in task context, where the guard does not look."""
    with Rig.create(**UP) as rig:
        rig.free(rig.pages())
        rig.arm("pcp_editing", "probe", rig.program(PAGE))
        rig.pages()
        assert {v.verdict for v in rig.violations()} == {"broken_rule", "corruption"}


def test_nothing_is_left_of_a_request_without_memory() -> None:
    with Rig.create(**UP) as rig:
        with pytest.raises(AllocationFailed, match="order_limit"):
            rig.cpu.alloc_pages(11)
        rig.settle()
