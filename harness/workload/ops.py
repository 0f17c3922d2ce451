# SPDX-License-Identifier: MIT
"""Building blocks of op arrays: make, insert, open and close windows, find lifetimes.

An op array is a numpy array of `struct shm_op` (arena_ops.h). Everything here works on whole arrays; nothing
loops over ops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from shmalloc import layout

__all__ = [
    "BoolArray",
    "IntArray",
    "Lifetimes",
    "OpArray",
    "alloc_codes",
    "code_of",
    "concat",
    "insert",
    "insert_windows",
    "lifetimes",
    "make_ops",
    "op_dtype",
]

OpArray = npt.NDArray[np.void]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Windows open in this order and close in the opposite one: BH first, irqs innermost.
_WINDOW_CODES = ("OP_IRQ_ON", "OP_BH_ON", "OP_BH_OFF", "OP_IRQ_OFF")


@cache
def op_dtype() -> np.dtype[np.void]:
    """Return the dtype of `struct shm_op`, as the core lays it out."""
    dtype: np.dtype[np.void] = layout.dtype("shm_op")
    return dtype


@cache
def code_of(name: str) -> int:
    """Return the value of a constant of arena_ops.h, such as OP_ALLOC or OPF_SHARED."""
    return int(layout.constants()[name])


def make_ops(length: int, code: str | npt.ArrayLike = "OP_NOP", **columns: npt.ArrayLike) -> OpArray:
    """Make an op array.

    Args: length: ops.  code: one op's name for all, or an array of codes.  columns: fields of shm_op.
    Returns: OpArray of shape (length,); node is -1 (any) where it is not given.
    """
    ops: OpArray = np.zeros(length, dtype=op_dtype())
    ops["code"] = code_of(code) if isinstance(code, str) else code
    ops["node"] = -1
    for name, values in columns.items():
        ops[name] = values
    return ops


def concat(parts: Sequence[OpArray]) -> OpArray:
    """Join op arrays end to end; no part at all gives an empty array."""
    return np.concatenate(parts) if parts else make_ops(0)


def alloc_codes() -> IntArray:
    """Return the codes that allocate into a slot."""
    return np.array([code_of(c) for c in ("OP_ALLOC", "OP_CACHE_ALLOC", "OP_PAGES_ALLOC")], dtype=np.int64)


def insert(ops: OpArray, groups: Sequence[tuple[npt.ArrayLike, OpArray]]) -> OpArray:
    """Insert groups of ops.

    Args: ops: shape (n,).  groups: pairs (positions 0..n, ops of the same length); an op goes before
        ops[position], and at equal positions the groups keep their order.
    Returns: a new OpArray.
    """
    kinds = len(groups) + 1
    keys = [np.arange(ops.size, dtype=np.int64) * kinds + len(groups)]
    keys += [np.asarray(positions, dtype=np.int64) * kinds + i for i, (positions, _) in enumerate(groups)]
    joined = concat([ops, *(new for _, new in groups)])
    return joined[np.argsort(np.concatenate(keys), kind="stable")]


def insert_windows(ops: OpArray, irq_off: BoolArray, bh_off: BoolArray) -> OpArray:
    """Wrap the ops that are to run with irqs or BHs off in windows.

    Windows nest as in the kernel: BHs are switched while irqs are on only. The array begins and ends with
    both on, so it is balanced however often it repeats.

    Args: ops: shape (n,).  irq_off, bh_off: shape (n,), the wanted state of each op.
    Returns: a new OpArray with OP_{IRQ,BH}_{OFF,ON} inserted.
    """
    edge = np.zeros(1, dtype=np.bool_)
    irq_was, irq_is = np.concatenate([edge, irq_off]), np.concatenate([irq_off, edge])
    bh_was, bh_is = np.concatenate([edge, bh_off]), np.concatenate([bh_off, edge])
    bh_changes = bh_was != bh_is
    toggles = (
        irq_was & (~irq_is | bh_changes),
        bh_was & ~bh_is,
        bh_is & ~bh_was,
        irq_is & (~irq_was | bh_changes),
    )
    groups = []
    for name, where in zip(_WINDOW_CODES, toggles, strict=True):
        positions = np.flatnonzero(where)
        groups.append((positions, make_ops(positions.size, name)))
    return insert(ops, groups)


@dataclass(frozen=True)
class Lifetimes:
    """Which ops of an array belong to the same object; ops outside any lifetime carry -1.

    Attributes:
        of_op: shape (n,), lifetime of each op.
        plain: shape (lifetimes,), the object is allocated and freed within the array, and nothing else is
            done to it between.
    """

    of_op: IntArray
    plain: BoolArray


def lifetimes(ops: OpArray) -> Lifetimes:
    """Find the objects' lifetimes in an op array that uses private slots only.

    Args: ops: shape (n,).
    Returns: Lifetimes, numbered by slot and then by time.
    """
    is_alloc = np.isin(ops["code"], alloc_codes())
    is_free = ops["code"] == code_of("OP_FREE")
    is_realloc = ops["code"] == code_of("OP_REALLOC")
    touching = np.flatnonzero(is_alloc | is_free | is_realloc)
    order = touching[np.argsort(ops["slot"][touching], kind="stable")]
    number = np.cumsum(is_alloc[order]) - 1
    count = int(number[-1]) + 1 if number.size else 0
    first_slot = ops["slot"][order[is_alloc[order]]]
    same_slot = (
        (number >= 0) & (first_slot[np.maximum(number, 0)] == ops["slot"][order]) if count else number >= 0
    )
    number = np.where(same_slot, number, -1)
    of_op = np.full(ops.size, -1, dtype=np.int64)
    of_op[order] = number
    is_freed = _count_in(of_op, is_free, count) == 1
    return Lifetimes(of_op, is_freed & (_count_in(of_op, is_realloc, count) == 0))


def _count_in(of_op: IntArray, which: BoolArray, count: int) -> npt.NDArray[Any]:
    """Count the ops of a sort in each lifetime."""
    chosen = of_op[which & (of_op >= 0)]
    return np.bincount(chosen, minlength=count)
