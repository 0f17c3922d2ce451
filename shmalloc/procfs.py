# SPDX-License-Identifier: MIT
"""A live arena as kernel people read one: the texts of /proc and of a node's numastat.

Mirrors: mm/slab_common.c slab_show, mm/vmstat.c (frag_show, pagetypeinfo_show, zoneinfo_show_print,
vmstat), drivers/base/node.c node_read_numastat (6.18). Widths and order are the kernel's, so a parser
of the real files reads these. What an arena has no notion of (LRU lists but that of clean page cache, CMA) is
0, or left out of the per-node stats. Changed: free objects on partial lists are counted exactly, not
extrapolated from 10000 slabs.

All of it reads counters while CPUs may be running: one text is no snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shmalloc import layout
from shmalloc.audit.view import MIGRATETYPE_NAMES, ZONE_NAMES, Auditable, View, zone_type

__all__ = [
    "SlabRow",
    "buddyinfo",
    "memory_per_node",
    "node_events",
    "node_memory",
    "numastat",
    "numastat_memory",
    "pagetypeinfo",
    "slab_rows",
    "slabinfo",
    "vmstat",
    "zoneinfo",
]

_SLABINFO_HEADER = (
    "slabinfo - version: 2.1\n"
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> "
    ": tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)
_ABSENT_ZONE_STATS = (
    "nr_zone_inactive_anon",
    "nr_zone_active_anon",
    "nr_zone_inactive_file",  # the arena's page cache: _zone_stats
    "nr_zone_active_file",
    "nr_zone_unevictable",
    "nr_zone_write_pending",
    "nr_mlock",
    "nr_free_cma",
)
_NUMA_EVENTS = ("numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other")
_NODE_EVENTS = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")
_NODE_RECLAIM = ("pgsteal_kswapd", "pgsteal_direct", "pgscan_kswapd", "pgscan_direct", "pageoutrun")
_MOST_COUNTED = 100_000  # free blocks of one type and order that pagetypeinfo counts

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class SlabRow:
    """A line of slabinfo.

    Attributes: cache: its index.  name.  active, objects: of all its slabs; free objects of cpu slabs and of
        their partial lists count as active, as in the kernel.  size: of an object with its metadata, bytes.
        per_slab: objects.  pages_per_slab.  slabs.
    """

    cache: int
    name: str
    active: int
    objects: int
    size: int
    per_slab: int
    pages_per_slab: int
    slabs: int


def slab_rows(arena: Auditable) -> list[SlabRow]:
    """Return the caches, the newest first."""
    view = View.of(arena)
    free = _free_on_partial_lists(view)
    rows = []
    gone = (layout.constants()["CACHE_UNUSED"], layout.constants()["CACHE_LEAKED"])
    for cache in range(len(view.caches) - 1, -1, -1):
        record = view.caches[cache]
        if int(record["state"]) in gone:
            continue
        nodes, oo = view.cache_nodes[cache], int(record["oo"])
        order = min(oo >> 16, layout.constants()["SHM_MAX_PAGE_ORDER"])  # whatever a damaged one says
        objects = _sum(nodes["total_objects"])
        rows.append(
            SlabRow(
                cache=cache,
                name=bytes(record["name"]).decode(errors="replace"),
                active=max(objects - int(free[cache]), 0),
                objects=objects,
                size=int(record["size"]),
                per_slab=oo & 0xFFFF,
                pages_per_slab=1 << order,
                slabs=_sum(nodes["nr_slabs"]),
            )
        )
    return rows


def slabinfo(arena: Auditable) -> str:
    """Return what /proc/slabinfo would say: one line a cache, the newest first."""
    lines = [
        f"{row.name:<17} {row.active:6} {row.objects:6} {row.size:6} "
        f"{row.per_slab:4} {row.pages_per_slab:4} : tunables {0:4} {0:4} {0:4}"
        f" : slabdata {row.slabs:6} {row.slabs:6} {0:6}\n"
        for row in slab_rows(arena)
    ]
    return "".join([_SLABINFO_HEADER, *lines])


def _free_on_partial_lists(view: View) -> Counts:
    """Return the free objects of each cache's partial slabs: (caches,)."""
    wanted = layout.constants()["PG_slab"] | layout.constants()["PG_partial"]
    page = view.pages[view.page_flags() & wanted == wanted]
    cache, counters = page["slab_cache"].astype(np.int64) - 1, page["counters"].astype(np.int64)
    known = (cache >= 0) & (cache < len(view.caches))
    free = (counters >> 16 & 0x7FFF) - (counters & 0xFFFF)
    return np.bincount(cache[known], free[known], minlength=len(view.caches)).astype(np.int64)


