# SPDX-License-Identifier: MIT
"""The arena as the audit sees it: numpy views of its regions, and where each of them lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shmalloc import layout
from shmalloc.audit.report import CORRUPTION, Findings
from shmalloc.errors import HostileArena

__all__ = ["Auditable", "Flags", "Ints", "Mask", "Records", "View", "Words", "constant"]

Ints: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]
Flags: TypeAlias = NDArray[np.uint32]
Mask: TypeAlias = NDArray[np.bool_]
Records: TypeAlias = NDArray[Any]

WORDS_PER_PAGE = 8  # of each of the oracle's bitmaps
ZONE_NAMES = ("DMA", "DMA32", "Normal", "Movable")
MIGRATETYPE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic")


@cache
def constant(name: str) -> int:
    """Return a constant of the core's headers."""
    return layout.constants()[name]


def zone_type(number: int) -> str:
    """Name a type of zones, whatever a damaged one says."""
    return ZONE_NAMES[number % len(ZONE_NAMES)]


class Auditable(Protocol):
    """What an audit needs of an arena: its bytes, and its regions as arrays over the same bytes."""

    @property
    def buffer(self) -> Any:
        """All of the segment, as anything with the buffer protocol."""

    def region(self, name: str) -> Records:
        """Return a region as Arena.region does."""


class Sparse(Auditable, Protocol):
    """One that knows what of it was never written to: zeros, which take memory when they are read."""

    def data_ranges(self, begin: int, end: int) -> list[tuple[int, int]]:
        """List the parts of [begin, end) that may be other than zeros, in order, in bytes."""


