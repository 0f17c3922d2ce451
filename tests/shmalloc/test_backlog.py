# SPDX-License-Identifier: MIT
"""What waits in an arena, as text."""

from rig import Rig

from shmalloc import backlog


def test_callbacks_and_readers_are_shown_by_cpu():
    with Rig.create(cpus=2, rcu_gp_us=0) as rig:
        cpu, other = rig.cpus
        with other.rcu_read_lock():
            for _ in range(3):
                cpu.kfree_rcu(cpu.kmalloc(64))
            cpu.rcu_tick()
            text = backlog.rcu(rig.arena).splitlines()
        assert text[0] == "rcu: grace periods 0 completed, 1 started, 1 wanted; stalls 0"
        assert text[2].split() == ["0", "-", "0", "3", "0", "3", "0"]
        assert text[3].split() == ["1", "gp", "0", "0", "0", "0", "0", "0"]
        assert text[4].startswith("tasks_trace: grace periods 0 completed")
        cpu.rcu_barrier()
        assert backlog.rcu(rig.arena).splitlines()[2].split() == ["0", "-", "0", "0", "0", "3", "3"]


def test_deferred_objects_are_shown_by_cpu():
    with Rig.create(cpus=2, irq_work=2) as rig:
        cpu = rig.cpus[1]
        objects = [cpu.kmalloc(1024) for _ in range(40)]
        for object_ in objects[:3]:
            cpu.kfree_nolock(object_)
        text = backlog.deferred(rig.arena).splitlines()
        assert text[1].split() == ["0", "0", "0", "0", "0", "0"]
        assert text[2].split() == ["1", "3", "0", "0", "0", "1"]
        assert text[3].endswith(": 0 blocks of pages wait for its lock")
        cpu.run_irq_work()
        for object_ in objects[3:]:
            cpu.kfree(object_)
