# SPDX-License-Identifier: MIT
"""Paths that only some kernels have: debug caches, random freelists, cpusets, debug objects, no SMP.

Known bugs live here, in what few machines run and no fast path passes.
"""

from __future__ import annotations

from harness.atlas.call import Call
from harness.atlas.operations import operation
from harness.atlas.operations.pages import cached_page, drained, full_page_lists, lone_page
from harness.atlas.operations.slab import (
    ALLOCS,
    SLAB,
    SPINS,
    TWO_NODES,
    exhausted_cpu_slab,
    flush,
    no_slab_left,
    partial_slabs,
)
from harness.atlas.staging import SIZE_BYTES, Request, Staging, counter
from shmalloc.arena import Arena

DEBUG = {"slab_debug": f"F,kmalloc-{SIZE_BYTES // 1024}k"}
UP = {"up": True, "nr_cpus": 1}
CONSTRUCTED_BYTES = 120  # the free pointer is behind them


@counter("mems_allowed_seq")
def mems_allowed_seq(arena: Arena) -> int:
    """Read the sequence of the first CPU's task."""
    return int(arena.item("struct shm_cpu", "cpus", 0).mems_allowed_seq)


# --- caches with constructed objects ----------------------------------------------------------------


def constructed(stage: Staging) -> None:
    """Have objects come from a cache whose free ones keep their content."""
    stage.named = stage.cpus[0].kmem_cache_create("constructed", CONSTRUCTED_BYTES, ctor=1)
    stage.size = CONSTRUCTED_BYTES


@operation(
    "alloc_constructed",
    "a constructed object, and another CPU has freed to the cpu slab",
    group="alloc",
    designs=SLAB,
    path={"alloc_refill": "== 1", "alloc_slowpath": "== 1"},
    before=constructed,
)
def alloc_constructed(stage: Staging) -> Request:
    """Two objects were freed remotely."""
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset, cpu=1)
    return stage.ask_alloc()


@operation(
    "alloc_constructed_fast",
    "a constructed object, and the cpu slab has free ones: the fast path behind the first attempt",
    group="alloc",
    designs=SLAB,
    path={"alloc_fastpath": "== 1", "alloc_slowpath": "== 0"},
    before=constructed,
)
def alloc_constructed_fast(stage: Staging) -> Request:
    """Two free objects."""
    for offset in exhausted_cpu_slab(stage)[:2]:
        stage.free(offset)
    return stage.ask_alloc()


@operation(
    "free_constructed",
    "a constructed object of another CPU's slab, in front of one that is free",
    group="free",
    designs=SLAB,
    path={"free_slowpath": "== 1", "free_frozen": "== 1"},
    before=constructed,
)
def free_constructed(stage: Staging) -> Request:
    """Its neighbour was freed remotely, too."""
    first, second, *_ = sorted(exhausted_cpu_slab(stage, cpu=1, least=3))
    stage.free(second)
    return stage.ask_free(first)


# --- debug caches -----------------------------------------------------------------------------------


@operation(
    "alloc_debug_partial",
    "a debug cache, whose objects come one by one from the node's list",
    group="alloc",
    designs=ALLOCS,
    path={"alloc_slowpath": "== 1", "alloc_slab": "== 0", "list_lock_busy": "== 0"},
    geometry=DEBUG,
    functions=("alloc_single_from_partial",),
)
def alloc_debug_partial(stage: Staging) -> Request:
    """A slab on the node's list."""
    first, *_ = [stage.alloc() for _ in range(3)]
    stage.free(first)
    return stage.ask_alloc()


@operation(
    "alloc_debug_new_slab",
    "a debug cache whose node has no slab",
    group="alloc",
    designs=SLAB,
    path={"alloc_slowpath": "== 1", "alloc_slab": "== 1", "list_lock_busy": "== 0"},
    geometry=DEBUG,
    functions=("alloc_single_from_new_slab",),
)
def alloc_debug_new_slab(stage: Staging) -> Request:
    """All objects in use, a page on the CPU's list."""
    stage.alloc()
    while stage.cache_node().nr_partial:
        stage.alloc()
    cached_page(stage)
    return stage.ask_alloc()


