# SPDX-License-Identifier: MIT
"""Interruption windows: how a line of a table becomes an experiment.

Everything is about bucket A (kmalloc-1k, 16 objects a slab); B is the next larger one. A state is what the
allocator holds before: `ready` is an object on the cpu slab, `elsewhere` one on another slab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from rig import A_BYTES, B_BYTES, PER_SLAB, Outcome, Rig

if TYPE_CHECKING:
    from shmalloc.program import Line

NOLOCK, SPINNING, PLAN = "kmalloc_nolock", "kmalloc", "try_kmalloc"


SHEAF = 12  # objects in a sheaf of bucket A
SHEAVES: dict[str, Any] = {"kernel": "7.0"}


@dataclass
class Given:
    """Objects that a state leaves allocated: on the cpu slab of CPU 0, and elsewhere."""

    ready: list[int] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)


# --- states: what the allocator holds before -------------------------------------------------------


def no_slab(_rig: Rig) -> Given:
    """Neither cpu slab nor partial slabs."""
    return Given()


def page_cache(rig: Rig) -> Given:
    """All memory above the min watermark is page cache: an allocation goes through the slow path, and reclaims."""
    rig.cpu.page_cache_add(1 << 20, "GFP_NOWAIT|__GFP_MOVABLE")
    return Given()


def cpu_slab(rig: Rig) -> Given:
    """A cpu slab with ten free objects, and a full slab beside it."""
    full = rig.take(PER_SLAB)
    return Given(ready=rig.take(PER_SLAB - 10), elsewhere=full)


def full_slab(rig: Rig) -> Given:
    """A cpu slab without a free object; the next allocation gives it up."""
    full = rig.take(PER_SLAB)
    return Given(ready=rig.take(PER_SLAB), elsewhere=full)


def remote_frees(rig: Rig) -> Given:
    """A cpu slab without a free object of its own; CPU 1 has freed three of it."""
    state = full_slab(rig)
    for _ in range(3):
        rig.free(state.ready.pop(), cpu=1)
    return state


def cpu_partial(rig: Rig) -> Given:
    """A cpu slab without a free object; one slab with one on the cpu partial list."""
    state = full_slab(rig)
    rig.free(state.elsewhere.pop())
    return state


def node_partial(rig: Rig, slabs: int = 1, size: int = A_BYTES) -> Given:
    """No cpu slab; on the node's partial list slabs with one free object each."""
    per_slab = rig.per_slab(size)
    objects = rig.take(slabs * per_slab, size, node=0)
    for slab in range(slabs):
        rig.free(objects[slab * per_slab])
    rig.cpu.flush_all()
    assert rig.cache_node(size).nr_partial == slabs
    del objects[::per_slab]
    return Given(elsewhere=objects)


def node_partials(rig: Rig) -> Given:
    """The same with three slabs: who takes the list_lock puts two on the cpu partial list."""
    return node_partial(rig, 3)


def other_node_partial(rig: Rig) -> Given:
    """One partial slab here, and on node 1 more than it wants to keep."""
    far = rig.take(7 * PER_SLAB, node=1)
    for slab in range(7):
        rig.free(far[slab * PER_SLAB])
    rig.cpu.flush_all()
    assert rig.cache_node(node=1).nr_partial == 7
    return node_partial(rig)


def debug_partial(rig: Rig) -> Given:
    """A debug cache's slab on the node's partial list."""
    return Given(elsewhere=rig.take(3))


def barn_filled(rig: Rig) -> Given:
    """7.x: the CPU's sheaves are empty, and the barn has full ones; of each slab objects are in use."""
    taken = rig.take(6 * SHEAF)
    for offset in taken[SHEAF:]:
        rig.free(offset)
    again = rig.take(2 * SHEAF)
    assert rig.barn().nr_full >= 2
    return Given(ready=again, elsewhere=taken[:SHEAF])


def pcp_filled(rig: Rig) -> Given:
    """Free pages on the page lists of CPU 0."""
    for offset in [rig.pages() for _ in range(5)]:
        rig.free(offset)
    return Given()


def pages_held(rig: Rig) -> Given:
    """Blocks of pages in use: of order 0, and of an order that the page lists do not take."""
    return Given(ready=[rig.pages() for _ in range(3)], elsewhere=[rig.pages(order=4) for _ in range(2)])


