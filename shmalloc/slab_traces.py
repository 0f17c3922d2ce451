# SPDX-License-Identifier: MIT
"""Who allocated and freed the live objects of caches with SLAB_STORE_USER, and what debug checks have found.

Mirrors: mm/slub.c slab_debugfs_show, process_slab (6.18). One text for all caches, each with a line of its own
above its locations. Ages are in milliseconds, as jiffies of HZ=1000. There is no stack behind a location: the
core keeps the caller's address only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shmalloc._binding import core as load_core
from shmalloc.audit.view import View, constant
from shmalloc.symbols import symbols

if TYPE_CHECKING:
    from shmalloc.arena import Arena

__all__ = ["alloc_traces", "free_traces", "slab_errors"]

_TRACK_BYTES = 32
_ALLOC, _FREE = range(2)
_NOTHING = "No data\n"


@dataclass
class _Location:
    """Objects with one caller and one waste."""

    count: int = 0
    ages: list[int] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    checked: bool = False
    cpus: set[int] = field(default_factory=set)
    nodes: set[int] = field(default_factory=set)


def alloc_traces(arena: Arena) -> str:
    """Return what the files alloc_traces would say: of each caller the number of its live objects."""
    return _traces(arena, _ALLOC)


def free_traces(arena: Arena) -> str:
    """Return what the files free_traces would say: who had freed what is live now, the time before."""
    return _traces(arena, _FREE)


def slab_errors(arena: Arena) -> str:
    """Return the reports of the debug checks, a line each, the first ones."""
    errors = arena.slab_errors
    lines = [f"{error}\n" for error in errors.list()]
    if errors.count > len(lines):
        lines.append(f"and {errors.count - len(lines)} more\n")
    return "".join(lines) or _NOTHING


def _traces(arena: Arena, item: int) -> str:
    view = View.of(arena)
    lines: list[str] = []
    for cache, row in enumerate(view.caches):
        if int(row["state"]) != constant("CACHE_LIVE") or not int(row["flags"]) & constant("SLAB_STORE_USER"):
            continue
        lines.append(f"{bytes(row['name']).decode(errors='replace')}:\n")
        lines += _lines(arena, _locations(arena, view, cache, item)) or [_NOTHING]
    return "".join(lines) or _NOTHING


def _locations(arena: Arena, view: View, cache: int, item: int) -> dict[tuple[int, int], _Location]:
    row, now = view.caches[cache], int(arena.core.lib.shm_tsc())
    end = int(row["inuse"]) + (8 if row["offset"] >= row["inuse"] else 0)
    records = bool(int(row["flags"]) & constant("SLAB_KMALLOC"))
    found: dict[tuple[int, int], _Location] = {}
    for node, offset in _live_objects(view, cache):
        track = arena.pointer("struct track", offset + end + item * _TRACK_BYTES)
        asked = (
            view.cells[offset + end + 2 * _TRACK_BYTES >> 3] & 0xFFFFFFFF if records else row["object_size"]
        )
        waste = max(0, int(row["object_size"]) - int(asked))
        each = found.setdefault((int(track.addr), waste), _Location())
        each.count += 1
        each.nodes.add(node)
        each.checked = bool(track.checked)
        if track.addr:
            each.ages.append(max(0, now - int(track.when)) * 1000 // int(view.header["tsc_hz"]))
            each.pids.add(int(track.pid))
            each.cpus.add(int(track.cpu))
    return found


def _live_objects(view: View, cache: int) -> Iterator[tuple[int, int]]:
    """Yield node and offset of each object that is on no freelist of its slab."""
    row, pages = view.caches[cache], view.pages
    wrong = constant("PG_disabled")
    slabs = (view.page_flags() & constant("PG_slab")).nonzero()[0]
    for pfn in slabs[pages["slab_cache"][slabs] == cache + 1].tolist():
        page = pages[pfn]
        flags, objects = int(page["flags"]), int(page["counters"]) >> 16 & 0x7FFF
        if flags & wrong:
            continue
        first = view.memory_offset + pfn * constant("SHM_PAGE_SIZE") + int(row["red_left_pad"])
        slots = range(first, first + objects * int(row["size"]), int(row["size"]))
        free = _freelist(view, row, int(page["freelist"]), slots)
        node = int(view.zones["node"][view.zone_of(np.array([pfn]))[0]])
        yield from ((node, offset) for offset in slots if offset not in free)


def _freelist(view: View, row: Any, at: int, slots: range) -> set[int]:
    found: set[int] = set()
    key = int(row["random"])
    while at in slots and at not in found:
        found.add(at)
        link = at + int(row["offset"])
        at = view.cells[link >> 3]
        if key:
            at ^= key ^ int.from_bytes(link.to_bytes(8, "little"), "big")
    return found


def _lines(arena: Arena, locations: dict[tuple[int, int], _Location]) -> list[str]:
    many_cpus = arena.header.geometry.nr_cpus > 1
    many_nodes = arena.header.geometry.nr_nodes > 1
    lines = []
    for (addr, waste), each in sorted(locations.items(), key=lambda item: -item[1].count):
        text = f"{each.count:7} {_name(addr, 'checked' if each.checked else 'release')}"
        if waste:
            text += f" waste={each.count * waste}/{waste}"
        text += f" age={_ages(each.ages)} pid={_span(each.pids)}"
        if many_cpus and each.cpus:
            text += f" cpus={_ranges(each.cpus)}"
        if many_nodes and each.nodes:
            text += f" nodes={_ranges(each.nodes)}"
        lines.append(text + "\n")
    return lines


def _name(addr: int, flavour: str) -> str:
    symbol = symbols(load_core(flavour).path).find(addr, returned_to=True) if addr else None
    return f"{symbol.function}+{symbol.offset:#x}" if symbol else "<not-available>"


def _ages(ages: list[int]) -> str:
    if not ages:
        return "0"
    least, most = min(ages), max(ages)
    return str(least) if least == most else f"{least}/{sum(ages) // len(ages)}/{most}"


def _span(pids: set[int]) -> str:
    if not pids:
        return "0"
    return str(min(pids)) if len(pids) == 1 else f"{min(pids)}-{max(pids)}"


def _ranges(numbers: set[int]) -> str:
    """Write numbers as the kernel writes a mask: ``0-2,5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
