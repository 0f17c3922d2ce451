# SPDX-License-Identifier: MIT
"""RCU: frees after a grace period, its beginning and its end, as the timer's tick moves them on.

With rcu_gp_us = 0 a grace period has no least duration: which branch a tick takes is a matter of state alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.atlas.call import Call
from harness.atlas.operations import Register, operation
from harness.atlas.staging import Request, Staging, counter

if TYPE_CHECKING:
    from shmalloc.arena import Arena

TASKS = ("kmalloc",)  # there is no call_rcu for whoever may not wait
GEOMETRY: dict[str, Any] = {"rcu_gp_us": 0}
TICK = Request(Call("shm_rcu_tick", ()))


# --- what there is to count -----------------------------------------------------------------------


def _event(name: str, field: str) -> None:
    @counter(name)
    def read(arena: Arena) -> int:
        cpus = range(int(arena.header.geometry.nr_cpus))
        rows = [domain for cpu in cpus for domain in arena.item("struct shm_cpu", "cpus", cpu).rcu]
        return sum(int(getattr(row, field)) for row in rows)


_event("rcu_queued", "queued")
_event("rcu_invoked", "invoked")


@counter("rcu_grace_periods")
def grace_periods(arena: Arena) -> int:
    """Grace periods that are over."""
    return sum(int(domain.gp_completed) for domain in arena.header.rcu)


# --- operations -----------------------------------------------------------------------------------


def _operation(name: str, summary: str, path: dict[str, str]) -> Register:
    return operation(name, summary, group="rcu", designs=TASKS, path=path, geometry=GEOMETRY)


def ask_free_rcu(stage: Staging, offset: int, function: str = "shm_kfree_rcu") -> Request:
    """Have what is held freed after a grace period."""
    held = stage.take(offset)
    return Request(Call(function, (offset, 0)), ("free_rcu", {}), frees=held.word)


def _wait_for_grace_periods(stage: Staging, count: int) -> None:
    """Have CPU 0 free objects by call_rcu."""
    for offset in [stage.alloc() for _ in range(count)]:
        stage.take(offset)
        stage.cpus[0].kfree_rcu(offset)


@_operation(
    "rcu_free",
    "call_rcu: the first callback of the CPU",
    {"rcu_queued": "== 1", "frees": "== 1"},
)
def rcu_free(stage: Staging) -> Request:
    """An object in use."""
    return ask_free_rcu(stage, stage.alloc())


@_operation(
    "rcu_free_more",
    "call_rcu behind callbacks that are queued already",
    {"rcu_queued": "== 1", "frees": "== 1"},
)
def rcu_free_more(stage: Staging) -> Request:
    """Two callbacks are queued."""
    _wait_for_grace_periods(stage, 2)
    return ask_free_rcu(stage, stage.alloc())


@_operation(
    "rcu_begin",
    "a tick: queued callbacks are assigned to a grace period, which nobody delays",
    {"rcu_grace_periods": "== 1", "rcu_invoked": "== 0"},
)
def rcu_begin(stage: Staging) -> Request:
    """Two callbacks are queued."""
    _wait_for_grace_periods(stage, 2)
    return TICK


@_operation(
    "rcu_end",
    "a tick: the callbacks whose grace period is over free their objects",
    {"rcu_invoked": "== 2", "rcu_grace_periods": "== 0"},
)
def rcu_end(stage: Staging) -> Request:
    """The grace period of two callbacks is over."""
    _wait_for_grace_periods(stage, 2)
    stage.cpus[0].rcu_tick()
    return TICK