def recording(rig: Rig) -> Given:
    """All events are recorded, in rings that go round while a test runs."""
    rig.arena.trace.on()
    return Given()


TRACED: dict[str, Any] = {"trace_bytes": 4096}

# --- the outer operation -----------------------------------------------------------------------------

Operation = Callable[[], "int | None"]

OUTER: dict[str, Callable[[Rig, Given], Operation]] = {
    "kmalloc": lambda rig, _: lambda: rig.alloc("kmalloc"),
    "kmalloc_nolock": lambda rig, _: lambda: rig.alloc("kmalloc_nolock"),
    "try_kmalloc": lambda rig, _: lambda: rig.alloc(PLAN),
    "kmalloc on node 1": lambda rig, _: lambda: rig.alloc("kmalloc", node=1),
    "kfree": lambda rig, state: lambda: rig.free(state.ready[0], "kfree"),
    "kfree_nolock": lambda rig, state: lambda: rig.free(state.ready[0], "kfree_nolock"),
    "kfree elsewhere": lambda rig, state: lambda: rig.free(state.elsewhere[0], "kfree"),
    "kfree_nolock elsewhere": lambda rig, state: lambda: rig.free(state.elsewhere[0], "kfree_nolock"),
    "set_mems_allowed": lambda rig, _: lambda: rig.cpu.set_mems_allowed([0]),
    "alloc_pages": lambda rig, _: lambda: rig.pages("alloc_pages"),
    "alloc_pages_nolock": lambda rig, _: lambda: rig.pages("alloc_pages_nolock"),
    "alloc_pages(4)": lambda rig, _: lambda: rig.pages("alloc_pages", 4),
    "drain_pages": lambda rig, _: rig.cpu.drain_pages,
    "free_pages": lambda rig, state: lambda: rig.free(state.ready[0], "free_pages"),
    "free_pages_nolock": lambda rig, state: lambda: rig.free(state.ready[0], "free_pages_nolock"),
    "free_pages(4)": lambda rig, state: lambda: rig.free(state.elsewhere[0], "free_pages"),
}

# --- nested operations, by the design of the program (kmalloc_nolock unless a window says otherwise) ---

ALLOCATIONS: dict[str, Line] = {
    "alloc A": ("alloc", {"size": A_BYTES}),
    "alloc B": ("alloc", {"size": B_BYTES}),
    "alloc 8k": ("alloc", {"size": 8192}),
    "alloc 64": ("alloc", {"size": 64}),
    "pages": ("pages_alloc", {"order": 0}),
    "pages(2)": ("pages_alloc", {"order": 2}),
}
# the n-th of its name takes the n-th object from the end; outer operations take the first
FREES: dict[str, Callable[[Given, int], int]] = {
    "free": lambda state, n: state.ready[-1 - n],
    "free elsewhere": lambda state, n: state.elsewhere[-1 - n],
    "free pages": lambda state, n: state.ready[-1 - n],
    "free pages(4)": lambda state, n: state.elsewhere[-1 - n],
}


@dataclass(frozen=True)
class Window:
    """One line of a table: an interruption, and what is to come of it.

    Attributes: row: of the appendix, in its words.  site: of the probe.  by: contexts of the nested operations.
        given: the state before.  outer, nested: operations; nested ones separated by commas.  gives: the
        outer one's result, then, behind a colon, the nested ones'.  counts: every counter that moves, as
        "name=n" (see Rig.telling).  nth: passing of the site.  design: that the nested operations use.
        geometry: of the arena.
    """

    row: str
    site: str
    by: str
    given: Callable[[Rig], Given]
    outer: str
    nested: str
    gives: str
    counts: str = ""
    nth: int = 1
    design: str = NOLOCK
    geometry: dict[str, Any] = field(default_factory=dict)

    def expected(self) -> dict[str, int]:
        return {name: int(number) for name, number in (part.split("=") for part in self.counts.split())}

    def program(self, rig: Rig, state: Given) -> Any:
        wanted = self.nested.split(", ")
        freed = [
            FREES[name](state, wanted[:at].count(name)) for at, name in enumerate(wanted) if name in FREES
        ]
        orders = [order for order in (rig.held[offset] for offset in freed) if order is not None]
        lines: list[Line] = []
        for number, name in enumerate(wanted):
            if name in FREES:
                lines.append(("free", {"slot": sum(earlier in FREES for earlier in wanted[:number])}))
            else:
                code, fields = ALLOCATIONS[name]
                lines.append((code, {**fields, "slot": len(freed) + number}))
        return rig.program(*lines, holds=freed, orders=orders, design=self.design)

    @contextmanager
    def experiment(self, by: str, **keys: Any) -> Iterator[tuple[Rig, Outcome]]:
        """Do it once, in a fresh arena, which is yielded together with what came of it."""
        with Rig.create(**(self.geometry | keys)) as rig:
            state = self.given(rig)
            outer, program = OUTER[self.outer](rig, state), self.program(rig, state)
            yield rig, rig.experiment(self.site, by, outer, program, nth=self.nth)


