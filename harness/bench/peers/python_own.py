# SPDX-License-Identifier: MIT
"""What Python itself has for memory that processes share, and pyarrow: called as their users call them."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

__all__ = ["CALLS", "MODULES", "Calls"]


@dataclass(frozen=True)
class Calls:
    """How one of them is called.

    Attributes: alloc: makes an object of so many bytes.  free: ends it.  view: its bytes, to write to; to be released.
        place: where it is: in which space, from, to.
    """

    alloc: Callable[[int], Any]
    free: Callable[[Any], None]
    view: Callable[[Any], memoryview]
    place: Callable[[Any], tuple[Hashable, int, int]]


def _heap() -> Calls:
    from multiprocessing import heap as module

    heap = module.Heap()
    return Calls(
        heap.malloc,
        heap.free,
        lambda block: memoryview(block[0].buffer)[block[1] : block[2]],
        lambda block: (id(block[0]), block[1], block[2]),
    )


def _shared_memory() -> Calls:
    from multiprocessing.shared_memory import SharedMemory

    number = iter(range(1 << 60))

    def free(segment: SharedMemory) -> None:
        segment.close()
        segment.unlink()

    return Calls(
        lambda size: SharedMemory(f"shmalloc-{os.getpid()}-{next(number)}", create=True, size=size),
        free,
        lambda segment: segment.buf[:],
        lambda segment: (segment.name, 0, segment.size),
    )


def _pyarrow() -> Calls:
    import pyarrow

    return Calls(
        lambda size: [pyarrow.allocate_buffer(size)],
        lambda held: held.clear(),  # it goes with its last reference
        lambda held: memoryview(held[0]).cast("B"),
        lambda held: ("", held[0].address, held[0].address + held[0].size),
    )


CALLS: dict[str, Callable[[], Calls]] = {
    "python_heap": _heap,
    "python_shared_memory": _shared_memory,
    "python_pyarrow": _pyarrow,
}
MODULES = {"python_pyarrow": ("pyarrow", "PyPI: pyarrow")}  # what is no part of Python
