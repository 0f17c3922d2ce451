# SPDX-License-Identifier: MIT
"""Allocating and freeing objects of slabs, in arenas of Linux 6.18."""

from __future__ import annotations

from harness.atlas.call import Call
from harness.atlas.operations import operation
from harness.atlas.operations.pages import (
    cached_page,
    drained,
    full_page_lists,
    mixed_pageblocks,
    no_unmovable,
    single_pages,
)
from harness.atlas.staging import Request, Staging, counter
from shmalloc.arena import Arena

SLAB = ("kmalloc", "kmalloc_nolock", "try_kmalloc")
ALLOCS = ("kmalloc", "kmalloc_nolock")  # that look at the nodes' lists
SPINS = ("kmalloc",)
DEFERS = ("kmalloc_nolock", "try_kmalloc")
LISTS = ("cpu_partial_free", "free_frozen", "free_add_partial", "free_remove_partial", "free_slab")
TWO_NODES = {"nr_nodes": 2, "nr_cpus": 2}


@counter("empty_partial")
def empty_partial(arena: Arena) -> int:
    """Count the slabs on nodes' partial lists that have no object in use."""
    lib, found = arena.core.lib, 0
    on_list = lib.PG_slab | lib.PG_partial
    for pfn in range(int(arena.header.nr_pages)):
        page = arena.item("struct page", "pages", pfn)
        found += page.flags & on_list == on_list and not page.counters & 0xFFFF
    return found


# --- start states -----------------------------------------------------------------------------------


def exhausted_cpu_slab(stage: Staging, cpu: int = 0, least: int = 2) -> list[int]:
    """Leave a CPU with a cpu slab that has no free object. Each call moves on to another slab.

    Args: least: objects of it that nobody else may have.
    Returns: what is held of that slab.
    """
    row = stage.cpu_slab(cpu)
    mine: list[int] = []
    while row.freelist or len(mine) < least:
        offset = stage.alloc(cpu=cpu)
        mine = [each for each in (*mine, offset) if stage.slab_of(each) == row.slab]
    return mine


def partial_slabs(stage: Staging, slabs: int, cpu: int = 0) -> list[list[int]]:
    """Put slabs with one free object each on a CPU's partial list; its cpu slab has none.

    Returns: what is held of each.
    """
    whole = int(stage.cache().oo) & 0xFFFF
    full = [exhausted_cpu_slab(stage, cpu, whole) for _ in range(slabs)]
    exhausted_cpu_slab(stage, cpu)
    for objects in full:
        stage.free(objects.pop(0), cpu=cpu)
    return full


def flush(stage: Staging) -> None:
    """Put every CPU's slabs on their nodes' lists."""
    stage.cpus[0].run(stage.lib.shm_flush_all, int(stage.cache().index))


def no_slab_left(stage: Staging) -> None:
    """Leave no free object to this CPU: the next request needs a new slab."""
    row = stage.cpu_slab()
    while row.freelist or row.partial or stage.cache_node().nr_partial or not row.slab:
        stage.alloc()


# --- allocating -------------------------------------------------------------------------------------


@operation(
    "alloc_fastpath",
    "the cpu slab has free objects",
    group="alloc",
    designs=SLAB,
    path={"alloc_fastpath": "== 1", "alloc_slowpath": "== 0"},
    in_irq=True,
)
def alloc_fastpath(stage: Staging) -> Request:
    """Two free objects."""
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset)
    return stage.ask_alloc()


@operation(
    "alloc_zeroed",
    "the cpu slab has free objects, and one is to be zeroed: the fast path behind the first attempt",
    group="alloc",
    designs=SLAB,
    path={"alloc_fastpath": "== 1", "alloc_slowpath": "== 0"},
)
def alloc_zeroed(stage: Staging) -> Request:
    """Two free objects."""
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset)
    stage.gfp = "GFP_KERNEL|__GFP_ZERO"
    return stage.ask_alloc()


@operation(
    "alloc_refill",
    "the cpu slab's freelist is empty, and another CPU has freed to its slab",
    group="alloc",
    designs=SLAB,
    path={"alloc_refill": "== 1", "alloc_slowpath": "== 1"},
    in_irq=True,
)
def alloc_refill(stage: Staging) -> Request:
    """Two objects were freed remotely."""
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset, cpu=1)
    return stage.ask_alloc()


