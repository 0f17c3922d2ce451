# SPDX-License-Identifier: MIT
"""The config table `memcg`: the memcgs that a run's CPUs work in, and which requests are charged to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.workload.ops import OpArray, alloc_codes, code_of
from shmalloc.gfp import parse

if TYPE_CHECKING:
    from harness.config import Config

TOP = "run"


def tree(config: Config) -> list[tuple[str, int, int, int]]:
    """Return the memcgs in the order of their making: name, id of the parent, max and high in bytes, -1 = none.

    The top one has the limits; below it each group is a chain.
    """
    spec = config.memcg
    if spec is None:
        return []
    unlimited = -1
    found = [(TOP, 0, spec.max or unlimited, spec.high or unlimited)]
    for group in range(spec.groups):
        parent = 1
        for level in range(spec.depth):
            found.append((f"g{group}.{level}" if level else f"g{group}", parent, unlimited, unlimited))
            parent = len(found)
    return found


def place(config: Config, cpu: int) -> dict[str, Any]:
    """Say to one CPU what it makes, what it enters, and whether its interrupts are charged."""
    spec = config.memcg
    if spec is None:
        return {"create": [], "enter": 0, "interrupts": 0}
    leaf = 1 + (cpu % spec.groups + 1) * spec.depth
    return {
        "create": [] if cpu else tree(config),
        "enter": leaf,
        "interrupts": leaf if spec.interrupts else 0,
    }


def accounted(ops: OpArray, config: Config, cpu: int) -> OpArray:
    """Return ops of which a share asks to be charged (__GFP_ACCOUNT)."""
    if config.memcg is None:
        return ops
    codes = [*alloc_codes(), code_of("OP_BULK_ALLOC")]
    rng = np.random.default_rng([config.seed, cpu])
    chosen = np.isin(ops["code"], codes) & (rng.random(ops.size) < config.memcg.account)
    made = ops.copy()
    made["gfp"][chosen] |= parse("__GFP_ACCOUNT")
    return made
