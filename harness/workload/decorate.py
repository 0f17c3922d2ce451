# SPDX-License-Identifier: MIT
"""What is laid over a bare op array: remote frees, page cache, slots shared with handlers, windows, self-interrupts."""

from dataclasses import replace

import numpy as np

from harness.workload.model import Part, Place
from harness.workload.ops import (
    BoolArray,
    OpArray,
    alloc_codes,
    code_of,
    insert,
    insert_windows,
    lifetimes,
    make_ops,
)
from harness.workload.sizes import draw_sizes
from harness.workload.spec import GeneratedSpec, LocalSpec, WindowSpec, WorkloadBase
from shmalloc import gfp as gfp_flags

__all__ = ["decorate", "share_remotely"]

#: What a window replaces in an allocation's flags: whether it may wait, and for what.
_WAITING = "__GFP_DIRECT_RECLAIM|__GFP_KSWAPD_RECLAIM|__GFP_IO|__GFP_FS"


def decorate(part: Part, spec: WorkloadBase, place: Place, rng: np.random.Generator) -> Part:
    """Lay everything over a CPU's bare array that its spec asks for, in the order that keeps it sound.

    Args: part: the bare array.  spec: the workload's.  place: of the CPU.  rng: of the CPU.
    Returns: the finished part; its notes say how much was done.
    """
    notes = dict(part.notes)
    ops = part.ops
    if spec.shared_with_handlers:
        ops = _share_with_handlers(ops, spec, place, rng)
        notes["handler_shared_ops"] = ops.size - part.ops.size
    if isinstance(spec, GeneratedSpec) and spec.page_cache_every:
        ops = _read_page_cache(ops, spec)
    if isinstance(spec, GeneratedSpec) and (spec.irq_off or spec.bh_off):
        ops, rewritten = _open_windows(ops, spec)
        notes["gfp_changed_in_windows"] = rewritten
    for every, code in ((spec.nmi_every, "OP_NMI"), (spec.irq_every, "OP_IRQ")):
        if every:
            positions = np.arange(every, ops.size + 1, every)
            if not positions.size:  # a short array still gets one
                positions = np.array([ops.size])
            ops = insert(ops, [(positions, make_ops(positions.size, code))])
    return replace(part, ops=ops, notes=notes)


def share_remotely(part: Part, spec: LocalSpec, place: Place, rng: np.random.Generator) -> Part:
    """Let the next CPU free a share of the objects, and this one the same share of the previous CPU's.

    A chosen object is allocated into a shared slot of this CPU's. The op that would free it frees the like
    slot of the previous CPU instead; it may find it empty, or its own object may still be there the next time
    round.
    """
    if not spec.remote:
        return part
    ops = part.ops.copy()
    lives = lifetimes(ops)
    chosen = lives.plain & (rng.random(lives.plain.size) < spec.remote)
    where = np.flatnonzero(lives.of_op >= 0)
    where = where[chosen[lives.of_op[where]]]
    is_free = ops["code"][where] == code_of("OP_FREE")
    number = np.zeros(chosen.size, dtype=np.int64)  # by the time of the allocation, as on the other CPUs
    number[lives.of_op[where[~is_free]]] = np.arange(np.count_nonzero(~is_free))
    slot = number[lives.of_op[where]] % spec.remote_slots
    ops["slot"][where] = slot + np.where(is_free, place.previous_base, place.shared_base)
    ops["flags"][where] |= code_of("OPF_SHARED")
    return replace(part, ops=ops, notes={**part.notes, "remote_objects": int(chosen.sum())})


def _share_with_handlers(ops: OpArray, spec: WorkloadBase, place: Place, rng: np.random.Generator) -> OpArray:
    """Insert allocations and frees, half and half, on the slots that the handlers' programs use."""
    share = spec.handler_share
    count = max(2, round(ops.size * share / (1 - share)))
    is_alloc = rng.random(count) < 0.5
    shared = make_ops(count, np.where(is_alloc, code_of("OP_ALLOC"), code_of("OP_FREE")))
    shared["flags"] = code_of("OPF_SHARED")
    shared["slot"] = place.handler_base + rng.integers(0, spec.shared_with_handlers, size=count)
    allocs = int(is_alloc.sum())
    size = getattr(spec, "size", "kernel")
    shared["size"][is_alloc] = draw_sizes(rng, allocs) if size == "kernel" else size
    # A recording has windows of its own, in which an allocation must not wait.
    shared["gfp"][is_alloc] = gfp_flags.parse(spec.gfp if isinstance(spec, GeneratedSpec) else "GFP_NOWAIT")
    return insert(ops, [(np.sort(rng.integers(0, ops.size + 1, size=count)), shared)])


def _in_window(ops: OpArray, window: WindowSpec | None) -> BoolArray:
    """Say which ops are in a window; shrinking and reading wait, so they never are."""
    if window is None:
        return np.zeros(ops.size, dtype=np.bool_)
    every = min(window.every, max(2, ops.size))  # a short array still gets one
    length = min(window.length, every - 1)
    inside: BoolArray = np.arange(ops.size) % every >= every - length
    inside &= ops["code"] != code_of("OP_SHRINK")
    inside &= ops["code"] != code_of("OP_PAGE_CACHE")
    return inside


def _read_page_cache(ops: OpArray, spec: GeneratedSpec) -> OpArray:
    """Insert what fills the page cache again after reclaim."""
    positions = np.arange(spec.page_cache_every, ops.size + 1, spec.page_cache_every)
    if not positions.size:  # a short array still gets one
        positions = np.array([ops.size])
    gfp = gfp_flags.parse("GFP_HIGHUSER_MOVABLE")
    reads = make_ops(positions.size, "OP_PAGE_CACHE", size=spec.page_cache_pages, gfp=gfp)
    return insert(ops, [(positions, reads)])


def _open_windows(ops: OpArray, spec: GeneratedSpec) -> tuple[OpArray, int]:
    """Insert the windows and let allocations inside use the window's gfp; returns how many that changed."""
    waiting = gfp_flags.parse(_WAITING)
    ops = ops.copy()
    allocating = np.isin(ops["code"], [*alloc_codes(), code_of("OP_REALLOC")])
    before = ops["gfp"].copy()
    irq_off, bh_off = _in_window(ops, spec.irq_off), _in_window(ops, spec.bh_off)
    for window, inside in ((spec.bh_off, bh_off), (spec.irq_off, irq_off)):
        if window is not None:
            where = inside & allocating
            ops["gfp"][where] = (ops["gfp"][where] & ~np.uint32(waiting)) | gfp_flags.parse(window.gfp)
    return insert_windows(ops, irq_off, bh_off), int((before != ops["gfp"]).sum())
