# SPDX-License-Identifier: MIT
"""The caches, with the totals, columns and sort keys that slabtop(1) has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.top import words
from harness.top.tables import Column, Section
from shmalloc.layout import constants
from shmalloc.procfs import SlabRow

Key = Callable[[Mapping[str, Any]], Any]

#: Letter -> what it sorts by, and that: as slabtop's, largest first, but names from a on.
SORT_KEYS: Mapping[str, tuple[str, Key]] = {
    "a": ("active objects", lambda row: -row["active"]),
    "b": ("objects per slab", lambda row: -row["objects_per_slab"]),
    "c": ("cache size", lambda row: -row["bytes"]),
    "l": ("slabs", lambda row: -row["slabs"]),
    "v": ("active slabs", lambda row: -row["active_slabs"]),
    "n": ("name", lambda row: row["name"]),
    "o": ("objects", lambda row: -row["objects"]),
    "p": ("pages per slab", lambda row: -row["pages_per_slab"]),
    "s": ("object size", lambda row: -row["object_bytes"]),
    "u": ("use", lambda row: -row["use"]),
}
DEFAULT_SORT = "o"

_COLUMNS = (
    Column("OBJS", "objects", width=6),
    Column("ACTIVE", "active", width=6),
    Column("USE", "use", lambda use: f"{int(100 * use)}%", width=4),
    Column("OBJ SIZE", "object_bytes", words.kib),
    Column("SLABS", "slabs", width=6),
    Column("OBJ/SLAB", "objects_per_slab"),
    Column("CACHE SIZE", "bytes", lambda size: f"{size // 1024}K"),
    Column("NAME", "name", left=True),
)


def caches(slabs: Sequence[SlabRow], sort: str) -> Section:
    """Make the section of the caches. Args: sort: a key of `SORT_KEYS`."""
    rows = sorted(map(_row, slabs), key=SORT_KEYS[sort][1])
    return Section("caches", f"caches by {SORT_KEYS[sort][0]}", _COLUMNS, rows, empty="no cache")


def _row(slab: SlabRow) -> dict[str, Any]:
    return {
        "name": words.clean(slab.name),
        "objects": slab.objects,
        "active": min(slab.active, slab.objects),
        "use": words.of(min(slab.active, slab.objects), slab.objects) or 0.0,
        "object_bytes": slab.size,
        "slabs": slab.slabs,
        "active_slabs": slab.slabs,  # as in the kernel: SLUB counts no others
        "objects_per_slab": slab.per_slab,
        "pages_per_slab": slab.pages_per_slab,
        "bytes": slab.slabs * slab.pages_per_slab * constants()["SHM_PAGE_SIZE"],
    }


def totals(slabs: Sequence[SlabRow]) -> dict[str, Any]:
    """Sum up all caches: active and total objects, slabs, caches and bytes, and the sizes of objects."""
    rows = [_row(slab) for slab in slabs]
    objects, size = (
        sum(row["objects"] for row in rows),
        sum(row["objects"] * row["object_bytes"] for row in rows),
    )
    sizes = [row["object_bytes"] for row in rows]
    return {
        "objects": [sum(row["active"] for row in rows), objects],
        "slabs": [sum(row["active_slabs"] for row in rows), sum(row["slabs"] for row in rows)],
        "caches": [sum(row["objects"] > 0 for row in rows), len(rows)],
        "bytes": [sum(row["active"] * row["object_bytes"] for row in rows), size],
        "object_bytes": [min(sizes, default=0), size / objects if objects else 0.0, max(sizes, default=0)],
    }


def totals_lines(found: Mapping[str, Any]) -> list[str]:
    """Write the totals as slabtop does."""
    bytes_ = [words.kib(size) for size in found["bytes"]]
    least, average, most = map(words.kib, found["object_bytes"])
    return [
        *(
            f" Active / Total {what + ' (% used)':<20}: {active} / {total} ({_used(*found[key])})"
            for what, key, (active, total) in (
                ("Objects", "objects", found["objects"]),
                ("Slabs", "slabs", found["slabs"]),
                ("Caches", "caches", found["caches"]),
                ("Size", "bytes", bytes_),
            )
        ),
        f" Minimum / Average / Maximum Object : {least} / {average} / {most}",
    ]


def _used(active: int, total: int) -> str:
    return f"{100 * active / total if total else 0.0:.1f}%"
