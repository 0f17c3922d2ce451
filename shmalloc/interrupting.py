# SPDX-License-Identifier: MIT
"""What interrupts a CPU, what holds that off, and what runs in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shmalloc.errors import ShmallocError
from shmalloc.program import OpArray, Program, kind_index
from shmalloc.replay import ReplayResult, run_replay

if TYPE_CHECKING:
    from shmalloc.arena import Arena
    from shmalloc.calls import Calls
    from shmalloc.program import BufferLike


class Interrupting:
    """The interrupts' side of `shmalloc.Cpu`.

    Attributes:
        arena: that the CPU belongs to.
        number: of the CPU.
    """

    arena: Arena
    number: int
    _calls: Calls
    _lib: Any

    # --- contexts and interrupts --------------------------------------------------------------

    @contextmanager
    def irq_save(self) -> Iterator[None]:
        """Hold irqs off in a with block.  NMIs come through; an irq waits for the end of the block."""
        previous = self._calls.run(self._lib.shm_irq_save)
        try:
            yield
        finally:
            self._calls.run(self._lib.shm_irq_restore, previous)

    @contextmanager
    def bh_disable(self) -> Iterator[None]:
        """Hold softirqs off in a with block: what it allocates is counted as softirq context."""
        self._calls.run(self._lib.shm_bh_disable)
        try:
            yield
        finally:
            self._calls.run(self._lib.shm_bh_enable)

    def irq_pending(self) -> bool:
        """Say whether an irq waits for irqs to be enabled."""
        return self._calls.run(self._lib.shm_irq_pending) != 0

    def set_program(
        self,
        kind: str,
        ops: BufferLike | None,
        *,
        design: str = "kmalloc_nolock",
        slots: int | BufferLike | None = None,
        per_interrupt: int = 0,
    ) -> Program | None:
        """Say what this CPU's handler does at each interrupt.

        A thread that is several CPUs has one program of each kind for all of them.

        Args:
            kind: ``"nmi"`` or ``"irq"``.
            ops: an op array, see `shmalloc.ops`; None takes the program away.
            design: that serves the ops.
            slots: private slots: how many, or a writable buffer of 64-bit words; None = those the ops name.
            per_interrupt: ops that one interrupt runs, going round; 0 = all.

        Returns:
            The program; its slots hold what the handler has allocated and not freed, see `drain`.
        """
        number = kind_index(self.arena.core, kind)
        if ops is None:
            self._calls.run(self._lib.shm_set_program, number, self.arena.core.ffi.NULL)
            self.arena.bindings.programs.pop(number, None)
            return None
        program = Program(self.arena.core, ops, design=design, slots=slots, per_interrupt=per_interrupt)
        program.check(self.arena)
        self._calls.run(self._lib.shm_set_program, number, program.c)
        # Only now may the memory of the program before go.
        self.arena.bindings.programs[number] = program
        return program

    def set_timer(self, kind: str, rate_hz: float, jitter: float = 0.0) -> None:
        """Interrupt this CPU periodically.

        Args:
            kind: ``"nmi"`` or ``"irq"``.
            rate_hz: 0 = no more.
            jitter: 0 to 1: how much each period varies at random.
        """
        self._calls.run(self._lib.shm_set_timer, kind_index(self.arena.core, kind), rate_hz, jitter)

    def interrupt(self, kind: str) -> None:
        """Send this very CPU an interrupt; on return it has been taken, or it is masked and pending."""
        if not self.arena.bindings.handlers:
            raise ShmallocError(f"CPU {self.number} takes no interrupts: it was bound with handlers=False")
        self._calls.run(self._lib.shm_send_interrupt, self.number, kind_index(self.arena.core, kind))

    def run_irq_work(self) -> None:
        """Run what is queued as irq work, as if irqs had just been enabled."""
        self._calls.run(self._lib.shm_run_irq_work)

    def drain(self, held: OpArray) -> int:
        """Free what the private slots of a program hold.

        Returns:
            How many objects that were.
        """
        return self._calls.run(self._lib.shm_drain_slots, held.slots_pointer, len(held.slots))

    def replay(
        self,
        ops: BufferLike,
        *,
        design: str = "kmalloc_nolock",
        slots: int | BufferLike | None = None,
        max_ops: int = 0,
        seconds: float = 0.0,
        sample: int = 0,
        pattern: bool = False,
    ) -> ReplayResult:
        """Run an op array at machine speed: once, or as often as the limits say.

        Args:
            ops: an op array, see `shmalloc.ops`.
            design: that serves the ops.
            slots: private slots: how many, or a writable buffer of 64-bit words; None = those the ops name.
            max_ops: end after so many ops; 0 = no limit.
            seconds: end after so long; 0 = no limit.
            sample: take the latency of every n-th op; 0 = none.
            pattern: write a pattern into each object, and check it when it is freed.

        Raises:
            DeadlockProved: an op would have waited for ever.
            ShmallocError: an op that the core cannot do.
        """
        return run_replay(
            self._calls,
            ops,
            design=design,
            slots=slots,
            max_ops=max_ops,
            seconds=seconds,
            sample=sample,
            pattern=pattern,
        )
