# SPDX-License-Identifier: MIT
"""Slab caches of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from shmalloc.calls import Caller
from shmalloc.errors import AllocationFailed, BadFree, ShmallocError
from shmalloc.fast import fast
from shmalloc.flags import gfp_flags
from shmalloc.objects import cache_at, cache_name, cache_of

if TYPE_CHECKING:
    from shmalloc.calls import Calls


@dataclass(frozen=True)
class CacheInfo:
    """What a cache is like.

    Attributes:
        name: as created.
        object_size: bytes that a user may write.
        size: bytes of an object with its metadata.
        align: in bytes.
        order: of a slab's pages.
        objects: in a slab.
        cpu_partial_slabs: slabs that each CPU keeps besides its own.
        min_partial: slabs that each node keeps though they are empty.
    """

    name: str
    object_size: int
    size: int
    align: int
    order: int
    objects: int
    cpu_partial_slabs: int
    min_partial: int


class KmemCache(Caller):
    """One slab cache, used from one CPU.  Make one with `Cpu.kmem_cache_create`.

    As a context manager it is destroyed at the end.
    """

    def __init__(self, calls: Calls, index: int) -> None:
        self._calls = calls
        self._index = index

    def __repr__(self) -> str:
        return f"<KmemCache {self.name} index {self.index}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An exception on its way may have left objects behind; it is the one to be seen.
        try:
            self.destroy()
        except ShmallocError:
            if value is None:
                raise

    @property
    def index(self) -> int:
        """Of the cache in the arena's table: what op arrays call ``cache``."""
        return self._index

    @property
    def name(self) -> str:
        """As created."""
        return self.info().name

    def info(self) -> CacheInfo:
        """Read what the cache is like.

        Raises:
            ShmallocError: it was destroyed.
        """
        arena = self._calls.arena
        row = cache_at(arena, self.index)
        if row is None or row.state != arena.core.lib.CACHE_LIVE:
            raise ShmallocError(f"cache {self.index}: there is no such cache any more")
        return CacheInfo(
            name=cache_name(arena, row),
            object_size=int(row.object_size),
            size=int(row.size),
            align=int(row.align),
            order=int(row.oo) >> 16,
            objects=int(row.oo) & 0xFFFF,
            cpu_partial_slabs=int(row.cpu_partial_slabs),
            min_partial=int(row.min_partial),
        )

    @fast("cache_alloc")
    def alloc(self, gfp: int | str = "GFP_KERNEL", node: int = -1) -> int:
        """Allocate an object; may spin.

        Mirrors: mm/slub.c kmem_cache_alloc_node (6.18).

        Args:
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the object, in bytes.

        Raises:
            AllocationFailed: with its reason.
        """
        return self._alloc(self._calls.lib.shm_kmem_cache_alloc, gfp, node)

    def kmalloc(self, size: int, gfp: int | str = "GFP_KERNEL", node: int = -1) -> int:
        """Allocate *size* bytes from a cache made with SLAB_KMALLOC; otherwise as `alloc`.

        Mirrors: mm/slub.c __kmalloc_cache (6.18).
        """
        lib, gfp_bits = self._calls.lib, gfp_flags(gfp)
        return self._calls.allocate(lib.shm_kmalloc_cache, self.index, size, gfp_bits, self._calls.node(node))

    @fast("cache_alloc_nolock")
    def alloc_nolock(self, gfp: int | str = 0, node: int = -1) -> int:
        """Allocate an object without waiting for any lock; otherwise as `alloc`."""
        return self._alloc(self._calls.lib.shm_kmem_cache_alloc_nolock, gfp, node)

    def _alloc(self, function: Callable[..., int], gfp: int | str, node: int) -> int:
        try:
            return self._calls.allocate(function, self.index, gfp_flags(gfp), self._calls.node(node))
        except AllocationFailed as error:
            self._refuse_if_gone(error)
            raise

    def _no_object(self, name: str, arguments: tuple[Any, ...]) -> NoReturn:
        try:
            self._calls.no_object(name, arguments)
        except AllocationFailed as error:
            self._refuse_if_gone(error)
            raise

    def _refuse_if_gone(self, error: AllocationFailed) -> None:
        if error.reason == "none":
            self.info()  # says that the cache is gone

    def _bad_free(self, result: int, offset: int, name: str, arguments: tuple[Any, ...]) -> NoReturn:
        self._calls.refuse_caller()
        self._refuse_other_caches(offset)
        self._calls.refuse_free(result, offset, name, arguments)

    @fast("cache_free")
    def free(self, offset: int) -> None:
        """Give an object of this cache back.

        Raises:
            BadFree: it is no live object of this cache; nothing was changed.
        """
        self._refuse_other_caches(offset)
        self._calls.free(offset, self._calls.lib.shm_kmem_cache_free, self.index, offset)

    def free_nolock(self, offset: int) -> None:
        """Give an object of this cache back without waiting for any lock; otherwise as `free`."""
        self._refuse_other_caches(offset)
        self._calls.free(offset, self._calls.lib.shm_kfree_nolock, offset)

    def alloc_bulk(self, count: int, gfp: int | str = "GFP_KERNEL") -> list[int]:
        """Allocate *count* objects in one call, or none; may spin.

        Mirrors: mm/slub.c kmem_cache_alloc_bulk (6.18).

        Args:
            count: 1 to 128.
            gfp: flags or their names.

        Returns:
            Offsets of the objects, in bytes.

        Raises:
            AllocationFailed: with its reason; nothing was allocated.
            ValueError: another count.
        """
        objects = self._objects([0] * self._bulk_count(count))
        function = self._calls.lib.shm_kmem_cache_alloc_bulk
        self.info()  # says if the cache is gone
        self._calls.allocate(function, self.index, gfp_flags(gfp), count, objects)
        return list(objects)

    def free_bulk(self, offsets: Sequence[int]) -> None:
        """Give objects of this cache back in one call: those of one slab go together.

        Raises:
            BadFree: naming the first one that is no live object of this cache, or is there twice; nothing was
                changed.
            ValueError: none, or more than 128.
        """
        self._bulk_count(len(offsets))
        for at, offset in enumerate(offsets):
            self._refuse_other_caches(offset)
            why = self._calls.why_dead(offset)
            if why is None and offset in offsets[:at]:
                why = f"twice in the list, at {offsets.index(offset)} and {at}"
            if why is not None:
                raise BadFree(offset, why)
        objects = self._objects(offsets)
        self._calls.run(self._calls.lib.shm_kmem_cache_free_bulk, self.index, len(offsets), objects)

    def _bulk_count(self, count: int) -> int:
        most = int(self._calls.lib.SHM_MAX_BULK)
        if not 0 < count <= most:
            raise ValueError(f"count = {count}: allowed are 1 to {most}")
        return count

    def _objects(self, offsets: Sequence[int]) -> Any:
        return self._calls.arena.core.ffi.new("uint64_t[]", list(offsets))

    def _refuse_other_caches(self, offset: int) -> None:
        owner = cache_of(self._calls.arena, offset)
        if owner is not None and owner != self.index:
            row = cache_at(self._calls.arena, owner)
            other = "an unknown cache" if row is None else cache_name(self._calls.arena, row)
            raise BadFree(offset, f"in a slab of {other}, not of {self.name}")

    def validate(self) -> int:
        """Look at every object of a debug cache, as a write to sysfs ``validate`` does.

        What is wrong is repaired, and reported: `Arena.slab_errors`.

        Returns:
            The reports made, repairs included.

        Raises:
            ShmallocError: it is no debug cache.
        """
        return self._calls.run(self._calls.lib.shm_validate_slab, self.index)

    def shrink(self) -> None:
        """Give the pages of empty slabs back."""
        self._calls.run(self._calls.lib.shm_kmem_cache_shrink, self.index)

    def destroy(self) -> None:
        """Destroy the cache.

        Raises:
            ShmallocError: objects of it are still in use: it is gone, and their slabs are lost with it.
        """
        shown = repr(self)
        result = self._calls.call(self._calls.lib.shm_kmem_cache_destroy, self.index)
        if result > 0:
            raise ShmallocError(
                f"{shown}: destroyed while objects are still in use; {result} slab{'s'[: result > 1]} of it leaked"
            )
        if result:
            self._calls.refuse_caller()
            self._calls.raise_verdict()
            raise ShmallocError(f"{self!r}: {os.strerror(-result)}")
