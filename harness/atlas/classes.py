# SPDX-License-Identifier: MIT
"""What each word of an arena is to the atlas: the allocators' state, what has come of a run, or neither.

Two runs of one point end with equal STATE and OUTCOME words. What is in no table here is STATE: the page memory,
the ownership bitmaps, and every field that an allocator looks at.

Imports numpy: not for CPU processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness import vocabulary
from shmalloc import _binding

if TYPE_CHECKING:
    from shmalloc.arena import Arena

__all__ = [
    "IGNORE",
    "OUTCOME",
    "STATE",
    "TABLE",
    "classes",
    "region_structs",
    "struct_classes",
    "word_classes",
]

STATE, OUTCOME, IGNORE = range(3)
WORD_BYTES = 4

#: structure -> field -> class, besides the event counters that the vocabulary knows, which are OUTCOME.
TABLE: Mapping[str, Mapping[str, int]] = {
    "shm_header": {
        "stop": OUTCOME,
        "nr_violations": OUTCOME,
        "violations": OUTCOME,
        "slab_errors": OUTCOME,
        "slab_traces": OUTCOME,
        "slab_error_log": OUTCOME,
        "slab_trace_log": OUTCOME,
        "class_usage": IGNORE,  # the lock-rule checker's memory
        "class_after": IGNORE,
        "rule_reported": IGNORE,
    },
    "shm_cpu": {
        "lock_generation": IGNORE,  # tells acquisitions apart, and nothing else
        "wait_seq": IGNORE,
        "ops_done": IGNORE,
        "op_index": IGNORE,
        "timer_ticks": OUTCOME,
    },
    "shm_level": {"ctx": IGNORE, "reason": OUTCOME, "rip": IGNORE, "rbp": IGNORE},
    "rcu_cpu": {"queued": OUTCOME, "invoked": OUTCOME},
    "rcu_domain": {"gp_since": IGNORE, "stalls": OUTCOME, "stalled_cpu": OUTCOME},
    "batched_entropy": {"made": OUTCOME},
    "shm_telemetry": {
        "counts": OUTCOME,
        "interrupts": OUTCOME,
        "node_allocs": OUTCOME,
        "latency": IGNORE,
        "lock_wait_cycles": IGNORE,
        "lock_wait_max_cycles": IGNORE,
    },
    "shm_interrupts": {"in_allocator": IGNORE, "in_slow_path": IGNORE},  # where it landed is the point itself
    "node": {"kswapd_wakeups": OUTCOME},
    "bpf_mem_cache": {"nr_refills": OUTCOME, "nr_trims": OUTCOME, "nr_reused": OUTCOME, "nr_extra": OUTCOME},
    "page_counter": {"failcnt": OUTCOME, "watermark": OUTCOME},
    "mem_cgroup": {
        "events": OUTCOME,
        "events_local": OUTCOME,
        "nr_notified": OUTCOME,
        "nr_notify_skipped": OUTCOME,
        "nr_high_work": OUTCOME,
    },
}
#: The context of the task itself; that of the levels above is left over from handlers that have returned.
_TASK_CONTEXT = ("shm_cpu", "levels", 0, "ctx")

_REGIONS: Mapping[str, str] = {
    "CPUS": "shm_cpu",
    "NODES": "node",
    "ZONES": "zone",
    "PAGESETS": "per_cpu_pages",
    "CACHES": "kmem_cache",
    "CACHE_NODES": "kmem_cache_node",
    "CACHE_CPUS": "kmem_cache_cpu",
    "CACHE_STATS": "kmem_cache_stat",
    "CACHE_SHEAVES": "slub_percpu_sheaves",
    "BARNS": "node_barn",
    "POOLS": "shm_pool",
    "FREELISTS": "pcpu_freelist_head",
    "MAPS": "shm_map",
    "BPF_CACHES": "bpf_mem_cache",
    "OBJPOOL_CPUS": "objpool_cpu",
    "MEMCGS": "mem_cgroup",
    "MEMCG_CPUS": "memcg_cpu",
    "PAGEBLOCKS": "pageblock",
    "PAGES": "page",
    "TELEMETRY": "shm_telemetry",
}
_LINE_BYTES = 64
_ON_LINES = ("CPUS", "MEMCG_CPUS", "TELEMETRY")  # each item begins on a cache line of its own


def classes(built: Any) -> NDArray[np.uint8]:
    """Return the class of each word of a scenario's arena."""
    return word_classes(built.arena)


