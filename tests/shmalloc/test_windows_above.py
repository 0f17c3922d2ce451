# SPDX-License-Identifier: MIT
"""Windows above the slabs: charging to a memcg, an objpool's push.  Nested nolock calls are legal there, too."""

import pytest
from rig import A_BYTES, Rig

ACCOUNT = "__GFP_ACCOUNT"
CHARGED = ("alloc", {"size": A_BYTES, "gfp": ACCOUNT})


@pytest.mark.parametrize("by", ["nmi", "probe", "irq"])
@pytest.mark.parametrize("site", ["memcg_charge", "memcg_vector", "memcg_stock_locked"])
def test_a_nested_charge(site: str, by: str) -> None:
    """The task's first charge makes a vector and fills the stocks; the nested one is charged as well."""
    with Rig.create() as rig:
        group = rig.cpu.memcg_create("one")
        rig.cpu.memcg_enter(group)
        rig.cpu.memcg_interrupts(group)
        program = rig.program(CHARGED)
        rig.arm(site, by, program)
        outer = rig.cpu.kmalloc(A_BYTES, "GFP_KERNEL|" + ACCOUNT)
        assert rig.fired() == 1
        (nested,) = program.held()
        assert nested != outer
        rig.assert_clean()
        rig.cpu.kfree(outer)
        rig.drain_programs()
        rig.cpu.run_irq_work()
        rig.assert_clean(expect_live=False)


@pytest.mark.parametrize("by", ["nmi", "probe", "irq"])
def test_a_nested_push_before_the_poppers_know(by: str) -> None:
    with Rig.create(pool_size=64, pool_entries=8) as rig:
        design = rig.cpu.design("objpool")
        design.setup()
        first, second = design.alloc(8), design.alloc(8)
        number = rig.arena.core.names("design").index("objpool")
        program = rig.program("free", ("alloc", {"size": 8, "slot": 1}), design="objpool")
        program.slots[0] = second | number << 56
        rig.arm("objpool_written", by, program)
        design.free(first)
        assert rig.fired() == 1
        assert len(program.held()) == 1
        rig.assert_clean()
