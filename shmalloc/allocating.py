# SPDX-License-Identifier: MIT
"""What a CPU allocates and frees: objects, pages, caches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shmalloc import designs, views
from shmalloc.cache import KmemCache
from shmalloc.calls import Caller
from shmalloc.design_calls import DesignCalls
from shmalloc.errors import BadFree, ShmallocError
from shmalloc.fast import fast
from shmalloc.flags import gfp_flags, slab_flags
from shmalloc.maps import HashMap
from shmalloc.objects import cache_at, cache_name

if TYPE_CHECKING:
    import numpy as np

    from shmalloc.arena import Arena


class Allocating(Caller):
    """The allocators' side of `shmalloc.Cpu`.

    Attributes:
        arena: that the CPU belongs to.
    """

    arena: Arena
    _lib: Any

    # --- objects ------------------------------------------------------------------------------

    @fast("kmalloc")
    def kmalloc(self, size: int, gfp: int | str = "GFP_KERNEL", node: int = -1) -> int:
        """Allocate *size* bytes; may spin, so not for NMI handlers.

        Mirrors: mm/slub.c __kmalloc_node (6.18).

        Args:
            size: bytes; 0 gives ZERO_SIZE_PTR, which is 16.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the object, in bytes.

        Raises:
            AllocationFailed: with its reason.

        Context: task, softirq, irq.  Cost: O(1) on the fast path.
        """
        return self._calls.allocate(self._lib.shm_kmalloc_node, size, gfp_flags(gfp), self._calls.node(node))

    @fast("kmalloc_nolock")
    def kmalloc_nolock(self, size: int, gfp: int | str = 0, node: int = -1) -> int:
        """Allocate *size* bytes without waiting for any lock.

        Mirrors: mm/slub.c kmalloc_nolock (6.18).

        Args:
            size: bytes, 0 to 8192.
            gfp: of __GFP_ZERO, __GFP_ACCOUNT and the like, or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the object, in bytes.

        Raises:
            AllocationFailed: with its reason.

        Context: any.  Cost: O(1) on the fast path.
        """
        return self._calls.allocate(
            self._lib.shm_kmalloc_nolock, size, gfp_flags(gfp), self._calls.node(node)
        )

    @fast("kfree")
    def kfree(self, offset: int) -> None:
        """Free an object, whoever allocated it.  NULL and ZERO_SIZE_PTR are no-ops.

        Raises:
            BadFree: it is no live object; nothing was changed.
        """
        self._calls.free(offset, self._lib.shm_kfree, offset)

    @fast("kfree_nolock")
    def kfree_nolock(self, offset: int) -> None:
        """Free an object without waiting for any lock; otherwise as `kfree`."""
        self._calls.free(offset, self._lib.shm_kfree_nolock, offset)

    def krealloc(self, offset: int, size: int, gfp: int | str = "GFP_KERNEL") -> int:
        """Make an object larger or smaller, moving it if need be.

        Args:
            offset: of the object; NULL allocates a new one.
            size: new size in bytes; 0 frees it.
            gfp: flags or their names.

        Returns:
            Offset of the object now.

        Raises:
            AllocationFailed: with its reason; the old object is still there.
            BadFree: it is no live object; nothing was changed.
        """
        if offset not in (0, self._lib.SHM_ZERO_SIZE):
            why = self._calls.why_dead(offset)
            if why is not None:
                raise BadFree(offset, why)
        return self._calls.allocate(self._lib.shm_krealloc, offset, size, gfp_flags(gfp))

    def ksize(self, offset: int) -> int:
        """Return how many bytes of an object its allocator keeps for it; at least what was asked for.

        Raises:
            ShmallocError: it is no live object.
        """
        if offset == self._lib.SHM_ZERO_SIZE:
            return 0
        why = self._calls.why_dead(offset)
        if why is not None:
            raise ShmallocError(f"ksize of offset {offset:#x}: {why}")
        return int(self._calls.call(self._lib.shm_ksize, offset))

    @fast("view")
    def view(self, offset: int, size: int | None = None) -> memoryview[int]:
        """Look at an object: writable, no copy.  It is C memory: freed means somebody else's.

        Args:
            offset: of the object, or of somewhere within it if the size is given.
            size: in bytes; None = all of the object (with the oracle: what was asked for, rounded up to 8).

        Raises:
            ShmallocError: these bytes are not all within a live object.
        """
        return views.object_view(self._calls, offset, size)

    @fast("array")
    def array(self, offset: int, shape: int | tuple[int, ...], dtype: Any = "u1") -> np.ndarray[Any, Any]:
        """Look at an object as a numpy array: writable, no copy; otherwise as `view`."""
        return views.object_array(self._calls, offset, shape, dtype)

    # --- pages --------------------------------------------------------------------------------

    def alloc_pages(self, order: int = 0, gfp: int | str = "GFP_KERNEL", node: int = -1) -> int:
        """Allocate 2**order pages in a row; may spin.

        Args:
            order: 0 to 10.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the first page's memory, in bytes.

        Raises:
            AllocationFailed: with its reason.
        """
        return self._calls.allocate(self._lib.shm_alloc_pages, gfp_flags(gfp), self._calls.node(node), order)

    def alloc_pages_nolock(self, order: int = 0, gfp: int | str = 0, node: int = -1) -> int:
        """Allocate pages without waiting for any lock; otherwise as `alloc_pages`."""
        return self._calls.allocate(
            self._lib.shm_alloc_pages_nolock, gfp_flags(gfp), self._calls.node(node), order
        )

    def free_pages(self, offset: int, order: int = 0) -> None:
        """Give pages back.

        Raises:
            BadFree: no live block of this order begins there; nothing was changed.
        """
        self._calls.free_pages(offset, order, self._lib.shm_free_pages)

    def free_pages_nolock(self, offset: int, order: int = 0) -> None:
        """Give pages back without waiting for any lock; otherwise as `free_pages`."""
        self._calls.free_pages(offset, order, self._lib.shm_free_pages_nolock)

    def drain_pages(self) -> None:
        """Give this CPU's page lists back to the buddy; the zones' deferred lists wait for the next free."""
        self._calls.run(self._lib.shm_drain_pages)

    def drain_all_pages(self) -> None:
        """Give the page lists of all CPUs back to the buddy, as direct reclaim does when it must."""
        self._calls.run(self._lib.shm_drain_all_pages)

    def vmstat_tick(self) -> None:
        """Do the periodic work of this CPU once: page lists shrink, idle ones of other nodes are emptied.

        Mirrors: mm/vmstat.c refresh_cpu_vm_stats.
        """
        self._calls.run(self._lib.shm_vmstat_tick)

    def page_cache_add(self, pages: int, gfp: int | str = "GFP_HIGHUSER_MOVABLE", node: int = -1) -> int:
        """Read pages into the page cache: clean, on the node's LRU list, given back by reclaim.

        Args:
            pages: how many.
            gfp: flags or their names, of the pages.
            node: NUMA node, or -1 for any.

        Returns:
            How many there were; fewer if memory ran out.
        """
        return self._calls.run(self._lib.shm_page_cache_add, pages, gfp_flags(gfp), self._calls.node(node))

    def page_cache_drop(self) -> int:
        """Give the whole page cache back, of all nodes.

        Returns:
            Pages.
        """
        return self._calls.run(self._lib.shm_page_cache_drop)

    @contextmanager
    def memalloc(self) -> Iterator[None]:
        """Be a task that frees memory (PF_MEMALLOC): within it all reserves may be used."""
        self._calls.run(self._lib.shm_set_memalloc, 1)
        try:
            yield
        finally:
            self._calls.run(self._lib.shm_set_memalloc, 0)

    # --- faults -------------------------------------------------------------------------------

    def fail_nth(self, nth: int) -> None:
        """Have the nth request from here on fail, of those of this CPU's task that faults may meet; 0 = none.

        It takes precedence over all attributes; see `Arena.failslab`.
        """
        self._calls.run(self._lib.shm_fail_nth, nth)

    def make_it_fail(self, on: bool) -> None:
        """Mark this CPU's task for faults with a task filter."""
        self._calls.run(self._lib.shm_make_it_fail, int(on))

    # --- caches -------------------------------------------------------------------------------

    def kmem_cache_create(
        self, name: str, size: int, *, align: int = 0, flags: int | str = 0, ctor: int = 0
    ) -> KmemCache:
        """Make a slab cache.

        Args:
            name: at most 39 bytes.
            size: of an object, in bytes.
            align: in bytes; 0 = as the size wants it.
            flags: SLAB_* bits or their names.
            ctor: index of a constructor of the core; 0 = none.

        Returns:
            The cache.

        Raises:
            ShmallocError: the name is taken, a value is out of range, or the table is full.
        """
        index = self._calls.run(
            self._lib.shm_kmem_cache_create, name.encode(), size, align, slab_flags(flags), ctor
        )
        return KmemCache(self._calls, index)

    def cache(self, which: int | str) -> KmemCache:
        """Find a cache by name, such as ``"kmalloc-128"``, or by its index.

        Raises:
            ShmallocError: there is no such cache.
        """
        rows = range(min(self.arena.header.nr_caches, self.arena.header.geometry.max_caches))
        for index in rows:
            row = cache_at(self.arena, index)
            if row is None or row.state != self._lib.CACHE_LIVE:
                continue
            if which in (index, cache_name(self.arena, row)):
                return KmemCache(self._calls, index)
        raise ShmallocError(f"cache {which!r}: {self.arena.name} has no such cache")

    def defer_free_barrier(self) -> None:
        """Wait until what kfree_nolock has deferred on any CPU so far is freed."""
        self._calls.run(self._lib.shm_defer_free_barrier)

    def set_mems_allowed(self, nodes: Iterable[int]) -> None:
        """Say which nodes this CPU's partial slabs may be fetched from; its own node's always may.

        Raises:
            ValueError: there is no such node, or none is given.
        """
        bits = 0
        for node in nodes:
            bits |= 1 << self._calls.node(node) if node >= 0 else 0
        if not bits:
            raise ValueError("nodes = none: allowed is at least one")
        self._calls.run(self._lib.shm_set_mems_allowed, bits)

    def flush_all(self, cache: KmemCache | None = None) -> None:
        """Make every CPU give up its slabs of one cache, or of all."""
        self._calls.run(self._lib.shm_flush_all, 0xFFFFFFFF if cache is None else cache.index)

    # --- hash maps ----------------------------------------------------------------------------

    def map_create(self, design: str, key_bytes: int, value_bytes: int, max_entries: int) -> HashMap:
        """Make a hash map whose elements a design allocates.

        Mirrors: kernel/bpf/hashtab.c htab_map_alloc (6.18).

        Args:
            design: such as "prealloc".
            key_bytes: 1 to 512.
            value_bytes: 1 to 1 MiB.
            max_entries: elements that it may have; the buckets are the next power of two.

        Returns:
            The map.

        Raises:
            ShmallocError: a size is out of range, the table of maps is full, or there is no memory.
        """
        index = self._calls.run(
            self._lib.shm_map_create, designs.index(design), key_bytes, value_bytes, max_entries, 0
        )
        return HashMap(self._calls, index)

    def map(self, index: int) -> HashMap:
        """Look at a map that somebody has made.

        Raises:
            ShmallocError: there is no such map.
        """
        if not 0 <= index < self.arena.header.geometry.max_maps or not (
            self.arena.item("struct shm_map", "maps", index).state == self._lib.MAP_LIVE
        ):
            raise ShmallocError(f"map {index}: {self.arena.name} has no such map")
        return HashMap(self._calls, index)

    # --- designs ------------------------------------------------------------------------------

    def design(self, name: str) -> DesignCalls:
        """Return the operations of one design, such as ``"kmalloc_nolock"``, on this CPU.

        Raises:
            ValueError: naming the designs there are.
        """
        return DesignCalls(self._calls, name)