@operation(
    "alloc_cpu_partial",
    "the cpu slab is full, and the CPU has kept a slab with a free object",
    group="alloc",
    designs=SLAB,
    path={"cpu_partial_alloc": "== 1", "deactivate_bypass": "== 1", "alloc_slab": "== 0"},
)
def alloc_cpu_partial(stage: Staging) -> Request:
    """One slab on the CPU's partial list."""
    partial_slabs(stage, 1)
    return stage.ask_alloc()


@operation(
    "alloc_node_partial",
    "the CPU has no slab, and its node has: get_partial_node, which takes a second one along",
    group="alloc",
    designs=ALLOCS,
    path={"alloc_from_partial": "== 1", "cpu_partial_node": ">= 1", "alloc_slab": "== 0"},
    in_irq=True,
)
def alloc_node_partial(stage: Staging) -> Request:
    """Two slabs on the node's list."""
    partial_slabs(stage, 2)
    flush(stage)
    return stage.ask_alloc()


@operation(
    "alloc_other_node",
    "the CPU and its node have no slab, and another node has more than it needs: get_any_partial",
    group="alloc",
    designs=ALLOCS,
    path={"alloc_from_partial": "== 1", "cpu_partial_node": ">= 5", "alloc_slab": "== 0"},
    geometry=TWO_NODES,
)
def alloc_other_node(stage: Staging) -> Request:
    """One slab more than the other node keeps."""
    exhausted_cpu_slab(stage)
    partial_slabs(stage, int(stage.cache().min_partial) + 1, cpu=1)
    flush(stage)
    return stage.ask_alloc()


@operation(
    "alloc_node_mismatch",
    "the cpu slab is of another node than the request wants: it is deactivated",
    group="alloc",
    designs=SPINS,
    path={"alloc_node_mismatch": "== 1", "deactivate_to_head": "== 1", "alloc_from_partial": "== 1"},
    geometry=TWO_NODES,
)
def alloc_node_mismatch(stage: Staging) -> Request:
    """Free objects here, and a slab on the other node's list."""
    partial_slabs(stage, 1, cpu=1)
    flush(stage)
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset)
    return stage.ask_alloc(node=1)


@operation(
    "alloc_new_slab",
    "there is no slab: a new one, its page from the page lists",
    group="alloc",
    designs=SLAB,
    path={"alloc_slab": "== 1", "pcp_alloc": "== 1", "pcp_refill": "== 0"},
    in_irq=True,
)
def alloc_new_slab(stage: Staging) -> Request:
    """A page on the CPU's list."""
    no_slab_left(stage)
    cached_page(stage)
    return stage.ask_alloc()


@operation(
    "alloc_new_slab_refill",
    "a new slab, and the page lists are filled in bulk from the buddy's single pages",
    group="alloc",
    designs=SLAB,
    path={"alloc_slab": "== 1", "pcp_refill": "== 1", "nr_free_0": "== -4", "nr_free_1": "== 0"},
)
def alloc_new_slab_refill(stage: Staging) -> Request:
    """Single pages in the buddy, none on the CPU's list, which has been refilled before."""
    no_slab_left(stage)
    single_pages(stage)
    return stage.ask_alloc()


@operation(
    "alloc_new_slab_split",
    "a new slab, for which the buddy splits a large block",
    group="alloc",
    designs=SLAB,
    path={"alloc_slab": "== 1", "pcp_refill": "== 1", "nr_free_0": "== 1", "nr_free_3": "== 1"},
    in_irq=True,
)
def alloc_new_slab_split(stage: Staging) -> Request:
    """Nothing smaller than a pageblock."""
    no_slab_left(stage)
    drained(stage)
    return stage.ask_alloc()


@operation(
    "alloc_new_slab_claim",
    "a new slab, for which a pageblock of another type is claimed",
    group="alloc",
    designs=SLAB,
    path={"alloc_slab": "== 1", "fallback_claim": "== 1", "fallback_steal": "== 0"},
)
def alloc_new_slab_claim(stage: Staging) -> Request:
    """Free pageblocks, of movable pages."""
    no_slab_left(stage)
    no_unmovable(stage)
    return stage.ask_alloc()


