# SPDX-License-Identifier: MIT
"""Grace periods: what is freed after one is freed then and not before, and whoever is in the way is named."""

import pytest
from rig import Rig

from shmalloc import BadFree, DeadlockProved
from shmalloc.audit import audit


@pytest.fixture(params=["release", "checked"])
def rig(request):
    with Rig.create(cpus=2, flavour=request.param, rcu_gp_us=0) as made:
        yield made


READER = "is 1 deep in rcu read-side sections"


def totals(arena, *readers):
    """Audit; nothing may be wrong but that these CPUs are readers."""
    report = audit(arena)
    assert [(problem.where, problem.text) for problem in report.problems] == [
        (f"CPU {cpu}", READER) for cpu in readers
    ]
    return report.totals


def test_an_object_is_freed_after_a_grace_period_and_not_before(rig):
    cpu, other = rig.cpus
    objects = [cpu.kmalloc(64) for _ in range(7)]
    with other.rcu_read_lock():
        for object_ in objects:
            cpu.kfree_rcu(object_)
        for _ in range(5):
            cpu.rcu_tick()
            other.rcu_tick()
        assert cpu.rcu_pending() == 7
        assert totals(rig.arena, 1)["kept_rcu_objects"] == 7
    for _ in range(3):
        cpu.rcu_tick()
    assert cpu.rcu_pending() == 0
    assert totals(rig.arena)["kept_rcu_objects"] == 0
    assert audit(rig.arena, expect_live=False).ok


def test_a_reader_that_began_later_is_not_waited_for(rig):
    cpu, other = rig.cpus
    first = cpu.kmalloc(64)
    cpu.kfree_rcu(first)
    with other.rcu_read_lock():
        cpu.rcu_tick()  # its grace period begins, and has to wait for the reader
        assert cpu.rcu_pending() == 1
    with other.rcu_read_lock():
        for _ in range(3):
            cpu.rcu_tick()
        assert cpu.rcu_pending() == 0


def test_sections_nest(rig):
    cpu, other = rig.cpus
    with other.rcu_read_lock():
        with other.rcu_read_lock():
            pass
        cpu.kfree_rcu(cpu.kmalloc(32))
        for _ in range(3):
            cpu.rcu_tick()
        assert cpu.rcu_pending() == 1
    cpu.rcu_barrier()
    assert cpu.rcu_pending() == 0


def test_the_domains_are_apart(rig):
    cpu, other = rig.cpus
    with other.rcu_read_lock("tasks_trace"):
        cpu.kfree_rcu(cpu.kmalloc(32))
        cpu.synchronize_rcu()
        for _ in range(3):
            cpu.rcu_tick()
        assert cpu.rcu_pending() == 0


def test_a_barrier_serves_the_callbacks_of_all_cpus(rig):
    cpu, other = rig.cpus
    for each in (cpu, other):
        for _ in range(11):
            each.kfree_rcu(each.kmalloc(96), 32)
    assert cpu.rcu_pending() == 22
    cpu.rcu_barrier()
    assert cpu.rcu_pending() == 0
    assert audit(rig.arena, expect_live=False).ok


@pytest.mark.parametrize("wait", ["synchronize_rcu", "rcu_barrier"])
@pytest.mark.parametrize("reader", [0, 1])
def test_waiting_within_a_section_is_a_proved_deadlock(rig, wait, reader):
    if wait == "rcu_barrier":
        rig.cpus[0].kfree_rcu(rig.cpus[0].kmalloc(64))
    with (
        rig.cpus[reader].rcu_read_lock(),
        pytest.raises(DeadlockProved, match="read-side section of its own"),
    ):
        getattr(rig.cpus[0], wait)()
    rig.held.clear()


def test_what_cannot_carry_a_head_is_refused_and_not_freed(rig):
    cpu = rig.cpus[0]
    small, large, good = cpu.kmalloc(8), cpu.kmalloc(20000), cpu.kmalloc(64)
    for offset, head in ((small, 0), (large, 0), (good, 56), (good, 4), (good + 8, 0)):
        with pytest.raises(BadFree, match="that holds 16 bytes at"):
            cpu.kfree_rcu(offset, head)
    for offset in (small, large, good):
        cpu.kfree(offset)


def test_slabs_of_a_typesafe_cache_wait_for_a_grace_period(rig):
    cpu, other = rig.cpus
    cache = cpu.kmem_cache_create("typesafe", 512, flags=rig.arena.core.lib.SLAB_TYPESAFE_BY_RCU)
    objects = [cache.alloc() for _ in range(100)]
    with other.rcu_read_lock():
        for object_ in objects:
            cache.free(object_)
        cache.shrink()
        waiting = totals(rig.arena, 1)["slabs_rcu"]
        assert waiting >= 5
        assert cpu.rcu_pending() == waiting
    cpu.rcu_barrier()
    assert audit(rig.arena, expect_live=False).totals["slabs_rcu"] == 0
    cache.destroy()


