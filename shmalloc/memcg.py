# SPDX-License-Identifier: MIT
"""Memory cgroups: who is charged for what, up to which limit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shmalloc.errors import ShmallocError

if TYPE_CHECKING:
    from shmalloc.arena import Arena
    from shmalloc.calls import Calls

__all__ = ["CHARGED", "Charging", "MemCgroup", "Stocks", "memcg_of", "memcgs", "stocks"]

EVENTS = ("low", "high", "max", "oom", "oom_kill")
CHARGED = "__GFP_ACCOUNT"
_WHY = {
    errno.EINVAL: "the name is empty, has blanks or more than 31 bytes, or there is no such parent",
    errno.EEXIST: "a memcg has that name",
    errno.ENOSPC: "the table is full: see max_memcgs",
    errno.EBUSY: "it has memcgs below it, or some CPU runs in it",
}


@dataclass(frozen=True)
class Stocks:
    """What one CPU keeps charged in advance.

    Attributes:
        cpu: its number.
        pages: by memcg id, in the order of the slots.
        objcg: id of the memcg whose page rest it keeps; 0 = none.
        nr_bytes: of that rest.
        slab_bytes: (reclaimable, unreclaimable) bytes not yet told to the memcg's statistics.
    """

    cpu: int
    pages: dict[int, int]
    objcg: int
    nr_bytes: int
    slab_bytes: tuple[int, int]


class MemCgroup:
    """One memory cgroup of an arena.  Make one with `Cpu.memcg_create`.

    Attributes:
        arena: that it belongs to.
        id: its place in the arena's table, from 1.
    """

    def __init__(self, arena: Arena, number: int) -> None:
        self.arena = arena
        self.id = number

    def __repr__(self) -> str:
        return f"<MemCgroup {self.name} id {self.id}>"

    @property
    def _row(self) -> Any:
        return self.arena.item("struct mem_cgroup", "memcgs", self.id - 1)

    @property
    def name(self) -> str:
        """As created."""
        text: bytes = self.arena.core.ffi.string(self._row.name)
        return text.decode()

    @property
    def path(self) -> str:
        """The names from the root down, joined by ``/``."""
        parent = self.parent
        return f"{parent.path if parent else ''}/{self.name}"

    @property
    def parent(self) -> MemCgroup | None:
        """The memcg above; None below the root."""
        above = int(self._row.parent)
        return MemCgroup(self.arena, above) if above else None

    @property
    def is_dying(self) -> bool:
        """Whether it was destroyed while something is still charged to it."""
        return bool(self._row.state == self.arena.core.lib.MEMCG_DYING)

    @property
    def usage_pages(self) -> int:
        """Pages charged here and below, stocks included: memory.current."""
        return int(self._row.memory.usage)

    @property
    def usage_bytes(self) -> int:
        """The same in bytes."""
        return self.usage_pages * int(self.arena.core.lib.SHM_PAGE_SIZE)

    @property
    def max_pages(self) -> int | None:
        """The limit; None = there is none."""
        return self._limit(int(self._row.memory.max))

    @property
    def high_pages(self) -> int | None:
        """What is to be reclaimed down to; None = nothing is."""
        return self._limit(int(self._row.memory.high))

    def _limit(self, pages: int) -> int | None:
        return None if pages >= self.arena.core.lib.SHM_PAGE_COUNTER_MAX else pages

    @property
    def watermark_pages(self) -> int:
        """The largest usage so far: memory.peak."""
        return int(self._row.memory.watermark)

    @property
    def failcnt(self) -> int:
        """Charges that this memcg's limit has refused, batches included."""
        return int(self._row.memory.failcnt)

    @property
    def pending_bytes(self) -> int:
        """Bytes charged with whole pages, used by no object and in no stock (nr_charged_bytes)."""
        return int(self._row.nr_charged_bytes)

    @property
    def kmem_pages(self) -> int:
        """Pages charged here for objects and blocks, page stocks not included."""
        return _signed(int(self._row.kmem_pages))

    def slab_bytes(self, node: int | None = None) -> tuple[int, int]:
        """Return the (reclaimable, unreclaimable) bytes in slabs that its statistics know of; see `Stocks`."""
        nodes = range(int(self.arena.header.geometry.nr_nodes)) if node is None else [node]
        rows = [self._row.slab_bytes[number] for number in nodes]
        return sum(int(row[0]) for row in rows), sum(int(row[1]) for row in rows)

    def events(self, *, local: bool = False) -> dict[str, int]:
        """Return memory.events, or memory.events.local: low, high, max, oom, oom_kill."""
        counts = self._row.events_local if local else self._row.events
        return {name: int(counts[number]) for number, name in enumerate(EVENTS)}

    @property
    def notifications(self) -> tuple[int, int]:
        """How many events were told to whoever polls memory.events, and how many could not be."""
        return int(self._row.nr_notified), int(self._row.nr_notify_skipped)

    @property
    def high_work_queued(self) -> int:
        """Times that an interrupt has left reclaim to a worker."""
        return int(self._row.nr_high_work)


