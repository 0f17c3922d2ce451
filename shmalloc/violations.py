# SPDX-License-Identifier: MIT
"""The verdicts that the core has recorded in an arena."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmalloc._binding import Core
    from shmalloc.arena import Arena

NO_CPU = 0xFFFFFFFF  # reported by a process that is none
CONTEXTS = ("task", "softirq", "irq", "nmi")


@dataclass(frozen=True)
class Frame:
    """One return address of a violation's stacks.

    Attributes:
        level: execution level of the frame: 0 task, +1 for each handler on top of it.
        address: relative to the core's load address.
    """

    level: int
    address: int


@dataclass(frozen=True)
class Violation:
    """One verdict, by whom and where.

    Attributes:
        verdict: for example ``"deadlock"``.
        checker: who found it, for example ``"oracle"``.
        text: what happened.
        cpu: number of the CPU that found it, or NO_CPU.
        context: ``task softirq irq nmi``.
        level: execution level that it was found on.
        lock_class: of the lock in question, or ``"none"``.
        lock: offset of that lock, or 0.
        owner_cpu: CPU that holds the lock, or None.
        object: offset of the object or page in question, or 0.
        op_index: of the op that the CPU's replay was at.
        stack: the frames of all levels, innermost first.
    """

    verdict: str
    checker: str
    text: str
    cpu: int
    context: str
    level: int
    lock_class: str
    lock: int
    owner_cpu: int | None
    object: int
    op_index: int
    stack: tuple[Frame, ...]

    def __str__(self) -> str:
        where = f"CPU {self.cpu}, {self.context} context, level {self.level}"
        parts = [f"{self.verdict}: {self.text} ({where if self.cpu != NO_CPU else 'by no CPU'}"]
        if self.lock:
            holder = "" if self.owner_cpu is None else f" held by CPU {self.owner_cpu}"
            parts.append(f"{self.lock_class} at {self.lock:#x}{holder}")
        if self.object:
            parts.append(f"object at {self.object:#x}")
        return ", ".join(parts) + f", found by {self.checker})"


def count_violations(arena: Arena) -> int:
    """Return how many violations the core has met, those that the table had no room for included."""
    return int(arena.header.nr_violations)


def read_violations(arena: Arena) -> list[Violation]:
    """Read the violations that are complete, oldest first."""
    header = arena.header
    stored = min(int(header.nr_violations), arena.core.lib.SHM_MAX_VIOLATIONS)
    table = [header.violations[i] for i in range(stored)]
    return [read_violation(arena.core, entry) for entry in table if entry.ready]


def read_violation(core: Core, entry: Any) -> Violation:
    """Read one violation, a struct shm_violation that is complete."""
    owner = int(entry.owner) & 0xFFFF  # a lock word: CPU + 1 in its low half
    depth = min(int(entry.nr_stack), core.lib.SHM_STACK_DEPTH)
    return Violation(
        verdict=_name(core.names("verdict"), entry.verdict),
        checker=_name(core.names("checker"), entry.checker),
        text=core.ffi.string(entry.text).decode(errors="replace"),
        cpu=int(entry.cpu),
        context=_name(CONTEXTS, entry.ctx),
        level=int(entry.level),
        lock_class=_name(core.names("lock_class"), entry.lock_class),
        lock=int(entry.lock),
        owner_cpu=owner - 1 if owner else None,
        object=int(entry.object),
        op_index=int(entry.op_index),
        stack=tuple(Frame(int(entry.level_of[i]), int(entry.stack[i])) for i in range(depth)),
    )


def _name(names: tuple[str, ...], number: int) -> str:
    # The table lies in shared memory: any number may be there.
    return names[number] if number < len(names) else f"unknown {number}"
