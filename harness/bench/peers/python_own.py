# SPDX-License-Identifier: MIT
"""What is called from Python: ours, what Python itself has for memory that processes share, and pyarrow.

Each as its users call it. Nothing is imported, and no arena made, before somebody asks for the calls.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["CALLS", "SAME", "Calls"]

Place = tuple[Hashable, int, int]
_SIZE = "64MiB"
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Calls:
    """How objects of some bytes are made and ended.

    Attributes: alloc: makes one of so many bytes.  free: ends it; None: it goes with its last reference.  view: its
        bytes, to write to; to be released.  place: where it is: in which space, from, to.
    """

    alloc: Callable[[int], Any]
    free: Callable[[Any], None] | None
    view: Callable[[Any], memoryview[int]]
    place: Callable[[Any], Place]


# --- ours -----------------------------------------------------------------------------------------------


@cache
def _cpu() -> Any:
    from shmalloc import Arena, Cpu

    arena = Arena.create(size=_SIZE, nr_cpus=2, oracle=False, kernel="7.0")
    cpu = Cpu(arena, 0)
    arena.unlink()  # nobody else needs its name, and whoever ends this process by force would leave it
    return cpu


def _kmalloc() -> Calls:
    cpu = _cpu()
    return Calls(cpu.kmalloc, cpu.kfree, cpu.view, lambda offset: ("", offset, offset + cpu.ksize(offset)))


def _block() -> Calls:
    def place(block: Any) -> Place:
        return "", block.offset, block.offset + block.size

    return Calls(_cpu().block, None, memoryview, place)


def _one_of_many() -> Calls:
    cpu = _cpu()
    return Calls(
        lambda size: int(cpu.kmalloc_bulk([size])[0]),
        lambda offset: cpu.kfree_bulk([offset]),
        cpu.view,
        lambda offset: ("", offset, offset + cpu.ksize(offset)),
    )


def _array() -> Calls:
    cpu = _cpu()

    def place(array: Any) -> Place:
        first = array.__array_interface__["data"][0]
        return "", first, first + array.nbytes

    return Calls(lambda size: cpu.empty(size, "u1"), None, memoryview, place)


# --- Python's own ---------------------------------------------------------------------------------------


def _bytearray() -> Calls:
    def place(made: bytearray) -> Place:
        first = ctypes.addressof((ctypes.c_char * 1).from_buffer(made))
        return "", first, first + len(made)

    return Calls(bytearray, None, memoryview, place)


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

    def free(segment: SharedMemory) -> None:
        segment.close()
        segment.unlink()

    return Calls(
        lambda size: SharedMemory(_name(), create=True, size=size),
        free,
        lambda segment: segment.buf[:],
        lambda segment: (segment.name, 0, segment.size),
    )


def _name() -> str:
    """Name a segment so that whoever ends this process by force can remove it."""
    return f"shmalloc-{os.getpid()}-{next(_NUMBERS)}"


# --- pyarrow: buffers of its pool ---------------------------------------------------------------------------


def _pyarrow() -> Calls:
    import pyarrow

    def place(buffer: Any) -> Place:
        return "", buffer.address, buffer.address + buffer.size

    return Calls(pyarrow.allocate_buffer, None, lambda buffer: memoryview(buffer).cast("B"), place)


#: by subject
CALLS: dict[str, Callable[[], Calls]] = {
    "python_kmalloc": _kmalloc,
    "python_block": _block,
    "python_bulk": _one_of_many,
    "python_array": _array,
    "python_bytearray": _bytearray,
    "python_heap": _heap,
    "python_shared_memory": _shared_memory,
    "python_pyarrow": _pyarrow,
}
#: subjects that make the same calls as another one
SAME = {
    "python_kmalloc_oracle": "python_kmalloc",
    "python_array_sent": "python_array",
    "python_shared_memory_sent": "python_shared_memory",
    "python_pyarrow_sent": "python_pyarrow",
    "bulk_in_c": "sheaves",
}
