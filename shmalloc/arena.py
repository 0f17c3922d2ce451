# SPDX-License-Identifier: MIT
"""The arena: a segment of shared memory laid out as physical memory.

Create one, or attach to one by name; then become a CPU of it (`shmalloc.Cpu`).  The header of a segment
is checked before anything in it is followed, and nothing in it is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import posix_ipc

from shmalloc._binding import core as load_core
from shmalloc._binding import release_variants
from shmalloc.arrays import array_at
from shmalloc.calls import Bindings
from shmalloc.checks import checked_geometry, header_error, no_room, refuse_without_room
from shmalloc.errors import GeometryError, ShmallocError, Unsupported
from shmalloc.faults import FaultAttr, set_fault
from shmalloc.geometry import Geometry
from shmalloc.mapping import Mapping, fresh_name, full_name
from shmalloc.segments import SegmentInfo, list_segments, remove
from shmalloc.slab_errors import SlabErrors
from shmalloc.tracing import Tracing
from shmalloc.units import format_bytes
from shmalloc.violations import Violation, read_violations

if TYPE_CHECKING:
    import numpy as np

    from shmalloc._binding import Core
    from shmalloc.cpu import Cpu
    from shmalloc.fast import Window

__all__ = ["Arena", "Geometry", "SegmentInfo", "list_segments", "remove"]

_NO_ROOM = (errno.ENOSPC, errno.ENOMEM, errno.EFBIG)
_PER_CPU = ("cpus", "memcg_cpus", "telemetry", "trace")  # their items begin on a cache line of their own
# The core serves one arena of a process at a time, so the one it serves must not be unmapped meanwhile.
_active: dict[str, Arena] = {}


class Arena:
    """One arena, mapped into this process.  Make one with `create` or `attach`.

    As a context manager it is closed at the end, and its name is removed by the process that created it.

    Attributes:
        name: of the segment, with its leading slash.
        flavour: of the core, ``"release"`` or ``"checked"``.
        core: the binding: ``core.ffi`` and ``core.lib``.
        bindings: what this process is in the arena; kept by `Cpu`.
    """

    def __init__(self, name: str, mapping: Mapping, core: Core, *, creator: bool) -> None:
        self.name = name
        self.core = core
        self.flavour: str = core.flavour
        self._mapping = mapping
        self._creator_pid = os.getpid() if creator else 0
        self._closed = False
        self._cpus: weakref.WeakSet[Cpu] = weakref.WeakSet()
        self.bindings = Bindings()

    @classmethod
    def create(
        cls,
        geometry: Geometry | None = None,
        *,
        name: str | None = None,
        reserve: Literal["full", "sparse"] = "full",
        flavour: str = "release",
        broken: str = "none",
        **keys: Any,
    ) -> Self:
        """Make a segment and lay it out.

        Args:
            geometry: what to make; or give its attributes as keywords, with ``size="64MiB"`` for the size.
            name: of the segment; None = a fresh one.
            reserve: ``"full"`` takes all memory now; ``"sparse"`` takes pages when they are first touched.
            flavour: of the core.
            broken: a broken variant by name; in the release flavour those that have an object of their own,
                see `shmalloc.designs.release_variants`.
            **keys: see `Geometry.of`.

        Returns:
            The arena, attached.

        Raises:
            GeometryError: with everything that is wrong, at once.
            NoRoom: it does not fit this machine now; with the sizes.
            Unsupported: a broken variant without an object of the release flavour, or not the one that this
                process has loaded.
        """
        loadable = broken == "none" or broken in release_variants()
        core = load_core(flavour, broken if loadable else None)
        geometry = checked_geometry(core, geometry, keys, reserve, broken)
        core = load_core(flavour, broken)  # refuses a variant without an object
        if reserve == "full":
            refuse_without_room(geometry.size_bytes)
        full = fresh_name() if name is None else full_name(name)
        try:
            segment = posix_ipc.SharedMemory(full, posix_ipc.O_CREX, mode=0o600)
        except posix_ipc.ExistentialError:
            raise ShmallocError(f"name = {full!r}: a segment of this name exists already") from None
        try:
            arena = cls._laid_out(full, segment.fd, geometry, core, sparse=reserve == "sparse")
            arena._set_broken(broken)
        except BaseException:
            segment.unlink()
            raise
        finally:
            segment.close_fd()
        return arena

    @classmethod
    def _laid_out(cls, name: str, fd: int, geometry: Geometry, core: Core, *, sparse: bool) -> Self:
        try:
            if sparse:
                os.ftruncate(fd, geometry.size_bytes)
            else:
                os.posix_fallocate(fd, 0, geometry.size_bytes)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise no_room(geometry.size_bytes, os.strerror(error.errno)) from None
        mapping = Mapping.of_descriptor(fd, geometry.size_bytes, core)
        arena = cls(name, mapping, core, creator=True)
        result = core.lib.shm_arena_format(core.ffi.cast("void *", mapping.base), geometry.to_c(core))
        if result:
            raise GeometryError([f"the core refuses this geometry: {os.strerror(-result)}: {geometry}"])
        return arena

    def reserve(self) -> None:
        """Take all memory now, of an arena that was made sparse.

        Raises:
            NoRoom: it does not fit this machine; with the sizes.
        """
        size_bytes = self.size_bytes
        refuse_without_room(size_bytes)
        segment = posix_ipc.SharedMemory(self.name)
        try:
            os.posix_fallocate(segment.fd, 0, size_bytes)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise no_room(size_bytes, os.strerror(error.errno)) from None
        finally:
            segment.close_fd()

    def _set_broken(self, broken: str) -> None:
        if broken == "none":
            return
        self.activate()
        result = self.core.lib.shm_set_broken(self.core.names("broken").index(broken))
        if result:
            self.close()
            raise Unsupported(
                f"broken = {broken!r}: the {self.flavour} flavour refuses it: {os.strerror(-result)}"
            )

    @classmethod
    def attach(cls, name: str, *, flavour: str = "release") -> Self:
        """Map an arena that another process, or this one, has created.

        Args:
            name: of the segment, with or without its slash.
            flavour: of the core.

        Returns:
            The arena.

        Raises:
            NotAnArena: no such segment, or it is something else.
            AbiMismatch: an arena of another build's layout.
            TruncatedArena: less is there than its header says.
            HostileArena: its header contradicts itself.

        Cost: the same for every size.
        """
        core, full = load_core(flavour), full_name(name)
        mapping = Mapping.of_name(full, core)
        error = header_error(full, mapping, core)
        if error is not None:
            mapping.close()
            raise error
        return cls(full, mapping, core, creator=False)

    def __repr__(self) -> str:
        state = "closed" if self._closed else format_bytes(self.size_bytes)
        return f"<Arena {self.name} {state} {self.flavour}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach, and remove the name if this process created it.  Views that are left stay valid."""
        if self._creator_pid == os.getpid():
            self.unlink()
        if not self._closed:
            self._detach()
            self._mapping.let_go()

    @property
    def closed(self) -> bool:
        """Whether this object has let go of the arena."""
        return self._closed

    @property
    def buffer(self) -> memoryview[int]:
        """The whole segment, writable, one byte an item."""
        return self._mapped().buffer

    @property
    def header(self) -> Any:
        """The header, a ``struct shm_header *`` that keeps the mapping alive."""
        return self._mapped().header

    @property
    def base(self) -> int:
        """The address that the arena is mapped at in this process."""
        return self._mapped().base

    @cached_property
    def has_oracle(self) -> bool:
        """Whether it keeps, outside the allocators' reach, who owns which bytes."""
        return bool(self.header.geometry.flags & self.core.lib.SHM_GEO_ORACLE)

    @property
    def window(self) -> Window:
        """What blocks and arrays hold of the mapping, so that it stays while they are looked at."""
        return self._mapped().window

    @property
    def size_bytes(self) -> int:
        """Bytes of the segment."""
        return self._mapped().size_bytes

    def _mapped(self) -> Mapping:
        if self._closed:
            raise ShmallocError(f"{self.name}: this Arena is closed")
        return self._mapping

    def data_ranges(self, begin: int, end: int) -> list[tuple[int, int]]:
        """List the parts of the bytes from *begin* to *end* that were ever written to, in order."""
        return self._mapped().data_ranges(self.name, begin, end)

    def add_cpu(self, cpu: Cpu) -> None:
        """Have a CPU given back when this arena is closed.  `Cpu` does it by itself."""
        self._cpus.add(cpu)

    def activate(self) -> None:
        """Make this the arena that the core serves in this process.  `Cpu` does it by itself.

        Raises:
            ShmallocError: the core serves another arena.
        """
        other = _active.get(self.flavour)
        if other is self:
            return
        if other is not None:
            raise ShmallocError(
                f"{self.name}: this process works on {other.name}, one at a time; close or deactivate that"
            )
        mapping = self._mapped()
        result = self.core.lib.shm_attach(self.core.ffi.cast("void *", mapping.base), mapping.size_bytes)
        if result:
            error = header_error(self.name, mapping, self.core)
            raise error or ShmallocError(f"{self.name}: the core does not attach: {os.strerror(-result)}")
        _active[self.flavour] = self

    def deactivate(self) -> None:
        """Unbind this process's CPUs, and let the core serve another arena."""
        if _active.get(self.flavour) is not self:
            return
        for cpu in list(self._cpus):
            cpu.close()
        result = self.core.lib.shm_detach()
        if result:
            raise ShmallocError(f"{self.name}: the core does not detach: {os.strerror(-result)}")
        del _active[self.flavour]

    def _detach(self) -> None:
        self.deactivate()
        self._closed = True

    def close(self) -> None:
        """Unbind this process's CPUs and unmap the arena.  The segment stays until it is unlinked.

        Raises:
            ShmallocError: a view of the arena is still in use (a memoryview, an array, a header); the
                arena stays mapped, so that nothing crashes.
        """
        if self._closed:
            return
        self.deactivate()
        if not self._mapping.close():
            raise ShmallocError(
                f"{self.name}: views of this arena are still in use (memoryviews, numpy arrays or headers); "
                "delete them first, or leave a with block, which lets them live on"
            )
        self._closed = True

    def unlink(self) -> None:
        """Remove the segment's name; mappings stay.  It is no error if the name is gone already."""
        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_shared_memory(self.name)

    def pointer(self, struct: str, offset: int) -> Any:
        """Look at one structure in the arena.

        Args:
            struct: for example ``"struct page"``.
            offset: of it, in bytes.

        Returns:
            A cffi pointer that keeps the mapping alive.

        Raises:
            ShmallocError: it would not lie within the arena.
        """
        mapping = self._mapped()
        if not 0 <= offset <= mapping.size_bytes - self.core.ffi.sizeof(struct):
            raise ShmallocError(
                f"{self.name}: a {struct} at offset {offset:#x} does not lie within the arena"
            )
        return mapping.pointer(struct, offset)

    def item(self, struct: str, region: str, index: int) -> Any:
        """Look at one structure of a region that holds one for each CPU, cache or page.

        Args:
            struct: for example ``"struct shm_cpu"``.
            region: for example ``"cpus"``.
            index: of it; it is checked.

        Returns:
            A cffi pointer that keeps the mapping alive.

        Raises:
            ShmallocError: there is no such item.
        """
        header, ffi = self.header, self.core.ffi
        where = header.regions[getattr(self.core.lib, f"REGION_{region.upper()}")]
        stride = ffi.sizeof(struct)
        if region in _PER_CPU:
            kswapds = 0 if region == "memcg_cpus" else header.geometry.nr_nodes  # behind the CPUs
            stride = where.bytes // (header.geometry.nr_cpus + kswapds)
        if not 0 <= index < where.bytes // stride:
            raise ShmallocError(f"{self.name}: {region} has no item {index}")
        return self.pointer(struct, where.offset + index * stride)

    def at(self, offset: int) -> np.ndarray[Any, Any]:
        """Look at an array that `Cpu.empty` or `Cpu.zeros` has made, in any process; its owner still frees it.

        Takes no CPU.  The mapping stays while the array is in use; the memory stays the owner's.

        Args:
            offset: of the array, as `Cpu.give` returns it.

        Returns:
            The array, writable, without a copy.

        Raises:
            ShmallocError: there is no array; or the core serves another arena.
        """
        self.activate()
        return array_at(self, offset)

    def region(self, name: str) -> np.ndarray[Any, Any]:
        """Look at one region as a numpy array, without a copy.

        Args:
            name: ``cpus nodes zones pagesets caches cache_nodes cache_cpus cache_stats cache_sheaves barns
                pools freelists maps bpf_caches objpool_cpus memcgs memcg_cpus pageblocks pages telemetry
                slots trace oracle_owned oracle_start oracle_end memory``.

        Returns:
            A writable array: structures, or uint64 words (slots and the oracle's bitmaps), or uint8 of
            shape (pages, page size) (memory).

        Raises:
            ValueError: no such region.
        """
        from shmalloc.regions import region_array

        return region_array(self, name)

    @property
    def slab_errors(self) -> SlabErrors:
        """What the checks of debug caches have found, and whether it stops the arena."""
        return SlabErrors(self)

    @property
    def trace(self) -> Tracing:
        """Its events: which are recorded, and those that were."""
        return Tracing(self)

    def failslab(self, attr: FaultAttr | str | None) -> None:
        """Say when slab requests are made to fail; None = never.

        Mirrors: mm/failslab.c.  Nolock requests are never asked.

        Args:
            attr: what decides, or ``"<interval>,<probability>,<space>,<times>"`` as at boot.

        Raises:
            ValueError: it is neither.
        """
        set_fault(self, "slab", attr)

    def fail_page_alloc(self, attr: FaultAttr | str | None) -> None:
        """Say when page requests are made to fail, as `failslab` does for objects."""
        set_fault(self, "pages", attr)

    def violations(self) -> list[Violation]:
        """Read the verdicts that the core has recorded, oldest first."""
        return read_violations(self)

    def send_interrupt(self, cpu: int, kind: str) -> None:
        """Send an interrupt to a CPU, from any process that works on this arena.

        Args:
            cpu: its number.
            kind: ``"nmi"`` or ``"irq"``.

        Raises:
            ShmallocError: nobody is that CPU, or it takes no interrupts.
        """
        from shmalloc.program import kind_index

        self.activate()
        result = self.core.lib.shm_send_interrupt(cpu, kind_index(self.core, kind))
        if result:
            raise ShmallocError(f"CPU {cpu} gets no {kind} interrupt: {os.strerror(-result)}")