def test_a_stalled_reader_is_named():
    with Rig.create(cpus=2, rcu_gp_us=0, rcu_stall_ms=1) as rig:
        cpu, reader = rig.cpus
        with reader.rcu_read_lock():
            cpu.kfree_rcu(cpu.kmalloc(64))
            while not rig.arena.violations():
                cpu.rcu_tick()
        (found,) = rig.arena.violations()
        assert (found.verdict, found.checker) == ("stall", "rcu")
        assert found.text.split()[-4:] == ["too", "long:", "CPU", "1"]


def test_a_short_reader_is_not_named(rig):
    cpu, other = rig.cpus
    with other.rcu_read_lock():
        cpu.kfree_rcu(cpu.kmalloc(64))
        for _ in range(100):
            cpu.rcu_tick()
    assert not rig.arena.violations()


def test_a_lost_callback_is_found(rig):
    cpu = rig.cpus[0]
    for _ in range(3):
        cpu.kfree_rcu(cpu.kmalloc(64))
    record = rig.arena.region("cpus")["rcu"][0, 0]["next"]
    before = record.copy()
    record["first"], record["count"] = rig.arena.region("cpus")["rcu"][0, 0]["next"]["last"], 1
    report = audit(rig.arena)
    assert [problem.verdict for problem in report.problems] == ["lost_memory"]
    assert "2 objects are neither free nor owned" in report.problems[0].text
    record["first"], record["count"] = before["first"], before["count"]
    assert audit(rig.arena).ok


def test_a_section_that_is_never_left_is_reported(rig):
    with rig.cpus[1].rcu_read_lock():
        (problem,) = audit(rig.arena).problems
    assert problem.verdict == "broken_rule"
    assert problem.where == "CPU 1"
    assert problem.text == "is 1 deep in rcu read-side sections"


def test_a_stopped_run_loses_no_callback(rig):
    cpu = rig.cpu
    for object_ in [cpu.kmalloc(64) for _ in range(3)]:
        cpu.kfree_rcu(object_)
    rig.arena.header.stop = 2
    for _ in range(3):
        cpu.rcu_tick()
    assert cpu.rcu_pending() == 3
    assert totals(rig.arena)["kept_rcu_objects"] == 3


@pytest.mark.parametrize("word", [1 + 1, 99 + 1], ids=["dead", "no CPU at all"])
def test_waiting_for_one_who_died_with_the_lock_of_grace_periods_ends(rig, word):
    """The lock is only tried, so nobody notices by waiting for it that its owner is gone."""
    slot = rig.arena.item("struct shm_cpu", "cpus", 1)
    rig.cpus[1].close()
    slot.pid, slot.start_time, slot.state = 0x3FFFFFFF, 1, rig.lib.CPU_ONLINE
    rig.arena.header.rcu[rig.lib.RCU_PLAIN].lock.word = word
    with pytest.raises(DeadlockProved):
        rig.cpu.synchronize_rcu()
    [violation] = rig.violations()
    assert (violation.verdict, violation.checker) == ("dead_owner", "rcu")
    slot.pid = slot.state = 0


@pytest.mark.parametrize("domain", ["rcu", "tasks_trace"])
def test_the_audit_finds_the_lock_of_grace_periods_held(rig, domain):
    at = ["rcu", "tasks_trace"].index(domain)
    rig.arena.header.rcu[at].lock.word = 1
    (problem,) = audit(rig.arena).problems
    assert "never released" in problem.text and domain in problem.text


def test_callbacks_of_a_cpu_that_died_in_one_are_invoked_by_others(rig):
    cpu = rig.cpus[0]
    for _ in range(5):
        rig.cpus[1].kfree_rcu(rig.cpus[1].kmalloc(64))
    rig.arena.region("cpus")["rcu"][1, 0]["invoking"] = 1  # as its death within a callback leaves it
    problems = [problem.text for problem in audit(rig.arena).problems]
    assert problems == ["is in the middle of invoking its rcu callbacks"]
    cpu.rcu_barrier()
    assert cpu.rcu_pending() == 0
    assert audit(rig.arena, expect_live=False).ok


def test_a_quiet_arena_has_neither_callbacks_nor_irq_work():
    with Rig.create(cpus=2, rcu_gp_us=0, irq_work=2) as quiet:
        objects = [quiet.cpus[1].kmalloc(1024) for _ in range(40)]
        for object_ in objects:
            quiet.cpus[1].kfree_nolock(object_)
        quiet.cpus[0].kfree_rcu(quiet.cpus[0].kmalloc(64))
        assert audit(quiet.arena).totals["objects_deferred"] > 0
        quiet.cpus[0].run(quiet.arena.core.lib.shm_quiesce)
        assert audit(quiet.arena, expect_live=False).ok
