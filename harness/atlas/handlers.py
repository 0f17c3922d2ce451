# SPDX-License-Identifier: MIT
"""The catalogue of handlers: what an interrupt does when it arrives inside an operation.

Each runs its ops from the first one on, at every interrupt. A slot that is filled when an allocation
comes to it, by an interrupt before, is freed first; an empty one that is to be freed is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.atlas.staging import OF_SLABS, Line, Staging
from shmalloc import designs

if TYPE_CHECKING:
    from collections.abc import Mapping


_BURST_BYTES = 8192
_BURST_PAGES = 2
_LARGE_ORDER = 4  # no page list takes it
_MAP_ENTRIES = 8
MAP_KEY = 3  # that the handler map_update updates


@dataclass(frozen=True)
class Handler:
    """What an interrupt does.

    Attributes: name.  summary: one line.  ops: of the program, for a design.  prepare: allocates what the ops
        free, into slots.  geometry: keys that it needs.  kinds: of interrupts that may run it.  listed: it is
        crossed only with operations that it is listed for.
    """

    name: str
    summary: str
    ops: Callable[[Staging, str], list[Line]]
    prepare: Callable[[Staging], None]
    geometry: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("nmi", "irq")
    listed: bool = False


HANDLERS: dict[str, Handler] = {}


def _nothing(_stage: Staging) -> None:
    """Prepare nothing."""


def _handler(
    name: str, summary: str, prepare: Callable[[Staging], None] = _nothing, **more: Any
) -> Callable[[Callable[[Staging, str], list[Line]]], Callable[[Staging, str], list[Line]]]:
    def register(function: Callable[[Staging, str], list[Line]]) -> Callable[[Staging, str], list[Line]]:
        HANDLERS[name] = Handler(name, summary, function, prepare, **more)
        return function

    return register


def _alloc(stage: Staging, slot: int, size: int | None = None) -> Line:
    return stage.line(size, slot=slot, gfp=stage.gfp_bits(stage.handler_gfp))


def _free(slot: int) -> Line:
    return ("free", {"slot": slot})


def _fill(stage: Staging, slot: int, offset: int) -> None:
    """Hand what is held to the handler."""
    stage.slots[slot] = stage.take(offset).word


@_handler("alloc_same", "an object of the same size")
def _alloc_same(stage: Staging, design: str) -> list[Line]:
    return [_alloc(stage, 0)]


@_handler("aba", "two objects of the same size, of which the first is freed: a freelist's head comes back")
def _aba(stage: Staging, design: str) -> list[Line]:
    return [_alloc(stage, 0), _alloc(stage, 1), _free(0)]


@_handler("alloc_other", "an object of another size")
def _alloc_other(stage: Staging, design: str) -> list[Line]:
    return [_alloc(stage, 0, stage.other_size)]


def _own(stage: Staging) -> None:
    _fill(stage, 0, stage.alloc(design=stage.handler_design, gfp=stage.handler_gfp))


@_handler("free_own", "frees an object that this CPU has allocated", _own)
def _free_own(stage: Staging, design: str) -> list[Line]:
    return [_free(0)]


@_handler("free_rcu", "frees such an object after a grace period (7.3: kfree_rcu_nolock)", _own, listed=True)
def _free_rcu(stage: Staging, design: str) -> list[Line]:
    return [("free_rcu", {"slot": 0})]


def _remote(stage: Staging) -> None:
    other = len(stage.cpus) - 1
    _fill(stage, 0, stage.alloc(cpu=other, design=stage.handler_design, gfp=stage.handler_gfp))


@_handler("free_remote", "frees an object that another CPU has allocated", _remote)
def _free_remote(stage: Staging, design: str) -> list[Line]:
    return [_free(0)]


@_handler("alloc_free", "an object of the same size, freed at once")
def _alloc_free(stage: Staging, design: str) -> list[Line]:
    return [_alloc(stage, 0), _free(0)]


def _two_blocks(stage: Staging) -> None:
    if stage.handler_design in OF_SLABS:
        _fill(stage, 1, stage.pages(0, design="kmalloc"))
        _fill(stage, 2, stage.pages(_LARGE_ORDER, design="kmalloc"))


@_handler("pages", "a page, then one freed to the page lists, and a block freed to the buddy", _two_blocks)
def _pages(stage: Staging, design: str) -> list[Line]:
    page: Line = ("pages_alloc", {"order": 0, "slot": 0, "gfp": stage.gfp_bits(stage.handler_gfp)})
    return [page, _free(1), _free(2)]


def _burst_requests(stage: Staging, bytes_: int) -> int:
    if stage.burst:
        return stage.burst
    header = stage.arena.header
    per_page = max(1, int(stage.lib.SHM_PAGE_SIZE) // bytes_)
    return int(header.nr_pages) // _BURST_PAGES * per_page


@_handler("burst", "objects until there is no memory, and one more of the same size")
def _burst(stage: Staging, design: str) -> list[Line]:
    size = _BURST_BYTES if design in OF_SLABS else stage.size
    count = _burst_requests(stage, size)
    return [*(_alloc(stage, slot, size) for slot in range(count)), _alloc(stage, count)]


def _with_map(stage: Staging) -> None:
    """Make the map, unless the operation has one: its elements are of the operation's size."""
    if stage.map is None:
        header = int(stage.arena.core.ffi.sizeof("struct htab_elem"))
        value = max(8, stage.size - header - 8)
        index = designs.index(stage.handler_design)
        stage.map = stage.cpus[0].run(stage.lib.shm_map_create, index, 8, value, _MAP_ENTRIES, 0)


@_handler("map_update", "updates an element of a hash map", _with_map, geometry={"max_maps": 1})
def _map_update(stage: Staging, design: str) -> list[Line]:
    return [("map_update", {"cache": stage.map or 0, "slot": MAP_KEY})]