@dataclass(frozen=True)
class View:
    """Views of one arena. Nothing is copied, except what a cached property says.

    Attributes: header: struct shm_header.  words: the whole segment as 64-bit words.  cpus (cpus,),
        nodes (nodes,), zones (zones,), pagesets (zones, cpus), caches (max_caches,), cache_nodes
        (max_caches, nodes), cache_cpus (cpus, max_caches), cache_sheaves (cpus, max_caches or 0), barns
        (max_caches or 0, nodes), memcgs (max_memcgs,), memcg_cpus (cpus,) or (0,) without memcgs,
        pageblocks, pages (nr_pages,): records.
        slab_words: what frees go by, a word for each page, uint64.
        owned, start, end: the oracle's bitmaps, uint64, a bit for each 8 bytes of page memory; empty if off.
        memory_offset, pages_offset: of page frame 0 and of its struct page, in bytes.
        data_ranges: as Sparse has it.
    """

    header: Any
    words: Words
    cpus: Records
    nodes: Records
    zones: Records
    pagesets: Records
    caches: Records
    cache_nodes: Records
    cache_cpus: Records
    memcgs: Records
    memcg_cpus: Records
    cache_sheaves: Records
    barns: Records
    pageblocks: Records
    pages: Records
    slab_words: Words
    owned: Words
    start: Words
    end: Words
    address: int
    memory_offset: int
    pages_offset: int
    data_ranges: Callable[[int, int], list[tuple[int, int]]]

    @classmethod
    def of(cls, arena: Auditable) -> View:
        """Look at an arena.

        Raises: ValueError, if its header describes no arena of this size.
        """
        try:
            return cls._read(arena)
        except HostileArena as error:
            raise ValueError(str(error)) from None

    @classmethod
    def _read(cls, arena: Auditable) -> View:
        raw = memoryview(arena.buffer).cast("B")
        words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
        header = np.frombuffer(raw, layout.dtype("shm_header"), 1)[0]
        _check_bounds(header, len(raw))
        names = ("cpus", "nodes", "zones", "pagesets", "caches", "cache_nodes", "cache_cpus")
        regions = {
            name: arena.region(name) for name in (*names, "cache_sheaves", "barns", "memcgs", "memcg_cpus")
        }
        pages, address = arena.region("pages"), _address(words)
        block_order = int(header["geometry"]["pageblock_order"]) & 0x3F
        return cls(
            header=header,
            words=words,
            **regions,
            pageblocks=arena.region("pageblocks")[: -(-len(pages) >> block_order)],
            pages=pages,
            slab_words=arena.region("slab_words"),
            owned=arena.region("oracle_owned"),
            start=arena.region("oracle_start"),
            end=arena.region("oracle_end"),
            address=address,
            memory_offset=_address(arena.region("memory")) - address,
            pages_offset=_address(pages) - address,
            data_ranges=getattr(arena, "data_ranges", _everything),
        )

    def page_flags(self) -> Flags:
        """Copy the flags of all pages; struct pages that nobody has ever written to are not touched."""
        size, begin = self.pages.dtype.itemsize, self.pages_offset
        flags = np.zeros(self.nr_pages, np.uint32)
        for first, last in self.data_ranges(begin, begin + self.nr_pages * size):
            part = slice((first - begin) // size, -(-(last - begin) // size))
            flags[part] = self.pages["flags"][part]
        return flags

    def words_of_pages(self) -> tuple[Ints, Words]:
        """List the pages that have a word in slab_words, and the words; what nobody has written to is not touched."""
        begin = _address(self.slab_words) - self.address
        found = [np.zeros(0, np.int64)]
        for first, last in self.data_ranges(begin, begin + min(len(self.slab_words), self.nr_pages) * 8):
            at = (first - begin) // 8
            found.append(at + np.flatnonzero(self.slab_words[at : -(-(last - begin) // 8)]))
        pfn = np.concatenate(found)
        return pfn, self.slab_words[pfn]

    def bitmap_spans(self) -> list[slice]:
        """List the words in which any of the oracle's bitmaps may have a bit, in order, with gaps between them."""
        parts: list[tuple[int, int]] = []
        for bitmap in (self.owned, self.start, self.end):
            begin = _address(bitmap) - self.address
            words = min(len(bitmap), self.nr_pages * WORDS_PER_PAGE)
            parts += [
                ((first - begin) // 8, -(-(last - begin) // 8))
                for first, last in self.data_ranges(begin, begin + words * 8)
            ]
        spans: list[slice] = []
        for first, last in sorted(parts):
            if spans and first <= spans[-1].stop:
                spans[-1] = slice(spans[-1].start, max(spans[-1].stop, last))
            else:
                spans.append(slice(first, last))
        return spans

    @property
    def nr_pages(self) -> int:
        """Page frames of the arena."""
        return len(self.pages)

    @property
    def nr_zone_pages(self) -> int:
        """Page frames that lie in a zone; what is left over at the end is used by nobody."""
        return int(self.zone_starts[-1]) + int(self.zones["spanned_pages"][-1])

    @property
    def pageblock_order(self) -> int:
        """Pages of a pageblock, as a power of two."""
        return int(self.header["geometry"]["pageblock_order"])

    @property
    def has_oracle(self) -> bool:
        """Whether ownership is recorded."""
        on = int(self.header["geometry"]["flags"]) & constant("SHM_GEO_ORACLE")
        return bool(on) and min(map(len, (self.owned, self.start, self.end))) >= self.nr_pages * 8

    @property
    def hardened(self) -> bool:
        """Whether free pointers are obfuscated."""
        return bool(int(self.header["geometry"]["flags"]) & constant("SHM_GEO_FREELIST_HARDENED"))

    @cached_property
    def cells(self) -> memoryview[int]:
        """The words again, faster where one is read at a time."""
        return memoryview(self.words)  # type: ignore[arg-type]

    @cached_property
    def page_links(self) -> range:
        """Offsets that a list entry within a struct page (page.lru) can have."""
        size = self.pages.dtype.itemsize
        first = self.pages_offset + field_offset("page", "lru")
        return range(first, first + self.nr_pages * size, size)

    @cached_property
    def page_structs(self) -> range:
        """Offsets that a struct page can have."""
        size = self.pages.dtype.itemsize
        return range(self.pages_offset, self.pages_offset + self.nr_pages * size, size)

    @cached_property
    def memory(self) -> range:
        """Offsets within page memory that a link word can have."""
        return range(self.memory_offset, self.memory_offset + self.nr_pages * constant("SHM_PAGE_SIZE"), 8)

    @cached_property
    def zone_starts(self) -> Ints:
        """First pfn of each zone, shape (zones,); copied."""
        return self.zones["start_pfn"].astype(np.int64)

    def zone_of(self, pfns: Ints) -> Ints:
        """Return the zone that each page frame lies in."""
        # Of zones that start at the same pfn all but the last are empty.
        return np.searchsorted(self.zone_starts, pfns, side="right") - 1

    def zone_end(self, zones: Ints) -> Ints:
        """Return the pfn after the last of each zone."""
        ends = self.zone_starts + self.zones["spanned_pages"].astype(np.int64)
        return ends[zones]

    def zone_name(self, zone: int) -> str:
        """Name a zone as messages do."""
        record = self.zones[zone]
        return f"zone {zone} (node {record['node']} {zone_type(int(record['type']))})"

    def cache_name(self, cache: int) -> str:
        """Name a slab cache as messages do."""
        name = bytes(self.caches["name"][cache]).decode(errors="replace")
        return f"cache {name or cache}"

    @cached_property
    def list_heads(self) -> tuple[tuple[Records, ...], Words, Ints, Ints, Ints]:
        """The heads of all doubly linked lists, and where they lie.

        Returns: the heads, an array for each kind of list; then of all of them, sorted by offset: offset, kind,
            place, and the index in the order of the kinds.
        """
        heads = (
            self.zones["free_area"]["free_list"],
            self.pagesets["lists"],
            self.cache_nodes["partial"],
            self.cache_nodes["full"],
            self.nodes["lru"],
        )
        offset = np.concatenate([self.offsets(each["next"]).ravel() for each in heads])
        kind = np.repeat(np.arange(len(heads)), [each.size for each in heads])
        place = np.concatenate([_indices(each.shape) for each in heads])
        order = np.argsort(offset)
        return heads, offset[order], kind[order], place[order], order

    def offsets(self, field: Records) -> Words:
        """Return the offset of each element of a view into the arena, in the view's shape."""
        grid = np.full(field.shape, _address(field) - self.address, np.int64)
        for axis, (length, stride) in enumerate(zip(field.shape, field.strides, strict=True)):
            steps = np.arange(length, dtype=np.int64) * stride
            grid += steps.reshape([-1 if other == axis else 1 for other in range(field.ndim)])
        return grid.astype(np.uint64)

    def page_memory(self, pfns: Ints) -> Ints:
        """Return the offset of each page frame's memory."""
        return self.memory_offset + pfns * constant("SHM_PAGE_SIZE")


def places_in(offsets: Words, allowed: range) -> tuple[Mask, Ints]:
    """Say which offsets lie in a range, as `in` would, and return the index there of those that do."""
    distance = offsets - np.uint64(allowed.start)  # wraps far beyond the end for an offset below it
    inside: Mask = distance < np.uint64(allowed.stop - allowed.start)
    inside &= distance % np.uint64(allowed.step) == 0
    return inside, (distance[inside] // np.uint64(allowed.step)).astype(np.int64)


def _everything(begin: int, end: int) -> list[tuple[int, int]]:
    return [(begin, end)]


def _indices(shape: tuple[int, ...]) -> Ints:
    """Return the indices of every item of an array, with zeros up to three of them."""
    place = np.indices(shape).reshape(len(shape), -1).T.astype(np.int64)
    found: Ints = np.hstack((place, np.zeros((len(place), 3 - len(shape)), np.int64)))
    return found


def _check_bounds(header: Any, size_bytes: int) -> None:
    """Refuse a header whose regions leave the segment: numpy must not be led there.

    Raises: ValueError, naming the first that does.
    """
    cpus = int(header["geometry"]["nr_cpus"])
    if not 1 <= cpus <= constant("SHM_MAX_CPUS"):
        raise ValueError(f"nr_cpus = {cpus}: allowed is 1..{constant('SHM_MAX_CPUS')}")
    for name, number in layout.enumeration("shm_region_id").items():
        if number == constant("NR_REGIONS"):
            continue
        region = header["regions"][number]
        offset, length = int(region["offset"]), int(region["bytes"])
        if offset + length > size_bytes:
            raise ValueError(f"{name} is {length} bytes at {offset:#x}, the segment {size_bytes} bytes")
        stride = f"{name.removeprefix('REGION_').lower()}_stride"
        if stride in header.dtype.names and int(header[stride]) * cpus > length:
            raise ValueError(
                f"{stride} = {header[stride]}: {cpus} CPUs do not fit the region's {length} bytes"
            )


def field_offset(struct: str, name: str) -> int:
    """Return the offset of a field within a structure, in bytes."""
    fields = layout.dtype(struct).fields
    assert fields is not None
    return int(fields[name][1])


def _address(array: Records) -> int:
    return int(array.__array_interface__["data"][0])


def check_frame(view: View, findings: Findings) -> bool:
    """Check the tables that everything else is found by: zones and pageblocks.

    Returns: False if they contradict themselves: then nothing else can be checked.
    """
    spans = view.zones["spanned_pages"].astype(np.int64)
    ends = view.zone_starts + spans
    expected = np.concatenate(([0], ends[:-1]))
    sound = (
        len(view.zones) > 0
        and bool((view.zone_starts == expected).all())
        and bool((spans >= 0).all())
        and int(ends[-1]) <= view.nr_pages
        and bool((view.zones["node"] < len(view.nodes)).all())
        and bool((view.zones["type"] < len(ZONE_NAMES)).all())
    )
    if not sound:
        findings.add(
            CORRUPTION,
            "zone table",
            f"the zones do not lie one after the other in page frames 0..{view.nr_pages - 1}, on nodes "
            f"0..{len(view.nodes) - 1}",
        )
        return False
    return _check_pageblocks(view, findings)


def _check_pageblocks(view: View, findings: Findings) -> bool:
    order, length = view.pageblock_order, len(view.pageblocks)
    if not 1 <= order <= constant("SHM_MAX_PAGE_ORDER") or length << order < view.nr_pages:
        text = f"{length} pageblocks of order {order} do not cover {view.nr_pages} page frames"
        findings.add(CORRUPTION, "pageblocks", text)
        return False
    first = np.arange(len(view.pageblocks), dtype=np.int64) << view.pageblock_order
    zone = view.pageblocks["zone"]
    lies_in = view.zone_of(first)
    wrong = np.flatnonzero((first < view.nr_zone_pages) & (zone != lies_in))
    findings.add_each(
        CORRUPTION,
        wrong,
        lambda block: (f"pageblock {block}", f"says zone {zone[block]}, lies in zone {lies_in[block]}"),
        "pageblocks in the wrong zone",
    )
    types = view.pageblocks["migratetype"]
    untyped = np.flatnonzero(types >= len(MIGRATETYPE_NAMES))
    findings.add_each(
        CORRUPTION,
        untyped,
        lambda block: (f"pageblock {block}", f"has migratetype {types[block]}, there are 0..3"),
        "pageblocks of no migratetype",
    )
    return not wrong.size and not untyped.size
