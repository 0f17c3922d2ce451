# SPDX-License-Identifier: MIT
"""Where an arena's memory is: zones and memcgs."""

from __future__ import annotations

import numpy as np

from harness.top import words
from harness.top.look import Interval
from harness.top.tables import Column, Section
from shmalloc.audit.view import zone_type
from shmalloc.layout import constants
from shmalloc.procfs import populated_zones

_ORDERS = constants()["SHM_NR_ORDERS"]


def zones(interval: Interval) -> Section:
    """Make the section of the zones: pages free, watermarks, pages on pagesets, free blocks by order."""
    now, rows = interval.now, []
    for zone in populated_zones(now.zones):
        boost, marks = (
            int(zone["wmark_boost"]),
            dict(zip(("min", "low", "high"), zone["wmark"], strict=False)),
        )
        pageset = now.pagesets["count"][int(zone["index"]) % len(now.pagesets)]
        blocks = {f"order{at}": int(number) for at, number in enumerate(zone["free_area"]["nr_free"])}
        rows.append(
            {
                "node": int(zone["node"]),
                "zone": zone_type(int(zone["type"])),
                "managed": int(zone["managed_pages"]),
                "free": int(zone["free_pages"]),
                **{name: int(mark) + boost for name, mark in marks.items()},
                "pcp": max(0, int(pageset.sum(dtype=np.int64))),
                "deferred": max(0, int(zone["nr_deferred_free"]) - int(zone["nr_deferred_drained"])),
                **blocks,
            }
        )
    columns = (
        Column("NODE", "node"),
        Column("ZONE", "zone", left=True),
        *(
            Column(name.upper(), name, words.count)
            for name in ("managed", "free", "min", "low", "high", "pcp")
        ),
        Column("DEFERRED", "deferred", words.count),
        *(Column(f"O{at}", f"order{at}", words.count) for at in range(_ORDERS)),
    )
    return Section(
        "zones",
        "zones, in pages; free blocks by order",
        columns,
        rows,
        is_bad=lambda row: row["free"] < row["min"],
    )


def memcgs(interval: Interval) -> Section:
    """Make the section of the memory cgroups; it has no row where there are none."""
    table, no_limit = interval.now.memcgs, constants()["SHM_PAGE_COUNTER_MAX"]
    page_bytes = constants()["SHM_PAGE_SIZE"]
    live = [group for group in table if group["state"] != constants()["MEMCG_UNUSED"]]
    rows = []
    for group in live:
        memory = group["memory"]
        limits = {name: int(memory[name]) for name in ("max", "high")}
        rows.append(
            {
                "memcg": words.clean(bytes(group["name"]).decode(errors="replace")),
                "parent": int(group["parent"]),
                "state": "dying" if group["state"] == constants()["MEMCG_DYING"] else "live",
                "usage_bytes": int(memory["usage"]) * page_bytes,
                "peak_bytes": int(memory["watermark"]) * page_bytes,
                **{
                    f"{name}_bytes": None if limit >= no_limit else limit * page_bytes
                    for name, limit in limits.items()
                },
                "kernel_bytes": int(group["kmem_pages"]) * page_bytes,
                "failcnt": int(memory["failcnt"]),
            }
        )
    columns = (
        Column("MEMCG", "memcg", left=True, width=12),
        Column("STATE", "state", left=True),
        Column("USAGE", "usage_bytes", _memory),
        Column("PEAK", "peak_bytes", _memory),
        Column("MAX", "max_bytes", _memory),
        Column("HIGH", "high_bytes", _memory),
        Column("KERNEL", "kernel_bytes", _memory),
        Column("FAILCNT", "failcnt", words.count),
    )
    return Section("memcgs", "memcgs", columns, rows, "no memcg")


def _memory(size_bytes: int | None) -> str:
    return "max" if size_bytes is None else f"{size_bytes // 1024}K"
