# SPDX-License-Identifier: MIT
"""Each checker on trial: every broken variant is caught, by the checker that is meant for it, with the right verdict.

A scenario interrupts the allocator exactly where the bug is.  On the correct core the same scenario is silent.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from controls import Control, assert_caught, assert_silent, name_of, nmi
from rig import A_BYTES, PER_SLAB, Rig
from windows import SPINNING, cpu_slab, debug_partial, no_slab, node_partial, pages_held

from shmalloc import Arena, Unsupported, designs

A = {"size": A_BYTES}


def aba(rig: Rig) -> None:
    """Two objects taken, the first one given back: the freelist begins as before, and goes on otherwise."""
    cpu_slab(rig)
    lines = [("alloc", {**A, "slot": 0}), ("alloc", {**A, "slot": 1}), ("free", {"slot": 0})]
    nmi(rig, "alloc_fastpath", rig.alloc, *lines)
    rig.alloc()


def aba_of_slow_paths(rig: Rig) -> None:
    """The same by slow paths only: an irq has the slab given up and taken back until its freelist begins as before.

    Requests for node 0 and node 1 in turn: each one deactivates the cpu slab of the other node.  W is the object
    that lies before X, the first free one, once both have been freed.
    """
    first = cpu_slab(rig).ready[-1]

    def take(node: int, slot: int) -> tuple[str, dict[str, int]]:
        return "alloc", {**A, "gfp": "GFP_ATOMIC", "node": node, "slot": slot}

    irq = rig.program(
        take(1, 1), take(0, 2),  # X
        take(1, 3), take(0, 4),  # Y, which the outer one believes to be next
        take(1, 5), ("free", {"slot": 2}), ("free", {"slot": 0}),  # X and W go back, W in front
        take(0, 6),  # W: and X is the first free one again
        holds=[first],
        design=SPINNING,
    )  # fmt: skip
    rig.arm("alloc_fastpath", "irq", irq)
    rig.alloc(node=0)
    assert rig.fired() == 1
    rig.alloc(node=0)


def nmi_under_list_lock(rig: Rig) -> None:
    node_partial(rig)
    nmi(rig, "list_lock_held", rig.alloc, ("alloc", A))


def nmi_under_zone_lock(rig: Rig) -> None:
    no_slab(rig)
    nmi(rig, "zone_locked_bulk", rig.pages, ("alloc", A))


def nmi_under_cpu_slab_lock(rig: Rig) -> None:
    no_slab(rig)
    nmi(rig, "cpu_slab_locked", rig.alloc, ("alloc", A))


def nmi_by_itself(rig: Rig) -> None:
    """Nothing is held: no deadlock this time, and the rule is broken all the same."""
    node_partial(rig)
    nmi(rig, "before_get_partial", rig.alloc, ("alloc", A))


def free_elsewhere(rig: Rig) -> None:
    rig.free(cpu_slab(rig).elsewhere[0], "kfree_nolock")


def overtaken_installation(rig: Rig) -> None:
    nmi(rig, "before_install", lambda: rig.alloc("kmalloc_nolock"), ("alloc", A))


def constructed_object_deferred(rig: Rig) -> None:
    """Its slab is full and not the cpu slab; when that is used up, the object comes back."""
    cache = rig.cpu.kmem_cache_create("constructed", 96, ctor=1)
    per_slab = cache.info().objects
    taken = [cache.alloc() for _ in range(per_slab + 1)]
    rig.held.update(dict.fromkeys(taken))
    rig.free(taken[0], "kfree_nolock")
    again = [cache.alloc() for _ in range(per_slab)]
    rig.held.update(dict.fromkeys(again))
    assert taken[0] in again


def debug_slab_that_cannot_be_added(rig: Rig) -> None:
    state = debug_partial(rig)
    nmi(rig, "debug_list_lock_held", lambda: rig.free(state.elsewhere[0]), ("alloc", A))


def nmi_while_the_freelist_is_detached(rig: Rig) -> None:
    cpu_slab(rig)
    nmi(rig, "cpu_slab_editing", lambda: rig.alloc(node=1), ("alloc", A))
    rig.take(10, node=0)


def pages_nolock(rig: Rig) -> None:
    rig.pages("alloc_pages_nolock")


def one_partial_slab_for_two_cpus(rig: Rig) -> None:
    node_partial(rig)
    rig.alloc(cpu=0)
    rig.alloc(cpu=1)


def split_and_free(rig: Rig) -> None:
    rig.free(rig.pages(order=4))


def free_without_any_lock(rig: Rig) -> None:
    parked = pages_held(rig).elsewhere[-1]
    nmi(rig, "zone_locked", lambda: rig.pages(order=4), "free", holds=[parked], orders=[4])


TWO_NODES = {"nr_nodes": 2}
DEBUG = {"slab_debug": 0x1}

CONTROLS = (
    Control("no_tid", "oracle", "corruption", aba, "already owned"),
    Control("k43", "oracle", "corruption", aba_of_slow_paths, "already owned", TWO_NODES),
    Control("spin_in_nmi", "deadlock", "deadlock", nmi_under_list_lock, "an outer context of this CPU holds"),
    Control("spin_in_nmi", "deadlock", "deadlock", nmi_under_zone_lock, "an outer context of this CPU holds"),
    Control("spin_in_nmi", "deadlock", "deadlock", nmi_under_cpu_slab_lock, "a local lock is taken again"),
    Control("spin_in_nmi", "lock_rules", "broken_rule", nmi_by_itself, "waited for in NMI"),
    Control(
        "spin_list_lock_nolock", "deadlock", "deadlock", nmi_under_list_lock, "an outer context of this CPU"
    ),
    Control("spin_list_lock_nolock", "lock_rules", "broken_rule", nmi_by_itself, "waited for in NMI"),
    Control("k06", "audit", "lost_memory", free_elsewhere, "wait on its deferred lists"),
    Control("k08", "audit", "lost_memory", overtaken_installation, "frozen, and no CPU has it"),
    Control("k09", "ctor", "corruption", constructed_object_deferred, "written to while it was free"),
    Control("k12", "audit", "corruption", debug_slab_that_cannot_be_added, "nr_slabs", DEBUG),
    Control("k13", "retry_bound", "stall", debug_slab_that_cannot_be_added, "round and round", DEBUG),
    Control("k42", "oracle", "corruption", nmi_while_the_freelist_is_detached, "already owned", TWO_NODES),
    Control("trylock_leak", "lock_rules", "broken_rule", pages_nolock, "still held at the end"),
    Control("trylock_leak", "audit", "broken_rule", pages_nolock, "lock never released: pcp"),
    Control("shared_slot", "oracle", "corruption", one_partial_slab_for_two_cpus, "already owned"),
    Control("no_merge", "audit", "broken_rule", split_and_free, "budd"),
    Control("lost_page", "audit", "lost_memory", free_without_any_lock, "page"),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)


def words_of_controls() -> set[object]:
    """Every constant of the tests: each topic tries its own variants."""
    return {
        node.value
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
    }


def test_every_variant_is_on_trial() -> None:
    """Here, or in a file of its topic."""
    assert set(designs.broken_variants()) - words_of_controls() - {"none"} == set()


def test_every_checker_is_on_trial() -> None:
    """Those that no variant of the allocator sets off are tried where their input is made: see the message."""
    with Rig.create() as rig:
        checkers = set(rig.arena.core.names("checker"))
    tried_elsewhere = {"none", "owner", "rcu"}
    assert checkers - tried_elsewhere - words_of_controls() == set()


@pytest.mark.parametrize("variant", [name for name, other in designs.set_off_by().items() if other])
def test_the_release_flavour_has_no_variant_that_no_interrupt_sets_off(variant: str) -> None:
    with pytest.raises(Unsupported, match=rf"broken = '{variant}'"):
        Arena.create(size="4MiB", pageblock_order=5, flavour="release", broken=variant)


def test_a_leaked_trylock_deadlocks_nobody() -> None:
    """Everything is served, by the buddy, and slowly; it is the checkers that say no."""
    with Rig.create(broken="trylock_leak") as rig:
        before = rig.counters()
        for _ in range(23):
            rig.free(rig.pages("alloc_pages_nolock"), "free_pages_nolock")
        moved = rig.telling(before)
        assert moved["pcp_busy"] == 2 * 23 - 1  # all but the first allocation
        assert {v.verdict for v in rig.violations()} == {"broken_rule"}
        assert rig.arena.header.stop == 0
        assert rig.report().verdict == "broken_rule"


def test_a_verdict_in_nmi_leaves_the_outer_operation_alone() -> None:
    """The NMI is given up; what it interrupted goes on, finishes, and gives its locks back."""
    with Rig.create(broken="spin_in_nmi") as rig:
        node_partial(rig)
        program = rig.program(("alloc", A))
        outcome = rig.experiment("list_lock_held", "nmi", rig.alloc, program)
        assert outcome.outer == "A"
        assert not rig.cache_node().list_lock.word
        assert rig.report().ok
        assert len(rig.take(PER_SLAB)) == PER_SLAB
