# SPDX-License-Identifier: MIT
"""One list of bpf_mem_alloc in plain Python: one CPU, one size, irqs on or off, grace periods when told.

Written from the description of the watermarks alone, without the C code in view: counts, no objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SMALL_BYTES = 256


def watermarks(unit_bytes: int, low_bytes: int = 8192) -> tuple[int, int, int]:
    """Return low, high and batch of a size, in objects."""
    if unit_bytes <= SMALL_BYTES:
        return 32, 96, 48
    low, high = max(low_bytes // unit_bytes, 1), max(3 * low_bytes // unit_bytes, 3)
    return low, high, max((high - low) // 4 * 3, 1)


def prefill(unit_bytes: int) -> int:
    """Return how many objects a list begins with."""
    return 4 if unit_bytes <= SMALL_BYTES else 1


@dataclass
class BpfList:
    """A list and what waits behind it.

    Attributes: free: on the list.  trimmed: taken off, waiting for a callback to be free.  waiting: for the
        end of the grace period in flight.  taken: objects that came from kmalloc, and did not go back.
        queued: irq_work waits for irqs.
    """

    unit_bytes: int
    irqs_off: bool = False
    free: int = field(init=False)
    trimmed: int = 0
    waiting: int = 0
    in_flight: bool = False
    taken: int = field(init=False)
    queued: bool = False

    def __post_init__(self) -> None:
        self.low, self.high, self.batch = watermarks(self.unit_bytes)
        self.free = self.taken = prefill(self.unit_bytes)

    @property
    def kept(self) -> int:
        """Objects that nobody has."""
        return self.free + self.trimmed + self.waiting

    def alloc(self) -> bool:
        """Take an object."""
        got = self.free > 0
        self.free -= got
        if (self.free if got else 0) < self.low:
            self._raise()
        return got

    def give(self) -> None:
        """Free an object."""
        self.free += 1
        if self.free > self.high:
            self._raise()

    def irqs(self, *, off: bool) -> None:
        """Disable or enable irqs."""
        self.irqs_off = off
        if not off and self.queued:
            self._work()

    def grace_period(self) -> None:
        """The grace period in flight ends."""
        self.taken -= self.waiting
        self.waiting, self.in_flight = 0, False

    def _raise(self) -> None:
        self.queued = True
        if not self.irqs_off:
            self._work()

    def _work(self) -> None:
        self.queued = False
        if self.free < self.low:
            self._refill()
        elif self.free > self.high:
            self._trim()

    def _refill(self) -> None:
        again = min(self.trimmed, self.batch)
        self.trimmed -= again
        more = min(self.waiting, self.batch - again)
        self.waiting -= more
        self.taken += self.batch - again - more
        self.free += self.batch

    def _trim(self) -> None:
        middle = (self.high + self.low) // 2
        self.trimmed += self.free - middle
        self.free = middle
        if not self.in_flight:
            self.waiting, self.trimmed, self.in_flight = self.trimmed, 0, True
