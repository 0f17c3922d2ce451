# SPDX-License-Identifier: MIT
"""One generator per kind of workload: the bare op array of one CPU, before windows and interrupts.

Arrays repeat. They may leave slots filled at their end: an allocation into a taken slot frees it first.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.workload.maps import generate_map
from harness.workload.mix import generate_mix
from harness.workload.model import Part, Place
from harness.workload.ops import IntArray, code_of, insert, make_ops
from harness.workload.sizes import draw_sizes
from harness.workload.spec import (
    AnyWorkload,
    BatchSpec,
    BurstSpec,
    MapSpec,
    MixSpec,
    PairSpec,
    ProducerConsumerSpec,
    WaveSpec,
)
from shmalloc import gfp as gfp_flags

__all__ = [
    "generate",
    "generate_batch",
    "generate_burst",
    "generate_pair",
    "generate_producer_consumer",
    "generate_wave",
]


def generate(spec: AnyWorkload, place: Place, rng: np.random.Generator) -> Part:
    """Make one CPU's op array for any kind but `trace`.

    Args: spec: the workload's.  place: which CPU, and where its shared slots are.  rng: of this CPU.
    Returns: the part of the workload that this CPU plays.
    """
    make: Callable[[Any, Place, np.random.Generator], Part] = _GENERATORS[type(spec)]
    return make(spec, place, rng)


def _sizes(size: int | str, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint32]:
    if size == "kernel":
        return draw_sizes(rng, count)
    return np.full(count, size, dtype=np.uint32)


def generate_pair(spec: PairSpec, place: Place, rng: np.random.Generator) -> Part:
    """Allocate and free one object in turn."""
    pairs = max(1, spec.array_ops // 2)
    ops = make_ops(2 * pairs, "OP_FREE")
    ops["code"][::2] = code_of("OP_ALLOC")
    ops["size"][::2] = _sizes(spec.size, pairs, rng)
    ops["gfp"][::2] = gfp_flags.parse(spec.gfp)
    ops["node"][::2] = spec.node
    return Part(ops, private_slots=1)


def generate_batch(spec: BatchSpec, place: Place, rng: np.random.Generator) -> Part:
    """Allocate `count` objects, free as many, in rounds."""
    rounds = max(1, spec.array_ops // (2 * spec.count))
    order = np.arange(spec.count)
    free_order = order[::-1] if spec.order == "lifo" else order
    sizes = _sizes(spec.size, rounds * spec.count, rng).reshape(rounds, spec.count)
    return _rounds(spec, sizes, np.tile(free_order, (rounds, 1)))


def generate_burst(spec: BurstSpec, place: Place, rng: np.random.Generator) -> Part:
    """Allocate `count` objects of one size, free them in random order, in rounds of one size each."""
    rounds = max(1, spec.array_ops // (2 * spec.count))
    sizes = np.repeat(_sizes(spec.size, rounds, rng), spec.count).reshape(rounds, spec.count)
    free_order = rng.permuted(np.tile(np.arange(spec.count), (rounds, 1)), axis=1)
    return _rounds(spec, sizes, free_order)


def _rounds(
    spec: BatchSpec | BurstSpec, sizes: npt.NDArray[np.uint32], free_order: npt.NDArray[np.int64]
) -> Part:
    """Lay out rounds of allocations and frees; both arrays have the shape (rounds, count)."""
    rounds, count = sizes.shape
    ops = make_ops(rounds * 2 * count, "OP_FREE")
    table = ops.reshape(rounds, 2, count)
    table["code"][:, 0] = code_of("OP_ALLOC")
    table["size"][:, 0] = sizes
    table["gfp"][:, 0] = gfp_flags.parse(spec.gfp)
    table["node"][:, 0] = spec.node
    table["slot"][:, 0] = np.arange(count)
    table["slot"][:, 1] = free_order
    return Part(ops, private_slots=count)


def generate_wave(spec: WaveSpec, place: Place, rng: np.random.Generator) -> Part:
    """Replace random live objects, while their number follows a wave from trough to trough."""
    ticks = np.arange(spec.array_ops)
    height = 0.5 - 0.5 * np.cos(2 * np.pi * spec.waves * ticks / spec.array_ops)
    level = np.maximum(1, np.rint(spec.slots * (spec.low + (1 - spec.low) * height)).astype(np.int64))
    before = np.concatenate([[0], level[:-1]])
    replaced = make_ops(ticks.size, "OP_ALLOC", slot=(rng.random(ticks.size) * level).astype(np.int64))
    risen_at, risen = _ranges(before, level)
    fallen_at, fallen = _ranges(level, before)
    groups = [
        (risen_at, make_ops(risen.size, "OP_ALLOC", slot=risen)),
        (fallen_at, make_ops(fallen.size, "OP_FREE", slot=fallen)),
    ]
    ops = insert(replaced, groups)
    allocs = ops["code"] == code_of("OP_ALLOC")
    ops["size"][allocs] = _sizes(spec.size, int(allocs.sum()), rng)
    ops["gfp"][allocs] = gfp_flags.parse(spec.gfp)
    ops["node"][allocs] = spec.node
    return Part(ops, private_slots=spec.slots)


def _ranges(first: IntArray, end: IntArray) -> tuple[IntArray, IntArray]:
    """List the numbers first[i] .. end[i] - 1 for each i, and the i that each belongs to."""
    lengths = np.maximum(end - first, 0)
    at = np.repeat(np.arange(lengths.size), lengths)
    offset = np.arange(at.size) - (np.cumsum(lengths) - lengths)[at]
    return at, first[at] + offset


def generate_producer_consumer(spec: ProducerConsumerSpec, place: Place, rng: np.random.Generator) -> Part:
    """Fill this CPU's queue, empty the previous CPU's, `count` slots at a time."""
    total = spec.slots * max(1, spec.array_ops // (2 * spec.slots))
    produced = make_ops(total, "OP_ALLOC", flags=code_of("OPF_SHARED") | code_of("OPF_NOFREE"))
    produced["size"] = _sizes(spec.size, total, rng)
    produced["gfp"] = gfp_flags.parse(spec.gfp)
    produced["node"] = spec.node
    consumed = make_ops(total, "OP_FREE", flags=code_of("OPF_SHARED"))
    queue = np.arange(total) % spec.slots
    produced["slot"] = place.shared_base + queue
    consumed["slot"] = place.previous_base + queue
    batch = np.arange(total) // spec.count
    order = np.argsort(np.concatenate([2 * batch, 2 * batch + 1]), kind="stable")
    return Part(np.concatenate([produced, consumed])[order], private_slots=0)


_GENERATORS: dict[type, Callable[..., Part]] = {
    PairSpec: generate_pair,
    BatchSpec: generate_batch,
    BurstSpec: generate_burst,
    WaveSpec: generate_wave,
    MixSpec: generate_mix,
    MapSpec: generate_map,
    ProducerConsumerSpec: generate_producer_consumer,
}
