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


CONTROLS = (
    Control("k07", "lock_rules", "broken_rule", overtaken_free, "waited for in NMI"),
    Control("k41", "audit", "corruption", preempted_put, "cpu slab of CPU 0 and cpu partial list"),
)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_broken_variant_is_caught(control: Control) -> None:
    assert_caught(control)


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_the_correct_core_is_silent(control: Control) -> None:
    assert_silent(control)
