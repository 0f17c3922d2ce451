# SPDX-License-Identifier: MIT
"""The two nolock tests of slub_kunit: an NMI, or a probe under a slab's lock, allocates while the task does.

The task takes objects, with and without __GFP_ACCOUNT, and gives them back by kfree and kfree_rcu in turn; the
handler does one kmalloc_nolock and one kfree_nolock, with and without __GFP_ACCOUNT in turn.  The originals print
how often that succeeded; here the numbers must add up, and nothing may be lost.
"""

from __future__ import annotations

from typing import Any

import pytest
from rig import Rig

from shmalloc import designs, ops

OBJECTS, SIZE = 97, 256
CALLBACKS = 23  # at least so many
MOST_ROUNDS = 997
GFP = "GFP_KERNEL", "GFP_KERNEL_ACCOUNT"
HANDLER: list[Any] = [
    ("alloc", {"size": SIZE, "slot": 0}), ("free", {"slot": 0}),
    ("alloc", {"size": SIZE, "slot": 0, "gfp": "__GFP_ACCOUNT"}), ("free", {"slot": 0}),
]  # fmt: skip
TASK: list[Any] = [
    *[("alloc", {"size": SIZE, "slot": at, "gfp": GFP[at % 2]}) for at in range(OBJECTS)],
    *[("free" if at % 3 else "free_rcu", {"slot": at}) for at in range(OBJECTS)],
]
# every section that is entered with a slab lock held; the kernel's test has one site for all
LOCKED = (
    "cpu_slab_locked",
    "list_lock_held",
    "list_lock_and_cpu_slab",
    "debug_list_lock_held",
    "debug_new_slab_locked",
    "slab_attach_kprobe_locked",  # of 7.x: sheaves, barn, list_lock
)


def nested_counts(rig: Rig) -> tuple[int, int]:
    """Successes and failures of the handler's allocations, in any context; nobody else uses its design."""
    counts = list(rig.telemetry().counts[designs.index("kmalloc_nolock")])
    return sum(int(each.allocs) for each in counts), sum(sum(each.failures) for each in counts)


def settle(rig: Rig) -> None:
    assert rig.arena.slab_errors.count == 0
    rig.cpu.run(rig.lib.shm_rcu_barrier)
    rig.settle()


@pytest.mark.parametrize("kernel", ["6.18", "7.0"])
@pytest.mark.parametrize("slab_debug", ["", "FZPU"])
def test_nmi(flavour: str, slab_debug: str, kernel: str) -> None:
    keys = {"slab_debug": slab_debug, "kernel": kernel, "rcu_gp_us": 0}
    with Rig.create(flavour=flavour, size="8MiB", **keys) as rig:
        program = rig.cpu.set_program("nmi", ops(*HANDLER), per_interrupt=2, design="kmalloc_nolock")
        assert program is not None
        rig.programs.append(program)
        rig.cpu.set_timer("nmi", 100_000, 0.5)
        for _ in range(MOST_ROUNDS):
            rig.replay(*TASK, design="kmalloc", slots=bytearray(8 * OBJECTS), max_ops=23 * len(TASK))
            rig.cpu.rcu_tick()
            nmi = rig.cpu.interrupts()["nmi"]
            if nmi["handled"] >= CALLBACKS and nmi["in_allocator"]:
                break
        rig.cpu.set_timer("nmi", 0)
        callbacks = rig.cpu.interrupts()["nmi"]["handled"]
        rig.cpu.set_program("nmi", None)
        alloc_ok, alloc_fail = nested_counts(rig)
        assert callbacks >= CALLBACKS
        assert rig.cpu.interrupts()["nmi"]["in_allocator"] > 0
        assert alloc_ok + alloc_fail == callbacks
        assert alloc_ok > 0
        settle(rig)


@pytest.mark.parametrize("kernel", ["6.18", "7.0"])
@pytest.mark.parametrize("slab_debug", ["", "FZPU"])
@pytest.mark.parametrize("by", ["probe", "nmi"])
def test_probe_in_the_locked_section(slab_debug: str, by: str, kernel: str) -> None:
    with Rig.create(size="8MiB", slab_debug=slab_debug, kernel=kernel, rcu_gp_us=0) as rig:
        callbacks = 0
        for site in LOCKED:
            for nth in range(1, CALLBACKS + 1):
                rig.disarm()
                account = 2 * (nth % 2)
                rig.arm(site, by, rig.program(*HANDLER[account : account + 2]), nth=nth)
                rig.cpu.flush_all()
                rig.replay(*TASK, design="kmalloc", slots=bytearray(8 * OBJECTS), max_ops=3 * len(TASK))
                rig.cpu.rcu_tick()
                callbacks += rig.fired()
        rig.disarm()
        alloc_ok, alloc_fail = nested_counts(rig)
        assert callbacks >= CALLBACKS
        assert alloc_ok + alloc_fail == callbacks
        assert alloc_ok > 0
        settle(rig)
