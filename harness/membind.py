# SPDX-License-Identifier: MIT
"""Putting the nodes of an arena on real ones: mbind() of each node's page frames.

The policy is the segment's, so it holds for every process that maps it.  It is set before the segment takes
its memory; what has been touched by then is moved.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.topology import Placement

if TYPE_CHECKING:
    from shmalloc.arena import Arena

__all__ = ["bind", "mbind", "ranges"]

_SYS_MBIND = {"x86_64": 237, "aarch64": 235}
_MPOL_BIND, _MPOL_MF_MOVE = 2, 2
_WORD_BITS = 64

Mbind = Callable[[int, int, int], None]


def mbind(address: int, length: int, node: int) -> None:
    """Bind a range of this process's memory to one real node, and move there what is elsewhere.

    Args: address: of a page.  length: bytes.  node: its number.
    Raises: OSError: the kernel refuses, or has no such call.
    """
    number = _SYS_MBIND.get(platform.machine())
    if number is None:
        raise OSError(f"mbind on {platform.machine()}: its number is not known here")
    words = node // _WORD_BITS + 1
    mask = (ctypes.c_ulong * words)()
    mask[node // _WORD_BITS] = 1 << node % _WORD_BITS
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (address, length, _MPOL_BIND, ctypes.addressof(mask), words * _WORD_BITS + 1, _MPOL_MF_MOVE)
    if libc.syscall(number, *(ctypes.c_ulong(argument) for argument in arguments)):
        error = ctypes.get_errno()
        raise OSError(error, f"mbind to node {node}: {os.strerror(error)}")


def ranges(arena: Arena) -> list[tuple[int, int]]:
    """Return each node's page frames: offset from the arena's start and length, bytes."""
    lib, header = arena.core.lib, arena.header
    memory, page = int(header.regions[lib.REGION_MEMORY].offset), int(lib.SHM_PAGE_SIZE)
    return [
        (memory + int(node["start_pfn"]) * page, int(node["spanned_pages"]) * page)
        for node in arena.region("nodes")
    ]


def bind(arena: Arena, placement: Placement, call: Mbind = mbind) -> Placement:
    """Put the arena's nodes on real ones, if that is what was decided.

    Returns: the placement, or one that says that the kernel refused, and leaves them alone; CPUs stay where they are.
    """
    if not placement.is_bound:
        return placement
    try:
        for (offset, length), node in zip(ranges(arena), placement.real_nodes, strict=True):
            call(arena.base + offset, length, node)
    except OSError as error:
        return Placement((), placement.cores, f"left alone: {error.strerror or error}")
    return placement