def populated_zones(zones: NDArray[Any]) -> list[Any]:
    """Return the zones that have pages, by node and type."""
    populated = [zone for zone in zones if zone["spanned_pages"]]
    return sorted(populated, key=lambda zone: (int(zone["node"]), int(zone["type"])))


def buddyinfo(arena: Auditable) -> str:
    """Return what /proc/buddyinfo would say: free blocks of each order, a line a zone."""
    view = View.of(arena)
    lines = []
    for zone in populated_zones(view.zones):
        counts = "".join(f"{number:6} " for number in zone["free_area"]["nr_free"].tolist())
        lines.append(f"{_head(zone)} {counts}\n")
    return "".join(lines)


def pagetypeinfo(arena: Auditable) -> str:
    """Return what /proc/pagetypeinfo would say: free blocks and pageblocks of each migratetype."""
    view = View.of(arena)
    orders = layout.constants()["SHM_NR_ORDERS"]
    free, blocks = _free_by_type(view, orders), _blocks_by_type(view)
    lines = [f"Page block order: {view.pageblock_order}\nPages per block:  {1 << view.pageblock_order}\n\n"]
    lines.append(
        "".join(["Free pages count per migrate type at order  ", *(f"{o:6} " for o in range(orders))])
    )
    lines.append("\n")
    for zone in populated_zones(view.zones):
        for kind, name in enumerate(MIGRATETYPE_NAMES):
            lines.append(f"Node {zone['node']:4}, zone {zone_type(int(zone['type'])):>8}, type {name:>12} ")
            counts = free[zone["index"], kind].tolist()
            lines += [f"{'>' * (n > _MOST_COUNTED)}{min(n, _MOST_COUNTED):6} " for n in counts] + ["\n"]
    lines.append(
        f"\n{'Number of blocks type':<23}" + "".join(f"{name:>12} " for name in MIGRATETYPE_NAMES) + "\n"
    )
    for zone in populated_zones(view.zones):
        counts = "".join(f"{number:12} " for number in blocks[zone["index"]].tolist())
        lines.append(f"{_head(zone)} {counts}\n")
    return "".join(lines)


def _free_by_type(view: View, orders: int) -> Counts:
    """Count free blocks: (zones, migratetypes, orders)."""
    shape = (len(view.zones), len(MIGRATETYPE_NAMES), orders)
    pfn = np.flatnonzero(view.page_flags() & layout.constants()["PG_buddy"])
    order = np.minimum(view.pages["order"][pfn], orders - 1)
    kind = view.pageblocks["migratetype"][pfn >> view.pageblock_order] % shape[1]
    place = np.ravel_multi_index((view.zone_of(pfn), kind, order), shape)
    return np.bincount(place, minlength=int(np.prod(shape))).reshape(shape)


def _blocks_by_type(view: View) -> Counts:
    """Count pageblocks: (zones, migratetypes)."""
    shape = (len(view.zones), len(MIGRATETYPE_NAMES))
    kinds = view.pageblocks["migratetype"] % shape[1]
    place = view.pageblocks["zone"].astype(np.int64) % shape[0] * shape[1] + kinds
    return np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)


def zoneinfo(arena: Auditable) -> str:
    """Return what /proc/zoneinfo would say: watermarks, counters and pagesets of each zone."""
    view = View.of(arena)
    slab_pages = _slab_pages(view)
    parts, seen = [], set()
    for zone in populated_zones(view.zones):
        parts.append(f"{_head(zone)}\n")
        node = int(zone["node"])
        if node not in seen:
            seen.add(node)
            parts.append("  per-node stats\n")
            parts += [
                f"      {name:<12} {number}\n"
                for name, number in _node_stats(view, slab_pages, [node]).items()
            ]
        parts += _zone_levels(zone)
        parts += [f"      {name:<12} {number}\n" for name, number in _zone_stats(view, [zone]).items()]
        parts += _pagesets(view.pagesets[zone["index"]])
        hopeless = int(view.nodes["kswapd_failures"][node] >= layout.constants()["MAX_RECLAIM_RETRIES"])
        parts.append(f"  node_unreclaimable:  {hopeless}\n  start_pfn:           {zone['start_pfn']}\n")
    return "".join(parts)


