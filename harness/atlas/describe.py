# SPDX-License-Identifier: MIT
"""Changed words of an arena as the fields that they are: what a report shows of the state before and after.

    cpus[0].defer_objects.first: 0 -> object 0x3c4140 (kmalloc-64)
    cache_cpus[0, kmalloc-64].tid: 24 -> 32
    pages[312].counters: inuse 3, objects 32 -> inuse 4, objects 32

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.atlas.classes import region_structs
from shmalloc import _binding, designs, layout
from shmalloc.audit.pages import flag_names
from shmalloc.violations import CONTEXTS

if TYPE_CHECKING:
    from shmalloc.arena import Arena

__all__ = ["After", "Words", "changes", "describe", "lines", "offsets", "telemetry_offset"]

Words = np.ndarray[Any, Any]  # of the dtype (offset u8, old u4, new u4), by rising offset
_MEMORY_LINES = 6  # of one page; the rest are counted
_WORD_MASK = 0xFFFFFFFF
_LINKS = {
    *("next", "prev", "first", "last", "freelist", "slab", "partial", "main", "spare", "rcu_free", "llnode"),
    *("lock", "object", "waiting_for", "extra", "slot", "objects", "free_llist", "tgt", "free_by_rcu"),
    *("free_by_rcu_tail", "waiting_for_gp_tail", "works"),
}
_BITMAPS = {"ORACLE_OWNED": "owned", "ORACLE_START": "begins", "ORACLE_END": "ends"}


class After:
    """An arena at its snapshot, read as it is after some words have changed.

    Attributes: arena.  words: offset of a 4-byte word -> its new value.
    """

    def __init__(self, arena: Arena, *changed: Words) -> None:
        self.arena = arena
        self.words: dict[int, int] = {}
        for words in changed:
            self.words.update(zip(words["offset"].tolist(), words["new"].tolist(), strict=True))
        self._old = arena.buffer.cast("I")

    def u32(self, offset: int) -> int:
        """Read 4 bytes."""
        found = self.words.get(offset)
        return self._old[offset >> 2] if found is None else found

    @cached_property
    def _changed(self) -> list[int]:
        return sorted({offset & ~7 for offset in self.words})

    def cells(self, begin: int, end: int) -> list[int]:
        """List the offsets of the words of 8 bytes in a range that have changed."""
        changed = self._changed
        return changed[bisect_left(changed, begin) : bisect_left(changed, end)]

    def bytes(self, offset: int, count: int) -> bytearray:
        """Read a structure; offset and count are multiples of 8."""
        found = bytearray(self.arena.buffer[offset : offset + count])
        for cell in self.cells(offset, offset + count):
            at = cell - offset
            found[at : at + 8] = self.u64(cell).to_bytes(8, "little")
        return found

    def patched(self, offset: int, old: int) -> int:
        """Return what 8 bytes that were *old* are now."""
        low = self.words.get(offset, old & _WORD_MASK)
        return low | self.words.get(offset + 4, old >> 32) << 32

    def u64(self, offset: int) -> int:
        """Read 8 bytes."""
        return self.u32(offset) | self.u32(offset + 4) << 32

    def field(self, struct: str, at: int, name: str) -> int:
        """Read an unsigned field of 4 or 8 bytes of the structure at an offset."""
        offset, size = _field(struct, name)
        return self.u64(at + offset) if size == 8 else self.u32(at + offset)

    @cached_property
    def _places(self) -> tuple[int, int, int]:
        header, lib = self.arena.header, self.arena.core.lib
        regions = header.regions
        return (
            int(regions[lib.REGION_MEMORY].offset),
            int(regions[lib.REGION_PAGES].offset),
            int(header.nr_pages),
        )

    def page_of(self, offset: int) -> int | None:
        """Return the offset of the struct page that heads the block an offset of page memory lies in."""
        memory, pages, count = self._places
        pfn = (offset - memory) >> 12
        if not 0 <= pfn < count:
            return None
        constants = layout.constants()
        size = _size("page")
        if self.field("page", pages + pfn * size, "flags") & constants["PG_tail"]:
            pfn = self.field("page", pages + pfn * size, "compound_head")
        return pages + pfn * size if pfn < count else None

    def cache_of(self, offset: int) -> int | None:
        """Return the index of the slab cache that an object is of; None if it is of none."""
        page = self.page_of(offset)
        if page is None or not self.field("page", page, "flags") & layout.constants()["PG_slab"]:
            return None
        index = self.field("page", page, "slab_cache")
        return index - 1 if 1 <= index <= int(self.arena.header.geometry.max_caches) else None

    def object_at(self, offset: int) -> tuple[int, str] | None:
        """Return where the object of a slab begins that an offset lies in, and its cache's name."""
        cache_index, page = self.cache_of(offset), self.page_of(offset)
        if cache_index is None or page is None:
            return None
        memory, pages, _ = self._places
        row = self.arena.item("struct kmem_cache", "caches", cache_index)
        first = memory + ((page - pages) // _size("page") << 12) + int(row.red_left_pad)
        if not row.size or offset < first:
            return None
        return offset - (offset - first) % int(row.size), cache_name(self.arena, cache_index)

    def place(self, offset: int) -> str:
        """Name an offset as a link shows it."""
        memory, pages, count = self._places
        size = _size("page")
        if not offset:
            return "0"
        if pages <= offset < pages + count * size:
            pfn, within = divmod(offset - pages, size)
            return self._name(offset) if within else f"pages[{pfn}]"
        found = self.object_at(offset)
        if found is not None:
            start, name = found
            return f"object {start:#x}" + (f"+{offset - start}" if offset > start else "") + f" ({name})"
        if memory <= offset < memory + (count << 12):
            return f"{offset:#x} (page {(offset - memory) >> 12})"
        return self._name(offset)

    def _name(self, offset: int) -> str:
        """Name the structure and the field that an offset outside of page memory leads to."""
        for begin, end, name, struct, stride, shape in _table(self.arena):
            if begin <= offset < end:
                item, within = divmod(offset - begin, stride)
                starts, found = leaves(struct)
                leaf = found[bisect_right(starts, within) - 1]
                path = leaf.path.removesuffix(".next") if leaf.offset == within else f"{leaf.path}+{within}"
                return f"{name}{_index(self.arena, name, item, shape)}.{path}"
        return f"{offset:#x}"


@cache
def _size(struct: str) -> int:
    return int(_binding.core().ffi.sizeof(f"struct {struct}"))


@cache
def _field(struct: str, name: str) -> tuple[int, int]:
    ffi = _binding.core().ffi
    field = dict(ffi.typeof(f"struct {struct}").fields)[name]
    return int(field.offset), int(ffi.sizeof(field.type))


@cache
def offsets(struct: str) -> Mapping[str, int]:
    """Map the fields of a structure to their offsets."""
    fields = _binding.core().ffi.typeof(f"struct {struct}").fields
    return {name: int(field.offset) for name, field in fields}


@cache
def telemetry_offset(*path: str | int) -> int:
    """Return the offset of a field of the telemetry, given as names and indices."""
    ffi = _binding.core().ffi
    return int(ffi.offsetof("struct shm_telemetry", *path))


def cache_name(arena: Arena, index: int) -> str:
    """Return the name of a slab cache, or its number if it has none."""
    row = arena.item("struct kmem_cache", "caches", index)
    return str(arena.core.ffi.string(row.name).decode(errors="replace")) or str(index)


@dataclass(frozen=True)
class Leaf:
    """One scalar of a structure. Attributes: offset within it.  size: bytes.  path: names.  signed.  text: chars."""

    offset: int
    size: int
    path: str
    signed: bool
    text: bool

    @property
    def name(self) -> str:
        """The last name of the path."""
        return self.path.rpartition(".")[2].partition("[")[0]


@cache
def leaves(struct: str) -> tuple[tuple[int, ...], tuple[Leaf, ...]]:
    """List the scalars of a structure by offset; and their offsets alone."""
    ctype = _binding.core().ffi.typeof(f"struct {struct}")
    found = sorted(_leaves(ctype, 0, ""), key=lambda leaf: leaf.offset)
    return tuple(leaf.offset for leaf in found), tuple(found)


def _leaves(ctype: Any, at: int, path: str) -> Iterator[Leaf]:
    ffi = _binding.core().ffi
    if ctype.kind == "struct":
        for name, field in ctype.fields:
            yield from _leaves(field.type, at + field.offset, f"{path}.{name}" if path else name)
    elif ctype.kind == "array" and ctype.item.cname == "char":
        yield Leaf(at, ctype.length, path, False, True)
    elif ctype.kind == "array":
        step = ffi.sizeof(ctype.item)
        for index in range(ctype.length):
            yield from _leaves(ctype.item, at + index * step, f"{path}[{index}]")
    else:
        signed = ctype.kind == "primitive" and int(ffi.cast(ctype, -1)) < 0
        yield Leaf(at, int(ffi.sizeof(ctype)), path, signed, False)


@dataclass(frozen=True)
class Change:
    """One field that differs. Attributes: offset.  name.  leaf: None in page memory.  old, new: values or bytes."""

    offset: int
    name: str
    leaf: Leaf | None
    old: Any
    new: Any


def describe(arena: Arena, words: Words) -> list[str]:
    """Write a difference as lines, in order of the offsets.

    Args: arena: at the snapshot that the words differ from.  words: see `Words`; behind the arena lie the slots
        of handlers.
    """
    after = After(arena, words)
    return [*_fields(after, words), *_bitmaps(after, words), *_memory(after, words), *_slots(after, words)]


def changes(arena: Arena, words: Words) -> list[Change]:
    """List the fields of the arena's structures that differ; page memory and bitmaps are left out."""
    old = dict(zip(words["offset"].tolist(), words["old"].tolist(), strict=True))
    new = dict(zip(words["offset"].tolist(), words["new"].tolist(), strict=True))
    buffer = arena.buffer
    found: dict[int, Change] = {}
    for begin, end, name, struct, stride, shape in _table(arena):
        for word in _between(words, begin, end):
            item, within = divmod(word - begin, stride)
            starts, all_leaves = leaves(struct)
            at = bisect_right(starts, within) - 1
            while at < len(starts) and starts[at] < within + 4:
                leaf = all_leaves[at]
                at += 1
                offset = begin + item * stride + leaf.offset
                if offset in found or leaf.offset + leaf.size <= within:
                    continue
                before, now = (_bytes(buffer, side, offset, leaf.size) for side in (old, new))
                if before != now:
                    label = name + _index(arena, name, item, shape)
                    path = _counted(leaf.path) if name == "telemetry" else leaf.path
                    found[offset] = Change(
                        offset, f"{label}.{path}", leaf, _value(leaf, before), _value(leaf, now)
                    )
    return [found[offset] for offset in sorted(found)]


_COUNTS = re.compile(r"counts\[(\d+)\]\[(\d+)\](?:\.failures\[(\d+)\])?")


def _counted(path: str) -> str:
    """Write counts[1][3].failures[4] as counts[kmalloc_nolock, nmi].failures[zone_busy]."""

    def named(match: re.Match[str]) -> str:
        design, context, reason = (int(group or 0) for group in match.groups())
        known = designs.names()
        text = f"counts[{known[design] if design < len(known) else design}, {CONTEXTS[context]}]"
        reasons = _binding.core().names("reason")
        return text if match[3] is None else f"{text}.failures[{reasons[reason]}]"

    return _COUNTS.sub(named, path)


def _bytes(buffer: Any, side: Mapping[int, int], offset: int, size: int) -> bytes:
    begin, end = offset & ~3, -(-(offset + size) // 4) * 4
    raw = bytearray(buffer[begin:end])
    for word in range(begin, end, 4):
        if word in side:
            raw[word - begin : word - begin + 4] = side[word].to_bytes(4, "little")
    return bytes(raw[offset - begin : offset - begin + size])


def _value(leaf: Leaf, raw: bytes) -> Any:
    if leaf.text:
        return raw.partition(b"\0")[0].decode(errors="replace")
    return int.from_bytes(raw, "little", signed=leaf.signed)


def _between(words: Words, begin: int, end: int) -> list[int]:
    offsets = words["offset"]
    first, last = np.searchsorted(offsets, [begin, end])
    found: list[int] = offsets[first:last].tolist()
    return found


def _table(arena: Arena) -> list[tuple[int, int, str, str, int, tuple[int, ...]]]:
    """List (begin, end, name, structure, stride, shape) of the header and the regions of structures."""
    size = _size("shm_header")
    table: list[tuple[int, int, str, str, int, tuple[int, ...]]] = [
        (0, size, "header", "shm_header", size, ())
    ]
    for region, struct, stride in region_structs(arena):
        begin, end = _region(arena, region)
        if end > begin:
            table.append((begin, end, region.lower(), struct, stride, arena.region(region.lower()).shape))
    return sorted(table)


def _region(arena: Arena, region: str) -> tuple[int, int]:
    place = arena.header.regions[getattr(arena.core.lib, f"REGION_{region}")]
    return int(place.offset), int(place.offset + place.bytes)


def _index(arena: Arena, region: str, item: int, shape: tuple[int, ...]) -> str:
    if not shape:
        return ""
    if len(shape) == 1:
        return f"[{cache_name(arena, item) if region == 'caches' else item}]"
    first, second = divmod(item, shape[1])
    match region:
        case "cache_cpus" | "cache_stats" | "cache_sheaves":
            return f"[{first}, {cache_name(arena, second)}]"
        case "cache_nodes" | "barns":
            return f"[{cache_name(arena, first)}, {second}]"
    return f"[{first}, {second}]"


# --- what is written -------------------------------------------------------------------------------


def _fields(after: After, words: Words) -> Iterator[str]:
    for change in changes(after.arena, words):
        old, new = (_shown(after, change, value) for value in (change.old, change.new))
        yield f"{change.name}: {old} -> {new}"


def _shown(after: After, change: Change, value: Any) -> str:
    leaf = change.leaf
    assert leaf is not None
    if leaf.text:
        return repr(value)
    name = leaf.name
    if name == "word":
        return _owner(value)
    if change.name.startswith("pages["):
        if name == "flags":
            return flag_names(value) or "0"
        if name == "counters":
            frozen = ", frozen" if value >> 31 & 1 else ""
            return f"inuse {value & 0xFFFF}, objects {value >> 16 & 0x7FFF}{frozen}"
    if leaf.size == 8 and (name in _LINKS or leaf.path.endswith("pages_list")):
        return after.place(value & (1 << 56) - 1)
    return f"{value:#x}" if value > _WORD_MASK else str(value)


def _owner(word: int) -> str:
    return f"held by CPU {(word & 0xFFFF) - 1}, level {word >> 16 & 0xFF}" if word else "free"


def _bitmaps(after: After, words: Words) -> Iterator[str]:
    memory = _region(after.arena, "MEMORY")[0]
    for region, verb in _BITMAPS.items():
        begin, end = _region(after.arena, region)
        chosen = words[(words["offset"] >= begin) & (words["offset"] < end)]
        set_now, clear_now = [], []
        for offset, old, new in zip(
            *(chosen[name].tolist() for name in ("offset", "old", "new")), strict=True
        ):
            first = memory + (offset - begin) * 64
            set_now += [first + bit * 8 for bit in _bits(new & ~old)]
            clear_now += [first + bit * 8 for bit in _bits(old & ~new)]
        for granules, state in ((set_now, "0 -> 1"), (clear_now, "1 -> 0")):
            for start, length in _runs(granules, merge=verb == "owned"):
                yield (
                    f"oracle {verb}: {after.place(start)}"
                    + (f", {length} bytes" if length > 8 else "")
                    + f": {state}"
                )


def _bits(word: int) -> list[int]:
    return [bit for bit in range(32) if word >> bit & 1]


def _runs(granules: list[int], *, merge: bool) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for granule in granules:
        if merge and runs and sum(runs[-1]) == granule:
            runs[-1] = (runs[-1][0], runs[-1][1] + 8)
        else:
            runs.append((granule, 8))
    return runs


def _memory(after: After, words: Words) -> Iterator[str]:
    begin, end = _region(after.arena, "MEMORY")
    chosen = words[(words["offset"] >= begin) & (words["offset"] < end)]
    old = dict(zip(chosen["offset"].tolist(), chosen["old"].tolist(), strict=True))
    by_page: dict[int, list[int]] = {}
    for cell in dict.fromkeys(offset & ~7 for offset in chosen["offset"].tolist()):
        by_page.setdefault((cell - begin) >> 12, []).append(cell)
    buffer = after.arena.buffer
    for page, cells in by_page.items():
        for cell in cells[:_MEMORY_LINES]:
            before = int.from_bytes(_bytes(buffer, old, cell, 8), "little")
            yield f"memory: {after.place(cell)}: {_number(after, before)} -> {_number(after, after.u64(cell))}"
        if len(cells) > _MEMORY_LINES:
            yield f"memory: page {page}: {len(cells) - _MEMORY_LINES} more words of 8 bytes"


def _number(after: After, value: int) -> str:
    begin, end = _region(after.arena, "MEMORY")
    return after.place(value) if begin <= value < end else f"{value:#x}" if value else "0"


def _slots(after: After, words: Words) -> Iterator[str]:
    size = after.arena.size_bytes
    chosen = words[words["offset"] >= size]
    old = dict(zip(chosen["offset"].tolist(), chosen["old"].tolist(), strict=True))
    for cell in dict.fromkeys(offset & ~7 for offset in chosen["offset"].tolist()):
        # Half of a slot that is not there did not change; what it holds is then not known, and not needed.
        before, now = (side.get(cell, 0) | side.get(cell + 4, 0) << 32 for side in (old, after.words))
        yield f"slot {(cell - size) >> 3} of the handler: {slot_text(after, before)} -> {slot_text(after, now)}"


def slot_text(after: After, word: int) -> str:
    """Name what a slot holds."""
    return after.place(word & (1 << 48) - 1) if word else "empty"


# --- an arena as it is now -------------------------------------------------------------------------

#: region -> fields that are worth a line where they are not zero
_WORTH = {
    "CPUS": (
        *("irqs_disabled", "irq_pending", "preempt_count", "bh_count", "level", "waiting_for", "raised_list"),
        *("defer_objects", "defer_slabs", "defer_rcu_sheaves", "defer_by_rcu"),
    ),
    "ZONES": ("lock", "free_pages", "trylock_free_pages"),
    "PAGESETS": ("lock", "count"),
    "CACHE_CPUS": ("lock", "freelist", "tid", "slab", "partial"),
    "CACHE_NODES": ("list_lock", "nr_partial", "nr_slabs"),
    "CACHE_SHEAVES": ("lock", "main", "spare", "rcu_free"),
    "BARNS": ("lock", "nr_full", "nr_empty"),
    "FREELISTS": ("lock", "first", "extra"),
    "MEMCG_CPUS": ("stock", "obj"),
}
_NOT_WORTH = ("class", "evict")  # constant, or a hint


def lines(built: Any) -> list[str]:
    """Write what the lists, locks and pending work of a scenario's arena are now, a line for each structure."""
    arena = built.arena
    after = After(arena)
    found = []
    for begin, end, name, struct, stride, shape in _table(arena):
        worth = _WORTH.get(name.upper())
        if worth is None:
            continue
        shown = [leaf for leaf in leaves(struct)[1] if _is_worth(leaf, worth)]
        for item in range((end - begin) // stride):
            at = begin + item * stride
            texts = [
                f"{leaf.path.removesuffix('.word').removesuffix('.first')} {_shown(after, change, change.new)}"
                for leaf in shown
                for change in [_now(after, name, leaf, at)]
                if change.new
            ]
            if texts and _in_use(arena, name, item, shape):
                found.append(f"{name}{_index(arena, name, item, shape)}: {', '.join(texts)}")
    return found


def _is_worth(leaf: Leaf, worth: tuple[str, ...]) -> bool:
    return leaf.path.partition(".")[0].partition("[")[0] in worth and leaf.name not in _NOT_WORTH


def _now(after: After, name: str, leaf: Leaf, at: int) -> Change:
    value = _value(leaf, bytes(after.arena.buffer[at + leaf.offset : at + leaf.offset + leaf.size]))
    return Change(at + leaf.offset, name, leaf, value, value)


def _in_use(arena: Arena, region: str, item: int, shape: tuple[int, ...]) -> bool:
    """Say whether a part of a cache has anything: a cache without slabs is passed over."""
    if region not in ("cache_cpus", "cache_sheaves", "cache_nodes", "barns"):
        return True
    cache = item % shape[1] if region in ("cache_cpus", "cache_sheaves") else item // shape[1]
    return bool(arena.region("cache_nodes")["nr_slabs"][cache].any())
