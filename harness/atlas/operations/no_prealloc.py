# SPDX-License-Identifier: MIT
"""BPF_F_NO_PREALLOC of old: kmalloc(GFP_ATOMIC), and call_rcu at the free."""

from __future__ import annotations

from harness.atlas.operations import Register, operation
from harness.atlas.operations.rcu import GEOMETRY
from harness.atlas.operations.slab import exhausted_cpu_slab
from harness.atlas.staging import Request, Staging

DESIGN = "no_prealloc"


def _operation(name: str, summary: str, group: str, path: dict[str, str]) -> Register:
    return operation(name, summary, group=group, designs=(DESIGN,), path=path, geometry=GEOMETRY)


@_operation(
    "atomic_alloc",
    "kmalloc(GFP_ATOMIC): the cpu slab has free objects",
    "alloc",
    {"alloc_fastpath": "== 1", "alloc_slowpath": "== 0"},
)
def atomic_alloc(stage: Staging) -> Request:
    """A free object more than the handlers take."""
    stage.free(exhausted_cpu_slab(stage)[0])
    stage.free(stage.alloc())
    return stage.ask_alloc()


@_operation(
    "atomic_alloc_new_slab",
    "kmalloc(GFP_ATOMIC): no slab has a free object",
    "alloc",
    {"alloc_slab": "== 1", "alloc_slowpath": "== 1"},
)
def atomic_alloc_new_slab(stage: Staging) -> Request:
    """The cpu slab is used up, and there is no other."""
    exhausted_cpu_slab(stage)
    return stage.ask_alloc()


@_operation(
    "free_call_rcu", "call_rcu instead of a free", "free", {"rcu_queued": "== 1", "free_fastpath": "== 0"}
)
def free_call_rcu(stage: Staging) -> Request:
    """An object in use."""
    return stage.ask_free(stage.alloc(design=DESIGN))