def _zone_levels(zone: Any) -> list[str]:
    boost = int(zone["wmark_boost"])
    marks = zip(("min", "low", "high", "promo"), zone["wmark"], strict=True)
    levels = {
        "boost": boost,
        **{name: int(mark) + boost for name, mark in marks},
        "spanned": zone["spanned_pages"],
        "present": zone["spanned_pages"],
        "managed": zone["managed_pages"],
        "cma": 0,
    }
    lines = [f"  pages free     {zone['free_pages']}\n"]
    lines += [f"        {name:<8} {number}\n" for name, number in levels.items()]
    return [*lines, f"        protection: ({', '.join(map(str, zone['lowmem_reserve'].tolist()))})\n"]


def _pagesets(pagesets: NDArray[Any]) -> list[str]:
    lines = ["  pagesets\n"]
    for cpu, pageset in enumerate(pagesets):
        lines.append(f"    cpu: {cpu}\n")
        fields = ("count", "high", "batch", "high_min", "high_max")
        lines += [f"              {name + ':':<9} {pageset[name]}\n" for name in fields]
        lines.append("  vm stats threshold: 0\n")
    return lines


def _zone_stats(view: View, zones: list[Any]) -> dict[str, int]:
    """Sum the stats that zoneinfo has for a zone, and vmstat for all."""
    sizes = 1 << np.arange(layout.constants()["SHM_NR_ORDERS"])
    block = view.pageblock_order
    free_blocks = [int((zone["free_area"]["nr_free"] * sizes)[block:].sum()) for zone in zones]
    pagesets = view.pagesets[[int(zone["index"]) for zone in zones]]
    return {
        "nr_free_pages": sum(int(zone["free_pages"]) for zone in zones),
        "nr_free_pages_blocks": sum(free_blocks),
        **dict.fromkeys(_ABSENT_ZONE_STATS, 0),
        "nr_zone_inactive_file": sum(int(zone["nr_lru"]) for zone in zones),
        **_numa_events(pagesets),
    }


def _numa_events(pagesets: NDArray[Any]) -> dict[str, int]:
    known = pagesets.dtype.names or ()
    return {name: _sum(pagesets[name]) if name in known else 0 for name in _NUMA_EVENTS}


def _slab_pages(view: View) -> Counts:
    """Count the pages of reclaimable and of other slabs: (nodes, 2)."""
    pfn = np.flatnonzero(view.page_flags() & layout.constants()["PG_slab"])
    cache = view.pages["slab_cache"][pfn].astype(np.int64) - 1
    pfn, cache = (
        pfn[(cache >= 0) & (cache < len(view.caches))],
        cache[(cache >= 0) & (cache < len(view.caches))],
    )
    reclaimable = view.caches["flags"][cache] & layout.constants()["SLAB_RECLAIM_ACCOUNT"] != 0
    place = view.zones["node"][view.zone_of(pfn)].astype(np.int64) * 2 + ~reclaimable
    size = 1 << np.minimum(view.pages["order"][pfn], layout.constants()["SHM_MAX_PAGE_ORDER"])
    return np.bincount(place, size, minlength=2 * len(view.nodes)).astype(np.int64).reshape(-1, 2)


def _node_stats(view: View, slab_pages: Counts, nodes: list[int]) -> dict[str, int]:
    """Sum the stats that zoneinfo has for a node, and vmstat for all; all page cache is inactive."""
    reclaimable, unreclaimable = slab_pages[nodes].sum(axis=0).tolist()
    cached = _sum(view.nodes["nr_lru"][nodes])
    return {
        "nr_inactive_file": cached,
        "nr_slab_reclaimable": reclaimable,
        "nr_slab_unreclaimable": unreclaimable,
        "nr_file_pages": cached,
    }


