# SPDX-License-Identifier: MIT
"""BPF_F_NO_PREALLOC of old: what is freed stays until its grace period, and NMIs may not come near."""

import pytest
from rig import Rig

from shmalloc import AllocationFailed, designs, ops, probes
from shmalloc.audit import audit


@pytest.fixture(params=["release", "checked"])
def rig(request):
    with Rig.create(cpus=2, flavour=request.param, rcu_gp_us=0) as made:
        yield made


def alloc(rig, size):
    return rig.cpus[0].design("no_prealloc").alloc(size)


def free(rig, object_):
    rig.cpus[0].design("no_prealloc").free(object_)


def test_what_is_freed_stays_until_a_grace_period_is_over(rig):
    got = [alloc(rig, 500) for _ in range(100)]
    before = rig.free_pages()
    for object_ in got:
        free(rig, object_)
    assert rig.free_pages() == before
    report = audit(rig.arena)
    assert report.ok, report
    assert report.totals["kept_rcu_objects"] == 100
    rig.cpus[0].rcu_barrier()
    rig.cpus[0].run(rig.arena.core.lib.shm_flush_all, 0xFFFFFFFF)
    assert rig.free_pages() > before
    assert audit(rig.arena, expect_live=False).ok


def test_every_size_has_room_for_the_head_and_no_more_than_kmalloc_serves(rig):
    for size in (1, 8, 16, 8192):
        free(rig, alloc(rig, size))
    rig.cpus[0].rcu_barrier()
    with pytest.raises(AllocationFailed, match="size_limit"):
        alloc(rig, 8193)


def test_freed_from_nmi_it_breaks_a_rule():
    with Rig.create(rcu_gp_us=0) as rig:
        cpu = rig.cpus[0]
        slots = bytearray(8)
        slots[:] = (alloc(rig, 64) | designs.index("no_prealloc") << 56).to_bytes(8, "little")
        probes.arm(
            cpu,
            "cpu_slab_unlocked",
            ops(("free", {"slot": 0})),
            action="nmi",
            design="no_prealloc",
            slots=slots,
        )
        object_ = cpu.kmalloc(1024)
        (found,) = rig.arena.violations()
        assert (found.verdict, found.checker, found.context) == ("broken_rule", "rcu", "nmi")
        cpu.kfree(object_)
        cpu.rcu_barrier()


def test_allocated_from_nmi_it_deadlocks():
    with Rig.create() as rig:
        cpu = rig.cpus[0]
        nested = ops(*(("alloc", {"size": 1024, "slot": slot}) for slot in range(20)))
        probes.arm(cpu, "list_lock_held", nested, action="nmi", design="no_prealloc")
        objects = [cpu.kmalloc(1024) for _ in range(40)]
        for object_ in objects[::2]:
            cpu.kfree(object_)
        cpu.run(rig.arena.core.lib.shm_flush_all, 0xFFFFFFFF)
        cpu.kmalloc(1024)  # looks at the partial list; only the NMI's level is given up
        found = [(v.verdict, v.checker, v.context) for v in rig.arena.violations()]
        assert ("deadlock", "deadlock", "nmi") in found  # beside the rules that it breaks
