# SPDX-License-Identifier: MIT
"""The rings of an arena as `Events`: copied by the core, which believes no torn record, and decoded here.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from shmalloc.errors import ShmallocError
from shmalloc.layout import constants, dtype
from shmalloc.objects import cache_at, cache_name
from shmalloc.symbols import symbols
from shmalloc.trace import FLAGS, NO_PFN, RECORD, Events, event_fields, event_names, sorted_by_time

if TYPE_CHECKING:
    from shmalloc.arena import Arena

Array = np.ndarray[Any, Any]

_PLAIN = set(RECORD.names or ()) - {
    "cpu",
    "ctx",
    "level",
    "arg",
    "ret",
    "pfn",
    "pending",
}  # as they lie there


def read_events(arena: Arena, cpus: Iterable[int], places: int, *, consume: bool) -> Events:
    """Copy and decode the rings of *cpus*; see `shmalloc.tracing.Tracing.read`."""
    found, lost, overwritten, pids = [], {}, {}, {}
    raw = np.zeros(places, dtype("shm_trace_event"))
    for cpu in cpus:
        number, missed = _copy(arena, cpu, raw, consume=consume)
        ring = arena.item("struct shm_trace_ring", "trace", cpu)
        if not ring.head and not ring.lost and cpu >= int(arena.header.geometry.nr_cpus):
            continue
        found.append(decoded(raw[:number], cpu, arena))
        lost[cpu] = int(ring.lost)
        overwritten[cpu] = int(ring.overwritten) + missed
        pids[cpu] = int(ring.pid)
    records = sorted_by_time(np.concatenate(found)) if found else np.zeros(0, RECORD)
    return Events(
        records=records,
        tsc_hz=int(arena.header.tsc_hz),
        caches=_caches(arena),
        pids=pids,
        lost=lost,
        overwritten=overwritten,
        symbols=_symbols(arena, records),
        pageblock_order=int(arena.header.geometry.pageblock_order),
    )


def _copy(arena: Arena, cpu: int, raw: Array, *, consume: bool) -> tuple[int, int]:
    """Copy a ring into *raw*; return how many there are, and how many came too late for."""
    ffi, lib = arena.core.ffi, arena.core.lib
    out = ffi.from_buffer("struct shm_trace_event[]", raw)
    missed = ffi.new("uint64_t *", 0)
    if consume:
        number = lib.shm_trace_consume(cpu, out, len(raw))
    else:
        cursor = ffi.new("uint64_t *", int(arena.item("struct shm_trace_ring", "trace", cpu).tail))
        number = lib.shm_trace_read(cpu, cursor, out, len(raw), missed)
    if number == -errno.EBUSY:
        raise ShmallocError(f"{arena.name}: process {arena.header.trace.consumer} is taking its events")
    if number < 0:
        raise ShmallocError(f"{arena.name}: events are not read: {os.strerror(-number)}")
    return int(number), int(missed[0])


def decoded(raw: Array, cpu: int, arena: Arena) -> Array:
    """Turn records as they lie in a ring into rows of `shmalloc.trace.RECORD`."""
    records = np.zeros(len(raw), RECORD)
    for name in _PLAIN:
        records[name] = raw[name]
    records["cpu"] = cpu
    records["ctx"], records["level"] = raw["where"] & 0xF, raw["where"] >> 4
    ids = raw["id"]
    records["arg"] = np.where(_has(ids, "kind", "class", "func"), raw["bytes_req"], 0)
    records["bytes_req"] *= records["arg"] == 0
    records["ret"] = np.where(_has(ids, "ret"), raw["node"], 0)
    records["node"][~_has(ids, "node")] = -1
    records["pending"] = np.where(_has(ids, "pending"), raw["fallback_migratetype"], 0)
    records["fallback_migratetype"][_has(ids, "pending")] = 0
    records["pfn"] = NO_PFN
    pages = _has(ids, "pfn") & (raw["ptr"] != 0)
    memory = int(arena.header.regions[arena.core.lib.REGION_MEMORY].offset)
    records["pfn"][pages] = (raw["ptr"][pages] - np.uint64(memory)) >> np.uint64(
        constants()["SHM_PAGE_SHIFT"]
    )
    return records


def _has(ids: Array, *names: str) -> Array:
    """Tell for each record whether its event has one of the fields."""
    table = np.zeros(256, bool)
    for number, fields in enumerate(event_fields()):
        table[number] = any(name in fields for name in names)
    found: Array = table[ids]
    return found


def _caches(arena: Arena) -> tuple[str, ...]:
    used = min(int(arena.header.nr_caches), int(arena.header.geometry.max_caches))
    return tuple(cache_name(arena, cache_at(arena, index)) for index in range(used))


def _symbols(arena: Arena, records: Array) -> dict[int, str]:
    """Name the call sites within the core; what an interrupt hit was not returned to."""
    table = symbols(arena.core.path)
    entry = event_names().index(("shmalloc", "handler_entry"))
    inside = (records["call_site"] != 0) & (records["flags"] & FLAGS["outside"] == 0)
    found: dict[int, str] = {}
    for returned in (False, True):
        chosen = records["call_site"][inside & ((records["id"] != entry) == returned)]
        for site in np.unique(chosen).tolist():
            found[site] = table.name(site, returned_to=returned)
    return found