def vmstat(arena: Auditable) -> str:
    """Return those lines of /proc/vmstat that an arena has counters for, in the kernel's order."""
    view = View.of(arena)
    zones = populated_zones(view.zones)
    stats = _zone_stats(view, zones)
    stats |= _node_stats(view, _slab_pages(view), list(range(len(view.nodes))))
    for kind, name in enumerate(ZONE_NAMES):
        mine = [int(zone["index"]) for zone in zones if zone["type"] == kind]
        stats[f"pgalloc_{name.lower()}"] = _sum(view.pagesets["pgalloc"][mine])
    stats["pgfree"] = _sum(view.pagesets["pgfree"])
    stats |= {name: _sum(view.nodes[name]) for name in _NODE_RECLAIM}
    return "".join(f"{name} {number}\n" for name, number in stats.items())


def numastat(arena: Auditable, node: int | None = None) -> str:
    """Return the NUMA counters.

    Args: node: what /sys/devices/system/node/nodeN/numastat would say; None: all nodes side by side, as
        numastat(8) prints them.
    Raises: ValueError, if there is no such node.
    """
    view = View.of(arena)
    if node is not None:
        _check_node(view, node)
    columns = [_node_events(view, number) for number in range(len(view.nodes))]
    if node is not None:
        return "".join(f"{name} {number}\n" for name, number in columns[node].items())
    lines = [" " * 16 + "".join(f"{f'node{number}':>16}" for number in range(len(columns)))]
    lines += [f"{name:<16}" + "".join(f"{column[name]:16}" for column in columns) for name in _NODE_EVENTS]
    return "\n".join(lines) + "\n"


def node_events(arena: Auditable, node: int) -> dict[str, int]:
    """Return a node's NUMA counters, by the names in its numastat. Args: node: its number, checked."""
    view = View.of(arena)
    _check_node(view, node)
    return _node_events(view, node)


def node_memory(arena: Auditable, node: int) -> dict[str, int]:
    """Return a node's memory in bytes, by the names in its meminfo. Args: node: its number, checked.

    Free is what is on buddy lists; what waits on pagesets counts as used, as in the kernel.
    """
    view = View.of(arena)
    _check_node(view, node)
    zones = view.zones[view.zones["node"] == node]
    reclaimable, unreclaimable = _slab_pages(view)[node].tolist()
    total, free = _sum(zones["managed_pages"]), _sum(zones["free_pages"])
    pages = {
        "MemTotal": total,
        "MemFree": free,
        "MemUsed": total - free,
        "Slab": reclaimable + unreclaimable,
        "SReclaimable": reclaimable,
        "SUnreclaim": unreclaimable,
    }
    return {name: number * layout.constants()["SHM_PAGE_SIZE"] for name, number in pages.items()}


def memory_per_node(arena: Auditable) -> dict[str, dict[str, int]]:
    """Return `node_memory` of each node, named node0, node1, ..."""
    return {f"node{node}": node_memory(arena, node) for node in range(len(View.of(arena).nodes))}


def numastat_memory(memory: Mapping[str, Mapping[str, int]]) -> str:
    """Return what numastat -m would print of the memory of all nodes.

    Args: memory: of each node, bytes by name, as `node_memory` returns it; the nodes are named node0, node1, ...
    """
    nodes = list(memory.values())
    heads = [*(name.replace("node", "Node ") for name in memory), "Total"]
    lines = ["Per-node system memory usage (in MBs):"]
    lines.append(" " * 20 + "".join(f"{head:>16}" for head in heads))
    lines.append(" " * 20 + "".join(f"{'-' * 15:>16}" for _ in heads))
    for name in nodes[0]:
        values = [node[name] for node in nodes]
        cells = "".join(f"{value / (1 << 20):16.2f}" for value in [*values, sum(values)])
        lines.append(f"{name:<20}{cells}")
    return "\n".join(lines) + "\n"


def _check_node(view: View, node: int) -> None:
    if not 0 <= node < len(view.nodes):
        raise ValueError(f"node = {node}: allowed is 0..{len(view.nodes) - 1}")


def _node_events(view: View, node: int) -> dict[str, int]:
    events = _numa_events(view.pagesets[view.zones["node"] == node])
    return dict(zip(_NODE_EVENTS, events.values(), strict=True))


def _head(zone: Any) -> str:
    return f"Node {zone['node']}, zone {zone_type(int(zone['type'])):>8}"


def _sum(counters: NDArray[Any]) -> int:
    return int(counters.sum(dtype=np.int64))
