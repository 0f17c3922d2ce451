# SPDX-License-Identifier: MIT
"""Where an object is: the cache or the zone that it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmalloc.arena import Arena


def page_of(arena: Arena, offset: int) -> Any:
    """Return the struct page of the block that an offset lies in: its head."""
    lib = arena.core.lib
    memory = arena.header.regions[lib.REGION_MEMORY].offset
    page = arena.item("struct page", "pages", (offset - memory) // lib.SHM_PAGE_SIZE)
    if page.flags & lib.PG_tail:
        page = arena.item("struct page", "pages", page.compound_head)
    return page


def place_of(arena: Arena, offset: int) -> str:
    """Name the cache that an object is of, or say what else it is."""
    lib = arena.core.lib
    memory = arena.header.regions[lib.REGION_MEMORY].offset
    if offset < memory:
        return "the object of size 0" if offset == lib.SHM_ZERO_SIZE else f"offset {offset:#x}"
    page = page_of(arena, offset)
    if page.flags & lib.PG_slab and page.slab_cache:
        cache = arena.item("struct kmem_cache", "caches", page.slab_cache - 1)
        return str(arena.core.ffi.string(cache.name).decode())
    return f"2^{int(page.order)} pages"


def free_pointer(arena: Arena, cache: Any, offset: int) -> int:
    """Return the next free object behind a free one.

    Args: cache: struct kmem_cache.  offset: of the free object, as freelists name it.
    """
    at = offset + int(cache.offset)
    value = int(arena.pointer("uint64_t", at)[0])
    if not cache.random:
        return value
    return value ^ int(cache.random) ^ int.from_bytes(at.to_bytes(8, "little"), "big")


def chain(arena: Arena, cache: Any, first: int, most: int = 1 << 16) -> int:
    """Count the objects of a freelist."""
    count = 0
    while first and count < most:
        first = free_pointer(arena, cache, first)
        count += 1
    return count
