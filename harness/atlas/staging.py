# SPDX-License-Identifier: MIT
"""A small arena, all of whose CPUs are this thread, on its way to the start state of an operation."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from harness import vocabulary
from harness.atlas.call import Call
from harness.script.places import page_of
from harness.script.scene import Held
from shmalloc import designs, gfp
from shmalloc.arena import Arena, Geometry
from shmalloc.cpu import Cpu
from shmalloc.program import ops as op_array

if TYPE_CHECKING:
    from shmalloc.cache import KmemCache
    from shmalloc.program import Program

#: Few pages, pageblocks of 16, slabs of one page, no reserve to speak of: paths are short, and little is touched.
SMALL: Mapping[str, Any] = {
    "nr_cpus": 2,
    "pageblock_order": 4,
    "slab_max_order": 0,
    "min_free_kbytes": 16,
    "max_caches": 40,
    "max_memcgs": 0,
    "max_maps": 0,
    "pool_size": 0,
    "pool_entries": 8,
}
SPARE_PAGES = 80  # beyond the smallest arena
SIZE_BYTES = 1024  # four objects in a slab
OTHER_SIZE_BYTES = 256
#: Designs that stand on the slabs of the arena: what arranges a start state for them is the plain kmalloc.
OF_SLABS = ("kmalloc", "kmalloc_nolock", "try_kmalloc", "sheaves", "no_prealloc")

#: An op of a program: its name, and its fields.
Line: TypeAlias = tuple[str, Mapping[str, int]]

_counters: dict[str, Callable[[Arena], int]] = {}


class ScenarioError(Exception):
    """A scenario that is not what its name says, such as one that does not take its path."""


@dataclass(frozen=True)
class Request:
    """What an operation asks for, once the start state is there.

    Attributes: call: that does it in task context.  line: the same as an op of a program, for irq context.
        frees: what the op frees, as a slot holds it.  gives: "object", "pages" or "", what the call returns.
    """

    call: Call
    line: Line | None = None
    frees: int = 0
    gives: str = ""


def counter(name: str) -> Callable[[Callable[[Arena], int]], Callable[[Arena], int]]:
    """Register a function of the arena as a counter that paths may name."""

    def register(function: Callable[[Arena], int]) -> Callable[[Arena], int]:
        assert name not in _counters, f"two counters are called {name}"
        _counters[name] = function
        return function

    return register


def geometry(keys: Mapping[str, Any]) -> Geometry:
    """Make the geometry of a small arena.

    Args: keys: of `Geometry.of` over those of `SMALL`; `spare_pages`: beyond the smallest arena there is.
    """
    from shmalloc._binding import core

    loaded, merged = core(), {**SMALL, **keys}
    spare = int(merged.pop("spare_pages", SPARE_PAGES))
    page = int(loaded.lib.SHM_PAGE_SIZE)
    any_size = Geometry.of("64MiB", **merged)
    least = int(loaded.lib.shm_arena_min_bytes(any_size.to_c(loaded)))
    return Geometry.of((-(-least // page) + spare) * page, **merged)


class Staging:
    """The arena, and what arranges it.

    Attributes: arena.  lib: the core's functions.  cpus: all of this thread.  task_design: of the operation.
        handler_design.  size, other_size: bytes of objects that handlers ask for.  named: cache that objects of the
        size are of, instead of kmalloc's.  gfp: of the operation's
        requests.  handler_gfp: of the handler's.  map: index of the map that handlers update, or None.  burst: requests
        of the handler burst, 0 = as many as there can be.  held: what the start state has allocated, oldest first.
        slots: of the handler that is being prepared: slot -> word.  at_release: undoes what the start state keeps
        others from.
    """

    def __init__(self, arena: Arena, task_design: str, handler_design: str, size: int = SIZE_BYTES) -> None:
        self.arena = arena
        self.lib = arena.core.lib
        self.cpus = [
            Cpu(arena, number, handlers=number == 0) for number in range(arena.header.geometry.nr_cpus)
        ]
        self.task_design = task_design
        self.handler_design = handler_design
        self.size = size
        self.named: KmemCache | None = None
        self.other_size = OTHER_SIZE_BYTES if size != OTHER_SIZE_BYTES else SIZE_BYTES
        self.gfp: int | str = "GFP_KERNEL"
        self.handler_gfp: int | str = "GFP_ATOMIC"
        self.map: int | None = None
        self.burst = 0
        self.held: list[Held] = []
        self.slots: dict[int, int] = {}
        self.at_release: list[Callable[[], None]] = []
        self._buffers: list[Any] = []
        for name in dict.fromkeys((task_design, handler_design)):
            self.cpus[0].run(self.lib.shm_design_setup, designs.index(name))

    @property
    def arranging_design(self) -> str:
        """The design that arranges start states: kmalloc where the operation's stands on slabs."""
        return "kmalloc" if self.task_design in OF_SLABS else self.task_design

    # --- allocating and freeing ---------------------------------------------------------------

    def alloc(
        self,
        size: int | None = None,
        *,
        cpu: int = 0,
        design: str | None = None,
        gfp: int | str | None = None,
        node: int = -1,
    ) -> int:
        """Allocate an object on a CPU, and hold it. Returns: its offset."""
        name = design or self.arranging_design
        calls = self.cpus[cpu].design(name)
        flags = self.gfp if gfp is None else gfp
        if size is None and self.named is not None:
            offset = calls.cache_alloc(self.named, flags, node)
        else:
            offset = calls.alloc(self.size if size is None else size, flags, node)
        self.held.append(Held(offset, name))
        return offset

    def pages(
        self,
        order: int = 0,
        *,
        cpu: int = 0,
        design: str | None = None,
        gfp: int | str | None = None,
        node: int = -1,
    ) -> int:
        """Allocate a block of pages on a CPU, and hold it. Returns: its offset."""
        name = design or self.arranging_design
        calls = self.cpus[cpu].design(name)
        offset = calls.pages_alloc(order, self.gfp if gfp is None else gfp, node)
        self.held.append(Held(offset, name, order))
        return offset

    def take(self, offset: int) -> Held:
        """No longer hold something."""
        held = next(each for each in self.held if each.offset == offset)
        self.held.remove(held)
        return held

    def free(self, offset: int, *, cpu: int = 0, design: str | None = None) -> None:
        """Free what is held on a CPU, with the design that allocated it unless another is named."""
        held = self.take(offset)
        calls = self.cpus[cpu].design(design or held.design)
        if held.order is None:
            calls.free(offset)
        else:
            calls.pages_free(offset, held.order)

    def release(self) -> None:
        """Let go of what the start state holds that is no memory, such as a lock; again in each state."""
        for undo in self.at_release:
            undo()

    # --- what the operation asks for ----------------------------------------------------------

    def ask_alloc(self, size: int | None = None, node: int = -1) -> Request:
        """Ask the task's design for an object."""
        design, flags = designs.index(self.task_design), self.gfp_bits(self.gfp)
        line = self.line(size, gfp=flags, node=self._op_node(node))
        if line[0] == "cache_alloc":
            call = Call("shm_design_cache_alloc", (design, line[1]["cache"], flags, node))
        else:
            call = Call("shm_design_alloc", (design, line[1]["size"], flags, node))
        return Request(call, line, gives="object")

    def line(self, size: int | None = None, **fields: int) -> Line:
        """Make the op that allocates an object, of the operation's size or of another."""
        if size is None and self.named is not None:
            return ("cache_alloc", {"cache": self.named.index, **fields})
        return ("alloc", {"size": self.size if size is None else size, **fields})

    def ask_pages(self, order: int = 0, node: int = -1) -> Request:
        """Ask the task's design for a block of pages."""
        args = (designs.index(self.task_design), self.gfp_bits(self.gfp), node, order)
        fields = {"order": order, "gfp": self.gfp_bits(self.gfp), "node": self._op_node(node)}
        return Request(Call("shm_design_pages_alloc", args), ("pages_alloc", fields), gives="pages")

    def ask_free(self, offset: int) -> Request:
        """Have the task's design free what is held."""
        held = self.take(offset)
        index = designs.index(self.task_design)
        call = (
            Call("shm_design_free", (index, offset))
            if held.order is None
            else Call("shm_design_pages_free", (index, offset, held.order))
        )
        return Request(call, ("free", {}), frees=held.word)

    def gfp_bits(self, flags: int | str) -> int:
        """Return flags as the core knows them."""
        return gfp.parse(flags) if isinstance(flags, str) else flags

    def _op_node(self, node: int) -> int:
        return node if node >= 0 else int(self.lib.SHM_NO_NODE)

    def address_of(self, data: bytes) -> int:
        """Keep bytes for a call to be given the address of, as long as this object lives. Returns: the address."""
        ffi = self.arena.core.ffi
        self._buffers.append(ffi.new("unsigned char[]", data))
        return int(ffi.cast("uintptr_t", self._buffers[-1]))

    # --- programs of interrupts ---------------------------------------------------------------

    def program(
        self, kind: str, lines: list[Line], design: str, slots: Mapping[int, int], per_interrupt: int = 0
    ) -> Program:
        """Say what an interrupt kind does, each time anew from its first op.

        Args: slots: what the private slots hold.  per_interrupt: ops of one interrupt, the next going on behind
            them; 0 = all.
        """
        most = max([*slots, *(fields.get("slot", 0) for _, fields in lines)])
        words = array("Q", [slots.get(slot, 0) for slot in range(most + 1)])
        made = self.cpus[0].set_program(
            kind, op_array(*lines), design=design, slots=words, per_interrupt=per_interrupt
        )
        assert made is not None
        return made

    # --- looking ------------------------------------------------------------------------------

    def cache(self, size: int | None = None) -> Any:
        """Return the struct kmem_cache that serves a size."""
        if size is None and self.named is not None:
            index = self.named.index
        else:
            index = int(self.lib.shm_kmalloc_index(self.size if size is None else size, 0))
        return self.arena.item("struct kmem_cache", "caches", index)

    def cpu_slab(self, cpu: int = 0, size: int | None = None) -> Any:
        """Return the struct kmem_cache_cpu of the cache that serves a size."""
        most = int(self.arena.header.geometry.max_caches)
        index = int(self.cache(size).index)
        return self.arena.item("struct kmem_cache_cpu", "cache_cpus", cpu * most + index)

    def cache_node(self, node: int = 0, size: int | None = None) -> Any:
        """Return the struct kmem_cache_node of the cache that serves a size."""
        nodes = int(self.arena.header.geometry.nr_nodes)
        index = int(self.cache(size).index)
        return self.arena.item("struct kmem_cache_node", "cache_nodes", index * nodes + node)

    def zone(self, index: int = 0) -> Any:
        """Return a struct zone."""
        return self.arena.item("struct zone", "zones", index)

    def pageset(self, cpu: int = 0, zone: int = 0) -> Any:
        """Return the struct per_cpu_pages of a CPU."""
        cpus = int(self.arena.header.geometry.nr_cpus)
        return self.arena.item("struct per_cpu_pages", "pagesets", zone * cpus + cpu)

    def free_blocks(self, migratetype: str, zone: int = 0) -> list[int]:
        """Count the blocks on a zone's free lists of a type such as "MOVABLE", by order."""
        kind = int(getattr(self.lib, f"MIGRATE_{migratetype}"))
        ffi, areas = self.arena.core.ffi, self.zone(zone).free_area
        heads = [ffi.addressof(area.free_list, kind) for area in areas]
        return [self._length(int(ffi.cast("uintptr_t", head)) - self.arena.base) for head in heads]

    def free_pages_of(self, migratetype: str, zone: int = 0) -> int:
        """Count the pages on those lists."""
        return sum(count << order for order, count in enumerate(self.free_blocks(migratetype, zone)))

    def _length(self, head: int) -> int:
        at, length = int(self.arena.pointer("struct list_head", head).next), 0
        while at != head:
            at, length = int(self.arena.pointer("struct list_head", at).next), length + 1
        return length

    def page(self, offset: int) -> Any:
        """Return the struct page of the block that an offset lies in: its head."""
        return page_of(self.arena, offset)

    def slab_of(self, offset: int) -> int:
        """Return where the struct page of an object's slab is, as cpu slabs name it."""
        address = int(self.arena.core.ffi.cast("uintptr_t", self.page(offset)))
        return address - self.arena.base

    def counters(self) -> dict[str, int]:
        """Return all that paths may be proved by: events of all CPUs, and what was registered."""
        totals: dict[str, int] = {}
        for cpu in self.cpus:
            for name, count in cpu.counters().items():
                totals[name] = totals.get(name, 0) + count
        totals.update(_results(self.arena))
        totals.update(_zones(self.arena))
        totals.update({name: function(self.arena) for name, function in _counters.items()})
        return totals


