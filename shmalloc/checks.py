# SPDX-License-Identifier: MIT
"""What is checked before an arena is made, and before one is followed."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Protocol

from shmalloc import room
from shmalloc.errors import (
    AbiMismatch,
    GeometryError,
    HostileArena,
    NoRoom,
    NotAnArena,
    ShmallocError,
    TruncatedArena,
)
from shmalloc.geometry import Geometry

if TYPE_CHECKING:
    from shmalloc._binding import Core

RESERVES = ("full", "sparse")


class Mapped(Protocol):
    """A mapped segment. Attributes as `Mapping` has them."""

    header: Any

    @property
    def base(self) -> int:
        """Address."""

    @property
    def size_bytes(self) -> int:
        """Bytes that are mapped."""


def checked_geometry(
    core: Core, geometry: Geometry | None, keys: dict[str, Any], reserve: str, broken: str
) -> Geometry:
    """Return the geometry that `Arena.create` was asked for.

    Raises:
        GeometryError: with every mistake in it and in the other arguments.
    """
    problems = []
    if reserve not in RESERVES:
        problems.append(f"reserve = {reserve!r}: allowed is {' or '.join(map(repr, RESERVES))}")
    if broken not in (known := core.names("broken")):
        problems.append(f"broken = {broken!r}: allowed is one of {', '.join(known)}")
    if geometry is None:
        try:
            geometry = Geometry.of(keys.pop("size", 0), **keys)
        except GeometryError as error:
            raise GeometryError(problems + error.problems) from None
    elif keys:
        problems.append(f"{', '.join(keys)}: allowed is a Geometry or keywords, not both")
    problems += geometry.check(core)
    if problems:
        raise GeometryError(problems)
    return geometry


def refuse_without_room(size_bytes: int) -> None:
    """Compare a size with what this machine has left.

    Raises:
        NoRoom: with the tightest of the limits that it does not fit.
    """
    if room.shortages(size_bytes, room.limits()):
        raise no_room(size_bytes)


def no_room(size_bytes: int, why: str = "") -> NoRoom:
    """Name the tightest limit of this machine."""
    tightest = min(room.limits(), key=lambda limit: limit.free_bytes)
    return NoRoom(size_bytes, tightest.free_bytes, f"{tightest.source} ({why})" if why else tightest.source)


def header_error(name: str, mapping: Mapped, core: Core) -> ShmallocError | None:
    """Check a segment's header; return why it must not be followed, or None if it may."""
    result = -core.lib.shm_arena_check(core.ffi.cast("void *", mapping.base), mapping.size_bytes)
    header = mapping.header
    if result == 0:
        return None
    if result == errno.ENOEXEC:
        return NotAnArena(f"{name}: {mapping.size_bytes} bytes that do not begin as an arena does")
    if result == errno.EPROTO:
        ours = core.lib.shm_abi_hash()
        return AbiMismatch(
            f"{name}: its layout's hash is {header.abi_hash:#018x}, this build's is {ours:#018x}"
        )
    if result == errno.EMSGSIZE:
        return TruncatedArena(f"{name}: {mapping.size_bytes} bytes; its header says {header.size_bytes}")
    if result == errno.EAGAIN:
        return ShmallocError(
            f"{name}: not ready: process {header.creator_pid} is still laying it out, or died"
        )
    return HostileArena(f"{name}: its header contradicts itself; nothing in it was followed")
