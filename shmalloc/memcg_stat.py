# SPDX-License-Identifier: MIT
"""The memcgs of a live arena, as their memory.* files would say it.

Mirrors: memory.current, memory.peak, memory.max, memory.high, memory.stat (its slab lines) and memory.events.
Added: what the CPUs' stocks hold, and pending_bytes (of each memcg alone).
It reads counters while CPUs may be running: one text is no snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmalloc.memcg import MemCgroup, memcgs, stocks

if TYPE_CHECKING:
    from shmalloc.arena import Arena

__all__ = ["memcg"]

_NONE = "max"


def memcg(arena: Arena) -> str:
    """Return the tree of memcgs with usage, limits, slab statistics and events, and each CPU's stocks."""
    groups = memcgs(arena)
    if not groups:
        return "no memcg\n"
    lines: list[str] = []
    for group in sorted(groups, key=lambda each: each.path):
        lines += _group(group, [each for each in groups if _is_in(each, group)])
    names = {group.id: group.name for group in groups}
    for cpu in range(int(arena.header.geometry.nr_cpus)):
        stock = stocks(arena, cpu)
        if not stock.pages and not stock.objcg:
            continue
        pages = " ".join(f"{names.get(at, at)}={count}" for at, count in stock.pages.items()) or "-"
        objects = f"{names.get(stock.objcg, stock.objcg)}={stock.nr_bytes}" if stock.objcg else "-"
        lines.append(f"cpu {cpu} stock pages {pages} bytes {objects}")
    return "\n".join(lines) + "\n"


def _group(group: MemCgroup, subtree: list[MemCgroup]) -> list[str]:
    """Write one memcg; as in the kernel, memory.stat counts all of its subtree."""
    page = int(group.arena.core.lib.SHM_PAGE_SIZE)
    reclaimable, unreclaimable = (sum(each.slab_bytes()[kind] for each in subtree) for kind in (0, 1))
    events = " ".join(f"{name}={count}" for name, count in group.events().items())
    return [
        group.path + (" (dying)" if group.is_dying else ""),
        f"  memory.current {group.usage_bytes}",
        f"  memory.peak {group.watermark_pages * page}",
        f"  memory.max {_limit(group.max_pages, page)}",
        f"  memory.high {_limit(group.high_pages, page)}",
        f"  kernel {sum(each.kmem_pages for each in subtree) * page}",
        f"  slab_reclaimable {reclaimable}",
        f"  slab_unreclaimable {unreclaimable}",
        f"  pending_bytes {group.pending_bytes}",
        f"  memory.events {events}",
        f"  failcnt {group.failcnt}",
    ]


def _is_in(group: MemCgroup, top: MemCgroup) -> bool:
    at: MemCgroup | None = group
    while at is not None and at.id != top.id:
        at = at.parent
    return at is not None


def _limit(pages: int | None, page: int) -> str:
    return _NONE if pages is None else str(pages * page)