def word_classes(arena: Arena) -> NDArray[np.uint8]:
    """Return the class of each 4-byte word of an arena, shape (size_bytes / 4,); not to be written to.

    Raises: ValueError, if a table here names a field that is not.
    """
    places = tuple(
        (*_place(arena, region), struct, stride) for region, struct, stride in region_structs(arena)
    )
    return _classes_of(int(arena.size_bytes), places)


@lru_cache(maxsize=8)
def _classes_of(size_bytes: int, places: tuple[tuple[int, int, str, int], ...]) -> NDArray[np.uint8]:
    classes = np.full(size_bytes // WORD_BYTES, STATE, np.uint8)
    header = struct_classes("shm_header")
    classes[: len(header)] = header
    for begin, length, struct, stride in places:
        item = struct_classes(struct)
        if not item.any():
            continue
        for offset in range(begin, begin + length - len(item) * WORD_BYTES + 1, stride):
            classes[offset // WORD_BYTES :][: len(item)] = item
    classes.flags.writeable = False
    return classes


def region_structs(arena: Arena) -> list[tuple[str, str, int]]:
    """List (region, structure of its items, bytes from one to the next) of the regions that hold structures."""
    ffi, found = arena.core.ffi, []
    for region, struct in _REGIONS.items():
        size = int(ffi.sizeof(f"struct {struct}"))
        found.append((region, struct, -(-size // _LINE_BYTES) * _LINE_BYTES if region in _ON_LINES else size))
    return found


def _place(arena: Arena, region: str) -> tuple[int, int]:
    place = arena.header.regions[getattr(arena.core.lib, f"REGION_{region}")]
    return int(place.offset), int(place.bytes)


@cache
def struct_classes(struct: str) -> NDArray[np.uint8]:
    """Return the class of each word of one structure.

    Raises: ValueError, if a table here names a field that it does not have.
    """
    ctype = _binding.core().ffi.typeof(f"struct {struct}")
    named = _named(struct)
    fields = dict(ctype.fields)
    unknown = [name for name in named if name not in fields]
    if unknown:
        raise ValueError(f"struct {struct} has no {', '.join(unknown)}")
    classes = np.full(-(-_binding.core().ffi.sizeof(ctype) // WORD_BYTES), STATE, np.uint8)
    for name, field in ctype.fields:
        own = _of_type(field.type)
        if name in named:  # what a structure says of itself goes before what is said of the whole
            own = np.where(own == STATE, np.uint8(named[name]), own)
        at = field.offset // WORD_BYTES
        classes[at : at + len(own)] |= own
    if struct == _TASK_CONTEXT[0]:
        _, levels, index, inner = _TASK_CONTEXT
        level = fields[levels].type.item
        at = (
            fields[levels].offset
            + index * _binding.core().ffi.sizeof(level)
            + dict(level.fields)[inner].offset
        )
        classes[at // WORD_BYTES] = STATE
    return classes


def _of_type(ctype: Any) -> NDArray[np.uint8]:
    """Return the classes of a field's words, as far as its own structure says them."""
    if ctype.kind == "struct":
        return struct_classes(ctype.cname.removeprefix("struct "))
    if ctype.kind == "array" and ctype.item.kind in ("struct", "array"):
        return np.tile(_of_type(ctype.item), ctype.length)
    return np.zeros(-(-_binding.core().ffi.sizeof(ctype) // WORD_BYTES), np.uint8)


@cache
def _named(struct: str) -> dict[str, int]:
    events = dict.fromkeys(vocabulary.load().counters.get(struct, ()), OUTCOME)
    return events | dict(TABLE.get(struct, {}))
