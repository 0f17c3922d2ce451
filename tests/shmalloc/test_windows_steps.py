# SPDX-License-Identifier: MIT
"""Which windows an operation has: appendix C's list of steps, as the sites that each path passes, with numbers.

The windows of the other files are only as good as this: an interruption at a site says something about a step
if the path has that step, and as often as it should.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Rig
from windows import (
    OF_BROKEN_VARIANTS,
    OUTER,
    REACH,
    Given,
    cpu_partial,
    cpu_slab,
    debug_partial,
    full_slab,
    no_slab,
    node_partial,
    node_partials,
    pages_held,
    pcp_filled,
    remote_frees,
)

LOCK = {"cpu_slab_irq_off": 1, "cpu_slab_locked": 1, "cpu_slab_unlocked": 1}  # steps 9, 10, 14
PAGE = {"pcp_locked": 1, "zone_locked_bulk": 1, "pcp_editing": 1}
NEW = {"before_get_partial": 1, "before_new_slab": 1, "before_install": 1, **PAGE}


def plus(*parts: dict[str, int]) -> dict[str, int]:
    return {name: sum(part.get(name, 0) for part in parts) for part in parts for name in part}


ALLOCATIONS: list[tuple[Callable[[Rig], Given], dict[str, int]]] = [
    (cpu_slab, {"alloc_fastpath": 1}),  # 3-7
    (remote_frees, {**LOCK, "cpu_slab_editing": 1}),  # 8-15
    (no_slab, plus(NEW, LOCK)),  # 21-23
    (full_slab, plus(LOCK, {"cpu_slab_editing": 1}, NEW, LOCK)),
    (cpu_partial, plus(LOCK, LOCK, {"cpu_slab_editing": 2})),  # 16
    (node_partial, plus({"before_get_partial": 1, "list_lock_held": 1, "before_install": 1}, LOCK)),  # 17-20
    (
        node_partials,  # two further slabs go to the cpu partial list, which has a lock of its own to take
        plus(
            {"before_get_partial": 1, "list_lock_held": 1, "before_install": 1, "list_lock_and_cpu_slab": 2},
            LOCK,
            {"cpu_slab_irq_off": 2, "cpu_slab_unlocked": 2},
        ),
    ),
]


def passed(rig: Rig) -> dict[str, int]:
    return {name: rig.hits(name) for name in rig.arena.core.names("probe") if rig.hits(name)}


@pytest.mark.parametrize("outer", ["kmalloc", "kmalloc_nolock"])
@pytest.mark.parametrize(("given", "sites"), ALLOCATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_allocation(given: Callable[[Rig], Given], sites: dict[str, int], outer: str) -> None:
    with Rig.create() as rig:
        operation = OUTER[outer](rig, given(rig))
        with rig.watching():
            operation()
            assert passed(rig) == sites
        rig.settle()


IRQ_WORK = {"irq_work_detached": 1, "slab_free_cmpxchg": 1}
PUT = {"list_lock_and_cpu_slab": 1, "cpu_slab_irq_off": 1, "cpu_slab_unlocked": 1}

OTHERS: list[tuple[Callable[[Rig], Given], str, dict[str, int]]] = [
    (cpu_slab, "kfree", {"free_fastpath": 1}),
    (cpu_slab, "kfree_nolock", {"free_fastpath": 1}),
    (cpu_slab, "kfree elsewhere", plus({"slab_free_cmpxchg": 1}, PUT)),
    (cpu_slab, "kfree_nolock elsewhere", plus(IRQ_WORK, PUT)),
    (node_partial, "kfree elsewhere", {"slab_free_cmpxchg": 1}),
    (no_slab, "alloc_pages", PAGE),
    (pcp_filled, "alloc_pages", {"pcp_locked": 1, "pcp_editing": 1}),
    (no_slab, "alloc_pages_nolock", PAGE),
    (no_slab, "alloc_pages(4)", {"zone_locked": 1}),
    (pages_held, "free_pages", {"free_pcp_locked": 1}),
    (pages_held, "free_pages_nolock", {"free_pcp_locked": 1}),
    (pages_held, "free_pages(4)", {"free_zone_locked": 1}),
]


@pytest.mark.parametrize(
    ("given", "outer", "sites"), OTHERS, ids=lambda value: getattr(value, "__name__", None)
)
def test_another_operation(given: Callable[[Rig], Given], outer: str, sites: dict[str, int]) -> None:
    with Rig.create() as rig:
        operation = OUTER[outer](rig, given(rig))
        with rig.watching():
            operation()
            assert passed(rig) == sites
        rig.settle()


@pytest.mark.parametrize(
    ("outer", "sites"),
    [
        ("kmalloc", {"before_get_partial": 1, "list_lock_held": 1}),
        ("kmalloc_nolock", {"before_get_partial": 1, "list_lock_held": 1}),
        ("kfree elsewhere", {"debug_list_lock_held": 1}),
        ("kfree_nolock elsewhere", {"irq_work_detached": 1, "debug_list_lock_held": 1}),
    ],
)
def test_a_debug_cache(outer: str, sites: dict[str, int]) -> None:
    with Rig.create(slab_debug=0x1) as rig:
        operation = OUTER[outer](rig, debug_partial(rig))
        with rig.watching():
            operation()
            assert passed(rig) == sites
        rig.settle()


def test_every_site_can_be_reached() -> None:
    """By the table, or, what lies above the slabs, in the tests of its topic."""
    with Rig.create() as rig:
        others = set(rig.arena.core.names("probe")) - set(REACH) - OF_BROKEN_VARIANTS
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert {site for site in others if f'"{site}"' not in tests} == set()


@pytest.mark.parametrize("site", REACH)
def test_a_site_is_passed_where_the_tables_say(site: str) -> None:
    way = REACH[site]
    with Rig.create(**way.geometry) as rig:
        operation = OUTER[way.outer](rig, way.given(rig))
        with rig.watching():
            operation()
            assert rig.hits(site) >= 1
        rig.settle()


@pytest.mark.parametrize("site", ["alloc_fastpath", "list_lock_held", "zone_locked"])
def test_the_release_flavour_has_no_sites(site: str) -> None:
    with Rig.create(flavour="release") as rig:
        program = rig.program(("alloc", {"size": 64}))
        number = rig.arena.core.names("probe").index(site)
        assert rig.lib.shm_probe_arm(number, rig.lib.PROBE_NMI, 1, program.c, 0) < 0
        rig.alloc()
        assert rig.hits(site) == rig.fired() == 0
        rig.settle()


def test_a_program_fires_at_the_nth_passing_and_once() -> None:
    with Rig.create() as rig:
        rig.take(1)
        program = rig.program(("alloc", {"size": 64}), ("free", {}))
        rig.arm("alloc_fastpath", "nmi", program, nth=5)
        for turn in range(1, 8):
            rig.alloc()
            assert rig.fired() == (turn >= 5)
        assert rig.hits("alloc_fastpath") == 7  # the nested allocation found no cpu slab of kmalloc-64
        assert rig.cpu.interrupts()["nmi"]["handled"] == 1
        rig.settle()


@pytest.mark.parametrize(("site", "action", "nth"), [(1000, "NMI", 1), (0, "NMI", 0), (0, "OTHER_CPU", 0)])
def test_arming_refuses_what_makes_no_sense(site: int, action: str, nth: int) -> None:
    with Rig.create() as rig:
        program = rig.program(("alloc", {"size": 64}))
        assert rig.lib.shm_probe_arm(site, getattr(rig.lib, f"PROBE_{action}"), nth, program.c, 1) < 0
        assert rig.lib.shm_probe_arm(0, rig.lib.PROBE_NMI, 1, rig.arena.core.ffi.NULL, 1) < 0
