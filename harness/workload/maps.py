# SPDX-License-Identifier: MIT
"""The kind `map`: random updates, lookups and deletes of a hash map, by tasks and by handlers."""

from __future__ import annotations

import numpy as np

from harness.workload.model import HashMapSpec, Part, Place
from harness.workload.ops import IntArray, OpArray, code_of, make_ops
from harness.workload.spec import MapSpec

__all__ = ["draw_keys", "generate_map", "make_map_ops", "workload_maps"]


def workload_maps(spec: MapSpec) -> tuple[HashMapSpec, ...]:
    """Return the one map of a workload."""
    return (
        HashMapSpec(
            key_bytes=spec.key_size,
            value_bytes=spec.value_size,
            entries=spec.entries,
            keys=spec.key_space,
            zipf=spec.zipf if spec.keys == "zipf" else 0.0,
        ),
    )


def draw_keys(made: HashMapSpec, count: int, rng: np.random.Generator) -> IntArray:
    """Draw keys of a map.

    Args: made: the map.  count: keys.  rng: source.
    Returns: int64, shape (count,), below made.keys; key 0 is the most frequent if they are skewed.
    """
    if not made.zipf:
        uniform: IntArray = rng.integers(0, made.keys, size=count)
        return uniform
    weights = np.arange(1, made.keys + 1, dtype=np.float64) ** -made.zipf
    bounds = np.cumsum(weights)
    skewed: IntArray = np.searchsorted(bounds, rng.random(count) * bounds[-1], side="right").astype(np.int64)
    return skewed


def make_map_ops(
    made: HashMapSpec, count: int, shares: tuple[float, float], rng: np.random.Generator
) -> OpArray:
    """Make random ops on the first map.

    Args: shares: of updates and of deletes; the rest are lookups.
    """
    update, delete = shares
    kinds = np.array([code_of(f"OP_MAP_{name}") for name in ("UPDATE", "DELETE", "LOOKUP")])
    drawn = np.searchsorted([update, update + delete], rng.random(count), side="right")
    return make_ops(count, kinds[drawn], slot=draw_keys(made, count, rng))


def generate_map(spec: MapSpec, place: Place, rng: np.random.Generator) -> Part:
    """Make one CPU's ops; all CPUs work on all keys."""
    ops = make_map_ops(workload_maps(spec)[0], spec.array_ops, (spec.update, spec.delete), rng)
    return Part(ops, private_slots=0)
