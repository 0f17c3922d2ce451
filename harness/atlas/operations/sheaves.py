# SPDX-License-Identifier: MIT
"""Linux 7.x: sheaves and barns, of a cache whose sheaves hold four objects.

The start states are counted out by the CPU's own allocations and frees, from flushed sheaves on, so what a
handler was given beforehand makes no difference to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.atlas.call import Call
from harness.atlas.operations import Register, operation
from harness.atlas.operations.rcu import TICK, ask_free_rcu
from harness.atlas.staging import Request, Staging, counter

if TYPE_CHECKING:
    from shmalloc.arena import Arena

DESIGN = "sheaves"
SIZE, OTHER_SIZE = 4096, 512
SHEAF = 4  # objects of that size in a sheaf
GEOMETRY: dict[str, Any] = {"kernel": "7.0", "slab_max_order": 1, "rcu_gp_us": 0, "spare_pages": 128}
_FULL_SHEAVES = 10  # of a barn
_NO_WAITING = 0  # flags of a request that takes the nolock entries


# --- what there is to count -----------------------------------------------------------------------


def _rows(arena: Arena) -> list[Any]:
    cpus, most = int(arena.header.geometry.nr_cpus), int(arena.header.geometry.max_caches)
    caches = range(int(arena.header.nr_caches)) if arena.header.sheaves_ready else ()
    kind, region = "struct slub_percpu_sheaves", "cache_sheaves"
    return [arena.item(kind, region, cpu * most + cache) for cpu in range(cpus) for cache in caches]


@counter("sheaf_spares_filled")
def spares_filled(arena: Arena) -> int:
    """Spare sheaves that are not empty."""
    return sum(
        bool(row.spare) and arena.pointer("struct slab_sheaf", row.spare).size > 0 for row in _rows(arena)
    )


@counter("sheaf_spares")
def spares(arena: Arena) -> int:
    """Spare sheaves."""
    return sum(bool(row.spare) for row in _rows(arena))


@counter("sheaf_rcu_sheaves")
def rcu_sheaves(arena: Arena) -> int:
    """Sheaves that kfree_rcu is filling."""
    return sum(bool(row.rcu_free) for row in _rows(arena))


# --- start states -----------------------------------------------------------------------------------


def start(stage: Staging) -> None:
    """Have handlers ask for another cache, too."""
    stage.other_size = OTHER_SIZE


def sheaves_of(stage: Staging, cpu: int = 0) -> Any:
    """Return a CPU's sheaves of the operation's cache."""
    at = cpu * int(stage.arena.header.geometry.max_caches) + int(stage.cache().index)
    return stage.arena.item("struct slub_percpu_sheaves", "cache_sheaves", at)


def barn_of(stage: Staging) -> Any:
    """Return the barn of the operation's cache on node 0."""
    at = int(stage.cache().index) * int(stage.arena.header.geometry.nr_nodes)
    return stage.arena.item("struct node_barn", "barns", at)


def _filled(stage: Staging) -> tuple[int, int]:
    """Return how many objects are in CPU 0's main sheaf, and in its spare one."""
    row = sheaves_of(stage)
    main, spare = (
        int(stage.arena.pointer("struct slab_sheaf", at).size) if at else 0 for at in (row.main, row.spare)
    )
    return main, spare


def flush(stage: Staging) -> None:
    """Leave no object in any sheaf of the cache, no spare sheaf, and nothing in the barn; no slab is empty."""
    index = int(stage.cache().index)
    stage.cpus[0].run(stage.lib.shm_flush_all, index)
    stage.cpus[0].rcu_barrier()
    stage.cpus[0].run(stage.lib.shm_kmem_cache_shrink, index)
    assert _filled(stage) == (0, 0) and not barn_of(stage).nr_full


def _objects(stage: Staging, count: int) -> list[int]:
    """Allocate objects, and flush."""
    made = [stage.alloc() for _ in range(count)]
    flush(stage)
    return made


def _no_partial_slab(stage: Staging) -> None:
    """Use up what is free in slabs, one by one."""
    flush(stage)
    while stage.cache_node().nr_partial:
        stage.alloc(design=DESIGN, gfp=_NO_WAITING)


def _full(stage: Staging, barn: int = 0, more: int = 1) -> list[int]:
    """Fill main, spare and a number of sheaves of the barn, which has no empty one. Returns: objects in use."""
    objects = _objects(stage, SHEAF * (barn + 2) + more)
    for _ in range(SHEAF * (barn + 2)):
        stage.free(objects.pop())
    assert _filled(stage) == (SHEAF, SHEAF) and barn_of(stage).nr_full == barn and not barn_of(stage).nr_empty
    return objects


