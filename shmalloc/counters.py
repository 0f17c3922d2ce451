# SPDX-License-Identifier: MIT
"""What a CPU has counted, read from the arena without numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shmalloc.violations import CONTEXTS

if TYPE_CHECKING:
    from shmalloc.arena import Arena

KINDS = ("nmi", "irq")
_NO_EVENT = "pad"


def event_counters(arena: Arena, cpu: int) -> dict[str, int]:
    """Sum the event counters of one CPU over all caches and zones.

    Args:
        arena: any, attached.
        cpu: number of the CPU.

    Returns:
        Counts by the kernel's names (``alloc_fastpath``, ``numa_hit``, ...) and the core's own.
    """
    counts: dict[str, int] = {}
    for events in (_cache_events, _sheaf_events, _zone_events, _memcg_events, _cpu_events):
        counts.update(events(arena, cpu))
    return counts


def context_counters(arena: Arena, cpu: int, design: str | None = None) -> dict[str, dict[str, Any]]:
    """Return what each context of one CPU allocated, freed and was refused.

    Args:
        arena: any, attached.
        cpu: number of the CPU.
        design: only what this design did; None = all of them.

    Returns:
        ``{context: {"allocs": n, "frees": n, "failures": {reason: n}}}``; no reasons that never occurred.
    """
    from shmalloc import designs

    names = designs.names()
    chosen = range(len(names)) if design is None else (designs.index(design),)
    telemetry, reasons = _telemetry(arena, cpu), arena.core.names("reason")
    result = {}
    for context, name in enumerate(CONTEXTS):
        counts = [telemetry.counts[d][context] for d in chosen]
        failures = {reason: sum(int(c.failures[i]) for c in counts) for i, reason in enumerate(reasons)}
        result[name] = {
            "allocs": sum(int(c.allocs) for c in counts),
            "frees": sum(int(c.frees) for c in counts),
            "failures": {reason: count for reason, count in failures.items() if count},
        }
    return result


def interrupt_counters(arena: Arena, cpu: int) -> dict[str, dict[str, int]]:
    """Return, for each kind of interrupt of one CPU, how many were sent, handled, and where they landed.

    Args:
        arena: any, attached.
        cpu: number of the CPU.

    Returns:
        ``{"nmi" or "irq": {"sent": n, "handled": n, "in_allocator": n, "in_slow_path": n, ...}}``.
    """
    telemetry = _telemetry(arena, cpu)
    names = [name for name, _ in arena.core.ffi.typeof("struct shm_interrupts").fields]
    return {
        kind: {name: int(getattr(telemetry.interrupts[i], name)) for name in names}
        for i, kind in enumerate(KINDS)
    }


def _telemetry(arena: Arena, cpu: int) -> Any:
    return arena.item("struct shm_telemetry", "telemetry", cpu)


def _cache_events(arena: Arena, cpu: int) -> dict[str, int]:
    header, ffi = arena.header, arena.core.ffi
    names = [
        name for name, _ in ffi.typeof("struct kmem_cache_stat").fields if not name.startswith(_NO_EVENT)
    ]
    totals = dict.fromkeys(names, 0)
    max_caches = int(header.geometry.max_caches)
    for cache in range(min(int(header.nr_caches), max_caches)):
        stat = arena.item("struct kmem_cache_stat", "cache_stats", cpu * max_caches + cache)
        for name in names:
            totals[name] += int(getattr(stat, name))
    return totals


def _sheaf_events(arena: Arena, cpu: int) -> dict[str, int]:
    """Sum the events of a CPU's sheaves; all 0 in an arena without them."""
    header, lib = arena.header, arena.core.lib
    fields = [name for name, _ in arena.core.ffi.typeof("struct slub_percpu_sheaves").fields]
    names = [name for name in fields[fields.index("sheaf_flush") :] if not name.startswith(_NO_EVENT)]
    totals = dict.fromkeys(names, 0)
    max_caches = int(header.geometry.max_caches)
    caches = min(int(header.nr_caches), max_caches) if header.geometry.flags & lib.SHM_GEO_SHEAVES else 0
    for cache in range(caches):
        sheaves = arena.item("struct slub_percpu_sheaves", "cache_sheaves", cpu * max_caches + cache)
        for name in names:
            totals[name] += int(getattr(sheaves, name))
    return totals


def _zone_events(arena: Arena, cpu: int) -> dict[str, int]:
    header, ffi = arena.header, arena.core.ffi
    events = [
        name
        for name, field in ffi.typeof("struct per_cpu_pages").fields
        if field.type.kind == "primitive" and field.type.cname == "uint64_t"
    ]
    totals = dict.fromkeys(events, 0)
    for zone in range(int(header.nr_zones)):
        pageset = arena.item("struct per_cpu_pages", "pagesets", zone * int(header.geometry.nr_cpus) + cpu)
        for name in events:
            totals[name] += int(getattr(pageset, name))
    return totals


def _memcg_events(arena: Arena, cpu: int) -> dict[str, int]:
    names = [
        name for name, _ in arena.core.ffi.typeof("struct memcg_cpu").fields if name.startswith("memcg_")
    ]
    if not arena.header.geometry.max_memcgs:
        return dict.fromkeys(names, 0)
    row = arena.item("struct memcg_cpu", "memcg_cpus", cpu)
    return {name: int(getattr(row, name)) for name in names}


def _cpu_events(arena: Arena, cpu: int) -> dict[str, int]:
    telemetry = _telemetry(arena, cpu)
    fields = arena.core.ffi.typeof("struct shm_telemetry").fields
    return {
        name: int(getattr(telemetry, name))
        for name, field in fields
        if field.type.kind == "primitive" and not name.startswith(_NO_EVENT)
    }