@dataclass(frozen=True)
class Reach:
    """A way to pass a site: a state, an operation, and the arena that it needs."""

    given: Callable[[Rig], Given]
    outer: str
    geometry: dict[str, Any] = field(default_factory=dict)


REACH = {
    "alloc_fastpath": Reach(cpu_slab, "kmalloc"),
    "free_fastpath": Reach(cpu_slab, "kfree"),
    "cpu_slab_irq_off": Reach(remote_frees, "kmalloc"),
    "cpu_slab_locked": Reach(remote_frees, "kmalloc"),
    "cpu_slab_editing": Reach(remote_frees, "kmalloc"),
    "cpu_slab_unlocked": Reach(remote_frees, "kmalloc"),
    "before_get_partial": Reach(full_slab, "kmalloc"),
    "before_new_slab": Reach(full_slab, "kmalloc"),
    "before_install": Reach(full_slab, "kmalloc"),
    "list_lock_held": Reach(node_partial, "kmalloc"),
    "list_lock_and_cpu_slab": Reach(node_partials, "kmalloc"),
    "random_locked": Reach(no_slab, "kmalloc", {"freelist_random": True}),
    "mems_allowed_writing": Reach(cpu_slab, "set_mems_allowed"),
    "slab_free_cmpxchg": Reach(cpu_slab, "kfree elsewhere"),
    "debug_list_lock_held": Reach(debug_partial, "kfree elsewhere", {"slab_debug": 0x1}),
    "debug_new_slab_locked": Reach(no_slab, "kmalloc", {"slab_debug": 0x1}),
    "sheaves_locked": Reach(no_slab, "kmalloc", SHEAVES),
    "barn_locked": Reach(barn_filled, "kmalloc", SHEAVES),
    "sheaf_in_hand": Reach(no_slab, "kmalloc", SHEAVES),
    "slab_attach_kprobe_locked": Reach(no_slab, "kmalloc", SHEAVES),
    "pcp_locked": Reach(no_slab, "alloc_pages"),
    "zone_locked_bulk": Reach(no_slab, "alloc_pages"),
    "zone_locked": Reach(no_slab, "alloc_pages(4)"),
    "free_pcp_locked": Reach(pages_held, "free_pages"),
    "free_zone_locked": Reach(pages_held, "free_pages(4)"),
    "pcp_editing": Reach(pcp_filled, "alloc_pages"),
    "pcp_draining": Reach(pcp_filled, "drain_pages"),
    "obj_hash_locked": Reach(pages_held, "free_pages", {"debug_objects": True}),
    "wakeup_kswapd": Reach(page_cache, "kmalloc"),
    "reclaim_retry": Reach(page_cache, "kmalloc"),
    "trace_place": Reach(recording, "kmalloc", TRACED),
    "trace_filling": Reach(recording, "kmalloc", TRACED),
    "irq_work_detached": Reach(cpu_slab, "kfree_nolock elsewhere"),
}

# sites that only a broken variant passes: see the tests of the known bugs
OF_BROKEN_VARIANTS = {"irq_work_waiter", "irq_work_sleeping"}


def cases(*windows: Window) -> list[Any]:
    """One test of each window and context."""
    return [
        pytest.param(window, by, id=f"{number}-{window.site}-{by}-{window.outer}".replace(" ", "_"))
        for number, window in enumerate(windows)
        for by in window.by.split()
    ]