def _used_up(stage: Staging, barn: int = 0) -> None:
    """Main and spare are empty; full sheaves are in the barn."""
    _full(stage, barn)
    for _ in range(2 * SHEAF):
        stage.alloc()
    assert _filled(stage) == (0, 0) and sheaves_of(stage).spare and barn_of(stage).nr_full == barn


def _operation(
    name: str, summary: str, path: dict[str, str], *, in_irq: bool = False, **geometry: Any
) -> Register:
    return operation(
        name,
        summary,
        group="sheaf",
        designs=(DESIGN,),
        path=path,
        geometry={**GEOMETRY, **geometry},
        size=SIZE,
        before=start,
        in_irq=in_irq,
    )


# --- allocation -------------------------------------------------------------------------------------

_MAIN = {"alloc_fastpath": "== 1", "alloc_slowpath": "== 0", "barn_get": "== 0", "sheaf_refill": "== 0"}
_SINGLE = {"alloc_fastpath": "== 0", "alloc_slowpath": "== 1", "barn_get_fail": "== 1"}


@_operation("sheaf_alloc", "from the main sheaf", {**_MAIN, "sheaf_spares_filled": "== 0"}, in_irq=True)
def sheaf_alloc(stage: Staging) -> Request:
    """Three in the main sheaf."""
    _full(stage)
    stage.alloc()
    return stage.ask_alloc()


@_operation("sheaf_alloc_swap", "main is empty: the spare sheaf", {**_MAIN, "sheaf_spares_filled": "== -1"})
def sheaf_alloc_swap(stage: Staging) -> Request:
    """A full spare beside an empty main sheaf."""
    _full(stage)
    for _ in range(SHEAF):
        stage.alloc()
    return stage.ask_alloc()


@_operation(
    "sheaf_alloc_barn",
    "both are empty: a full sheaf of the barn for an empty one",
    {"alloc_fastpath": "== 1", "barn_get": "== 1"},
)
def sheaf_alloc_barn(stage: Staging) -> Request:
    """Two full ones in the barn."""
    _used_up(stage, barn=2)
    return stage.ask_alloc()


_REFILLED = {"alloc_fastpath": "== 1", "barn_get_fail": "== 1", "sheaf_refill": f"== {SHEAF}"}


def _half_used_slabs(stage: Staging) -> None:
    """Leave slabs of which one object each is free."""
    _no_partial_slab(stage)
    made = _objects(stage, 2 * SHEAF)
    for offset in made[::2]:
        stage.free(offset)
    flush(stage)


@_operation(
    "sheaf_alloc_refill",
    "nothing in the barn: the spare sheaf is refilled from the node's slabs",
    {**_REFILLED, "alloc_slab": "== 0", "sheaf_alloc": "== 0"},
)
def sheaf_alloc_refill(stage: Staging) -> Request:
    """Four slabs with a free object each."""
    given = _objects(stage, 2 * SHEAF)
    _half_used_slabs(stage)
    _through(stage, given)
    return stage.ask_alloc()


def _through(stage: Staging, objects: list[int]) -> None:
    """Free two sheaves' worth of objects, and allocate them again: main and spare are there, and empty."""
    for offset in objects:
        stage.free(offset)
    for _ in objects:
        stage.alloc()
    assert _filled(stage) == (0, 0) and sheaves_of(stage).spare


@_operation(
    "sheaf_alloc_new_slabs",
    "nothing in slabs either: the spare sheaf is refilled from new ones",
    {**_REFILLED, "alloc_slab": "== 2", "sheaf_alloc": "== 0"},
)
def sheaf_alloc_new_slabs(stage: Staging) -> Request:
    """No partial slab."""
    given = _objects(stage, 2 * SHEAF)
    _no_partial_slab(stage)
    _through(stage, given)
    return stage.ask_alloc()


@_operation(
    "sheaf_alloc_first",
    "no spare sheaf: one is allocated, and refilled",
    {"sheaf_alloc": "== 1", "sheaf_refill": f"== {SHEAF}", "sheaf_spares": "== 1"},
)
def sheaf_alloc_first(stage: Staging) -> Request:
    """An empty main sheaf is all there is."""
    flush(stage)
    return stage.ask_alloc()


def _ask_nolock(stage: Staging) -> Request:
    stage.gfp = _NO_WAITING
    return stage.ask_alloc()


@_operation("sheaf_nolock", "kmalloc_nolock, from the main sheaf", _MAIN)
def sheaf_nolock(stage: Staging) -> Request:
    """Three in the main sheaf."""
    _full(stage)
    stage.alloc()
    return _ask_nolock(stage)


