# SPDX-License-Identifier: MIT
"""Recording events of a live arena: switching it on and off, and taking what was recorded.

From any process. Imports numpy only where records are read.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shmalloc.errors import ShmallocError, Unsupported

if TYPE_CHECKING:
    from shmalloc._binding import Core
    from shmalloc.arena import Arena
    from shmalloc.trace import Events

__all__ = ["MODES", "RingState", "Tracing", "event_mask"]

MODES = ("overwrite", "discard")
_POLL_S = 0.001
_SPIN_S = 2.0  # until a CPU that takes interrupts has taken this one
_CONSUME_PLACES = 4096


def event_mask(core: Core, globs: Iterable[str]) -> int:
    """Return the events that *globs* match, a bit each.

    Args: globs: ``"kmem:*"``, ``"shmalloc:handler_*"``, ``"kmalloc"``.
    Raises: ValueError: one of them matches nothing; with the names that there are.
    """
    names, mask = core.names("trace"), 0
    for glob in globs:
        found = [i for i, name in enumerate(names) if _matches(name, glob)]
        if not found:
            raise ValueError(f"events = {glob!r}: matches no event; there are {', '.join(names)}")
        for number in found:
            mask |= 1 << number
    return mask


def _matches(name: str, glob: str) -> bool:
    return fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(name.partition(":")[2], glob)


@dataclass(frozen=True)
class RingState:
    """The counts of one CPU's ring: ``events == there + taken + overwritten + lost``, at any time.

    Attributes: cpu: number; behind the CPUs, one for each node's kswapd.  pid: that wrote last.  events: that
        have happened while they were recorded.  there: that can be read, or are being written.  taken: by
        consuming readers.  overwritten: before anybody took them.  lost: there was no room.
    """

    cpu: int
    pid: int
    events: int
    there: int
    taken: int
    overwritten: int
    lost: int


class Tracing:
    """What an arena records; `Arena.trace`."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._lib, self._ffi = arena.core.lib, arena.core.ffi

    @property
    def places(self) -> int:
        """Events that each CPU's ring holds; 0 = the arena has no rings (`Geometry.trace_bytes`)."""
        return int(self._arena.header.geometry.trace_bytes) // int(self._ffi.sizeof("struct shm_trace_event"))

    @property
    def events(self) -> tuple[str, ...]:
        """Names of the events that are recorded now."""
        mask = int(self._arena.header.trace.events)
        return tuple(name for i, name in enumerate(self._arena.core.names("trace")) if mask >> i & 1)

    @property
    def mode(self) -> str:
        """What a full ring does: ``"overwrite"`` loses its oldest events, ``"discard"`` the newest."""
        return MODES[0] if self._arena.header.trace.overwrite else MODES[1]

    def on(self, events: Sequence[str] = ("*",), mode: str = "overwrite") -> list[int]:
        """Record these events on all CPUs from now on, and no others.

        What allocations and frees leave is recorded only off the first attempts, so each CPU has to switch
        these off. Those that take interrupts have done so when this returns; one that takes none does it
        with its next call that a first attempt does not serve.

        Args:
            events: globs, ``"kmem:*"`` or ``"kmalloc"``.
            mode: ``"overwrite"`` or ``"discard"``.

        Returns:
            The CPUs that have not switched yet.

        Raises:
            ValueError: a glob that matches nothing, or no such mode.
            Unsupported: the arena was made without rings.
        """
        if mode not in MODES:
            raise ValueError(f"mode = {mode!r}: allowed are {', '.join(MODES)}")
        return self._switch(event_mask(self._arena.core, events), mode == MODES[0])

    def off(self) -> list[int]:
        """Record nothing any more; what was recorded stays until it is taken.

        Returns:
            The CPUs whose first attempts are still off; they are right, only slower.
        """
        return self._switch(0, bool(self._arena.header.trace.overwrite))

    def _switch(self, mask: int, overwrite: bool) -> list[int]:
        self._arena.activate()
        result = self._lib.shm_trace_switch(mask, overwrite)
        if result == -errno.EOPNOTSUPP:
            raise Unsupported(f"{self._arena.name}: it was made without rings; make it with trace_bytes")
        if result:
            raise ShmallocError(f"{self._arena.name}: events are not switched: {os.strerror(-result)}")
        deadline = time.monotonic() + _SPIN_S
        while any(self._takes_interrupts(cpu) for cpu in self.behind()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.behind()

    def behind(self) -> list[int]:
        """List the CPUs whose first attempts are not yet switched for what is recorded now."""
        self._arena.activate()
        cpus = range(int(self._arena.header.geometry.nr_cpus))
        return [cpu for cpu in cpus if self._lib.shm_trace_followed(cpu) == 0]

    def _takes_interrupts(self, cpu: int) -> bool:
        slot = self._arena.item("struct shm_cpu", "cpus", cpu)
        alive = self._lib.shm_owner_alive(slot.pid, slot.start_time)
        return bool(slot.handlers and alive)

    def _ring(self, cpu: int) -> Any:
        return self._arena.item("struct shm_trace_ring", "trace", cpu)

    @property
    def _slots(self) -> range:
        geometry = self._arena.header.geometry
        return range(int(geometry.nr_cpus) + int(geometry.nr_nodes) if geometry.trace_bytes else 0)

    def states(self) -> list[RingState]:
        """Count what each CPU's ring has; kswapds that have written nothing are left out."""
        return [state for cpu in self._slots if (state := self._state(cpu)).events or cpu < self._cpus]

    @property
    def _cpus(self) -> int:
        return int(self._arena.header.geometry.nr_cpus)

    def _state(self, cpu: int) -> RingState:
        ring, places = self._ring(cpu), self.places
        tail, late = int(ring.tail), int(ring.overwritten)
        head, lost = int(ring.head), int(ring.lost)
        gone = max(head - places - tail, 0)
        return RingState(
            cpu=cpu,
            pid=int(ring.pid),
            events=head + lost,
            there=head - tail - gone,
            taken=tail - late,
            overwritten=late + gone,
            lost=lost,
        )

    def read(self, *, consume: bool = False) -> Events:
        """Return what is recorded, while it goes on or when it has ended.

        A record that is being written is not there yet, nor is what came behind it on its CPU.

        Args:
            consume: take the records: the next one who does gets later ones, and their room is free again.

        Raises:
            Unsupported: the arena was made without rings.
            ShmallocError: another process is consuming.
        """
        from shmalloc.trace_records import read_events

        if not self.places:
            raise Unsupported(f"{self._arena.name}: it was made without rings; make it with trace_bytes")
        self._arena.activate()
        return read_events(self._arena, self._slots, self.places, consume=consume)