@operation(
    "alloc_new_slab_claim_part",
    "a new slab, for which a pageblock is claimed that movable pages use less than half of",
    group="alloc",
    designs=SLAB,
    path={"alloc_slab": "== 1", "fallback_claim": "== 1", "fallback_steal": "== 0", "nr_free_4": "== 0"},
)
def alloc_new_slab_claim_part(stage: Staging) -> Request:
    """Two pageblocks that are mostly free."""
    no_slab_left(stage)
    mixed_pageblocks(stage, 11)
    return stage.ask_alloc()


@operation(
    "alloc_new_slab_steal",
    "a new slab, whose page is stolen from a pageblock that stays another type's",
    group="alloc",
    designs=SLAB,
    path={"alloc_slab": "== 1", "fallback_steal": "== 1", "fallback_claim": "== 0"},
)
def alloc_new_slab_steal(stage: Staging) -> Request:
    """Free pages in a pageblock that movable ones fill."""
    no_slab_left(stage)
    mixed_pageblocks(stage, 6)
    return stage.ask_alloc()


# --- freeing ----------------------------------------------------------------------------------------


@operation(
    "free_fastpath",
    "the object is of the cpu slab",
    group="free",
    designs=SLAB,
    path={"free_fastpath": "== 1", "free_slowpath": "== 0", "defer_free": "== 0"},
    in_irq=True,
)
def free_fastpath(stage: Staging) -> Request:
    """A cpu slab with a free object and some in use."""
    objects = exhausted_cpu_slab(stage)
    stage.free(objects[0])
    return stage.ask_free(objects[1])


@operation(
    "free_fastpath_empty",
    "the object is of the cpu slab, which has no free one; a kept slab has a single one",
    group="free",
    designs=SLAB,
    path={"free_fastpath": "== 1", "free_slowpath": "== 0", "defer_free": "== 0"},
)
def free_fastpath_empty(stage: Staging) -> Request:
    """One slab on the CPU's partial list."""
    partial_slabs(stage, 1)
    row = stage.cpu_slab()
    mine = next(held.offset for held in stage.held if stage.slab_of(held.offset) == row.slab)
    return stage.ask_free(mine)


@operation(
    "free_remote",
    "the object is of another CPU's cpu slab",
    group="free",
    designs=SLAB,
    path={"free_slowpath": "== 1", "free_frozen": "== 1"},
    in_irq=True,
)
def free_remote(stage: Staging) -> Request:
    """Allocated on CPU 1."""
    return stage.ask_free(exhausted_cpu_slab(stage, cpu=1)[0])


@operation(
    "free_partial",
    "the object is of a slab on the node's list, which stays there: no list is touched",
    group="free",
    designs=SLAB,
    path={"free_slowpath": "== 1", **dict.fromkeys(LISTS, "== 0")},
)
def free_partial(stage: Staging) -> Request:
    """A slab on the node's list with one object free and others in use."""
    held = partial_slabs(stage, 1)
    flush(stage)
    return stage.ask_free(held[0][0])


@operation(
    "free_full",
    "the object is of a full slab, which goes to the CPU's partial list",
    group="free",
    designs=SLAB,
    path={"free_slowpath": "== 1", "cpu_partial_free": "== 1", "cpu_partial_drain": "== 0"},
    in_irq=True,
)
def free_full(stage: Staging) -> Request:
    """A full slab, and another one that is the cpu slab."""
    objects = exhausted_cpu_slab(stage)
    exhausted_cpu_slab(stage)
    return stage.ask_free(objects[0])


@operation(
    "free_full_overflow",
    "the same, and the CPU's partial list overflows: all of it goes to the node's",
    group="free",
    designs=SLAB,
    path={"cpu_partial_free": "== 1", "cpu_partial_drain": "== 1", "free_add_partial": ">= 2"},
)
def free_full_overflow(stage: Staging) -> Request:
    """As many slabs as the CPU keeps, and a full one."""
    full = exhausted_cpu_slab(stage)
    partial_slabs(stage, int(stage.cache().cpu_partial_slabs))
    return stage.ask_free(full[0])


@operation(
    "free_last_kept",
    "the last object of a slab on the node's list, which keeps the slab",
    group="free",
    designs=SLAB,
    path={"free_slowpath": "== 1", "empty_partial": "== 1", **dict.fromkeys(LISTS, "== 0")},
)
def free_last_kept(stage: Staging) -> Request:
    """A slab with one object in use, on a short list."""
    return stage.ask_free(_last_object(stage))


