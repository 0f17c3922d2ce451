# SPDX-License-Identifier: MIT
"""How queued irq_work comes to run: by a self-interrupt, at a tick, or only when somebody asks."""

import pytest
from rig import Rig

from shmalloc import ops
from shmalloc.audit import audit

INTERRUPT, TICK, NEVER = range(3)


def deferred(cpu):
    """Leave one object to irq_work: freed by kfree_nolock, from a slab that is not the cpu slab any more."""
    objects = [cpu.kmalloc(1024) for _ in range(20)]
    cpu.kfree_nolock(objects.pop(0))
    return objects


def waiting(rig):
    return audit(rig.arena).totals["objects_deferred"]


@pytest.mark.parametrize(("mode", "left"), [(INTERRUPT, 0), (TICK, 1), (NEVER, 1)])
def test_when_queued(mode, left):
    with Rig.create(cpus=1, irq_work=mode) as rig:
        cpu = rig.cpus[0]
        objects = deferred(cpu)
        assert waiting(rig) == left
        cpu.run_irq_work()
        assert waiting(rig) == 0
        for object_ in objects:
            cpu.kfree(object_)


@pytest.mark.parametrize(("mode", "left"), [(TICK, 0), (NEVER, 1)])
def test_a_tick_runs_it_where_the_machine_has_no_self_interrupt(mode, left):
    with Rig.create(cpus=1, irq_work=mode) as rig:
        cpu = rig.cpus[0]
        objects = deferred(cpu)
        cpu.replay(ops("nop"))  # begins with a tick
        assert waiting(rig) == left
        cpu.run_irq_work()
        for object_ in objects:
            cpu.kfree(object_)
