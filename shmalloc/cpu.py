# SPDX-License-Identifier: MIT
"""Being a CPU of an arena.

A CPU is one thread of one process.  Its interrupts are signals, handled in C: see `Cpu.set_program`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from shmalloc import counters, views
from shmalloc.cache import KmemCache
from shmalloc.calls import Bindings, Calls, bind_failure
from shmalloc.errors import BadFree, ShmallocError, Unsupported
from shmalloc.flags import gfp_flags, slab_flags
from shmalloc.objects import cache_at, cache_name, why_not_live
from shmalloc.program import OpArray, Program, kind_index

if TYPE_CHECKING:
    import numpy as np

    from shmalloc.arena import Arena
    from shmalloc.program import BufferLike


class Cpu:
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
        arena.bindings.cpus.append(self._calls)
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

    # --- objects ------------------------------------------------------------------------------

    def kmalloc(self, size: int, gfp: int | str = "GFP_KERNEL", node: int = -1) -> int:
        """Allocate *size* bytes; may spin, so not for NMI handlers.

        Mirrors: mm/slub.c __kmalloc_node (6.18).

        Args:
            size: bytes; 0 gives ZERO_SIZE_PTR, which is 16.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the object, in bytes.

        Raises:
            AllocationFailed: with its reason.
        """
        return self._calls.allocate(self._lib.shm_kmalloc_node, size, gfp_flags(gfp), node)

    def kmalloc_nolock(self, size: int, gfp: int | str = 0, node: int = -1) -> int:
        """Allocate *size* bytes without waiting for any lock.

        Mirrors: mm/slub.c kmalloc_nolock (6.18).

        Args:
            size: bytes, 0 to 8192.
            gfp: of __GFP_ZERO, __GFP_ACCOUNT and the like, or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the object, in bytes.

        Raises:
            AllocationFailed: with its reason.
        """
        return self._calls.allocate(self._lib.shm_kmalloc_nolock, size, gfp_flags(gfp), node)

    def kfree(self, offset: int) -> None:
        """Free an object, whoever allocated it.  NULL and ZERO_SIZE_PTR are no-ops.

        Raises:
            BadFree: it is no live object; nothing was changed.
        """
        self._calls.free(offset, self._lib.shm_kfree, offset)

    def kfree_nolock(self, offset: int) -> None:
        """Free an object without waiting for any lock; otherwise as `kfree`."""
        self._calls.free(offset, self._lib.shm_kfree_nolock, offset)

    def krealloc(self, offset: int, size: int, gfp: int | str = "GFP_KERNEL") -> int:
        """Make an object larger or smaller, moving it if need be.

        Args:
            offset: of the object; NULL allocates a new one.
            size: new size in bytes; 0 frees it.
            gfp: flags or their names.

        Returns:
            Offset of the object now.

        Raises:
            AllocationFailed: with its reason; the old object is still there.
            BadFree: it is no live object; nothing was changed.
        """
        if offset not in (0, self._lib.SHM_ZERO_SIZE):
            self.ksize(offset)
        return self._calls.allocate(self._lib.shm_krealloc, offset, size, gfp_flags(gfp))

    def ksize(self, offset: int) -> int:
        """Return how many bytes of an object its allocator keeps for it; at least what was asked for.

        Raises:
            BadFree: it is no live object.
        """
        if offset == self._lib.SHM_ZERO_SIZE:
            return 0
        try:
            size = int(self._calls.call(self._lib.shm_ksize, offset))
        except ValueError:
            size = 0
        if not size:
            self._calls.refuse_caller()
            raise BadFree(offset, why_not_live(self.arena, offset))
        return size

    def view(self, offset: int, size: int | None = None) -> memoryview[int]:
        """Look at an object: writable, no copy.  It is C memory: freed means somebody else's.

        Args:
            offset: of the object, or of somewhere within it if the size is given.
            size: in bytes; None = all of the object (with the oracle: what was asked for, rounded up to 8).

        Raises:
            ShmallocError: these bytes are not all within a live object.
        """
        return views.object_view(self._calls, offset, size)

    def array(self, offset: int, shape: int | tuple[int, ...], dtype: Any = "u1") -> np.ndarray[Any, Any]:
        """Look at an object as a numpy array: writable, no copy; otherwise as `view`."""
        return views.object_array(self._calls, offset, shape, dtype)

    # --- pages --------------------------------------------------------------------------------

    def alloc_pages(self, order: int = 0, gfp: int | str = "GFP_KERNEL", node: int = -1) -> int:
        """Allocate 2**order pages in a row; may spin.

        Args:
            order: 0 to 10.
            gfp: flags or their names.
            node: NUMA node, or -1 for any.

        Returns:
            Offset of the first page's memory, in bytes.

        Raises:
            AllocationFailed: with its reason.
        """
        return self._calls.allocate(self._lib.shm_alloc_pages, gfp_flags(gfp), node, order)

    def alloc_pages_nolock(self, order: int = 0, gfp: int | str = 0, node: int = -1) -> int:
        """Allocate pages without waiting for any lock; otherwise as `alloc_pages`."""
        return self._calls.allocate(self._lib.shm_alloc_pages_nolock, gfp_flags(gfp), node, order)

    def free_pages(self, offset: int, order: int = 0) -> None:
        """Give pages back.

        Raises:
            BadFree: no live block of this order begins there; nothing was changed.
        """
        self._calls.free_pages(offset, order, self._lib.shm_free_pages)

    def free_pages_nolock(self, offset: int, order: int = 0) -> None:
        """Give pages back without waiting for any lock; otherwise as `free_pages`."""
        self._calls.free_pages(offset, order, self._lib.shm_free_pages_nolock)

    def drain_pages(self) -> None:
        """Give this CPU's page lists, and what waits on the zones' deferred lists, back to the buddy."""
        self._calls.run(self._lib.shm_drain_pages)

    # --- caches -------------------------------------------------------------------------------

    def kmem_cache_create(
        self, name: str, size: int, *, align: int = 0, flags: int | str = 0, ctor: int = 0
    ) -> KmemCache:
        """Make a slab cache.

        Args:
            name: at most 39 bytes.
            size: of an object, in bytes.
            align: in bytes; 0 = as the size wants it.
            flags: SLAB_* bits or their names.
            ctor: index of a constructor of the core; 0 = none.

        Returns:
            The cache.

        Raises:
            ShmallocError: the name is taken, a value is out of range, or the table is full.
        """
        index = self._calls.run(
            self._lib.shm_kmem_cache_create, name.encode(), size, align, slab_flags(flags), ctor
        )
        return KmemCache(self._calls, index)

    def cache(self, which: int | str) -> KmemCache:
        """Find a cache by name, such as ``"kmalloc-128"``, or by its index.

        Raises:
            ShmallocError: there is no such cache.
        """
        rows = range(min(self.arena.header.nr_caches, self.arena.header.geometry.max_caches))
        for index in rows:
            row = cache_at(self.arena, index)
            if row is None or row.state != self._lib.CACHE_LIVE:
                continue
            if which in (index, cache_name(self.arena, row)):
                return KmemCache(self._calls, index)
        raise ShmallocError(f"cache {which!r}: {self.arena.name} has no such cache")

    def flush_all(self, cache: KmemCache | None = None) -> None:
        """Make every CPU give up its slabs of one cache, or of all."""
        self._calls.run(self._lib.shm_flush_all, 0xFFFFFFFF if cache is None else cache.index)

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

    @property
    def irq_pending(self) -> bool:
        """Whether an irq waits for irqs to be enabled."""
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
    if bindings.cpus:
        # The signal handlers go with the current CPU; the others still want them.
        bindings.cpus[-1].become()
    calls.lib.shm_cpu_unbind(number)
    calls.end()
    if not bindings.cpus:
        for kind in bindings.programs:
            calls.lib.shm_set_program(kind, calls.arena.core.ffi.NULL)
        bindings.programs.clear()
    if affinity is not None:
        os.sched_setaffinity(0, affinity)