@operation(
    "free_last",
    "the last object of a slab that the node does not need: it is unlinked, and its page freed to the page lists",
    group="free",
    designs=SLAB,
    path={"free_remove_partial": "== 1", "free_slab": "== 1", "pgfree": "== 1", "pcp_drain": "== 0"},
    in_irq=True,
)
def free_last(stage: Staging) -> Request:
    """A slab with one object in use, on a list that is long enough."""
    last = _last_object(stage, others=int(stage.cache().min_partial))
    drained(stage)
    return stage.ask_free(last)


@operation(
    "free_last_merge",
    "the same, and the page lists overflow: pages go to the buddy, where they merge",
    group="free",
    designs=SLAB,
    path={"free_slab": "== 1", "pcp_drain": "== 1", "nr_free_3": "== -1"},
)
def free_last_merge(stage: Staging) -> Request:
    """Page lists that are full, with the last page of a pageblock."""
    last = _last_object(stage, others=int(stage.cache().min_partial))
    full_page_lists(stage)
    return stage.ask_free(last)


def _last_object(stage: Staging, others: int = 0) -> int:
    """Leave a slab with one object in use on the node's list. Returns: the object."""
    objects, *_ = partial_slabs(stage, 1 + others)
    for offset in objects[1:]:
        stage.free(offset, cpu=1)
    flush(stage)
    return objects[0]


# --- deferred ---------------------------------------------------------------------------------------


@operation(
    "free_deferred",
    "irqs are off: the object of another slab waits for irq_work",
    group="deferred",
    designs=DEFERS,
    path={"defer_free": "== 1", "irq_work_runs": "== 0", "free_slowpath": "== 0"},
    context="masked",
)
def free_deferred(stage: Staging) -> Request:
    """Irqs off, an object of another CPU's slab."""
    offset = exhausted_cpu_slab(stage, cpu=1)[0]
    stage.cpus[0].run(stage.lib.shm_irq_save)
    return stage.ask_free(offset)


@operation(
    "irq_work_free",
    "irqs are enabled: irq_work frees what was deferred, to a cpu slab, to a full slab, and the last of a slab",
    group="deferred",
    designs=DEFERS,
    path={
        "irq_work_runs": "== 1",
        "free_slowpath": "== 3",
        "free_frozen": "== 1",
        "cpu_partial_free": "== 1",
        "free_slab": "== 1",
    },
)
def irq_work_free(stage: Staging) -> Request:
    """Three objects deferred, irqs off; the node's list is what has overflown a CPU's."""
    full, other = exhausted_cpu_slab(stage), exhausted_cpu_slab(stage)
    remote = exhausted_cpu_slab(stage, cpu=1)
    slabs = partial_slabs(stage, int(stage.cache().cpu_partial_slabs))
    stage.free(other[0])
    for offset in slabs[0][1:]:
        stage.free(offset, cpu=1)
    drained(stage)
    stage.cpus[0].run(stage.lib.shm_irq_save)
    for offset in (slabs[0][0], full[0], remote[0]):
        stage.free(offset, design=stage.task_design)
    return Request(Call("shm_irq_restore", (0,)))


@operation(
    "irq_work_deactivate",
    "irqs are enabled: irq_work deactivates a slab that an interrupted request has put by, and frees an object",
    group="deferred",
    designs=DEFERS,
    path={"irq_work_runs": "== 1", "deactivate_to_head": "== 1", "free_frozen": "== 1"},
)
def irq_work_deactivate(stage: Staging) -> Request:
    """What was the cpu slab is on the list, as install_slab leaves it."""
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset)
    remote = exhausted_cpu_slab(stage, cpu=1)[0]
    stage.cpus[0].run(stage.lib.shm_irq_save)
    stage.free(remote, design=stage.task_design)
    _put_by_cpu_slab(stage)
    return Request(Call("shm_irq_restore", (0,)))


def _put_by_cpu_slab(stage: Staging) -> None:
    """Do what defer_deactivate_slab does with the cpu slab."""
    row, cpu = stage.cpu_slab(), stage.arena.item("struct shm_cpu", "cpus", 0)
    page = stage.arena.pointer("struct page", int(row.slab))
    page.lru.prev, page.lru.next = row.freelist, cpu.defer_slabs.first
    link = int(stage.arena.core.ffi.cast("uintptr_t", stage.arena.core.ffi.addressof(page.lru, "next")))
    cpu.defer_slabs.first = link - stage.arena.base
    row.slab = row.freelist = 0
    row.tid += stage.arena.header.tid_step
