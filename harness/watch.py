# SPDX-License-Identifier: MIT
"""Watching CPUs from outside: what each is doing, and whether it gets anywhere.

A stall is measured in the CPU's own processor time, so that a CPU that merely waits for a core is none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.verdicts import Incident
from harness.vocabulary import CONTEXTS, STALL

if TYPE_CHECKING:
    import numpy as np

    from shmalloc._binding import Core
    from shmalloc.arena import Arena

    Array = np.ndarray[Any, Any]

_TICKS_S = os.sysconf("SC_CLK_TCK")
LOCK_OFFSET = (1 << 56) - 1  # of what a CPU waits for; the waiting level is above
_BLOCKED_S = 60.0  # of the parent's time, without any processor time: stopped, or blocked for good


@dataclass(frozen=True)
class Doing:
    """What a CPU was doing. Attributes: text: in words.  context, op_index: of its innermost level."""

    text: str
    context: str
    op_index: int


def doing(arena: Arena, cpu: int) -> Doing:
    """Read what a CPU is, or was when it died, doing."""
    row = arena.region("cpus")[cpu]
    level, found = innermost(row)
    context = found or CONTEXTS[0]
    parts = [f"at op {int(row['op_index'])} in {context} context (level {level})"]
    waiting = int(row["waiting_for"]) & LOCK_OFFSET
    if waiting:
        parts.append(f"waiting for {lock(arena, waiting)}")
    if int(row["irqs_disabled"]):
        parts.append("with irqs off")
    return Doing(", ".join(parts), context, int(row["op_index"]))


def innermost(row: Any) -> tuple[int, str | None]:
    """Return a CPU's innermost level and its context; of a record that is half-written the context is None."""
    level = min(int(row["level"]), len(row["levels"]) - 1)
    context = int(row["levels"][level]["ctx"])
    return level, CONTEXTS[context] if context < len(CONTEXTS) else None


class _Mapped(Protocol):
    """An arena, mapped for writing or for reading only."""

    core: Core

    @property
    def buffer(self) -> memoryview[int]: ...


def lock(arena: _Mapped, offset: int) -> str:
    """Name the lock at an offset, and who holds it; whatever may lie there."""
    import numpy as np

    from shmalloc import layout

    buffer, dtype = arena.buffer, layout.dtype("spinlock")
    if not 0 <= offset <= len(buffer) - dtype.itemsize:
        return f"something at {offset:#x}"
    record = np.frombuffer(buffer, dtype, 1, offset)[0]
    names, number, owner = arena.core.names("lock_class"), int(record["class"]), int(record["word"]) & 0xFFFF
    name = names[number] if number < len(names) else "a lock"
    return f"{name} at {offset:#x}, " + (f"held by CPU {owner - 1}" if owner else "free")


@dataclass
class _Mark:
    """The last sign of life. Attributes: ops, cpu_s: then.  since_s: on the watch's clock."""

    ops: int
    cpu_s: float
    since_s: float


class Watch:
    """Notices CPUs that get nowhere.

    Its clock is advanced by the caller and does not run while the parent is stopped.

    Args: arena: the run's.  pids: of the CPUs.  deadline_s: processor time without progress.
    """

    def __init__(self, arena: Arena, pids: dict[int, int], deadline_s: float) -> None:
        self._arena = arena
        self._pids = pids
        self._deadline_s = deadline_s
        self._clock_s = 0.0
        self._marks: dict[int, _Mark] = {}

    def check(self, elapsed_s: float, waiting: list[int]) -> Incident | None:
        """Look at the CPUs that have not finished.

        Args: elapsed_s: since the last look.  waiting: the CPUs.
        Returns: the first stall, or None.
        """
        self._clock_s += elapsed_s
        done = self._arena.region("cpus")["ops_done"]
        for cpu in waiting:
            incident = self._check(cpu, int(done[cpu]))
            if incident is not None:
                return incident
        return None

    def _check(self, cpu: int, ops: int) -> Incident | None:
        used_s = cpu_seconds(self._pids[cpu])
        mark = self._marks.get(cpu)
        if used_s is None:
            return None  # it has ended, which is somebody else's business
        if mark is None or mark.ops != ops:
            self._marks[cpu] = _Mark(ops, used_s, self._clock_s)
            return None
        if used_s - mark.cpu_s > self._deadline_s:
            return self._stall(cpu, f"made no progress in {used_s - mark.cpu_s:.1f} s of processor time")
        quiet_s = self._clock_s - mark.since_s
        if quiet_s > max(_BLOCKED_S, 2 * self._deadline_s) and used_s - mark.cpu_s < quiet_s / 1000:
            return self._stall(cpu, f"used no processor time in {quiet_s:.0f} s: it is stopped or blocked")
        return None

    def _stall(self, cpu: int, what: str) -> Incident:
        state = doing(self._arena, cpu)
        text = f"CPU {cpu} (pid {self._pids[cpu]}) {what}; {state.text}"
        return Incident(STALL, text, cpu, state.context, state.op_index)


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used, or None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS_S