class Charging:
    """The memcgs' side of `shmalloc.Cpu`.

    Attributes:
        arena: that the CPU belongs to.
    """

    arena: Arena
    number: int
    _calls: Calls
    _lib: Any

    def memcg_create(
        self,
        name: str,
        parent: MemCgroup | None = None,
        *,
        max_bytes: int | None = None,
        high_bytes: int | None = None,
    ) -> MemCgroup:
        """Make a memory cgroup.

        Args:
            name: at most 31 bytes, without blanks; no two of an arena are alike.
            parent: to lie below; None = the root.
            max_bytes: its limit, rounded down to pages; None = none.
            high_bytes: above it the group reclaims; None = never.

        Raises:
            ShmallocError: the name is taken or no name, or the table is full (`Geometry.max_memcgs`).
        """
        above = parent.id if parent else 0
        made = self._call(f"memcg {name!r}", self._lib.shm_memcg_create, name.encode(), above)
        memcg = MemCgroup(self.arena, made)
        self.memcg_limit(memcg, max_bytes=max_bytes, high_bytes=high_bytes)
        return memcg

    def memcg_limit(
        self, memcg: MemCgroup, *, max_bytes: int | None = None, high_bytes: int | None = None
    ) -> None:
        """Set limits; None leaves one as it is."""
        if max_bytes is not None:
            self._call(f"limit {memcg.name}", self._lib.shm_memcg_set_max, memcg.id, max_bytes)
        if high_bytes is not None:
            self._call(f"limit {memcg.name}", self._lib.shm_memcg_set_high, memcg.id, high_bytes)

    def memcg_destroy(self, memcg: MemCgroup) -> None:
        """Destroy a memcg; what is still charged to it is from now on its parent's.

        Raises:
            ShmallocError: it has memcgs below it, or some CPU runs in it.
        """
        self._call(f"destroy {memcg.name}", self._lib.shm_memcg_destroy, memcg.id)

    def memcg_enter(self, memcg: MemCgroup | None) -> None:
        """Have this CPU's task run in a memcg; None = in the root, which is not charged."""
        self._call("enter", self._lib.shm_memcg_enter, memcg.id if memcg else 0)

    def memcg_interrupts(self, memcg: MemCgroup | None) -> None:
        """Have what this CPU's interrupts and NMIs allocate charged to a memcg; None = not charged."""
        self._call("interrupts", self._lib.shm_memcg_set_int_active, memcg.id if memcg else 0)

    @contextmanager
    def memcg_active(self, memcg: MemCgroup) -> Iterator[None]:
        """Charge another memcg than the task's own for a while (set_active_memcg)."""
        self._call("active", self._lib.shm_memcg_set_active, memcg.id)
        try:
            yield
        finally:
            self._call("active", self._lib.shm_memcg_set_active, 0)

    def memcg_drain(self) -> None:
        """Give back what the stocks of all CPUs hold."""
        self._call("drain", self._lib.shm_memcg_drain)

    def memcg_run_work(self) -> None:
        """Do what charges have left to this CPU's worker, and pay for what was charged beyond memory.high."""
        self._call("work", self._lib.shm_memcg_run_work)

    def memcg_stocks(self) -> Stocks:
        """Return what this CPU keeps charged in advance."""
        return stocks(self.arena, self.number)

    def _call(self, what: str, function: Callable[..., int], *arguments: Any) -> int:
        self._calls.refuse_caller()
        result = int(self._calls.call(function, *arguments))
        if result < 0:
            self._calls.raise_verdict()
            raise ShmallocError(f"{what}: {_WHY.get(-result, os.strerror(-result))}")
        return result


def memcgs(arena: Arena) -> list[MemCgroup]:
    """List the memcgs of an arena, dying ones included, by id."""
    unused = arena.core.lib.MEMCG_UNUSED
    numbers = range(1, int(arena.header.geometry.max_memcgs) + 1)
    rows = [(n, arena.item("struct mem_cgroup", "memcgs", n - 1)) for n in numbers]
    return [MemCgroup(arena, number) for number, row in rows if row.state != unused]


def memcg_of(arena: Arena, name: str) -> MemCgroup:
    """Find a memcg that lives by its name.

    Raises:
        ShmallocError: there is none, naming those that there are.
    """
    found = [memcg for memcg in memcgs(arena) if not memcg.is_dying]
    for memcg in found:
        if memcg.name == name:
            return memcg
    raise ShmallocError(f"memcg {name!r}: there are {', '.join(memcg.name for memcg in found) or 'none'}")


def stocks(arena: Arena, cpu: int) -> Stocks:
    """Read what one CPU keeps charged in advance."""
    row = arena.item("struct memcg_cpu", "memcg_cpus", cpu)
    slots = range(int(arena.core.lib.SHM_NR_MEMCG_STOCK))
    pages = {int(row.stock.cached[slot]): int(row.stock.nr_pages[slot]) for slot in slots}
    pages.pop(0, None)
    obj = row.obj
    return Stocks(
        cpu,
        pages,
        int(obj.cached_objcg),
        int(obj.nr_bytes),
        (int(obj.slab_bytes[0]), int(obj.slab_bytes[1])),
    )


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
