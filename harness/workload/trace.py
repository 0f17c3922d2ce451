# SPDX-License-Identifier: MIT
"""Turn a recorded kernel trace into op arrays.

What becomes of the recording:

- *CPUs.* The recorded CPUs, densely numbered, are dealt to the run's by modulo. If the run has more CPUs than
  the recording, the recording is played several times side by side, each time with objects of its own.
- *Order.* A CPU keeps its own order. Between CPUs there is none: each runs at its own speed, over and over. A
  free on another CPU may come before its allocation; it then finds an empty slot and is skipped, and the
  object stays until its slot is allocated again, which frees it, or until the run drains its slots. So no
  more objects live at once than there are slots.
- *Objects* are paired by slot (address or page), not by kind: what a kmem_cache gave may be freed by kfree.
  An allocation of a live slot frees first: the recorder did not see that free (RCU, a worker). An object all
  of whose events are on one CPU has a private slot, any other a shared one.
- *Dropped:* frees of NULL, and frees whose allocation is not in the recording. Also allocations that returned
  NULL. kmalloc(0) is replayed.
- *gfp bits* are those of Linux 6.18, as are ours. Bits that mean nothing here are cleared, and counted.
- *Contexts.* Events with irqs off, in hard irq or in NMI run with irqs off, events with BHs off or in softirq
  with BHs off. Successive events of a CPU in the same context share one window.
- *Caches* are created from the recorded names, with the largest size seen. Merged caches have one name. What
  came from a cache without a name, or from one of no possible size, is asked of kmalloc.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.workload.model import CacheSpec, Notes, Part
from harness.workload.ops import IntArray, OpArray, code_of, insert_windows, make_ops
from harness.workload.spec import TraceSpec
from harness.workload.strict import MAX_SIZE_BYTES
from harness.workload.tracefile import (
    KIND_CACHE,
    KIND_KMALLOC,
    KIND_PAGES,
    PAGE_SIZE_BYTES,
    Trace,
    read_trace,
)

__all__ = ["TraceWorkload", "generate_trace"]

CTX_IRQS_OFF, CTX_HARD_IRQ, CTX_SOFT_IRQ, CTX_NMI, CTX_BH_OFF = 1, 8, 16, 64, 128
_CORE_NAMES = re.compile(r"(dma-)?kmalloc(-|$)")


@dataclass(frozen=True)
class TraceWorkload:
    """A trace as op arrays: the CPUs' parts, the shared slots, the caches, and what was done to it."""

    parts: tuple[Part, ...]
    shared_slots: int
    caches: tuple[CacheSpec, ...]
    notes: Notes


@dataclass(frozen=True)
class _Events:
    """The events that are replayed, with their ops and objects.

    Attributes:
        ops: shape (events,); slots are not yet filled in.
        cpu: shape (events,), recorded CPU, dense.
        slot: shape (events,), recorded slot.
        object: shape (events,); an object and those that follow it in its slot with an unseen free between
            are one.
        ctx: shape (events,).
        cpus: recorded CPUs.
    """

    ops: OpArray
    cpu: IntArray
    slot: IntArray
    object: IntArray
    ctx: IntArray
    cpus: int


