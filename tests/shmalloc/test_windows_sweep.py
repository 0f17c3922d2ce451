# SPDX-License-Identifier: MIT
"""Every window with every nested operation: nothing goes wrong, nothing is lost, and nobody waits.

The tables say what happens; here only that all of it is legal.  Nested nolock calls come from any context (A.1,
A.2), the spinning ones from irq only (A.4): an irq never meets a lock that its own CPU holds with irqs on and
that it would wait for.
"""

import pytest
from rig import A_BYTES, B_BYTES, Rig
from windows import NOLOCK, OUTER, REACH, SPINNING, Given, Reach, debug_partial, no_slab, remote_frees

from shmalloc.program import Program

TAKES: list[tuple[str, dict[str, int | str]]] = [
    ("alloc", {"size": A_BYTES}),
    ("alloc", {"size": B_BYTES}),
    ("alloc", {"size": 8}),
    ("pages_alloc", {"order": 0}),
    ("pages_alloc", {"order": 3}),
    ("alloc", {"size": 8192}),
]


def mixed(rig: Rig, state: Given, design: str, by: str) -> Program:
    """Allocations of all kinds, frees of what is there and of what they have just got.

    Another CPU holds its irqs off: its irq_work may wait for the lock, and on this thread it would never get it.
    """
    given = [*state.ready[-1:], *state.elsewhere[-1:]]
    orders = [rig.held[offset] for offset in given if rig.held[offset] is not None]
    holds = len(given)
    lines = [(name, {**fields, "slot": holds + at}) for at, (name, fields) in enumerate(TAKES)]
    lines += [("free", {"slot": slot}) for slot in range(holds + 2)]
    begin = ["irq_off"] if by == "other_cpu" else []
    return rig.program(*begin, *lines, *lines[:2], holds=given, orders=orders, design=design)


def sweep(way: Reach, site: str, by: str, design: str, flags: dict[str, object]) -> int:
    """Interrupt the way's operation at each of its passings of the site, each time from a drained arena."""
    with Rig.create(**{**way.geometry, **flags}) as rig:
        operation = OUTER[way.outer](rig, way.given(rig))
        with rig.watching():
            operation()
            passings = rig.hits(site)
        rig.settle()
        for nth in range(1, passings + 1):
            state = way.given(rig)
            operation = OUTER[way.outer](rig, state)
            rig.arm(site, by, mixed(rig, state, design, by), nth=nth)
            operation()
            rig.irqs_on(cpu=1)
            assert rig.fired() == 1
            rig.settle()
    return passings


CONTEXTS = ("nmi", "probe", "irq", "other_cpu")
FORBIDDEN = ("cpu_slab_editing", "probe")  # the body of ___slab_alloc: see test_nokprobe


@pytest.mark.parametrize(
    ("site", "by"), [(site, by) for site in REACH for by in CONTEXTS if (site, by) != FORBIDDEN]
)
def test_nolock_calls_are_legal_from_anywhere(site: str, by: str) -> None:
    assert sweep(REACH[site], site, by, NOLOCK, {}) >= 1


@pytest.mark.parametrize("site", REACH)
def test_spinning_calls_are_legal_from_irq(site: str) -> None:
    assert sweep(REACH[site], site, "irq", SPINNING, {}) >= 1


VARIETIES: dict[str, dict[str, object]] = {
    "two nodes": {"nr_nodes": 2},
    "hardened and shuffled": {"freelist_random": True, "freelist_hardened": True},
    "no oracle": {"oracle": False},
    "without cmpxchg_double": {"cmpxchg_double": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("by", CONTEXTS)
@pytest.mark.parametrize("variety", VARIETIES)
def test_nolock_calls_are_legal_in_every_variety(variety: str, by: str) -> None:
    for site, way in REACH.items():
        if (site, by) != FORBIDDEN:
            assert sweep(way, site, by, NOLOCK, VARIETIES[variety]) >= 1


DEBUG_SITES = {
    "before_get_partial": Reach(debug_partial, "kmalloc"),
    "list_lock_held": Reach(debug_partial, "kmalloc"),
    "before_new_slab": Reach(no_slab, "kmalloc"),
    "debug_list_lock_held": Reach(debug_partial, "kfree elsewhere"),
    "irq_work_detached": Reach(debug_partial, "kfree_nolock elsewhere"),
}


@pytest.mark.parametrize("by", CONTEXTS)
@pytest.mark.parametrize("flags", [0x1, 0x2, 0x8, 0xF])
def test_nolock_calls_are_legal_in_debug_caches(flags: int, by: str) -> None:
    for site, way in DEBUG_SITES.items():
        assert sweep(way, site, by, NOLOCK, {"slab_debug": flags}) >= 1


def test_nokprobe() -> None:
    """A probe on the body of ___slab_alloc is what the kernel forbids (NOKPROBE): so is arming one here."""
    with Rig.create() as rig:
        program = rig.program(("alloc", {"size": A_BYTES}))
        assert rig.lib.shm_probe_arm(rig.site("cpu_slab_editing"), rig.lib.PROBE_PROBE, 1, program.c, 0) < 0
        rig.alloc()
        assert rig.fired() == 0


def test_why_nokprobe() -> None:
    """The freelist is in the outer one's hands; what the probe frees to the cpu slab meanwhile is overwritten."""
    with Rig.create(broken="k42") as rig:
        state = remote_frees(rig)
        program = rig.program("free", holds=[state.ready[-1]])
        assert str(rig.experiment("cpu_slab_editing", "probe", rig.alloc, program)) == "A: freed"
        (problem,) = rig.report().problems
        assert problem.verdict == "lost_memory"
