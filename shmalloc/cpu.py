# SPDX-License-Identifier: MIT
"""Being a CPU of an arena.

A CPU is one thread of one process.  Its interrupts are signals, handled in C: see `Cpu.set_program`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from shmalloc import counters
from shmalloc.allocating import Allocating
from shmalloc.calls import Bindings, Calls, bind_failure
from shmalloc.errors import Unsupported
from shmalloc.interrupting import Interrupting
from shmalloc.memcg import Charging
from shmalloc.sharing import Sharing
from shmalloc.waiting import Waiting

if TYPE_CHECKING:
    from shmalloc.arena import Arena

_NO_CORE = 0xFFFFFFFF


class Cpu(Allocating, Sharing, Charging, Interrupting, Waiting):
    """One CPU of an arena, held by the thread that makes this object.

    As a context manager the CPU is given back at the end.  One thread may be several CPUs: each call
    then switches to the CPU it is made on.  Offsets are bytes from the arena's start; NULL is 0.

    Attributes:
        arena: that it belongs to.
        number: of the CPU, from 0.
    """

    def __init__(
        self,
        arena: Arena,
        number: int,
        *,
        handlers: bool = True,
        pin: int | None = None,
        steal: bool = False,
        terminate: bool = False,
    ) -> None:
        """Become a CPU.

        Args:
            arena: to belong to.
            number: of the CPU, below the arena's nr_cpus.
            handlers: take interrupts: install the signal handlers (SIGUSR1, SIGUSR2) and their stack.
            pin: core to pin this thread to; None = leave its affinity alone.
            steal: take the CPU over if its owner has died.
            terminate: SIGTERM stops the arena's run, at once and from C.

        Raises:
            CpuBusy: somebody else is this CPU.
            NotBound: there is no such CPU.
            WrongThread: another thread of this process is a CPU already.
            Unsupported: this thread may not run on that core.
        """
        arena.activate()
        self.arena = arena
        self.number = number
        lib = arena.core.lib
        flags = (
            (lib.SHM_BIND_HANDLERS if handlers else 0)
            | (lib.SHM_BIND_STEAL if steal else 0)
            | (lib.SHM_BIND_TERM if terminate else 0)
        )
        affinity = None if pin is None else _pin(pin)
        try:
            result = lib.shm_cpu_bind(number, flags) if number >= 0 else -1
            if result:
                raise bind_failure(arena, number, result)
        except BaseException:
            if affinity is not None:
                os.sched_setaffinity(0, affinity)
            raise
        self._calls = Calls(arena, number)
        self._lib = lib
        if pin is not None:
            arena.item("struct shm_cpu", "cpus", number).core = pin
        arena.bindings.cpus.append(self._calls)
        arena.bindings.handlers |= handlers
        arena.add_cpu(self)
        self._release = weakref.finalize(self, _unbind, self._calls, number, arena.bindings, affinity)

    def __repr__(self) -> str:
        return f"<Cpu {self.number} of {self.arena.name}{'' if self._calls.is_open else ' closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop being this CPU.  Again is no error, nor is it in a forked child, which is no CPU anyway.

        Raises:
            WrongThread: another thread is this CPU.
        """
        if self._release.alive and self._calls.is_open:
            self._calls.refuse_caller()
        self._release()

    def run(self, function: Callable[..., int], *arguments: Any) -> int:
        """Call a function of the core as this CPU: ``cpu.run(arena.core.lib.shm_drain_pages)``.

        Args:
            function: one that returns a negative errno when it fails.
            *arguments: of the function.

        Returns:
            What it returned.

        Raises:
            ShmallocError: it failed.
        """
        return self._calls.run(function, *arguments)

    # --- what happened ------------------------------------------------------------------------

    @property
    def last_reason(self) -> str:
        """Why the last allocation that failed in task context failed; ``"none"`` if none did."""
        return self.arena.core.names("reason")[self._calls.run(self._lib.shm_last_reason)]

    def counters(self) -> dict[str, int]:
        """Return this CPU's event counters, by the kernel's names: ``alloc_fastpath``, ``numa_hit``, ..."""
        return counters.event_counters(self.arena, self.number)

    def contexts(self, design: str | None = None) -> dict[str, dict[str, Any]]:
        """Return, for each context, allocs, frees and failures by reason, of one design or of all."""
        return counters.context_counters(self.arena, self.number, design)

    def interrupts(self) -> dict[str, dict[str, int]]:
        """Return, for nmi and irq, how many were sent, handled, and where they landed."""
        return counters.interrupt_counters(self.arena, self.number)


def _pin(core: int) -> set[int]:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, ValueError, OverflowError):
        raise Unsupported(f"pin = {core}: allowed cores are {', '.join(map(str, sorted(allowed)))}") from None
    return allowed


def _unbind(calls: Calls, number: int, bindings: Bindings, affinity: set[int] | None) -> None:
    """Give the CPU back; also when its object was dropped, or the process ends."""
    bindings.cpus.remove(calls)
    if not calls.is_open:
        return
    calls.free_left()
    others = [other for other in bindings.cpus if other.is_open]
    if others:
        # The signal handlers go with the current CPU; the others still want them.
        others[-1].become()
    if affinity is not None:
        calls.arena.item("struct shm_cpu", "cpus", number).core = _NO_CORE
        os.sched_setaffinity(0, affinity)
    calls.lib.shm_cpu_unbind(number)
    calls.end()
    if not others:
        _forget_programs(calls, bindings)
        bindings.handlers = False


def _forget_programs(calls: Calls, bindings: Bindings) -> None:
    """Have the core let go of all programs before their memory goes."""
    for kind in bindings.programs:
        calls.lib.shm_set_program(kind, calls.arena.core.ffi.NULL)
    bindings.programs.clear()
    if bindings.probes:
        calls.lib.shm_probe_disarm()
    bindings.probes.clear()
