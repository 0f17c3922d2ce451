# SPDX-License-Identifier: MIT
"""bpf_mem_alloc against its model in plain Python: after any history the same numbers on the same lists."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.bpf import BpfList
from rig import Rig

from shmalloc import AllocationFailed
from shmalloc.audit import audit
from shmalloc.audit.bpf import walk_bpf
from shmalloc.audit.view import View

SIZES = (96, 192, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # in the order of the lists
HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["alloc", "give"]), st.integers(1, 130)),
        st.tuples(st.sampled_from(["irqs_off", "irqs_on", "grace_period"]), st.just(1)),
    ),
    max_size=25,
)


def run(rig, unit, history):
    """Do it with both; after each step compare what lies where."""
    model, cpu, held = BpfList(unit), rig.cpus[0], []
    design = cpu.design("bpf_mem_alloc")
    masks = []
    for what, times in history:
        for _ in range(times):
            if what == "alloc":
                try:
                    held.append(design.alloc(unit - 8))
                    got = True
                except AllocationFailed as failed:
                    got = failed.reason != "refill_lag"
                assert model.alloc() == got
            elif what == "give" and held:
                design.free(held.pop(len(held) // 2))
                model.give()
            elif what == "irqs_off" and not masks:
                masks.append(cpu.irq_save())
                masks[0].__enter__()
                model.irqs(off=True)
            elif what == "irqs_on" and masks:
                masks.pop().__exit__(None, None, None)
                model.irqs(off=False)
            elif what == "grace_period" and not masks:
                cpu.rcu_barrier()
                model.grace_period()
        compare(rig, unit, model)
    if masks:
        masks.pop().__exit__(None, None, None)
        model.irqs(off=False)
        compare(rig, unit, model)
    for object_ in held:
        design.free(object_)


def compare(rig, unit, model):
    lists = walk_bpf(View.of(rig.arena), 0, SIZES.index(unit))
    found = {name: len(objects) for name, (objects, _) in lists.items() if objects}
    expected = {
        "free_llist": model.free,
        "free_by_rcu_ttrace": model.trimmed,
        "waiting_for_gp_ttrace": model.waiting,
    }
    assert found == {name: count for name, count in expected.items() if count}


@pytest.mark.parametrize("unit", SIZES)
@settings(max_examples=12, deadline=None)
@given(history=HISTORIES)
def test_any_history(unit, history):
    with Rig.create(cpus=1, size="16MiB", rcu_gp_us=0) as rig:
        rig.cpus[0].design("bpf_mem_alloc").setup()
        run(rig, unit, history)
        assert audit(rig.arena, expect_live=True).ok
        rig.cpus[0].design("bpf_mem_alloc").teardown()
        assert audit(rig.arena, expect_live=False).ok


@pytest.mark.parametrize("unit", SIZES)
def test_a_burst(unit):
    history = [
        ("alloc", 200),
        ("give", 200),
        ("grace_period", 1),
        ("alloc", 97),
        ("give", 60),
        ("irqs_off", 1),
    ]
    with Rig.create(cpus=1, size="16MiB", rcu_gp_us=0) as rig:
        rig.cpus[0].design("bpf_mem_alloc").setup()
        run(rig, unit, [*history, ("alloc", 120), ("give", 120), ("irqs_on", 1), ("grace_period", 1)])
        rig.cpus[0].design("bpf_mem_alloc").teardown()
