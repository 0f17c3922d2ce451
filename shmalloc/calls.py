# SPDX-License-Identifier: MIT
"""The calls of one CPU into the core: on the right CPU, and with exceptions that say why they failed."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from shmalloc import fast
from shmalloc.errors import (
    AllocationFailed,
    BadFree,
    CpuBusy,
    DeadlockProved,
    NotBound,
    ShmallocError,
    WrongThread,
)
from shmalloc.objects import why_no_object, why_no_pages, why_not_live
from shmalloc.violations import count_violations, read_violations

if TYPE_CHECKING:
    from shmalloc.arena import Arena
    from shmalloc.program import Program

_ENDLESS_WAITS = ("deadlock", "dead_owner", "stall")
_NOBODY = -2  # no CPU's number, and not what the core says when there is none


@dataclass
class Bindings:
    """What this process is and does in one arena.

    Attributes:
        cpus: the CPUs that its thread is, in order of their binding.
        programs: what its handlers do, by interrupt kind: the core uses their memory.
        probes: what is armed at probe sites: the same.
        handlers: whether its signal handlers are installed.
    """

    cpus: list[Calls] = field(default_factory=list)
    programs: dict[int, Program] = field(default_factory=dict)
    probes: dict[str, Program] = field(default_factory=dict)
    handlers: bool = False


class Calls(fast.Calls):
    """What one CPU asks of the core.

    Attributes:
        arena: that it works on.
        lib: the core's functions, by cffi.
        number: of the CPU.
    """

    def __init__(self, arena: Arena, number: int) -> None:
        self.arena = arena
        self.lib = arena.core.lib
        self.has_oracle = arena.has_oracle
        nodes = int(arena.header.geometry.nr_nodes)
        super().__init__(arena.core.functions, arena.window, number, nodes, has_oracle=self.has_oracle)
        self._tid = threading.get_native_id()
        self._pid = os.getpid()
        self._seen = count_violations(arena)
        self._current: Callable[[], int] = self.lib.shm_cpu_current
        self._reasons = arena.core.names("reason")

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the core as this CPU, and return what it returns.

        Raises:
            NotBound: the CPU is closed, or this is a fork of its process.
            WrongThread: this is not its thread.
            ValueError: an argument that the core's types cannot hold.
        """
        if self._current() != self.bound:
            self.become()
        try:
            return function(*arguments)
        except OverflowError as error:
            raise ValueError(f"{_text(function, arguments)}: {error}") from None

    def node(self, node: int) -> int:
        """Return a node that the core may look up.

        Raises:
            ValueError: there is no such node.
        """
        if node == -1 or 0 <= node < self.nr_nodes:
            return node
        raise ValueError(f"node = {node}: allowed are -1 (any) to {self.nr_nodes - 1}")

    def allocate(self, function: Callable[..., int], *arguments: Any) -> int:
        """Call an allocation function.

        Raises:
            AllocationFailed: it returned NULL.
        """
        if self._current() != self.bound:
            self.become()
        try:
            offset = function(*arguments)
        except OverflowError as error:
            raise ValueError(f"{_text(function, arguments)}: {error}") from None
        if offset:
            return offset
        return self.no_object(_name_of(function), arguments)

    def no_object(self, name: str, arguments: tuple[Any, ...]) -> NoReturn:
        """Say why an allocation returned NULL.

        Args:
            name: of the core's function.
            arguments: that it was given.

        Raises:
            AllocationFailed: with the reason; or what is wrong besides.
        """
        self.refuse_caller()
        self.raise_verdict()
        raise AllocationFailed(self._reasons[self.lib.shm_last_reason()], _call_text(name, arguments))

    def bulk_failed(self, name: str, reason: int, at: int, size: int, partial: bool) -> None:
        """Say why a bulk allocation got NULL; no error if that was allowed for.

        Args:
            name: of the call.
            reason: why, by number.
            at: index of the first size that nothing was got for.
            size: at it.
            partial: the others are there.

        Raises:
            AllocationFailed: with the reason; or what is wrong besides.
        """
        self.refuse_caller()
        self.raise_verdict()
        if not partial:
            raise AllocationFailed(self._reasons[reason], f"{name}: sizes[{at}] = {size}")

    def run(self, function: Callable[..., int], *arguments: Any, allowed: tuple[int, ...] = ()) -> int:
        """Call a function that returns a negative errno when it fails.

        Args:
            function: of the core.
            *arguments: of the function.
            allowed: negative results that are no failure.

        Returns:
            What the core returned.

        Raises:
            DeadlockProved: it would have waited for ever.
            ShmallocError: anything else.
        """
        self.refuse_caller()  # not every such function asks for itself
        result = int(self.call(function, *arguments))
        if result < 0 and result not in allowed:
            self.raise_verdict()
            raise ShmallocError(f"{_text(function, arguments)}: {os.strerror(-result)}")
        return result

    def why_dead(self, offset: int) -> str | None:
        """Say why an offset is not the start of a live object; None if it is one.

        Without the oracle an object that was freed passes too.
        """
        self.refuse_caller()
        if not self.has_oracle:
            return why_no_object(self.arena, offset)
        if 0 <= offset < self.arena.size_bytes and self.lib.shm_oracle_is_live(offset):
            return None
        return why_not_live(self.arena, offset)

    def free(self, offset: int, function: Callable[..., int], *arguments: Any) -> None:
        """Call a function that frees an object.

        Raises:
            BadFree: it is no live object; nothing was changed.
        """
        result = self._free(offset, function, arguments)
        if result:
            self.refuse_free(result, offset, _name_of(function), arguments)

    def refuse_free(self, result: int, offset: int, name: str, arguments: tuple[Any, ...]) -> NoReturn:
        """Say why a free was refused.

        Args:
            result: of the core.
            offset: that was to be freed.
            name: of the core's function.
            arguments: that it was given.

        Raises:
            BadFree: it is no live object; or what is wrong besides.
        """
        raise self._free_error(result, name, arguments) or BadFree(offset, why_not_live(self.arena, offset))

    def bulk_refused(self, name: str, result: int, at: int, offset: int) -> NoReturn:
        """Say why a bulk free ended before its end; otherwise as `refuse_free`.

        Args:
            name: of the call.
            result: of the core.
            at: index of the offset that was refused.
            offset: at it.
        """
        why = f"offsets[{at}], behind {at} that are free now: {why_not_live(self.arena, offset)}"
        raise self._free_error(result, name, (offset,)) or BadFree(offset, why)

    def free_late(self, offset: int, size: int) -> None:
        """Free a block that has outlived its CPU, as another one of this process if there is one.

        Args:
            offset: of it.
            size: in bytes, as it was asked for.
        """
        for other in self.arena.bindings.cpus:
            if other.is_open and other.runs_here:
                return other.free(offset, other.lib.shm_kfree, offset)
        warnings.warn(
            f"a block of {size} bytes at {offset:#x} stays allocated: CPU {self.number} of "
            f"{self.arena.name} was closed before it",
            ResourceWarning,
            stacklevel=2,
        )
        return None

    def free_pages(self, offset: int, order: int, function: Callable[..., int], *before: Any) -> None:
        """Call a function that frees a block of pages.

        Args:
            offset: of the block.
            order: of the block.
            function: of the core.
            *before: its arguments before the offset and the order.

        Raises:
            BadFree: it is no live block of this order; nothing was changed.
        """
        arguments = (*before, offset, order)
        result = self._free(offset, function, arguments)
        if result:
            why = why_no_pages(self.arena, offset, order) or why_not_live(self.arena, offset)
            raise self._free_error(result, _name_of(function), arguments) or BadFree(offset, why)

    def _free(self, offset: int, function: Callable[..., int], arguments: tuple[Any, ...]) -> int:
        if self._current() != self.bound:
            self.become()
        try:
            return function(*arguments)
        except OverflowError:
            raise BadFree(offset, why_not_live(self.arena, offset)) from None

    def _free_error(self, result: int, name: str, arguments: tuple[Any, ...]) -> ShmallocError | None:
        """Return what is wrong besides the offset."""
        self.refuse_caller()
        self.raise_verdict()
        if result == -errno.EINVAL:
            return None
        return ShmallocError(f"{_call_text(name, arguments)}: {os.strerror(-result)}")

    @property
    def runs_here(self) -> bool:
        """Whether the caller is the CPU's thread."""
        return threading.get_native_id() == self._tid

    def become(self) -> None:
        """Make this the CPU that the core works as."""
        self.refuse_caller()
        result = self.lib.shm_cpu_switch(self.number)
        if result:
            self.refuse_caller()
            raise NotBound(f"CPU {self.number} of {self.arena.name}: {os.strerror(-result)}")

    def refuse_caller(self) -> None:
        """Raise if the caller cannot be this CPU."""
        if self.bound == _NOBODY:
            raise NotBound(f"CPU {self.number} of {self.arena.name} is closed")
        if os.getpid() != self._pid:
            raise NotBound(
                f"CPU {self.number} is process {self._pid}; this is process {os.getpid()}, forked from it: "
                "it is no CPU until it binds one of its own"
            )
        caller = threading.get_native_id()
        if caller != self._tid:
            raise WrongThread(
                f"CPU {self.number} is {_thread_text(self._tid)}; the call came from {_thread_text(caller)}"
            )

    def raise_verdict(self) -> None:
        """Raise if this CPU has met a verdict since it was last asked.

        Raises:
            DeadlockProved: a wait of this CPU could not end.
        """
        total = count_violations(self.arena)
        if total == self._seen:
            return
        fresh = read_violations(self.arena)[self._seen :]
        self._seen = total
        for violation in fresh:
            mine = violation.cpu == self.number and violation.level == 0  # not a handler's on top of it
            if mine and violation.verdict in _ENDLESS_WAITS:
                raise DeadlockProved(violation)


