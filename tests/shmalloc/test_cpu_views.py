# SPDX-License-Identifier: MIT
"""Objects and pages as memory, and the orders of pages."""

import numpy as np
import pytest
from auditing import SIZE, clean

from shmalloc import (
    AllocationFailed,
    Cpu,
    ShmallocError,
)


def test_a_view_is_the_memory_itself(cpu: Cpu) -> None:
    offset = cpu.kmalloc(100)
    assert len(cpu.view(offset)) == 104
    cpu.view(offset, 4)[:] = b"abcd"
    assert bytes(cpu.arena.buffer[offset : offset + 4]) == b"abcd"
    assert bytes(cpu.view(offset + 2, 2)) == b"cd"


def test_an_array_is_the_memory_itself(cpu: Cpu) -> None:
    offset = cpu.kmalloc(96)
    array = cpu.array(offset, (3, 4), "f8")
    array[:] = np.arange(12).reshape(3, 4)
    assert cpu.array(offset, 12, np.float64).tolist() == list(range(12))
    assert cpu.array(offset + 8, 2, "f8").tolist() == [1.0, 2.0]


def test_views_end_where_the_object_does(cpu: Cpu) -> None:
    offset = cpu.kmalloc(100)
    for at, size in ((offset, 105), (offset + 100, 5), (offset, -1), (offset, 2**63)):
        with pytest.raises(ShmallocError, match=r"view of"):
            cpu.view(at, size)
    with pytest.raises(ShmallocError, match=r"the object ends 104 bytes from there"):
        cpu.array(offset, 14, "f8")
    cpu.kfree(offset)
    for bad in (offset, 0, 17, SIZE, -4096, 2**64):
        with pytest.raises(ShmallocError, match=r"view"):
            cpu.view(bad)


def test_pages_can_be_viewed(cpu: Cpu) -> None:
    offset = cpu.alloc_pages(3)
    assert len(cpu.view(offset)) == 8 * 4096
    assert len(cpu.view(offset + 4096, 4096)) == 4096
    cpu.free_pages(offset, 3)


@pytest.mark.parametrize("order", range(11))
def test_pages(cpu: Cpu, order: int) -> None:
    offset = cpu.alloc_pages(order)
    assert offset % 4096 == 0
    cpu.free_pages(offset, order)
    assert clean(cpu.arena)


@pytest.mark.parametrize("order", range(4))
def test_pages_nolock(cpu: Cpu, order: int) -> None:
    offset = cpu.alloc_pages_nolock(order)
    cpu.free_pages_nolock(offset, order)
    cpu.drain_pages()
    assert clean(cpu.arena)


def test_orders_have_limits(cpu: Cpu) -> None:
    with pytest.raises(AllocationFailed, match=r"order_limit"):
        cpu.alloc_pages(11)
    with pytest.raises(AllocationFailed, match=r"order_limit"):
        cpu.alloc_pages_nolock(5)
