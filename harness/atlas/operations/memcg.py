# SPDX-License-Identifier: MIT
"""Charging memory cgroups: objects by bytes, pages by stocks, and the counters with their limits.

The task runs in memcg `task`, below `parent`; what interrupts allocate is charged to `other`, so that the two
fight over the one obj_stock of the CPU. All requests have __GFP_ACCOUNT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.atlas.call import Call
from harness.atlas.operations import Register, operation
from harness.atlas.operations.slab import exhausted_cpu_slab
from harness.atlas.staging import Request, Staging, counter
from shmalloc.memcg import MemCgroup, memcg_of, memcgs, stocks

if TYPE_CHECKING:
    from shmalloc.arena import Arena

SPINNING, NOLOCK = ("kmalloc",), ("kmalloc_nolock",)
BOTH = SPINNING + NOLOCK
CHARGED = 1024 + 8  # bytes that an object of the operation costs
PAGE = 4096
FILLER = 256  # bytes of objects that use up the rest of a page
SLOTS = 7  # of a CPU's page stock
GEOMETRY: dict[str, Any] = {"max_memcgs": 12, "max_caches": 52}


# --- what there is to count -----------------------------------------------------------------------


@counter("memcg_stock_pages")
def stock_pages(arena: Arena) -> int:
    """Pages in all stocks."""
    if not arena.header.geometry.max_memcgs:
        return 0
    cpus = range(int(arena.header.geometry.nr_cpus))
    return sum(sum(stocks(arena, cpu).pages.values()) for cpu in cpus)


@counter("memcg_obj_bytes")
def obj_bytes(arena: Arena) -> int:
    """Bytes in all obj_stocks."""
    if not arena.header.geometry.max_memcgs:
        return 0
    return sum(stocks(arena, cpu).nr_bytes for cpu in range(int(arena.header.geometry.nr_cpus)))


def _memcgs(arena: Arena, *, dying: bool) -> int:
    return sum(each.is_dying == dying for each in memcgs(arena))


@counter("memcg_live")
def live(arena: Arena) -> int:
    """Memcgs that were made and not destroyed."""
    return _memcgs(arena, dying=False)


@counter("memcg_dying")
def dying(arena: Arena) -> int:
    """Memcgs that were destroyed, and that something is still charged to."""
    return _memcgs(arena, dying=True)


# --- start states -----------------------------------------------------------------------------------


def start(stage: Staging) -> None:
    """Make the memcgs, and have tasks and interrupts run in them."""
    cpu = stage.cpus[0]
    parent, other = cpu.memcg_create("parent"), cpu.memcg_create("other")
    task = cpu.memcg_create("task", parent)
    for each in stage.cpus:
        each.memcg_enter(task)
        each.memcg_interrupts(other)
    stage.gfp, stage.handler_gfp = "GFP_NOWAIT|__GFP_ACCOUNT", "GFP_ATOMIC|__GFP_ACCOUNT"


def group(stage: Staging, name: str = "task") -> MemCgroup:
    """Return a memcg."""
    return memcg_of(stage.arena, name)


def _rest(stage: Staging) -> int:
    """Return how many bytes CPU 0's obj_stock has."""
    return stocks(stage.arena, 0).nr_bytes


def _room(stage: Staging) -> list[int]:
    """Have free objects on CPU 0's cpu slab, which has a vector. Returns: objects in use."""
    held = [stage.alloc() for _ in range(4)]
    slab = stage.slab_of(held[-1])
    while sum(stage.slab_of(each) == slab for each in held) < 3:
        held.append(stage.alloc())
        slab = stage.slab_of(held[-1])
    mine = [each for each in held if stage.slab_of(each) == slab]
    for offset in mine[:2]:
        stage.free(offset)
        held.remove(offset)
    return held


def _little_left(stage: Staging) -> None:
    """Leave less in the obj_stock than an object costs, and pages in the page stock."""
    while _rest(stage) >= CHARGED:
        stage.alloc(FILLER)
    assert stocks(stage.arena, 0).objcg == group(stage).id and stocks(stage.arena, 0).pages[group(stage).id]


def _nothing_in_stock(stage: Staging) -> None:
    stage.cpus[0].memcg_drain()
    assert not stocks(stage.arena, 0).pages and not _rest(stage)


