# SPDX-License-Identifier: MIT
"""What lies at an offset that a caller hands in: looked up before it is followed.

All of it is read from the arena by this process, without a core call, and with every index checked: what
another process has written there is believed as little as the offset itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmalloc.arena import Arena

GRANULE_BYTES = 8
_WORD_BITS = 64
_MAX_OBJECT_BYTES = 4 << 20  # a block of the highest order


@dataclass(frozen=True)
class _Block:
    """The head page of the block that an offset lies in, as far as the page table says."""

    page: Any
    start: int


def why_not_live(arena: Arena, offset: int) -> str:
    """Say why an offset is not the start of a live object.

    Args:
        arena: any, attached.
        offset: as the caller gave it.

    Returns:
        A text for people, naming what is there instead.
    """
    lib, (start, end) = arena.core.lib, memory_range(arena)
    if not start <= offset < end:
        return f"not in page memory, which is {start:#x} to {end:#x}"
    owner = live_object_at(arena, offset)
    if owner is not None and owner != offset:
        return f"{offset - owner} bytes into the live object at {owner:#x}"
    block = _block_of(arena, offset)
    if block is None:
        return "no page of the arena is known there"
    flags = block.page.flags
    if flags & lib.PG_slab:
        return _why_in_slab(arena, block, offset)
    if flags & lib.PG_allocated:
        what = "a large kmalloc" if flags & lib.PG_large else "pages that alloc_pages handed out"
        where = "the start" if offset == block.start else f"{offset - block.start} bytes into a block"
        return f"{where} of {what}, order {block.page.order}"
    if flags & lib.PG_deferred:
        return "already freed: its pages wait for the zone's lock"
    return "already freed: its page belongs to no object"


def why_no_object(arena: Arena, offset: int) -> str | None:
    """Say why an offset cannot be an object's start, from the page table alone.

    For arenas without the oracle. A double free is not noticed by this.

    Returns:
        A text for people, or None if kfree may look at it.
    """
    lib, (start, end) = arena.core.lib, memory_range(arena)
    if start <= offset < end:
        block = _block_of(arena, offset)
        if block is not None:
            if block.page.flags & lib.PG_slab and _slot_start(arena, block, offset) == offset:
                return None
            if block.page.flags & lib.PG_large and block.start == offset:
                return None
    return why_not_live(arena, offset)


def why_no_pages(arena: Arena, offset: int, order: int) -> str | None:
    """Say why an offset is not the start of an allocated block of pages of this order.

    Returns:
        A text for people, or None if it is.
    """
    lib, (start, end) = arena.core.lib, memory_range(arena)
    if not start <= offset < end:
        return why_not_live(arena, offset)
    if offset % lib.SHM_PAGE_SIZE:
        return f"not the start of a page: {offset % lib.SHM_PAGE_SIZE} bytes into one"
    block = _block_of(arena, offset)
    if block is None or not block.page.flags & lib.PG_allocated or block.start != offset:
        return why_not_live(arena, offset)
    if block.page.flags & lib.PG_large:
        return "a large kmalloc: kfree takes it"
    if block.page.order != order:
        return f"a block of order {block.page.order}, not {order}"
    return None


def memory_range(arena: Arena) -> tuple[int, int]:
    """Return where page memory begins and ends, as offsets."""
    header, lib = arena.header, arena.core.lib
    start = int(header.regions[lib.REGION_MEMORY].offset)
    return start, start + int(header.nr_pages) * int(lib.SHM_PAGE_SIZE)


def cache_at(arena: Arena, index: int) -> Any:
    """Look at one row of the cache table, or None if there is no such row."""
    if not 0 <= index < arena.header.geometry.max_caches:
        return None
    return arena.item("struct kmem_cache", "caches", index)


def cache_name(arena: Arena, cache: Any) -> str:
    """Return the name of a row of the cache table."""
    return str(arena.core.ffi.string(cache.name).decode(errors="replace"))


def cache_of(arena: Arena, offset: int) -> int | None:
    """Return the index of the cache whose slab the offset lies in, or None."""
    start, end = memory_range(arena)
    block = _block_of(arena, offset) if start <= offset < end else None
    if block is None or not block.page.flags & arena.core.lib.PG_slab:
        return None
    return int(block.page.slab_cache) - 1


def _block_of(arena: Arena, offset: int) -> _Block | None:
    lib, (start, _) = arena.core.lib, memory_range(arena)
    pfn = (offset - start) >> lib.SHM_PAGE_SHIFT
    page = arena.item("struct page", "pages", pfn)
    if page.flags & lib.PG_tail:
        pfn = int(page.compound_head)
        if pfn >= arena.header.nr_pages:
            return None
        page = arena.item("struct page", "pages", pfn)
    return _Block(page, start + (pfn << lib.SHM_PAGE_SHIFT))


def _slot_start(arena: Arena, block: _Block, offset: int) -> int | None:
    """Return the start of the object of a slab that the offset lies in; None in padding or a broken slab."""
    cache = cache_at(arena, int(block.page.slab_cache) - 1)
    if cache is None or not cache.size:
        return None
    index = (offset - block.start) // cache.size
    objects = (block.page.counters >> 16) & 0x7FFF
    return None if index >= objects else int(block.start + index * cache.size + cache.red_left_pad)


def _why_in_slab(arena: Arena, block: _Block, offset: int) -> str:
    cache = cache_at(arena, int(block.page.slab_cache) - 1)
    if cache is None:
        return "in a slab of no cache"
    name, slot = cache_name(arena, cache), _slot_start(arena, block, offset)
    if slot == offset:
        return f"an object of {name} that is not live: freed already, or never allocated"
    if slot is None:
        return f"in a slab of {name}, behind its last object"
    return f"{offset - slot} bytes from the start of the free object of {name} at {slot:#x}"


def live_object_at(arena: Arena, offset: int) -> int | None:
    """Return the start of the live object that owns the byte, by the oracle; None = nobody, or no oracle."""
    header, lib = arena.header, arena.core.lib
    memory, end = memory_range(arena)
    if not header.geometry.flags & lib.SHM_GEO_ORACLE or not memory <= offset < end:
        return None
    granule = (offset - memory) // GRANULE_BYTES
    owned = _words(arena, lib.REGION_ORACLE_OWNED)
    if not owned[granule // _WORD_BITS] >> granule % _WORD_BITS & 1:
        return None
    starts = _words(arena, lib.REGION_ORACLE_START)
    first = max(0, granule - _MAX_OBJECT_BYTES // GRANULE_BYTES)
    word = granule // _WORD_BITS
    candidates = starts[word] & ((2 << granule % _WORD_BITS) - 1)
    while not candidates and word > first // _WORD_BITS:
        word -= 1
        candidates = starts[word]
    if not candidates:
        return None
    return memory + (word * _WORD_BITS + candidates.bit_length() - 1) * GRANULE_BYTES


def _words(arena: Arena, region_id: int) -> memoryview[int]:
    region = arena.header.regions[region_id]
    return arena.buffer[region.offset : region.offset + region.bytes].cast("Q")
