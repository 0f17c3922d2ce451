# SPDX-License-Identifier: MIT
"""What can go wrong, as exceptions that say why.

Each carries its facts as attributes, and a message that names them.
"""

from collections.abc import Iterable

__all__ = [
    "AbiMismatch",
    "AllocationFailed",
    "BadFree",
    "BadName",
    "BuildMissing",
    "CpuBusy",
    "DeadlockProved",
    "GeometryError",
    "HostileArena",
    "MapError",
    "NoRoom",
    "NotAnArena",
    "NotBound",
    "ShmallocError",
    "StaleBuildError",
    "TruncatedArena",
    "Unsupported",
    "WrongThread",
]


class ShmallocError(Exception):
    """Base of all of them."""


# --- the build ------------------------------------------------------------------------------------


class BuildMissing(ShmallocError):
    """The compiled core is not there."""


class StaleBuildError(ShmallocError):
    """The compiled core was made from other sources than those beside the package."""


class Unsupported(ShmallocError):
    """This flavour, or this machine, cannot do it."""


# --- arenas ---------------------------------------------------------------------------------------


class GeometryError(ShmallocError, ValueError):
    """A geometry that no arena can have.

    Attributes: problems: every mistake found, one text each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


class BadName(ShmallocError, ValueError):
    """A name that no segment can have."""


class NoRoom(ShmallocError):
    """There is no room for an arena of this size.

    Attributes: needed_bytes: asked for.  room_bytes: what there is.  where: what limits it.
    """

    def __init__(self, needed_bytes: int, room_bytes: int, where: str) -> None:
        self.needed_bytes = needed_bytes
        self.room_bytes = room_bytes
        self.where = where
        super().__init__(
            f"an arena of {needed_bytes} bytes ({needed_bytes / 2**20:.1f} MiB) does not fit: "
            f"{where} has {room_bytes} bytes ({room_bytes / 2**20:.1f} MiB)"
        )


class NotAnArena(ShmallocError):
    """The segment does not hold an arena, or there is no such segment."""


class AbiMismatch(NotAnArena):
    """The segment was laid out by another version of arena.h or its parts."""


class TruncatedArena(NotAnArena):
    """The segment is smaller than its header says."""


class HostileArena(NotAnArena):
    """The header contradicts itself: following it could lead anywhere."""


# --- CPUs -----------------------------------------------------------------------------------------


class NotBound(ShmallocError):
    """The call needs a CPU, and this process is none."""


class WrongThread(ShmallocError):
    """The call came from another thread than the CPU's own."""


class CpuBusy(ShmallocError):
    """The CPU slot belongs to somebody else, or its owner died in it."""


class DeadlockProved(ShmallocError):
    """The call would have waited for ever; the core proved it and stopped the arena.

    Attributes: violation: what the core recorded.
    """

    def __init__(self, violation: object) -> None:
        self.violation = violation
        super().__init__(str(violation))


# --- memory ---------------------------------------------------------------------------------------


class MapError(ShmallocError):
    """A hash map refused an update, a lookup or a delete.

    Attributes: name: of the error: E2BIG, ENOMEM, EEXIST, ENOENT, EDEADLK or ETIMEDOUT.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(text)


class AllocationFailed(ShmallocError, MemoryError):
    """An allocation returned NULL.

    Attributes: reason: why, one of the core's reasons (`zone_busy`, `below_watermark`, ...).
    """

    def __init__(self, reason: str, message: str = "") -> None:
        self.reason = reason
        super().__init__(f"{message}: {reason}" if message else reason)


class BadFree(ShmallocError, ValueError):
    """A free of something that is no live object. Nothing was changed.

    Attributes: offset: as given, in bytes from the arena's start.  why: what it is instead.
    """

    def __init__(self, offset: int, why: str) -> None:
        self.offset = offset
        self.why = why
        super().__init__(f"free of offset {offset:#x}: {why}")