def _stock_of(stage: Staging, name: str) -> None:
    """Have another memcg charge an object last: the obj_stock is its own then."""
    stage.cpus[0].memcg_enter(group(stage, name))
    stage.alloc(FILLER)
    stage.cpus[0].memcg_enter(group(stage))
    assert stocks(stage.arena, 0).objcg == group(stage, name).id


def _limit(stage: Staging, name: str) -> None:
    """Let a memcg have no page more than it has."""
    _nothing_in_stock(stage)
    memcg = group(stage, name)
    stage.cpus[0].memcg_limit(memcg, max_bytes=memcg.usage_bytes)


def _slots_of_others(stage: Staging) -> None:
    """Have seven other memcgs charge something after the stocks were drained: each has a slot."""
    _nothing_in_stock(stage)
    for number in range(SLOTS):
        stage.cpus[0].memcg_create(f"group{number}")
        _stock_of(stage, f"group{number}")
    assert len(stocks(stage.arena, 0).pages) == SLOTS


def _last_object(stage: Staging) -> int:
    """Destroy a memcg that has one object. Returns: that."""
    doomed = stage.cpus[0].memcg_create("doomed")
    stage.cpus[0].memcg_enter(doomed)
    last = stage.alloc(FILLER)
    stage.cpus[0].memcg_enter(group(stage))
    stage.cpus[0].memcg_destroy(doomed)
    assert doomed.is_dying
    return last


def _last_reference_in_stock(stage: Staging) -> None:
    """Free it: the obj_stock has the last reference then."""
    stage.free(_last_object(stage))
    assert dying(stage.arena) == 1 and stocks(stage.arena, 0).objcg not in (0, group(stage).id)


def _operation(
    name: str, summary: str, path: dict[str, str], designs: tuple[str, ...] = BOTH, **geometry: Any
) -> Register:
    return operation(
        name,
        summary,
        group="memcg",
        designs=designs,
        path=path,
        geometry={**GEOMETRY, **geometry},
        before=start,
    )


# --- charges ----------------------------------------------------------------------------------------

_CHARGED = {"allocs": "== 1", "memcg_objects": "== 1", "memcg_vector_alloc": "== 0"}


@_operation(
    "memcg_obj_hit",
    "from the rest of a page",
    {**_CHARGED, "memcg_obj_hit": "== 1", "memcg_obj_miss": "== 0"},
)
def obj_hit(stage: Staging) -> Request:
    """The obj_stock has enough."""
    _room(stage)
    while _rest(stage) < CHARGED:
        stage.alloc(FILLER)
    return stage.ask_alloc()


@_operation(
    "memcg_stock_hit",
    "a page of the stock",
    {**_CHARGED, "memcg_obj_miss": "== 1", "memcg_stock_hit": "== 1", "memcg_charged_pages": "== 0"},
)
def stock_hit(stage: Staging) -> Request:
    """The obj_stock has too little."""
    _room(stage)
    _little_left(stage)
    return stage.ask_alloc()


@_operation(
    "memcg_counters",
    "nothing in stock: the counters, two levels of them",
    {**_CHARGED, "memcg_stock_miss": "== 1", "memcg_charged_pages": ">= 1"},
)
def counters(stage: Staging) -> Request:
    """All stocks were drained."""
    _room(stage)
    _nothing_in_stock(stage)
    return stage.ask_alloc()


@_operation(
    "memcg_obj_drain",
    "the obj_stock is another memcg's, and is drained",
    {**_CHARGED, "memcg_obj_drain": "== 1", "memcg_obj_fallback": "== 0"},
    SPINNING,
)
def obj_drain(stage: Staging) -> Request:
    """The other memcg has charged last."""
    _room(stage)
    _stock_of(stage, "other")
    return stage.ask_alloc()


@_operation(
    "memcg_obj_bypass",
    "the obj_stock is another memcg's, and is left alone",
    {**_CHARGED, "memcg_obj_drain": "== 0", "memcg_obj_fallback": "== 1"},
    NOLOCK,
)
def obj_bypass(stage: Staging) -> Request:
    """The other memcg has charged last."""
    return obj_drain(stage)


_REFUSED = {
    "allocs": "== 0",
    "null_memcg_limit": "== 1",
    "memcg_abort": "== 1",
    "memcg_charge_failed": "== 1",
}


