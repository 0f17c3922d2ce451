# SPDX-License-Identifier: MIT
"""What a page can be, and what an object of a slab can be: numbers, names, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["KINDS", "OBJECT_STATES", "PFMEMALLOC", "SLABS", "Kind", "Naming", "State"]


class Kind(IntEnum):
    """What a page is: each is exactly one of these."""

    HOLE = 0
    TRANSIT = 1
    FREE = 2
    RESERVE = 3
    PCP = 4
    PARKED = 5
    PAGE_CACHE = 6
    SLAB_CPU = 7
    SLAB_CPU_PARTIAL = 8
    SLAB_PARTIAL = 9
    SLAB_FULL = 10
    SLAB_DEFERRED = 11
    SLAB_RCU = 12
    SLAB_MOVING = 13
    SLAB_DISABLED = 14
    LARGE = 15
    POOL = 16
    PAGES = 17


@dataclass(frozen=True)
class Naming:
    """How a kind is called. Attributes: name: in JSON.  label: in a legend.  text: what it means."""

    name: str
    label: str
    text: str


KINDS: dict[Kind, Naming] = {
    Kind.HOLE: Naming("hole", "no zone", "page frames left over at the end, in no zone"),
    Kind.TRANSIT: Naming("transit", "in transit", "in no block: between two lists while it was looked at"),
    Kind.FREE: Naming("free", "free", "on a zone's buddy list"),
    Kind.RESERVE: Naming("reserve", "free, HIGHATOMIC", "free in a pageblock reserved for atomic requests"),
    Kind.PCP: Naming("pcp", "pcp", "on a CPU's pageset"),
    Kind.PARKED: Naming("deferred", "deferred free", "on trylock_free_pages: its free found zone->lock taken"),
    Kind.PAGE_CACHE: Naming("page_cache", "page cache", "clean, on its node's LRU list"),
    Kind.SLAB_CPU: Naming("slab_cpu", "slab: cpu slab", "frozen, a CPU allocates from it"),
    Kind.SLAB_CPU_PARTIAL: Naming("slab_cpu_partial", "slab: cpu partial", "on a CPU's partial list"),
    Kind.SLAB_PARTIAL: Naming("slab_partial", "slab: node partial", "on its node's partial list"),
    Kind.SLAB_FULL: Naming("slab_full", "slab: full", "no object left on it, on no list"),
    Kind.SLAB_DEFERRED: Naming("slab_deferred", "slab: deferred", "left to irq_work by defer_deactivate_slab"),
    Kind.SLAB_RCU: Naming("slab_rcu", "slab: waits for RCU", "empty, SLAB_TYPESAFE_BY_RCU: freed after a grace period"),
    Kind.SLAB_MOVING: Naming("slab_transit", "slab: in transit", "in nobody's hands while it was looked at"),
    Kind.SLAB_DISABLED: Naming("slab_disabled", "slab: disabled", "failed a consistency check, out of use"),
    Kind.LARGE: Naming("large", "large kmalloc", "kmalloc of more than 8192 bytes"),
    Kind.POOL: Naming("pool", "pools, maps, rings", "elements of preallocated pools, buckets of maps, rings"),
    Kind.PAGES: Naming("pages", "pages handed out", "alloc_pages"),
}  # fmt: skip
SLABS = tuple(kind for kind in Kind if kind.name.startswith("SLAB_"))

PFMEMALLOC = 1  # a mark of a slab or a block, beside its kind


class State(IntEnum):
    """What an object of a slab is."""

    LIVE = 0
    ON_SLAB = 1
    ON_CPU = 2
    IN_SHEAF = 3
    DEFERRED = 4
    KEPT = 5
    FREE = 6


OBJECT_STATES: dict[State, Naming] = {
    State.LIVE: Naming("live", "live", "somebody has it"),
    State.ON_SLAB: Naming("free_slab", "free on the slab", "on the slab's own freelist"),
    State.ON_CPU: Naming("free_cpu", "free on a CPU", "on the cpu slab's freelist"),
    State.IN_SHEAF: Naming("free_sheaf", "free in a sheaf", "in a CPU's or a barn's sheaf (Linux 7.x)"),
    State.DEFERRED: Naming("deferred", "deferred", "kfree_nolock has left it to irq_work"),
    State.KEPT: Naming("kept", "kept above", "nobody's, and a layer above has it: RCU, bpf_mem_alloc, a sheaf itself"),
    State.FREE: Naming("free", "free", "nobody has it; which list it is on was not looked up at this moment"),
}  # fmt: skip
