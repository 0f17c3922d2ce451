# SPDX-License-Identifier: MIT
"""Allocators for any context, over an arena in shared memory.

with Arena.create(size="64MiB") as arena, Cpu(arena, 0) as cpu:
    offset = cpu.kmalloc_nolock(100)
    cpu.view(offset)[:5] = b"hello"
    cpu.kfree(offset)

    array = cpu.empty((100, 3), "f8")   # numpy's, in the arena; freed with the last view of it
    offset = cpu.give(array)            # 64 bits; another process: Cpu(arena, 1).take(offset)
    offsets = cpu.kmalloc_bulk([64] * 1000)
    cpu.kfree_bulk(offsets)
"""

from shmalloc.arena import Arena, SegmentInfo, list_segments, remove
from shmalloc.cache import CacheInfo, KmemCache
from shmalloc.cpu import Cpu
from shmalloc.errors import (
    AbiMismatch,
    AllocationFailed,
    BadFree,
    BadName,
    BuildMissing,
    CpuBusy,
    DeadlockProved,
    GeometryError,
    HostileArena,
    MapError,
    NoRoom,
    NotAnArena,
    NotBound,
    ShmallocError,
    StaleBuildError,
    TruncatedArena,
    Unsupported,
    WrongThread,
)
from shmalloc.fast import Block
from shmalloc.geometry import Geometry
from shmalloc.maps import HashMap
from shmalloc.memcg import MemCgroup
from shmalloc.program import Program, ops
from shmalloc.replay import ReplayResult
from shmalloc.units import format_bytes, parse_bytes
from shmalloc.violations import Violation

__all__ = [
    "AbiMismatch",
    "AllocationFailed",
    "Arena",
    "BadFree",
    "BadName",
    "Block",
    "BuildMissing",
    "CacheInfo",
    "Cpu",
    "CpuBusy",
    "DeadlockProved",
    "Geometry",
    "GeometryError",
    "HashMap",
    "HostileArena",
    "KmemCache",
    "MapError",
    "MemCgroup",
    "NoRoom",
    "NotAnArena",
    "NotBound",
    "Program",
    "ReplayResult",
    "SegmentInfo",
    "ShmallocError",
    "StaleBuildError",
    "TruncatedArena",
    "Unsupported",
    "Violation",
    "WrongThread",
    "format_bytes",
    "list_segments",
    "ops",
    "parse_bytes",
    "remove",
]