@_operation("memcg_limit", "over the memcg's limit: the object is freed again", _REFUSED)
def limit(stage: Staging) -> Request:
    """It has all it may have."""
    _room(stage)
    _limit(stage, "task")
    return stage.ask_alloc()


@_operation(
    "memcg_limit_above", "over the limit of the memcg above: the charge is taken back below it", _REFUSED
)
def limit_above(stage: Staging) -> Request:
    """The one above has all it may have."""
    _room(stage)
    _limit(stage, "parent")
    return stage.ask_alloc()


@_operation(
    "memcg_forced",
    "over the limit, but GFP_ATOMIC may be",
    {**_CHARGED, "memcg_charge_forced": "== 1"},
    SPINNING,
)
def forced(stage: Staging) -> Request:
    """It has all it may have."""
    _room(stage)
    _limit(stage, "task")
    stage.gfp = "GFP_ATOMIC|__GFP_ACCOUNT"
    return stage.ask_alloc()


@_operation(
    "memcg_memalloc",
    "over the limit, but the task frees memory; so are interrupts, over theirs",
    {**_CHARGED, "memcg_charge_forced": "== 1"},
    SPINNING,
)
def memalloc(stage: Staging) -> Request:
    """PF_MEMALLOC is set, and both memcgs have all they may have."""
    _room(stage)
    _limit(stage, "task")
    _limit(stage, "other")
    stage.cpus[0].run(stage.lib.shm_set_memalloc, 1)
    return stage.ask_alloc()


@_operation(
    "memcg_vector", "the first object of a slab: its vector", {"allocs": "== 1", "memcg_vector_alloc": "== 1"}
)
def vector(stage: Staging) -> Request:
    """No slab has a free object."""
    stage.alloc()
    while _cg_slab(stage).freelist or _cg_slab(stage).partial:
        stage.alloc()
    return stage.ask_alloc()


@_operation(
    "memcg_named_vector",
    "the first charged object of a slab that others are freed to without a look at it: its vector",
    {"allocs": "== 1", "memcg_vector_alloc": "== 1"},
)
def named_vector(stage: Staging) -> Request:
    """A cache of its own, with an object that nobody is charged for; and a slab that the vector may come from."""
    stage.named = stage.cpus[0].kmem_cache_create("named", stage.size)
    stage.alloc(gfp="GFP_NOWAIT")
    stage.alloc(8 * (int(stage.cache().oo) & 0xFFFF), gfp="GFP_NOWAIT")
    return stage.ask_alloc()


def _cg_slab(stage: Staging) -> Any:
    """Return CPU 0's struct kmem_cache_cpu of the accounted cache."""
    from shmalloc import gfp

    index = int(stage.lib.shm_kmalloc_index(stage.size, gfp.parse("__GFP_ACCOUNT")))
    return stage.arena.item("struct kmem_cache_cpu", "cache_cpus", index)


@_operation(
    "memcg_stock_evict",
    "seven others have the slots of the stock: one has to go",
    {**_CHARGED, "memcg_stock_evict": "== 1", "memcg_stock_miss": "== 1"},
    SPINNING,
)
def stock_evict(stage: Staging) -> Request:
    """Each of them has charged something since the stocks were drained."""
    _room(stage)
    _slots_of_others(stage)
    return stage.ask_alloc()


@_operation(
    "memcg_shuffle",
    "a new slab, shuffled by random numbers; seven others have the slots of the stock",
    {"allocs": "== 1", "alloc_slab": "== 1", "memcg_objects": "== 0"},
    SPINNING,
    freelist_random=True,
)
def shuffle(stage: Staging) -> Request:
    """The cpu slab is used up; what an interrupt uncharges finds no slot of its own."""
    _slots_of_others(stage)
    stage.gfp = "GFP_NOWAIT"
    exhausted_cpu_slab(stage)
    return stage.ask_alloc()


@_operation(
    "memcg_pages",
    "a page, from the stock",
    {"allocs": "== 1", "memcg_stock_hit": "== 1", "memcg_stock_pages": "== -1"},
)
def pages(stage: Staging) -> Request:
    """There are pages in stock."""
    stage.pages()
    return stage.ask_pages()


# --- uncharges --------------------------------------------------------------------------------------

