# SPDX-License-Identifier: MIT
"""One look at a running arena, and what has happened between two of them.

Counters are copied while CPUs write them. Each is one aligned word, so none is seen half-written, but two that
belong together may be apart by what is in flight.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import watch
from harness.top.observed import Observed
from shmalloc.procfs import SlabRow, slab_rows

Array = np.ndarray[Any, Any]

_CLOCK_S = 0.01  # what starts of processes are told in
_REGIONS = ("telemetry", "cache_stats", "cpus", "zones", "pagesets", "nodes", "memcgs", "memcg_cpus")


@dataclass(frozen=True)
class Look:
    """A copy of what an arena says of itself.

    Attributes: name: of the arena.  at_s: when, on the monotonic clock.  age_s: of the arena then.
        size_bytes: of it.  tsc_hz: ticks per second.  telemetry (cpus,), cache_stats (cpus, caches), cpus
        (cpus,), zones (zones,), pagesets (zones, cpus), nodes (nodes,), memcgs (memcgs,), memcg_cpus (cpus,)
        or (0,): records, copied.  dead: CPUs whose process has ended without leaving them.  waits: what CPUs
        spin for, by CPU.
        slabs: the caches; empty if they were not asked for, since their free objects are counted page by page.
    """

    name: str
    at_s: float
    age_s: float
    size_bytes: int
    tsc_hz: float
    telemetry: Array
    cache_stats: Array
    cpus: Array
    zones: Array
    pagesets: Array
    nodes: Array
    memcgs: Array
    memcg_cpus: Array
    dead: frozenset[int]
    waits: Mapping[int, str]
    slabs: tuple[SlabRow, ...]

    @classmethod
    def at(cls, arena: Observed, *, slabs: bool = True) -> Look:
        """Look now. Args: slabs: at the caches, too."""
        regions = {name: arena.region(name).copy() for name in _REGIONS}
        return cls(
            name=arena.name,
            at_s=time.monotonic(),
            age_s=arena.age_s,
            size_bytes=arena.size_bytes,
            tsc_hz=float(arena.header.tsc_hz),
            dead=frozenset(cpu for cpu in arena.cpu_pids() if not arena.cpu_is_alive(cpu)),
            waits=_waits(arena, regions["cpus"]),
            slabs=tuple(slab_rows(arena)) if slabs else (),
            **regions,
        )


def _waits(arena: Observed, cpus: Array) -> dict[int, str]:
    offsets = cpus["waiting_for"] & np.uint64(watch.LOCK_OFFSET)
    return {cpu: watch.lock(arena, int(offsets[cpu])) for cpu in np.flatnonzero(offsets).tolist()}


@dataclass(frozen=True)
class Interval:
    """The time between two looks at one arena.

    Attributes: now: the later look.  before: the earlier; None = from when the arena was made.
    """

    now: Look
    before: Look | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        if self.before is None:
            return max(self.now.age_s, _CLOCK_S)
        return max(self.now.at_s - self.before.at_s, 1e-6)

    def rate(self, count: float) -> float:
        """Return so many as so many a second."""
        return count / self.seconds

    def counts(self) -> Array:
        """Allocations, frees and failures: struct shm_counts, (cpus, designs, contexts)."""
        now = self.now.telemetry["counts"]
        if self.before is None:
            return now
        before, grown_by = self.before.telemetry["counts"], np.empty_like(now)
        for name in now.dtype.names or ():
            grown_by[name] = grown(before[name], now[name])
        return grown_by

    def interrupts(self, field: str) -> Array:
        """One field of struct shm_interrupts: (cpus, kinds)."""
        return self._grown(lambda look: look.telemetry["interrupts"][field])

    def telemetry(self, field: str) -> Array:
        """One counter of struct shm_telemetry: (cpus,)."""
        return self._grown(lambda look: look.telemetry[field])

    def ops(self) -> Array:
        """Ops of a workload that were done: (cpus,)."""
        return self._grown(lambda look: look.cpus["ops_done"])

    def cache_events(self, field: str) -> Array:
        """One counter of struct kmem_cache_stat: (cpus, caches)."""
        return self._grown(lambda look: look.cache_stats[field])

    def histograms(self) -> Array:
        """Latencies: (contexts, buckets), of all CPUs."""
        each = self._grown(lambda look: look.telemetry["latency"])
        summed: Array = each.sum(axis=0, dtype=np.uint64)
        return summed

    def _grown(self, field: Any) -> Array:
        now: Array = field(self.now)
        return now if self.before is None else grown(field(self.before), now)


def grown(before: Array, now: Array) -> Array:
    """Return by how much counters have grown; one that was set back has counted from 0 since, one of 32 bits wraps."""
    by = now - before  # modulo their width
    half = np.iinfo(now.dtype).max // 2
    return np.where(by <= half, by, now)


def total(counters: Array) -> int:
    """Return the sum of counters."""
    return int(counters.sum(dtype=np.uint64))
