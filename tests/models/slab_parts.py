# SPDX-License-Identifier: MIT
"""What a slab cache is made of: slabs, and what its CPUs and nodes hold of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

Object = tuple[int, int]  # first page of the slab, number of the slot


@dataclass(frozen=True)
class CacheShape:
    """What a cache is like.

    Attributes: order, objects: of its usual slab.  min_order, min_objects: of the smallest.
        cpu_partial_slabs, min_partial: limits of the lists.  any_node: whether partial slabs of other nodes
        are used.  debug: no cpu slabs.  track_full: full slabs are on a list.  lockless: a slab's freelist
        is replaced by one exchange, so requests that may not spin are served.  typesafe: slabs are given back after
        a grace period only.
    """

    order: int
    objects: int
    min_order: int
    min_objects: int
    cpu_partial_slabs: int
    min_partial: int
    any_node: bool = False
    debug: bool = False
    track_full: bool = False
    lockless: bool = True
    typesafe: bool = False
    allocflags: int = 0


@dataclass(eq=False)
class Slab:
    """Some pages with objects; free ones by slot, head of the freelist first."""

    pfn: int
    order: int
    objects: int
    node: int
    freelist: list[int]
    inuse: int = 0
    frozen: bool = False
    on_node_list: bool = False

    def push(self, slot: int) -> None:
        """Free an object to the slab itself."""
        self.freelist.insert(0, slot)
        self.inuse -= 1

    def take_all(self, *, frozen: bool) -> list[int]:
        """Detach the freelist: all objects then count as in use."""
        freelist, self.freelist = self.freelist, []
        self.inuse, self.frozen = self.objects, frozen
        return freelist


@dataclass
class CpuSlab:
    """What one CPU holds of the cache: its slab, that one's free objects, more slabs; newest first."""

    slab: Slab | None = None
    freelist: list[int] = field(default_factory=list)
    partial: list[Slab] = field(default_factory=list)
    events: int = 0  # of its transaction id
    stats: Counter[str] = field(default_factory=Counter)
    deferred: list[Object] = field(default_factory=list)
    deferred_slabs: list[Slab] = field(default_factory=list)
    waiting_slabs: list[Slab] = field(default_factory=list)  # for a grace period
    irqs_off: bool = False

    def detach(self) -> tuple[Slab | None, list[int]]:
        """Give up the slab."""
        slab, freelist = self.slab, self.freelist
        self.slab, self.freelist = None, []
        self.events += 1
        return slab, freelist


@dataclass
class NodeSlabs:
    """The slabs of a node: those with free objects that no CPU holds, head first; full debug slabs."""

    partial: list[Slab] = field(default_factory=list)
    full: list[Slab] = field(default_factory=list)
    nr_slabs: int = 0
    total_objects: int = 0

    def add(self, slab: Slab, *, tail: bool) -> None:
        """Put a slab on the partial list."""
        self.partial.insert(len(self.partial) if tail else 0, slab)
        slab.on_node_list = True

    def remove(self, slab: Slab) -> None:
        """Take a slab off the partial list."""
        self.partial.remove(slab)
        slab.on_node_list = False
