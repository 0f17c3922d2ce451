# SPDX-License-Identifier: MIT
"""Views of objects: the arena's own memory, writable, without a copy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from shmalloc import arrays
from shmalloc.errors import ShmallocError
from shmalloc.objects import live_object_at, memory_range, why_not_live

if TYPE_CHECKING:
    import numpy as np

    from shmalloc.calls import Calls


def object_view(calls: Calls, offset: int, size: int | None) -> memoryview[int]:
    """Return the bytes of a live object; see `Cpu.view`."""
    arena = calls.arena
    if offset == calls.lib.SHM_ZERO_SIZE and not size:
        return arena.buffer[offset:offset]
    start, end = memory_range(arena)
    if not start <= offset < end or (size is not None and size < 0):
        raise ShmallocError(f"view of {size} bytes at {offset:#x}: {why_not_live(arena, offset)}")
    room = _bytes_from(calls, offset)
    if room is None:
        raise ShmallocError(f"view at {offset:#x}: {why_not_live(arena, offset)}")
    if size is not None and size > room:
        raise ShmallocError(f"view of {size} bytes at {offset:#x}: the object ends {room} bytes from there")
    return arena.buffer[offset : offset + (room if size is None else size)]


def object_array(calls: Calls, offset: int, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Return a live object as an array; see `Cpu.array`."""
    import numpy as np

    arrays.set_up()
    item = np.dtype(dtype)
    axes = (shape,) if isinstance(shape, int) else tuple(shape)
    view = object_view(calls, offset, math.prod(axes) * item.itemsize)
    return np.frombuffer(view, item).reshape(axes)


def _bytes_from(calls: Calls, offset: int) -> int | None:
    """Return how many bytes of a live object lie from the offset on; None = it is in none."""
    if not calls.has_oracle:
        return calls.call(calls.lib.shm_ksize, offset) or None
    owner = live_object_at(calls.arena, offset)
    if owner is None:
        return None
    return int(calls.lib.shm_oracle_extent(owner)) - (offset - owner)
