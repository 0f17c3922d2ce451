# SPDX-License-Identifier: MIT
"""Known bugs of the slab allocator with cpu slabs, each met by an exact interleaving; see also test_broken.py."""

import pytest
from controls import Control, assert_caught, assert_silent, name_of
from rig import A_BYTES, PER_SLAB, Rig
from windows import SPINNING, cpu_slab

A = {"size": A_BYTES}


def overtaken_free(rig: Rig) -> None:
    """An NMI frees to the cpu slab; before its exchange a probe uses that slab up and installs another."""
    state = cpu_slab(rig)
    use_up = rig.program(*[("alloc", {**A, "slot": slot}) for slot in range(11)])
    rig.arm("free_fastpath", "probe", use_up)
    rig.arm("pcp_locked", "nmi", rig.program("free", holds=[state.ready[-1]]))
    rig.pages()
    assert rig.fired() == 2


def preempted_put(rig: Rig) -> None:
    """A second slab goes to the cpu partial list, and in the middle of that the first one becomes the cpu slab.

    On PREEMPT_RT another task of this CPU would do it: it runs where here an irq does.
    """
    first, second = rig.take(PER_SLAB), rig.take(PER_SLAB)
    rig.take(PER_SLAB)
    rig.free(first.pop())
    rig.arm(
        "list_lock_and_cpu_slab", "irq", rig.program(("alloc", {**A, "gfp": "GFP_ATOMIC"}), design=SPINNING)
    )
    rig.free(second.pop())
    assert rig.fired() == 1


def aba_of_a_bulk_call(rig: Rig) -> None:
    """Two objects by one bulk call, in an irq between read and exchange of a fast path; one of them goes back.

    Then the freelist begins as before and goes on otherwise: requests for two nodes in turn have the slab given up
    and taken back, so that no fast path of the irq moves the tid.  W is put before X, the first free one.
    """
    first = cpu_slab(rig).ready[-1]
    atomic = {**A, "gfp": "GFP_ATOMIC"}
    irq = rig.program(
        ("bulk_alloc", {"cache": rig.cache_index(), "size": 2, "slot": 1}),  # X, and Y, which is believed to be next
        ("alloc", {**atomic, "node": 1, "slot": 3}),  # the slab is given up
        ("free", {"slot": 1}), ("free", {"slot": 0}),  # X and W go back, W in front
        ("alloc", {**atomic, "node": 0, "slot": 4}),  # W: and X is the first free one again
        holds=[first],
        design=SPINNING,
    )  # fmt: skip
    rig.arm("alloc_fastpath", "irq", irq)
    rig.alloc(node=0)
    assert rig.fired() == 1
    rig.alloc(node=0)


CONTROLS = (
    Control("k07", "lock_rules", "broken_rule", overtaken_free, "waited for in NMI"),
    Control("k41", "audit", "corruption", preempted_put, "cpu slab of CPU 0 and cpu partial list"),
    Control("k43", "oracle", "corruption", aba_of_a_bulk_call, "already owned", {"nr_nodes": 2}),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)