def generate_trace(spec: TraceSpec, cpus: int, base_dir: Path) -> TraceWorkload:
    """Read a trace and deal it to the CPUs of a run.

    Args: spec: of the workload.  cpus: of the run.  base_dir: folder that spec.file is relative to.
    Raises: TraceError.
    """
    trace = read_trace(base_dir / spec.file, spec.events)
    notes: Notes = {}
    caches, cache_index = _caches(trace, notes)
    events = _select(trace, _make_ops(trace, caches, cache_index, notes), notes)
    parts: list[Part] = []
    shared_slots = cross_cpu = 0
    for first in range(0, cpus, events.cpus):
        group = min(events.cpus, cpus - first)
        dealt, shared, crossing = _deal(events, group, shared_slots)
        parts += dealt
        shared_slots += shared
        cross_cpu += crossing
    notes |= {
        "recorded_cpus": events.cpus,
        "instances": -(-cpus // events.cpus),
        "shared_slots": shared_slots,
    }
    notes |= {"cross_cpu_frees": cross_cpu, "remapped_cpus": max(0, events.cpus - cpus)}
    return TraceWorkload(tuple(parts), shared_slots, caches, notes)


def _caches(trace: Trace, notes: Notes) -> tuple[tuple[CacheSpec, ...], IntArray]:
    """Make the caches that are allocated from; returns them and, per recorded cache, its index or -1."""
    index = np.full(max(1, len(trace.cache_names)), -1, dtype=np.int64)
    used = (trace.op == 0) & (trace.kind == KIND_CACHE)
    largest = np.zeros(index.size, dtype=np.int64)
    np.maximum.at(largest, trace.cache[used], trace.size_alloc[used])
    caches: list[CacheSpec] = []
    for recorded in np.unique(trace.cache[used]):
        if trace.cache_names[recorded] and 0 < largest[recorded] <= MAX_SIZE_BYTES:
            index[recorded] = len(caches)
            caches.append(CacheSpec(_cache_name(trace.cache_names[recorded], caches), int(largest[recorded])))
    notes["caches"] = len(caches)
    notes["cache_allocs_by_kmalloc"] = int((index[trace.cache[used]] < 0).sum())
    return tuple(caches), index


def _cache_name(recorded: str, taken: list[CacheSpec]) -> str:
    """Make a name that fits the core's table, is not one of the core's own, and is unique."""
    limit = code_of("SHM_CACHE_NAME") - 1
    text = re.sub(r"[^!-~]", "_", recorded)
    text = (f"trace-{text}" if _CORE_NAMES.match(text) else text)[:limit]
    names = {cache.name for cache in taken}
    number, name = 1, text
    while name in names:
        number += 1
        name = f"{text[: limit - len(str(number)) - 1]}-{number}"
    return name


def _make_ops(trace: Trace, caches: tuple[CacheSpec, ...], cache_index: IntArray, notes: Notes) -> OpArray:
    """Make one op for each event; slots are filled in later."""
    is_alloc = trace.op == 0
    kmalloc, pages = trace.kind == KIND_KMALLOC, trace.kind == KIND_PAGES
    cache = np.where(pages | kmalloc, -1, cache_index[np.where(pages, 0, trace.cache)])
    from_cache = is_alloc & (cache >= 0)
    ops = make_ops(trace.op.size, np.where(is_alloc, code_of("OP_ALLOC"), code_of("OP_FREE")))
    ops["size"][is_alloc] = np.where(kmalloc, trace.size_req, np.maximum(trace.size_alloc, trace.size_req))[
        is_alloc
    ]
    ops["code"][from_cache] = code_of("OP_CACHE_ALLOC")
    ops["cache"][from_cache] = cache[from_cache]
    ops["size"][from_cache] = np.array([c.size for c in caches] or [0])[cache[from_cache]]
    blocks = is_alloc & pages
    ops["code"][blocks] = code_of("OP_PAGES_ALLOC")
    ops["order"][blocks] = np.log2(trace.size_req[blocks] // PAGE_SIZE_BYTES).astype(np.uint8)
    ops["size"][blocks] = 0
    known = code_of("__GFP_ALL")
    ops["gfp"][is_alloc] = trace.gfp_flags[is_alloc] & known
    ops["node"][is_alloc] = np.where(trace.node < 0, -1, trace.node % code_of("SHM_MAX_NODES"))[is_alloc]
    notes["gfp_bits_dropped"] = int((is_alloc & (trace.gfp_flags & ~known != 0)).sum())
    return ops


def _select(trace: Trace, ops: OpArray, notes: Notes) -> _Events:
    """Drop what has no object, and find out which events belong to the same one."""
    is_alloc = trace.op == 0
    zero_size = is_alloc & (trace.slot < 0) & (trace.kind == KIND_KMALLOC) & (trace.size_req == 0)
    failed = is_alloc & (trace.slot < 0) & ~zero_size
    null = ~is_alloc & (trace.slot < 0)
    unmatched = ~is_alloc & ~null & (trace.match < 0)
    kept = np.flatnonzero(~(failed | null | unmatched))
    slot = trace.slot[kept]  # all kmalloc(0) of a CPU share slot -1, which is then private to it
    recorded_cpus, cpu = np.unique(trace.cpu, return_inverse=True)
    of_object, unseen, stale = _objects(is_alloc[kept], slot, trace.match[kept], kept)
    useful = ~stale
    kept = kept[useful]
    notes |= {
        "events": int(trace.op.size),
        "kmalloc_allocs": int((is_alloc & (trace.kind == KIND_KMALLOC))[kept].sum()),
        "cache_allocs": int((is_alloc & (trace.kind == KIND_CACHE))[kept].sum()),
        "page_allocs": int((is_alloc & (trace.kind == KIND_PAGES))[kept].sum()),
        "frees": int((~is_alloc)[kept].sum()),
        "dropped_null_frees": int(null.sum()),
        "dropped_unmatched_frees": int(unmatched.sum() + stale.sum()),
        "dropped_failed_allocs": int(failed.sum()),
        "unseen_frees": unseen,
    }
    return _Events(ops[kept], cpu[kept], slot[useful], of_object[useful], trace.ctx[kept], recorded_cpus.size)


def _objects(
    is_alloc: np.ndarray, slot: IntArray, match: IntArray, event: IntArray
) -> tuple[IntArray, int, np.ndarray]:
    """Number the objects.

    Args: all of shape (n,), in time order.  event: index in the trace, what match refers to.
    Returns: the object of each event; how many frees were not seen; which frees are stale (another allocation
        of the slot came between, so they free nothing).
    """
    order = np.argsort(slot, kind="stable")
    alloc, place, when = is_alloc[order], slot[order], event[order]
    here = np.arange(order.size)
    start = np.searchsorted(place, place)  # of the slot's events
    last = np.maximum.accumulate(np.where(alloc, here, -1))
    stale = ~alloc & ((last < start) | (match[order] != when[last]))
    frees = np.cumsum(~alloc & ~stale)
    before = np.concatenate([[-1], last[:-1]])[: order.size]  # the allocation before this event
    follows = alloc & (before >= start) & (frees == frees[before])  # a live one, that is
    number, stale_in_time = np.empty(order.size, dtype=np.int64), np.empty(order.size, dtype=np.bool_)
    number[order] = np.cumsum(alloc & ~follows) - 1
    stale_in_time[order] = stale
    return number, int((follows & (place >= 0)).sum()), stale_in_time


def _deal(events: _Events, cpus: int, shared_base: int) -> tuple[list[Part], int, int]:
    """Deal the events to *cpus* CPUs of the run.

    Returns: their parts; how many shared slots they use, from shared_base on; how many frees are of objects
        of another CPU.
    """
    cpu = events.cpu % cpus
    is_free = events.ops["code"] == code_of("OP_FREE")
    count = int(events.object.max()) + 1 if events.object.size else 0
    lowest = np.full(count, cpus, dtype=np.int64)
    highest = np.full(count, -1, dtype=np.int64)
    np.minimum.at(lowest, events.object, cpu)
    np.maximum.at(highest, events.object, cpu)
    shared = (lowest != highest)[events.object] & (events.slot >= 0)
    ops = events.ops.copy()
    used, rank = np.unique(events.slot[shared], return_inverse=True)
    ops["slot"][shared] = shared_base + rank
    ops["flags"][shared] |= code_of("OPF_SHARED")
    parts = []
    for number in range(cpus):
        mine = cpu == number
        slots, rank = np.unique(events.slot[mine & ~shared], return_inverse=True)
        ops["slot"][mine & ~shared] = rank
        parts.append(_part(ops[mine], events.ctx[mine], slots.size))
    crossing = _crossings(events, cpu, is_free)
    return parts, int(used.size), crossing


def _crossings(events: _Events, cpu: IntArray, is_free: np.ndarray) -> int:
    """Count the frees on another CPU than that of the allocation before them in their slot."""
    order = np.argsort(events.slot, kind="stable")
    frees = np.flatnonzero(is_free[order])
    return int((cpu[order[frees]] != cpu[order[frees - 1]]).sum())


def _part(ops: OpArray, ctx: IntArray, private_slots: int) -> Part:
    """Finish one CPU's array: windows for its contexts."""
    if not ops.size:
        return Part(make_ops(1, "OP_DELAY", size=1000), 0, {"idle": 1})
    irq_off = ctx & (CTX_IRQS_OFF | CTX_HARD_IRQ | CTX_NMI) != 0
    bh_off = ctx & (CTX_SOFT_IRQ | CTX_BH_OFF) != 0
    notes: Notes = {"irq_off_ops": int(irq_off.sum()), "bh_off_ops": int(bh_off.sum())}
    return Part(insert_windows(ops, irq_off, bh_off), private_slots, notes)