@_operation(
    "sheaf_nolock_barn",
    "kmalloc_nolock, both are empty: the barn by trylock",
    {"alloc_fastpath": "== 1", "barn_get": "== 1"},
)
def sheaf_nolock_barn(stage: Staging) -> Request:
    """Two full ones in the barn."""
    _used_up(stage, barn=2)
    return _ask_nolock(stage)


@_operation(
    "sheaf_nolock_slab",
    "kmalloc_nolock, nothing in the barn: one object of the node's slabs, no refill",
    {**_SINGLE, "sheaf_refill": "== 0", "alloc_slab": "== 0"},
)
def sheaf_nolock_slab(stage: Staging) -> Request:
    """Four slabs with a free object each."""
    given = _objects(stage, 2 * SHEAF)
    _half_used_slabs(stage)
    _through(stage, given)
    return _ask_nolock(stage)


@_operation(
    "sheaf_nolock_new_slab",
    "kmalloc_nolock, nothing in slabs either: one object of a new one",
    {**_SINGLE, "sheaf_refill": "== 0", "alloc_slab": "== 1"},
    slab_max_order=0,  # without waiting, pages are always zeroed: one of them is enough
)
def sheaf_nolock_new_slab(stage: Staging) -> Request:
    """No partial slab."""
    given = _objects(stage, 2 * SHEAF)
    _no_partial_slab(stage)
    _through(stage, given)
    return _ask_nolock(stage)


# --- free -------------------------------------------------------------------------------------------

_TO_MAIN = {"free_fastpath": "== 1", "free_slowpath": "== 0", "barn_put": "== 0", "sheaf_alloc": "== 0"}


@_operation("sheaf_free", "to the main sheaf", {**_TO_MAIN, "sheaf_spares_filled": "== 0"}, in_irq=True)
def sheaf_free(stage: Staging) -> Request:
    """Three in the main sheaf."""
    _full(stage)
    return stage.ask_free(stage.alloc())


@_operation("sheaf_free_swap", "main is full: the spare sheaf", {**_TO_MAIN, "sheaf_spares_filled": "== 1"})
def sheaf_free_swap(stage: Staging) -> Request:
    """Main is full, and the spare empty."""
    _full(stage)
    taken = [stage.alloc() for _ in range(SHEAF + 1)]
    stage.free(taken.pop())
    return stage.ask_free(taken.pop())


@_operation(
    "sheaf_free_barn",
    "both are full: an empty sheaf of the barn for a full one",
    {"free_fastpath": "== 1", "barn_put": "== 1", "sheaf_alloc": "== 0"},
)
def sheaf_free_barn(stage: Staging) -> Request:
    """An empty sheaf and a full one in the barn."""
    _full(stage, barn=2)
    taken = [stage.alloc() for _ in range(2 * SHEAF + 1)]
    for _ in range(SHEAF + 1):
        stage.free(taken.pop())
    assert barn_of(stage).nr_empty == 1
    return stage.ask_free(taken.pop())


@_operation(
    "sheaf_free_room",
    "both are full, no empty sheaf in the barn: one is allocated",
    {"barn_put": "== 1", "sheaf_alloc": "== 1", "sheaf_flush": "== 0"},
)
def sheaf_free_room(stage: Staging) -> Request:
    """Main and spare are full."""
    return stage.ask_free(_full(stage).pop())


@_operation(
    "sheaf_free_first",
    "main is full, no spare sheaf: one is allocated",
    {"barn_put": "== 0", "sheaf_alloc": "== 1", "sheaf_spares": "== 1"},
)
def sheaf_free_first(stage: Staging) -> Request:
    """A full main sheaf is all there is."""
    objects = _objects(stage, SHEAF + 1)
    for _ in range(SHEAF):
        stage.free(objects.pop())
    return stage.ask_free(objects.pop())


@_operation(
    "sheaf_free_flush",
    "enough full sheaves everywhere: the spare one goes back to its slabs",
    {"barn_put_fail": "== 1", "sheaf_flush": f"== {SHEAF}"},
    spare_pages=224,
)
def sheaf_free_flush(stage: Staging) -> Request:
    """The barn has as many full sheaves as it takes."""
    return stage.ask_free(_full(stage, barn=_FULL_SHEAVES).pop())


@_operation(
    "sheaf_free_remote",
    "an object of another node: to its slab",
    {"free_fastpath": "== 0", "free_slowpath": "== 1", "defer_free": "== 0"},
    nr_nodes=2,
    spare_pages=256,
)
def sheaf_free_remote(stage: Staging) -> Request:
    """One of node 1, and room in the main sheaf."""
    far = stage.alloc(node=1)
    _full(stage)
    stage.alloc()
    return stage.ask_free(far)


