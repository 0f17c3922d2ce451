# SPDX-License-Identifier: MIT
"""Hash maps, preallocated pools and objpool rings of a live arena, as text.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shmalloc import designs
from shmalloc.audit.pools import region_of
from shmalloc.audit.view import Auditable, View, constant

__all__ = ["maps"]

_SHOWN_CPUS = 16
_MOST = 1 << 24


def maps(arena: Auditable) -> str:
    """Return the hash maps, then the pools with what is free on each CPU; of many CPUs the first few.

    All of it is read while CPUs may be running: a list that changes under the reader is counted as far as it
    goes.
    """
    view = View.of(arena)
    return "\n".join([*_maps(view), "", *_pools(view), *_objpool(view)]) + "\n"


def _maps(view: View) -> list[str]:
    names = designs.names()
    lines = ["map  design           entries  elements   buckets  key  value  elem"]
    for record in region_of(view, "MAPS", "shm_map"):
        if record["state"] != constant("MAP_LIVE"):
            continue
        number = int(record["design"])
        design = names[number] if number < len(names) else str(number)
        lines.append(
            f"{record['index']:3d}  {design:<15} {record['max_entries']:8d} {record['count']:9d} "
            f"{record['n_buckets']:9d} {record['key_size']:4d} {record['value_size']:6d} {record['elem_size']:5d}"
        )
    return lines


def _pools(view: View) -> list[str]:
    lines = ["pool             elements   size   pages     free  spare  free on each CPU"]
    heads = region_of(view, "FREELISTS", "pcpu_freelist_head").reshape(-1, len(view.cpus))
    for index, record in enumerate(region_of(view, "POOLS", "shm_pool")):
        area = record["area"]
        if not area["nr_blocks"]:
            continue
        free = [_length(view, int(first)) for first in heads[index]["first"]]
        lines.append(
            _line(
                f"map {index - 1}" if index else "prealloc",
                area["nr_elems"],
                area["elem_size"],
                area["nr_pages"],
            )
            + f" {sum(free):8d} {np.count_nonzero(heads[index]['extra']):6d}  {_per_cpu(free)}"
        )
    return lines


def _objpool(view: View) -> list[str]:
    head = view.header["objpool"]
    if not head["capacity"]:
        return []
    records = region_of(view, "OBJPOOL_CPUS", "objpool_cpu")
    free = [_in_ring(view, int(record["slot"])) for record in records]
    pages = int(records["nr_pages"].sum())
    state = f", taken down, {head['ref']} still out" if head["freed"] else ""
    line = _line("objpool", head["nr_objs"], head["obj_size"], pages)
    return [f"{line} {sum(free):8d} {'-':>6}  {_per_cpu(free)}; rings of {head['capacity']}{state}"]


def _line(name: str, elements: Any, size: Any, pages: Any) -> str:
    return f"{name:<15} {int(elements):9d} {int(size):6d} {int(pages):7d}"


def _per_cpu(free: list[int]) -> str:
    shown = " ".join(map(str, free[:_SHOWN_CPUS]))
    return shown if len(free) <= _SHOWN_CPUS else f"{shown} ... ({len(free)} CPUs)"


def _length(view: View, first: int) -> int:
    """Count a freelist; one that is circular, or leads nowhere, is as long as it could be followed."""
    link, count = first, 0
    while link in view.memory and count < _MOST:
        link, count = int(view.cells[link >> 3]), count + 1
    return count


def _in_ring(view: View, slot: int) -> int:
    if slot not in view.memory:
        return 0
    head, last = (int(view.cells[(slot >> 3) + word]) & 0xFFFFFFFF for word in (0, 1))
    return (last - head) & 0xFFFFFFFF