class Caller(fast.Caller):
    """Base of whatever allocates and frees as a CPU: what the calls that are compiled say when they fail."""

    _calls: Calls

    def _no_object(self, name: str, arguments: tuple[Any, ...]) -> NoReturn:
        self._calls.no_object(name, arguments)

    def _bad_free(self, result: int, offset: int, name: str, arguments: tuple[Any, ...]) -> NoReturn:
        self._calls.refuse_free(result, offset, name, arguments)


def bind_failure(arena: Arena, number: int, result: int) -> ShmallocError:
    """Explain why this thread cannot become a CPU."""
    lib, header = arena.core.lib, arena.header
    if not 0 <= number < header.geometry.nr_cpus:
        return NotBound(f"cpu = {number}: allowed are 0 to {header.geometry.nr_cpus - 1} in {arena.name}")
    if result == -errno.EBUSY:
        cpu = arena.item("struct shm_cpu", "cpus", number)
        if lib.shm_owner_alive(cpu.pid, cpu.start_time) == 1:
            return CpuBusy(f"CPU {number} of {arena.name} is process {cpu.pid}, thread {cpu.tid}")
        return CpuBusy(
            f"CPU {number} of {arena.name} was process {cpu.pid}, which died as it; steal=True takes it over"
        )
    if lib.shm_cpu_current() >= 0 and not lib.shm_thread_ok():
        return WrongThread(
            f"this process is CPU {lib.shm_cpu_current()} already, by another thread than "
            f"{_thread_text(threading.get_native_id())}; all CPUs of a process are one thread"
        )
    return NotBound(f"CPU {number} of {arena.name}: {os.strerror(-result)}")


def _thread_text(tid: int) -> str:
    for thread in threading.enumerate():
        if thread.native_id == tid:
            return f"thread {thread.name} (tid {tid})"
    return f"thread {tid}"


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "") or "the core"
    return str(name).removeprefix("shm_")


def _text(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    return _call_text(_name_of(function), arguments)


def _call_text(name: str, arguments: tuple[Any, ...]) -> str:
    return f"{name}({', '.join(map(str, arguments))})"
