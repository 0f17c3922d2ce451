# SPDX-License-Identifier: MIT
"""Which steps of a trace access the arena, and where: the accesses that other CPUs and interrupts can see.

What is on the stack and what is the process's own is not in the arena, and so no access here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.atlas.disassembly import REGISTERS, RIP, Instruction, Memory, disassembly
from harness.atlas.inlining import inlines
from harness.atlas.traces import Image, Steps, Traced, TraceError

__all__ = ["ACCESS", "aba_window", "shared"]

ACCESS = np.dtype(
    [("index", "u4"), ("offset", "u8"), ("size", "u4"), ("reads", "?"), ("writes", "?"), ("locked", "?")]
)

_RAX = REGISTERS.index("rax")
_MAX_OBJECT_BYTES = 8192
_NOTHING = RIP + 1  # column of zeros: an operand without base or index
_Array = np.ndarray[Any, Any]


def shared(image: Image, trace: Traced, start: int, end: int) -> _Array:
    """Find the accesses to the memory from start to end, which is where the arena is mapped.

    Returns: structured array, one row for each access in the order of the steps (two for an instruction that
        copies within the arena): index of the step, offset from start, size in bytes, reads, writes, locked.
    """
    steps = Steps.of(image, trace)
    registers = _registers(steps, trace, image)
    found = []
    for place in range(max((len(one.memory) for one in steps.instructions), default=0)):
        addresses, operands = _addresses(steps, registers, trace.fs_base, place)
        inside = (addresses >= start) & (addresses < end) & operands["accesses"]
        rows = np.zeros(int(inside.sum()), dtype=ACCESS)
        rows["index"] = np.flatnonzero(inside)
        rows["offset"] = addresses[inside] - np.uint64(start)
        for name in ("size", "reads", "writes", "locked"):
            rows[name] = operands[name][inside]
        found.append(rows)
    accesses = np.concatenate(found) if found else np.zeros(0, dtype=ACCESS)
    return accesses[np.argsort(accesses["index"], kind="stable")]


def _registers(steps: Steps, trace: Traced, image: Image) -> _Array:
    """Return the registers before each step, then what RIP stands for, then zeros: shape (n, 18)."""
    behind = np.array([one.next for one in steps.instructions], dtype=np.uint64)[steps.which]
    zeros = np.zeros(len(behind), dtype=np.uint64)
    return np.column_stack([trace.regs, behind + np.uint64(image.base), zeros])


_OPERAND = np.dtype(
    [
        ("base", "u1"),
        ("index", "u1"),
        ("scale", "u8"),
        ("displacement", "i8"),
        ("fs", "?"),
        ("size", "u4"),
        ("reads", "?"),
        ("writes", "?"),
        ("locked", "?"),
        ("accesses", "?"),
    ]
)


def _addresses(steps: Steps, registers: _Array, fs_base: int, place: int) -> tuple[_Array, _Array]:
    """Return the address of each step's operand in this place, and the operand."""
    table = np.zeros(len(steps.instructions), dtype=_OPERAND)
    for number, one in enumerate(steps.instructions):
        if place < len(one.memory):
            table[number] = _row(one, one.memory[place])
    operands = table[steps.which]
    step = np.arange(len(operands))
    addresses = (
        registers[step, operands["base"]]
        + registers[step, operands["index"]] * operands["scale"]
        + operands["displacement"].astype(np.uint64)
        + np.where(operands["fs"], np.uint64(fs_base), np.uint64(0))
    )
    return addresses, operands


def _row(one: Instruction, operand: Memory) -> tuple[object, ...]:
    return (
        _NOTHING if operand.base is None else operand.base,
        _NOTHING if operand.index is None else operand.index,
        operand.scale,
        operand.displacement,
        operand.segment == "fs",
        operand.size,
        operand.reads,
        operand.writes,
        one.is_locked,
        operand.segment != "gs",
    )


_LINK_LOADS = {"get_freepointer", "get_plain_freepointer"}

# --- the window of a fast path without a transaction id -----------------------------------------------


def aba_window(image: Image, trace: Traced, start: int) -> _Array:
    """Derive the boundaries at which taking the freelist's first object and putting it back goes unnoticed.

    A fast path whose exchange compares the first object only hands out garbage if the object's link has
    changed between its load and the exchange while the object came back. An interrupt "before step k" falls
    into that window from the step behind the load on, up to and including the exchange itself.

    The exchange is told by the source (cpu_slab_cmpxchg inlined in cpu_slab_pop). From its new first object
    the registers are followed back through the steps to the instruction of get_freepointer that filled one
    of them from within the object that the exchange expects.

    Args: start: address of the arena.
    Returns: indices of steps, ascending; those of all exchanges in the trace.
    """
    steps = Steps.of(image, trace)
    table = inlines(image.path)
    registers = _registers(steps, trace, image)
    addresses = _addresses(steps, registers, trace.fs_base, 0)[0].astype(np.int64)
    exchanges = [
        number
        for number, one in enumerate(steps.instructions)
        if one.mnemonic.startswith("cmpxchg")
        and {"cpu_slab_cmpxchg", "cpu_slab_pop"} <= {frame.function for frame in table.at(one.address)}
    ]
    windows = [np.zeros(0, dtype=np.intp)]
    for exchange in np.flatnonzero(np.isin(steps.which, exchanges)).tolist():
        first_object = start + int(registers[exchange, _RAX])
        load = _load_of_link(image, steps, exchange, addresses - first_object)
        windows.append(np.arange(load + 1, exchange + 1, dtype=np.intp))
    return np.unique(np.concatenate(windows))


def _load_of_link(image: Image, steps: Steps, exchange: int, distance: _Array) -> int:
    """Follow the new first object from the exchange back to the step that loaded it.

    Args: distance: of each step's operand from the present first object, in bytes.
    """
    code, table = disassembly(image.path), inlines(image.path)
    one = steps[exchange]
    new = REGISTERS.index("rbx") if one.memory[0].size == 16 else code.source_register(one.address)
    followed = {new}
    for step in range(exchange - 1, -1, -1):
        if steps.frame[step] != steps.frame[exchange]:
            continue
        one = steps[step]
        written = code.written(one.address) & followed
        if not written:
            continue
        loads_link = _LINK_LOADS & {frame.function for frame in table.at(one.address)}
        if loads_link and one.memory and 0 <= distance[step] < _MAX_OBJECT_BYTES:
            return step
        if one.mnemonic == "mov":
            followed -= written
        if not one.memory:
            followed.add(code.source_register(one.address))  # a copy, or what unmangles
    raise TraceError(
        f"step {exchange}: what {steps[exchange].text!r} stores is no link that was loaded before"
    )
