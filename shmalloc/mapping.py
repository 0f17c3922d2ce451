# SPDX-License-Identifier: MIT
"""One shared-memory segment, mapped into this process."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import posix_ipc

from shmalloc.errors import BadName, NotAnArena, ShmallocError, TruncatedArena
from shmalloc.fast import Window
from shmalloc.room import SHM_DIRECTORY

if TYPE_CHECKING:
    from shmalloc._binding import Core

MAX_NAME_CHARS = 255
PREFIX = "/shmalloc-"


def fresh_name() -> str:
    """Return a name that nobody uses: it says which process made the segment."""
    return f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}"


def full_name(name: str) -> str:
    """Return the name as POSIX wants it, with one leading slash.

    Raises:
        BadName: it cannot be a segment's.
    """
    bare = name.removeprefix("/")
    if not bare or "/" in bare or "\0" in bare or bare in (".", "..") or len(bare) >= MAX_NAME_CHARS:
        raise BadName(
            f"name = {name!r}: allowed are 1 to {MAX_NAME_CHARS - 1} characters, and no slash but the first"
        )
    return "/" + bare


class Mapping:
    """The mapping of one segment, and the only places that keep it exported.

    Attributes:
        buffer: all of the segment, writable.
        window: what keeps it mapped for blocks and arrays.
        header: the segment as a ``struct shm_header *``; nothing says that it is one.
        base: the address of the mapping.
    """

    def __init__(self, mapped: mmap.mmap, ffi: Any, identity: tuple[int, int]) -> None:
        self._mmap = mapped
        self._ffi = ffi
        self._identity = identity
        self._export()

    @classmethod
    def of_descriptor(cls, descriptor: int, size_bytes: int, core: Core) -> Mapping:
        """Map a whole segment for reading and writing; the descriptor may be closed afterwards."""
        status = os.fstat(descriptor)
        return cls(mmap.mmap(descriptor, size_bytes), core.ffi, (status.st_dev, status.st_ino))

    @classmethod
    def of_name(cls, name: str, core: Core) -> Mapping:
        """Open a segment by name and map all of it.

        Raises:
            NotAnArena: there is none, or it is no plain segment.
            TruncatedArena: it is too small for a header.
            ShmallocError: this user may not open it.
        """
        try:
            segment = posix_ipc.SharedMemory(name)
        except posix_ipc.ExistentialError:
            raise NotAnArena(f"{name}: there is no such segment in shared memory") from None
        except (posix_ipc.PermissionsError, PermissionError):
            raise ShmallocError(f"{name}: this user may not open the segment; its mode is 0600") from None
        except (OSError, ValueError) as error:
            raise NotAnArena(f"{name}: not a segment of shared memory: {error}") from None
        try:
            status = os.fstat(segment.fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotAnArena(f"{name}: not a segment of shared memory but a special file")
            if status.st_size < core.ffi.sizeof("struct shm_header"):
                raise _too_small(name, segment.fd, status.st_size, core)
            return cls.of_descriptor(segment.fd, status.st_size, core)
        finally:
            segment.close_fd()

    def _export(self) -> None:
        self.buffer: memoryview[int] = memoryview(self._mmap)
        # Over the map itself: cffi over a memoryview crashes when both end in one garbage collection.
        self.header: Any = self._ffi.from_buffer("struct shm_header *", self._mmap, require_writable=True)
        self.base = int(self._ffi.cast("uintptr_t", self.header))
        self.window = Window(self._mmap)

    @property
    def size_bytes(self) -> int:
        """Bytes that are mapped."""
        return len(self._mmap)

    def data_ranges(self, name: str, begin: int, end: int) -> list[tuple[int, int]]:
        """List the parts of [begin, end) that somebody has written to, in order; the rest reads as zeros.

        To read it nevertheless would take memory for it.  It is all one part if the segment has lost its name.
        """
        try:
            descriptor = os.open(f"{SHM_DIRECTORY}{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return [(begin, end)]
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != self._identity:
                return [(begin, end)]
            return list(data_ranges(descriptor, begin, end))
        finally:
            os.close(descriptor)

    def pointer(self, struct: str, offset: int) -> Any:
        """Return a pointer that keeps the mapping alive; the caller has checked the offset."""
        header = self.header
        # An owner of its own for each: the destructor has nothing to do but to refer to the map.
        return self._ffi.gc(self._ffi.cast(f"{struct} *", self.base + offset), lambda _, owner=header: None)

    def close(self) -> bool:
        """Unmap the segment if nobody looks at it any more.

        Returns:
            False, and the mapping stays, if a view of it is still in use.
        """
        if self._mmap.closed:
            return True
        # Dropping, not releasing: somebody else may hold the very same object.
        del self.buffer, self.header
        try:
            self._mmap.close()
        except BufferError:
            self._export()
            return False
        self.window.forget()
        self.base = 0
        return True

    def let_go(self) -> None:
        """Unmap the segment as soon as the last view of it is gone."""
        if not self.close():
            self.window.forget()
            del self.buffer, self.header, self._mmap


def data_ranges(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Find the parts of [begin, end) of a file that somebody has written to, in order."""
    while begin < end:
        try:
            at = os.lseek(descriptor, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing from here on
                return
            yield begin, end  # a file system that knows no holes
            return
        if at >= end:
            return
        begin = os.lseek(descriptor, at, os.SEEK_HOLE)
        yield at, min(begin, end)


def _too_small(name: str, descriptor: int, size_bytes: int, core: Core) -> ShmallocError:
    least = core.ffi.sizeof("struct shm_header")
    if size_bytes == 0:
        return TruncatedArena(f"{name}: 0 bytes: its creator died early, or is still at work")
    if os.pread(descriptor, 8, 0) != int(core.lib.SHM_MAGIC).to_bytes(8, "little"):
        return NotAnArena(f"{name}: {size_bytes} bytes that do not begin as an arena does")
    return TruncatedArena(f"{name}: {size_bytes} bytes, less than the header of an arena: {least}")
