# SPDX-License-Identifier: MIT
"""What arenas this machine holds, and the removal of those that were left behind."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posix_ipc

from shmalloc._binding import core as load_core
from shmalloc.errors import NotAnArena, ShmallocError
from shmalloc.mapping import PREFIX, full_name
from shmalloc.room import SHM_DIRECTORY

if TYPE_CHECKING:
    from shmalloc._binding import Core

_STATES = {
    0: "ready",
    errno.ENOEXEC: "not an arena",
    errno.EPROTO: "another ABI",
    errno.EMSGSIZE: "truncated",
    errno.EBADMSG: "hostile header",
    errno.EAGAIN: "not ready",
}


@dataclass(frozen=True)
class CpuOwner:
    """Who is a CPU of an arena.

    Attributes:
        number: of the CPU.
        pid: process.
        tid: thread of it.
        alive: False if the process ended without leaving the CPU.
    """

    number: int
    pid: int
    tid: int
    alive: bool


@dataclass(frozen=True)
class SegmentInfo:
    """One segment that is, was, or looks like an arena.

    Attributes:
        name: with its leading slash.
        size_bytes: of the segment.
        state: ``ready``, ``not ready``, ``another ABI``, ``truncated``, ``hostile header``, ``not an arena``.
        creator_pid: who made it; 0 if the header cannot be believed.
        creator_alive: whether that process still runs.
        nr_cpus: possible CPUs.
        cpus: those that somebody is.
    """

    name: str
    size_bytes: int
    state: str
    creator_pid: int = 0
    creator_alive: bool = False
    nr_cpus: int = 0
    cpus: tuple[CpuOwner, ...] = ()

    @property
    def users(self) -> tuple[int, ...]:
        """Process ids of the living: the creator and the CPUs."""
        pids = {cpu.pid for cpu in self.cpus if cpu.alive}
        if self.creator_alive:
            pids.add(self.creator_pid)
        return tuple(sorted(pids))


def list_segments(directory: Path = SHM_DIRECTORY) -> list[SegmentInfo]:
    """List the arenas of this machine that this user may read, by name.

    A segment counts if its name or its first bytes are an arena's.  Nothing is attached.

    Args:
        directory: where segments appear as files.
    """
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    found = (_inspect(directory, name) for name in names)
    return [info for info in found if info is not None]


def remove(name: str, *, force: bool = False) -> None:
    """Remove an arena that was left behind.

    Args:
        name: of the segment, with or without its slash.
        force: remove it although processes use it; they keep their mappings.

    Raises:
        NotAnArena: there is no such segment, or it is something else.
        ShmallocError: it is in use.
    """
    full = full_name(name)
    info = _inspect(SHM_DIRECTORY, full[1:])
    if info is None:
        raise NotAnArena(f"{full}: no arena has this name")
    if info.users and not force:
        raise ShmallocError(f"{full}: in use by process {', '.join(map(str, info.users))}")
    try:
        posix_ipc.unlink_shared_memory(full)
    except posix_ipc.ExistentialError:
        raise NotAnArena(f"{full}: somebody else has just removed it") from None


def _inspect(directory: Path, name: str) -> SegmentInfo | None:
    """Look at one file; None if it is nothing of ours, or gone, or not this user's to read."""
    core = load_core()
    named_so = ("/" + name).startswith(PREFIX)
    try:
        with _opened(directory / name) as (descriptor, size_bytes):
            magic = int(core.lib.SHM_MAGIC).to_bytes(8, "little")
            if os.pread(descriptor, len(magic), 0) == magic:
                return _arena_info(core, "/" + name, descriptor, size_bytes)
            return SegmentInfo("/" + name, size_bytes, "not an arena") if named_so else None
    except OSError:
        return None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    # No follow, no block: a link or a pipe may lie there too.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _arena_info(core: Core, name: str, descriptor: int, size_bytes: int) -> SegmentInfo:
    if size_bytes < core.ffi.sizeof("struct shm_header"):
        return SegmentInfo(name, size_bytes, "truncated")
    with mmap.mmap(descriptor, size_bytes, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        header = core.ffi.from_buffer("struct shm_header *", mapped)
        try:
            state = _STATES.get(-core.lib.shm_arena_check(header, size_bytes), "not an arena")
            if state not in ("ready", "not ready"):
                return SegmentInfo(name, size_bytes, state)
            creator = int(header.creator_pid)
            alive = core.lib.shm_owner_alive(creator, header.creator_start_time) == 1
            cpus = _cpu_owners(core, header, view) if state == "ready" else ()
            return SegmentInfo(name, size_bytes, state, creator, alive, int(header.geometry.nr_cpus), cpus)
        finally:
            core.ffi.release(header)


def _cpu_owners(core: Core, header: Any, view: memoryview[int]) -> tuple[CpuOwner, ...]:
    region = header.regions[core.lib.REGION_CPUS]
    slots = header.geometry.nr_cpus + header.geometry.nr_nodes
    stride, size = region.bytes // slots, core.ffi.sizeof("struct shm_cpu")
    owners = []
    for number in range(header.geometry.nr_cpus):
        start = region.offset + number * stride
        cpu = core.ffi.new("struct shm_cpu *")
        core.ffi.buffer(cpu)[:] = view[start : start + size]
        if cpu.state == core.lib.CPU_ONLINE:
            alive = core.lib.shm_owner_alive(cpu.pid, cpu.start_time) == 1
            owners.append(CpuOwner(number, int(cpu.pid), int(cpu.tid), alive))
    return tuple(owners)