@operation(
    "free_debug",
    "an object of a debug cache: to its slab on the node's list, under the list's lock",
    group="free",
    designs=SLAB,
    path={"free_slowpath": "== 1", "free_slab": "== 0"},
    geometry=DEBUG,
    functions=("free_to_partial_list",),
)
def free_debug(stage: Staging) -> Request:
    """A slab with two objects in use."""
    first, _ = stage.alloc(), stage.alloc()
    return stage.ask_free(first)


# --- random and hardened freelists ------------------------------------------------------------------


@operation(
    "alloc_random_freelist",
    "a new slab, whose objects are shuffled by locked random numbers",
    group="alloc",
    designs=SLAB,
    path={"alloc_slab": "== 1", "pcp_alloc": "== 1"},
    geometry={"freelist_random": True, "freelist_hardened": True},
)
def alloc_random_freelist(stage: Staging) -> Request:
    """A page on the CPU's list, random numbers used up."""
    while stage.arena.item("struct shm_cpu", "cpus", 0).entropy.position:
        stage.alloc()
    no_slab_left(stage)
    cached_page(stage)
    return stage.ask_alloc()


# --- cpusets ----------------------------------------------------------------------------------------


@operation(
    "mems_allowed",
    "the nodes that a task may use are changed, while only another node has slabs",
    group="alloc",
    designs=SPINS,
    path={"mems_allowed_seq": "== 2"},
    geometry=TWO_NODES,
)
def mems_allowed(stage: Staging) -> Request:
    """One slab more than the other node keeps."""
    exhausted_cpu_slab(stage)
    partial_slabs(stage, int(stage.cache().min_partial) + 1, cpu=1)
    flush(stage)
    return Request(Call("shm_set_mems_allowed", (3,)))


# --- debug objects ----------------------------------------------------------------------------------


@operation(
    "pages_free_debug_objects",
    "a page is freed, and live objects are looked for in it under a lock",
    group="pages",
    designs=SPINS,
    path={"pgfree": "== 1", "pcp_drain": "== 0"},
    geometry={"debug_objects": True},
    functions=("debug_check_no_obj_freed",),
)
def pages_free_debug_objects(stage: Staging) -> Request:
    """Room on the CPU's list."""
    drained(stage)
    return stage.ask_free(stage.pages())


# --- no SMP -----------------------------------------------------------------------------------------


@operation(
    "alloc_new_slab_up",
    "without SMP, a new slab for which the buddy splits a large block",
    group="alloc",
    designs=SPINS,
    path={"alloc_slab": "== 1", "pcp_refill": "== 1", "nr_free_0": "== 1", "nr_free_3": "== 1"},
    geometry=UP,
)
def alloc_new_slab_up(stage: Staging) -> Request:
    """Nothing smaller than a pageblock."""
    no_slab_left(stage)
    drained(stage)
    return stage.ask_alloc()


@operation(
    "pages_free_up",
    "without SMP, a page is freed and the page lists overflow",
    group="pages",
    designs=SPINS,
    path={"pgfree": "== 1", "pcp_drain": "== 1"},
    geometry=UP,
)
def pages_free_up(stage: Staging) -> Request:
    """Page lists that are full."""
    mine = stage.pages()
    full_page_lists(stage)
    return stage.ask_free(mine)


@operation(
    "pages_drain_up",
    "without SMP, the page lists are drained",
    group="pages",
    designs=SPINS,
    path={"pcp_drain": "== 1", "nr_free_0": "== -1"},
    geometry=UP,
)
def pages_drain_up(stage: Staging) -> Request:
    """A page on the lists, whose pageblock is otherwise free."""
    stage.free(lone_page(stage))
    return Request(Call("shm_drain_pages"))
