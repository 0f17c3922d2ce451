# SPDX-License-Identifier: MIT
"""Replays op arrays in plain Python, op by op: the simple thing that the generators are held to."""

from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shmalloc import gfp, layout

Op = namedtuple("Op", layout.dtype("shm_op").names or ())  # type: ignore[misc]
_CODES = {value: name for name, value in layout.enumeration("shm_op_code").items() if name != "NR_OP_CODES"}
_SHARED = layout.constants()["OPF_SHARED"]
_NOFREE = layout.constants()["OPF_NOFREE"]
_KNOWN_GFP = layout.constants()["__GFP_ALL"]
_SAME = layout.constants()["OPF_SAME"]
ALLOCS = ("OP_ALLOC", "OP_CACHE_ALLOC", "OP_PAGES_ALLOC")


@dataclass(frozen=True)
class Object:
    """An object: its sort (op that made it), size or order, and who made it."""

    sort: str
    size: int
    maker: int


@dataclass
class Machine:
    """Slots and contexts of a run; every op is checked against the limits before it is done."""

    private_slots: list[int]
    shared_slots: int
    caches: list[Any] = field(default_factory=list)
    handler: bool = False
    private: dict[tuple[int, int], Object] = field(default_factory=dict)
    shared: dict[int, Object] = field(default_factory=dict)
    irqs_off: dict[int, bool] = field(default_factory=dict)
    bhs_off: dict[int, bool] = field(default_factory=dict)
    freed: list[tuple[int, Object]] = field(default_factory=list)
    skipped: int = 0

    def live(self) -> list[Object]:
        """List what is allocated now."""
        return [*self.private.values(), *self.shared.values()]

    def step(self, cpu: int, op: Any) -> None:
        """Do one op of one CPU.

        Args: cpu: whose.  op: one of ops_of(an array).
        """
        name = _CODES[op.code]
        assert -1 <= op.node < 8
        assert op.pad == 0
        assert op.pad1 == 0
        if name in ALLOCS:
            self._alloc(cpu, name, op)
        elif name == "OP_FREE":
            self._free(cpu, op)
        elif name == "OP_REALLOC":
            self._realloc(cpu, op)
        elif name == "OP_SHRINK":
            assert op.cache < len(self.caches)
            assert not self.irqs_off.get(cpu)
            assert not self.bhs_off.get(cpu)
        else:
            self._context(cpu, name)

    def assert_balanced(self) -> None:
        """Say that no CPU is left in a window."""
        assert not any(self.irqs_off.values())
        assert not any(self.bhs_off.values())

    def _context(self, cpu: int, name: str) -> None:
        if name in ("OP_IRQ_OFF", "OP_IRQ_ON"):
            assert self.irqs_off.get(cpu, False) == (name == "OP_IRQ_ON")
            self.irqs_off[cpu] = name == "OP_IRQ_OFF"
        elif name in ("OP_BH_OFF", "OP_BH_ON"):
            assert not self.irqs_off.get(cpu)  # the kernel warns if BHs are switched with irqs off
            assert self.bhs_off.get(cpu, False) == (name == "OP_BH_ON")
            self.bhs_off[cpu] = name == "OP_BH_OFF"
        else:
            assert name in ("OP_NMI", "OP_IRQ", "OP_DELAY", "OP_NOP")

    def _place(self, cpu: int, op: Any) -> tuple[dict[Any, Object], Any]:
        slot = op.slot
        if op.flags & _SHARED:
            assert slot < self.shared_slots
            return self.shared, slot
        assert slot < self.private_slots[cpu]
        return self.private, (cpu, slot)

    def _alloc(self, cpu: int, name: str, op: Any) -> None:
        slots, key = self._place(cpu, op)
        assert op.gfp & ~_KNOWN_GFP == 0
        if op.flags & _SAME:
            assert self.handler
        if key in slots and op.flags & _NOFREE:
            self.skipped += 1
            return
        if name == "OP_CACHE_ALLOC":
            assert op.cache < len(self.caches)
            assert op.size == self.caches[op.cache].size
        if name == "OP_PAGES_ALLOC":
            assert op.order <= 10
        if key in slots:
            self.freed.append((cpu, slots.pop(key)))
        slots[key] = Object(name, op.order if name == "OP_PAGES_ALLOC" else op.size, cpu)

    def _free(self, cpu: int, op: Any) -> None:
        slots, key = self._place(cpu, op)
        if key in slots:
            self.freed.append((cpu, slots.pop(key)))
        else:
            self.skipped += 1

    def _realloc(self, cpu: int, op: Any) -> None:
        slots, key = self._place(cpu, op)
        assert slots is self.private
        assert slots[key].sort == "OP_ALLOC"  # krealloc is for kmalloc's objects
        slots[key] = Object("OP_ALLOC", op.size, cpu)


def machine_of(workload: Any) -> Machine:
    """Make the machine that a workload needs."""
    return Machine(list(workload.private_slots), workload.shared_slots, list(workload.caches))


def replay_in_turn(workload: Any, rounds: int = 2) -> Machine:
    """Replay all arrays, a CPU doing one op when it is its turn, each array *rounds* times."""
    machine = machine_of(workload)
    for _ in range(rounds):
        for cpu, op in _in_turn([ops_of(array) for array in workload.ops]):
            machine.step(cpu, op)
        machine.assert_balanced()
    return machine


def ops_of(array: Any) -> list[Any]:
    """Take an op array apart into named tuples."""
    return [Op(*row) for row in array.tolist()]


def name_of(op: Any) -> str:
    """Name an op."""
    return _CODES[op.code]


def _in_turn(arrays: list[list[Any]]) -> Iterator[tuple[int, Any]]:
    for index in range(max(len(array) for array in arrays)):
        for cpu, array in enumerate(arrays):
            if index < len(array):
                yield cpu, array[index]


def names_of(ops: Any) -> list[str]:
    """Name the ops of an array."""
    return [_CODES[int(code)] for code in ops["code"]]


def may_wait(flags: int) -> bool:
    """Whether an allocation with these flags may sleep."""
    return bool(flags & gfp.parse("__GFP_DIRECT_RECLAIM"))
