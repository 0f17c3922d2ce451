# SPDX-License-Identifier: MIT
"""An arena mapped for reading only: nothing can be written to it, and no CPU of it is taken.

It can be asked for its regions as `Arena` can, so whatever only reads works on it: procfs, the audit's views.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from shmalloc._binding import core as load_core
from shmalloc.checks import header_error
from shmalloc.errors import NotAnArena, ShmallocError, TruncatedArena
from shmalloc.mapping import data_ranges, full_name
from shmalloc.room import SHM_DIRECTORY

if TYPE_CHECKING:
    import numpy as np

    from shmalloc._binding import Core


_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Observed:
    """One arena, seen from outside.

    Attributes: name: of the segment, with its slash.  core: the binding.  header: a struct shm_header *.
        size_bytes: of the segment.
    """

    def __init__(self, name: str, descriptor: int, core: Core) -> None:
        self.name = name
        self.core = core
        self._descriptor = descriptor
        self._mmap = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        self.size_bytes = len(self._mmap)
        self.header: Any = core.ffi.from_buffer("struct shm_header *", self._mmap)
        self._had_users = False

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map an arena by its name, with or without its slash.

        Raises: NotAnArena, TruncatedArena, AbiMismatch, HostileArena; ShmallocError: it is not ready, or not
            this user's to read.  ValueError: it cannot be a name.
        """
        core, full = load_core(), full_name(name)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(f"{SHM_DIRECTORY}{full}", flags)
        except PermissionError:
            raise ShmallocError(f"{full}: this user may not open the segment; its mode is 0600") from None
        except OSError:
            raise NotAnArena(f"{full}: there is no such segment in shared memory") from None
        try:
            _check_file(full, descriptor, core)
            found = cls(full, descriptor, core)
        except BaseException:
            os.close(descriptor)
            raise
        if (error := header_error(full, found, core)) is not None:
            found.close()
            raise error
        found._had_users = bool(found.users())
        return found

    def close(self) -> None:
        """Let go of it; the mapping goes with the last array of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def buffer(self) -> memoryview[int]:
        """All of the segment, read-only, one byte an item."""
        return memoryview(self._mmap)

    @cached_property
    def base(self) -> int:
        """The address that it is mapped at."""
        return int(self.core.ffi.cast("uintptr_t", self.header))

    def region(self, name: str) -> np.ndarray[Any, Any]:
        """Look at one region as `Arena.region` does, read-only."""
        from shmalloc.regions import region_array

        return region_array(self, name)

    def data_ranges(self, begin: int, end: int) -> list[tuple[int, int]]:
        """List the parts of the bytes from *begin* to *end* that were ever written to, in order."""
        return list(data_ranges(self._descriptor, begin, end))

    @property
    def age_s(self) -> float:
        """Seconds since the first process that is a CPU of it began, or its creator while there is none.

        The times of the file say nothing: what is mapped changes them.
        """
        begun = self.region("cpus")["start_time"]
        ticks = int(begun[begun > 0].min()) if begun.any() else self.creator[1]
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _TICKS_PER_S)

    @property
    def creator(self) -> tuple[int, int]:
        """The process that made it: pid and start time."""
        return int(self.header.creator_pid), int(self.header.creator_start_time)

    def users(self) -> set[int]:
        """Return the pids of the living: the creator and the CPUs."""
        pids = {self.creator[0]} if is_alive(self.core, *self.creator) else set()
        return pids | {pid for cpu, pid in self.cpu_pids().items() if self.cpu_is_alive(cpu)}

    def cpu_pids(self) -> dict[int, int]:
        """Map each CPU that somebody is to the pid."""
        cpus, online = self.region("cpus"), self.core.lib.CPU_ONLINE
        return {at: int(row["pid"]) for at, row in enumerate(cpus) if row["state"] == online}

    def cpu_is_alive(self, cpu: int) -> bool:
        """Whether the process that is a CPU still runs."""
        row = self.region("cpus")[cpu]
        return is_alive(self.core, int(row["pid"]), int(row["start_time"]))

    def why_over(self) -> str | None:
        """Say why there is nothing more to come, or None if there is."""
        if os.fstat(self._descriptor).st_nlink == 0:
            return f"{self.name} has ended"
        if self._had_users and not self.users():
            return f"{self.name} was left behind: all its processes have ended"
        return None


def is_alive(core: Core, pid: int, start_time: int) -> bool:
    """Whether a process still runs, and is the same as at that start time."""
    return bool(core.lib.shm_owner_alive(pid, start_time) == 1)


def _check_file(name: str, descriptor: int, core: Core) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise NotAnArena(f"{name}: not a segment of shared memory but a special file")
    if status.st_size < core.ffi.sizeof("struct shm_header"):
        raise TruncatedArena(f"{name}: {status.st_size} bytes, less than the header of an arena")
