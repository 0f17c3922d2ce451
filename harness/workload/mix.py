# SPDX-License-Identifier: MIT
"""The kind `mix`: random lifetimes, kernel-like sizes, kmalloc, kmem_caches and pages side by side."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.workload.model import CacheSpec, Part, Place
from harness.workload.ops import IntArray, OpArray, code_of, insert, make_ops
from harness.workload.sizes import draw_sizes
from harness.workload.spec import MixSpec
from shmalloc import gfp as gfp_flags

__all__ = ["generate_mix", "mix_caches", "random_lifetimes"]

#: Object sizes of the busiest caches in the recordings, see sizes.py.
_BUSIEST = (256, 192, 184, 24, 104, 64, 96, 1568, 4096, 576)
#: Few pages are asked for in blocks; a choice of ours, so that higher orders are met as well.
_ORDERS = (0, 1, 2, 3)
_ORDER_SHARES = (0.9, 0.05, 0.03, 0.02)
#: Slots are drawn as u**_SKEW: some are used all the time (short lives), most rarely (long lives).
_SKEW = 3.0


def mix_caches(spec: MixSpec) -> tuple[CacheSpec, ...]:
    """Return the caches of a mix: in turn plain, with a constructor, TYPESAFE_BY_RCU, and both."""
    typesafe = code_of("SLAB_TYPESAFE_BY_RCU")
    return tuple(
        CacheSpec(f"mix-{i}-{size}", size, flags=typesafe if i & 2 else 0, ctor=i & 1)
        for i in range(spec.caches)
        for size in [_BUSIEST[i % len(_BUSIEST)]]
    )


def random_lifetimes(
    rng: np.random.Generator, length: int, slots: int, skew: float = _SKEW
) -> tuple[IntArray, npt.NDArray[np.bool_], IntArray]:
    """Draw slots so that each is allocated and freed in turn.

    Args: rng: source.  length: ops.  slots: to draw from.  skew: 1 = all alike.
    Returns: three arrays of shape (length,): the slot; whether the op allocates; the index of the next op on
        the same slot, or length.
    """
    slot = np.minimum((slots * rng.random(length) ** skew).astype(np.int64), slots - 1)
    order = np.argsort(slot, kind="stable")
    in_order = slot[order]
    new = np.concatenate([[True], in_order[1:] != in_order[:-1]]) if length else np.zeros(0, np.bool_)
    start = np.maximum.accumulate(np.where(new, np.arange(length), 0))
    turn = np.empty(length, dtype=np.int64)
    turn[order] = np.arange(length) - start
    following = np.full(length, length, dtype=np.int64)
    same = np.flatnonzero(~new)
    following[order[same - 1]] = order[same]
    return slot, turn % 2 == 0, following


@dataclass(frozen=True)
class _Sorts:
    """Which allocations are of which sort: index arrays into the ops."""

    kmalloc: IntArray
    large: IntArray
    cache: IntArray
    pages: IntArray


def _draw_sorts(spec: MixSpec, allocs: IntArray, rng: np.random.Generator) -> _Sorts:
    u = rng.random(allocs.size)
    cache_share = spec.cache_share if spec.caches else 0.0
    bounds = np.cumsum([cache_share, spec.large_share, spec.pages_share])
    sort = np.searchsorted(bounds, u, side="right")
    return _Sorts(
        kmalloc=allocs[sort == 3], large=allocs[sort == 1], cache=allocs[sort == 0], pages=allocs[sort == 2]
    )


def generate_mix(spec: MixSpec, place: Place, rng: np.random.Generator) -> Part:
    """Make random lifetimes over the CPU's private slots."""
    slot, is_alloc, following = random_lifetimes(rng, spec.array_ops, spec.slots)
    ops = make_ops(spec.array_ops, np.where(is_alloc, code_of("OP_ALLOC"), code_of("OP_FREE")), slot=slot)
    allocs = np.flatnonzero(is_alloc)
    sorts = _draw_sorts(spec, allocs, rng)
    gfp = gfp_flags.parse(spec.gfp)
    zero = rng.random(allocs.size) < spec.zero_share
    ops["gfp"][allocs] = gfp
    ops["node"][allocs] = spec.node
    ops["size"][sorts.kmalloc] = _sizes(spec, sorts.kmalloc.size, rng)
    ops["size"][sorts.large] = draw_sizes(rng, sorts.large.size, "large")
    ops["code"][sorts.pages] = code_of("OP_PAGES_ALLOC")
    ops["order"][sorts.pages] = rng.choice(_ORDERS, size=sorts.pages.size, p=_ORDER_SHARES)
    ops["gfp"][sorts.pages] = gfp_flags.parse(spec.pages_gfp)
    _fill_cache_ops(spec, ops, sorts.cache, rng)
    ops["gfp"][allocs[zero]] |= gfp_flags.parse("__GFP_ZERO")
    ops = _insert_reallocs(spec, ops, sorts.kmalloc, following, rng)
    return Part(_insert_shrinks(spec, ops, rng), private_slots=spec.slots)


def _sizes(spec: MixSpec, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint32]:
    if spec.size != "kernel":
        return np.full(count, spec.size, dtype=np.uint32)
    return draw_sizes(rng, count, "kmalloc" if spec.caches and spec.cache_share else "slab")


def _fill_cache_ops(spec: MixSpec, ops: OpArray, where: IntArray, rng: np.random.Generator) -> None:
    if not spec.caches:
        return
    caches = mix_caches(spec)
    index = rng.integers(0, len(caches), size=where.size)
    ops["code"][where] = code_of("OP_CACHE_ALLOC")
    ops["cache"][where] = index
    ops["size"][where] = np.array([c.size for c in caches], dtype=np.uint32)[index]


def _insert_reallocs(
    spec: MixSpec, ops: OpArray, kmallocs: IntArray, following: IntArray, rng: np.random.Generator
) -> OpArray:
    """Resize some kmalloc objects, at a random moment between their allocation and their slot's next op."""
    chosen = kmallocs[rng.random(kmallocs.size) < spec.realloc_share]
    gap = following[chosen] - chosen
    positions = chosen + 1 + (rng.random(chosen.size) * gap).astype(np.int64)
    resize = make_ops(chosen.size, "OP_REALLOC", slot=ops["slot"][chosen], gfp=ops["gfp"][chosen])
    resize["size"] = draw_sizes(rng, chosen.size, "kmalloc")
    return insert(ops, [(positions, resize)])


def _insert_shrinks(spec: MixSpec, ops: OpArray, rng: np.random.Generator) -> OpArray:
    if not (spec.shrink_every and spec.caches):
        return ops
    positions = np.arange(spec.shrink_every, ops.size, spec.shrink_every)
    shrinks = make_ops(positions.size, "OP_SHRINK", cache=rng.integers(0, spec.caches, size=positions.size))
    return insert(ops, [(positions, shrinks)])