def _ask_free_nolock(stage: Staging, offset: int) -> Request:
    held = stage.take(offset)
    return Request(Call("shm_kfree_nolock", (held.offset,)), frees=held.word)


@_operation("sheaf_free_nolock", "kfree_nolock, to the main sheaf", {**_TO_MAIN, "defer_free": "== 0"})
def sheaf_free_nolock(stage: Staging) -> Request:
    """Three in the main sheaf."""
    _full(stage)
    return _ask_free_nolock(stage, stage.alloc())


@_operation(
    "sheaf_free_nolock_deferred",
    "kfree_nolock, no room and no empty sheaf: deferred, and freed by irq_work",
    {"defer_free": "== 1", "free_slowpath": "== 1", "irq_work_runs": "== 1", "sheaf_alloc": "== 0"},
)
def sheaf_free_nolock_deferred(stage: Staging) -> Request:
    """Main and spare are full."""
    return _ask_free_nolock(stage, _full(stage).pop())


# --- kfree_rcu --------------------------------------------------------------------------------------


def _rcu_sheaf(stage: Staging, filled: int) -> list[int]:
    """Have kfree_rcu collect objects. Returns: objects in use."""
    objects = _objects(stage, filled + 1)
    for _ in range(filled):
        offset = stage.take(objects.pop()).offset
        stage.cpus[0].kfree_rcu(offset)
    return objects


_COLLECTED = {"free_rcu_sheaf": "== 1", "rcu_queued": "== 0"}


@_operation("sheaf_free_rcu", "into the rcu sheaf", {**_COLLECTED, "sheaf_rcu_sheaves": "== 0"})
def sheaf_free_rcu(stage: Staging) -> Request:
    """One object is in it."""
    return ask_free_rcu(stage, _rcu_sheaf(stage, 1).pop())


@_operation(
    "sheaf_free_rcu_install",
    "no rcu sheaf: one is allocated",
    {**_COLLECTED, "sheaf_rcu_sheaves": "== 1", "sheaf_alloc": "== 1"},
)
def sheaf_free_rcu_install(stage: Staging) -> Request:
    """No spare sheaf, and none in the barn."""
    return ask_free_rcu(stage, _rcu_sheaf(stage, 0).pop())


@_operation(
    "sheaf_free_rcu_full",
    "into the last place of the rcu sheaf: it is handed to call_rcu",
    {"free_rcu_sheaf": "== 1", "rcu_queued": "== 1", "sheaf_rcu_sheaves": "== -1"},
)
def sheaf_free_rcu_full(stage: Staging) -> Request:
    """One place is left."""
    return ask_free_rcu(stage, _rcu_sheaf(stage, SHEAF - 1).pop())


@_operation(
    "sheaf_free_rcu_nolock",
    "kfree_rcu_nolock, into the rcu sheaf",
    {**_COLLECTED, "sheaf_rcu_sheaves": "== 0"},
)
def sheaf_free_rcu_nolock(stage: Staging) -> Request:
    """One object is in it."""
    return ask_free_rcu(stage, _rcu_sheaf(stage, 1).pop(), "shm_kfree_rcu_nolock")


@_operation(
    "sheaf_free_rcu_nolock_install",
    "kfree_rcu_nolock, no rcu sheaf: one is allocated, without waiting",
    {**_COLLECTED, "sheaf_rcu_sheaves": "== 1", "sheaf_alloc": "== 1"},
)
def sheaf_free_rcu_nolock_install(stage: Staging) -> Request:
    """No spare sheaf, and none in the barn."""
    return ask_free_rcu(stage, _rcu_sheaf(stage, 0).pop(), "shm_kfree_rcu_nolock")


@_operation(
    "sheaf_rcu_end",
    "a tick: after its grace period the rcu sheaf goes to the barn as it is",
    {"rcu_invoked": "== 1", "barn_put": "== 1", "sheaf_flush": "== 0"},
)
def sheaf_rcu_end(stage: Staging) -> Request:
    """The grace period of a full one is over."""
    _rcu_sheaf(stage, SHEAF)
    stage.cpus[0].rcu_tick()
    return TICK


# --- flush ------------------------------------------------------------------------------------------


@_operation(
    "sheaf_flush",
    "all of a cache's sheaves go back to their slabs, on every CPU",
    {"sheaf_flush": f">= {2 * SHEAF}", "sheaf_free": ">= 1", "free_slowpath": ">= 1"},
)
def sheaf_flush(stage: Staging) -> Request:
    """Main and spare are full."""
    _full(stage)
    return Request(Call("shm_flush_all", (int(stage.cache().index),)))