_FREED = {"frees": "== 1", "memcg_stock_overflow": "== 0"}


@_operation(
    "memcg_uncharge",
    "to the obj_stock",
    {**_FREED, "memcg_obj_bytes": f"== {CHARGED}", "memcg_stock_pages": "== 0", "memcg_obj_fallback": "== 0"},
)
def uncharge(stage: Staging) -> Request:
    """It is the memcg's own, and has little."""
    held = _room(stage)
    _little_left(stage)
    return stage.ask_free(held[-1])


@_operation(
    "memcg_uncharge_page",
    "to the obj_stock, which then has more than a page: that one goes to the page stock",
    {**_FREED, "memcg_stock_pages": "== 1", "memcg_obj_bytes": f"== {CHARGED - PAGE}"},
)
def uncharge_page(stage: Staging) -> Request:
    """It has nearly a page."""
    held = [*(stage.alloc() for _ in range(4)), *_room(stage)]
    while _rest(stage) <= PAGE - CHARGED:
        stage.free(held.pop(0))
    return stage.ask_free(held[-1])


@_operation(
    "memcg_uncharge_drain",
    "the obj_stock is another memcg's, and is drained",
    {**_FREED, "memcg_obj_drain": "== 1"},
    SPINNING,
)
def uncharge_drain(stage: Staging) -> Request:
    """The other memcg has charged last."""
    held = _room(stage)
    _stock_of(stage, "other")
    return stage.ask_free(held[-1])


@_operation(
    "memcg_uncharge_bypass",
    "the obj_stock is another memcg's, and is left alone",
    {**_FREED, "memcg_obj_fallback": "== 1", "memcg_obj_drain": "== 0"},
    NOLOCK,
)
def uncharge_bypass(stage: Staging) -> Request:
    """The other memcg has charged last."""
    return uncharge_drain(stage)


@_operation("memcg_uncharge_stock", "a page, to the stock", {**_FREED, "memcg_stock_pages": "== 1"})
def uncharge_stock(stage: Staging) -> Request:
    """It has room."""
    return stage.ask_free(stage.pages())


@_operation(
    "memcg_uncharge_overflow",
    "a page, to a stock that then has more than a batch: all of it goes back",
    {"frees": "== 1", "memcg_stock_overflow": "== 1"},
)
def uncharge_overflow(stage: Staging) -> Request:
    """A full batch in stock."""
    held = [stage.pages() for _ in range(3)]
    _nothing_in_stock(stage)
    held.append(stage.pages())  # of a batch, the rest is stocked
    while stocks(stage.arena, 0).pages[group(stage).id] < int(stage.lib.SHM_MEMCG_CHARGE_BATCH):
        stage.free(held.pop(0))
    return stage.ask_free(held[0])


# --- a memcg's life ---------------------------------------------------------------------------------


@_operation(
    "memcg_create",
    "a memcg is made; another one's last reference is in the obj_stock",
    {"memcg_live": "== 1", "memcg_uncharged_pages": "== 0"},
    SPINNING,
)
def create(stage: Staging) -> Request:
    """A destroyed one was left behind."""
    _room(stage)
    _last_reference_in_stock(stage)
    return Request(Call("shm_memcg_create", (stage.address_of(b"new\0"), 0)))


@_operation(
    "memcg_drain",
    "the stocks of all CPUs are drained; a memcg's last reference goes with them",
    {"memcg_uncharged_pages": ">= 1", "memcg_stock_pages": "<= -1", "memcg_dying": "== -1"},
    SPINNING,
)
def drain(stage: Staging) -> Request:
    """A destroyed one was left behind, and there are pages in stock."""
    _room(stage)
    _last_reference_in_stock(stage)
    stage.pages()
    return Request(Call("shm_memcg_drain", ()))


@_operation(
    "memcg_uncharge_last",
    "the last object of a destroyed memcg: irq_work releases that, since nothing may spin",
    {"frees": "== 1", "memcg_release_deferred": "== 1", "memcg_dying": "== -1", "irq_work_runs": ">= 1"},
    NOLOCK,
)
def uncharge_last(stage: Staging) -> Request:
    """The obj_stock is another memcg's, and is left alone."""
    _room(stage)
    last = _last_object(stage)
    _stock_of(stage, "other")
    return stage.ask_free(last)