def _results(arena: Arena) -> dict[str, int]:
    """Sum what all designs have given and refused in all contexts."""
    reasons = arena.core.names("reason")
    totals = dict.fromkeys(("allocs", "frees", *(f"null_{name}" for name in reasons[1:])), 0)
    for cpu in range(int(arena.header.geometry.nr_cpus)):
        telemetry = arena.item("struct shm_telemetry", "telemetry", cpu)
        for design in range(len(designs.names())):
            for context in range(len(vocabulary.CONTEXTS)):
                counts = telemetry.counts[design][context]
                totals["allocs"] += int(counts.allocs)
                totals["frees"] += int(counts.frees)
                for at, name in enumerate(reasons[1:], 1):
                    totals[f"null_{name}"] += int(counts.failures[at])
    return totals


def _zones(arena: Arena) -> dict[str, int]:
    """Sum the zones' own events, and what is on their lists."""
    names = ("nr_deferred_free", "nr_deferred_drained", "nr_kswapd_wakeups", "free_pages")
    orders = int(arena.core.lib.SHM_NR_ORDERS)
    totals = dict.fromkeys((*names, *(f"nr_free_{order}" for order in range(orders))), 0)
    for index in range(int(arena.header.nr_zones)):
        zone = arena.item("struct zone", "zones", index)
        for name in names:
            totals[name] += int(getattr(zone, name))
        for order in range(orders):
            totals[f"nr_free_{order}"] += int(zone.free_area[order].nr_free)
    return totals
