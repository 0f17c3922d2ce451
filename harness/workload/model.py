# SPDX-License-Identifier: MIT
"""What a built workload consists of."""

from dataclasses import dataclass, field

from harness.workload.ops import OpArray

__all__ = ["CacheSpec", "HashMapSpec", "Notes", "Part", "Place", "Program", "Workload"]

#: What was done to make a workload: counts and names, for the run's result.
Notes = dict[str, int | float | str | list[str]]


@dataclass(frozen=True)
class CacheSpec:
    """A kmem_cache that a workload needs.

    Attributes:
        name: unique within the workload.
        size: of an object, bytes.
        align: bytes, 0 = the core's choice.
        flags: SLAB_* of arena_slab.h.
        ctor: index into the core's table of constructors, 0 = none.
    """

    name: str
    size: int
    align: int = 0
    flags: int = 0
    ctor: int = 0


@dataclass(frozen=True)
class HashMapSpec:
    """A hash map that a workload needs.

    Attributes:
        key_bytes, value_bytes: sizes.
        entries: max_entries.
        keys: numbers below this are used as keys.
        zipf: exponent of how often each is used; 0 = all alike.
    """

    key_bytes: int
    value_bytes: int
    entries: int
    keys: int
    zipf: float = 0.0


@dataclass(frozen=True)
class Workload:
    """Op arrays for all CPUs of a run.

    Attributes:
        ops: one array of shm_op per CPU; it repeats, with balanced windows.
        private_slots: slots that each CPU's array needs for itself.
        shared_slots: slots in the arena that the whole run needs.
        caches: op["cache"] is an index into this.
        handler_slots: shared slots per CPU that its handlers' programs may use.
        handler_base: the first of those, for each CPU.
        notes: what was done.
        maps: of a map op, op["cache"] is an index into this.
    """

    ops: tuple[OpArray, ...]
    private_slots: tuple[int, ...]
    shared_slots: int
    caches: tuple[CacheSpec, ...]
    handler_slots: int
    handler_base: tuple[int, ...]
    notes: Notes = field(default_factory=dict)
    maps: tuple[HashMapSpec, ...] = ()


@dataclass(frozen=True)
class Program:
    """What a handler does: ops, the private slots they need, how many one interrupt runs (0 = all)."""

    ops: OpArray
    private_slots: int
    per_interrupt: int


@dataclass(frozen=True)
class Place:
    """Where a CPU stands in a run.

    Attributes:
        cpu: its number.
        cpus: how many there are.
        shared_base: the first of its own shared slots.
        previous_base: the first shared slot of the CPU before it, whose objects it frees.
        handler_base: the first of the slots that it shares with its handlers.
    """

    cpu: int
    cpus: int
    shared_base: int
    previous_base: int
    handler_base: int


@dataclass(frozen=True)
class Part:
    """One CPU's part of a workload, before windows and interrupts."""

    ops: OpArray
    private_slots: int
    notes: Notes = field(default_factory=dict)
