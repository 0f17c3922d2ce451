# SPDX-License-Identifier: MIT
"""Allocating: sizes, contents, shortage, and requests that are none."""

from collections.abc import Callable
from functools import partial

import pytest
from auditing import clean

from shmalloc import (
    AllocationFailed,
    BadFree,
    Cpu,
)

ZERO_SIZE_PTR = 16


ALLOCATORS: dict[str, Callable[[Cpu, int], int]] = {
    "kmalloc": lambda cpu, size: cpu.kmalloc(size),
    "kmalloc_nolock": lambda cpu, size: cpu.kmalloc_nolock(size),
}


@pytest.mark.parametrize("name", ALLOCATORS)
def test_objects_do_not_overlap(cpu: Cpu, name: str) -> None:
    sizes = [1, 8, 9, 96, 97, 192, 193, 1024, 4097, 8192] * 23
    offsets = [ALLOCATORS[name](cpu, size) for size in sizes]
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        cpu.view(offset, size)[:] = bytes([number % 251]) * size
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        assert bytes(cpu.view(offset, size)) == bytes([number % 251]) * size
        cpu.kfree(offset)
    assert clean(cpu.arena)


def test_zeroed(cpu: Cpu) -> None:
    offset = cpu.kmalloc(96)
    cpu.view(offset)[:] = b"x" * 96
    cpu.kfree(offset)
    assert bytes(cpu.view(cpu.kmalloc(96, "GFP_KERNEL|__GFP_ZERO"))) == bytes(96)
    assert bytes(cpu.view(cpu.kmalloc_nolock(96, "__GFP_ZERO"))) == bytes(96)


def test_nothing_is_an_object_too(cpu: Cpu) -> None:
    for allocate in ALLOCATORS.values():
        assert allocate(cpu, 0) == ZERO_SIZE_PTR
    assert len(cpu.view(ZERO_SIZE_PTR)) == 0
    for free in (cpu.kfree, cpu.kfree_nolock):
        free(ZERO_SIZE_PTR)
        free(0)
    assert cpu.ksize(ZERO_SIZE_PTR) == 0


def test_large_objects_come_from_the_page_allocator(cpu: Cpu) -> None:
    offset = cpu.kmalloc(100_000)
    assert cpu.ksize(offset) == 32 * 4096
    cpu.view(offset, 100_000)[-1] = 1
    cpu.kfree(offset)
    assert clean(cpu.arena)


def test_kmalloc_nolock_has_a_size_limit(cpu: Cpu) -> None:
    cpu.kfree_nolock(cpu.kmalloc_nolock(8192))
    with pytest.raises(
        AllocationFailed, match=r"kmalloc_nolock\(8193, __GFP_ZERO, -1\): size_limit"
    ) as caught:
        cpu.kmalloc_nolock(8193, "__GFP_ZERO")
    assert caught.value.reason == cpu.last_reason == "size_limit"


def test_shortage_says_so_and_ends(cpu: Cpu) -> None:
    offsets: list[int] = []

    def exhaust() -> None:
        while True:
            offsets.append(cpu.kmalloc(1 << 20))

    with pytest.raises(AllocationFailed) as caught:
        exhaust()
    assert caught.value.reason == "below_watermark"
    assert isinstance(caught.value, MemoryError)
    assert len(offsets) > 2
    for offset in offsets:
        cpu.kfree(offset)
    cpu.kfree(cpu.kmalloc(1 << 20))
    assert clean(cpu.arena)


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_size_that_is_none(cpu: Cpu, size: int) -> None:
    with pytest.raises(ValueError, match=rf"kmalloc.*{size}"):
        cpu.kmalloc(size)
    with pytest.raises(AllocationFailed, match=r"order_limit|size_limit|below_watermark"):
        cpu.kmalloc(2**63)


@pytest.mark.parametrize("node", [-2, 1, 2**31 - 1])
def test_a_node_that_is_none(cpu: Cpu, node: int) -> None:
    with cpu.kmem_cache_create("noded", 64) as cache:
        calls: list[Callable[..., int]] = [cache.alloc, cache.alloc_nolock, cpu.design("kmalloc").pages_alloc]
        calls += [
            partial(call, 64) for call in (cpu.kmalloc, cpu.kmalloc_nolock, cpu.design("kmalloc").alloc)
        ]
        calls += [partial(call, 0) for call in (cpu.alloc_pages, cpu.alloc_pages_nolock)]
        for call in calls:
            with pytest.raises(ValueError, match=rf"node = {node}: allowed are -1 \(any\) to 0"):
                call(node=node)


def test_unknown_flags_are_named(cpu: Cpu) -> None:
    with pytest.raises(ValueError, match=r"no such flag 'GFP_KERNAL'"):
        cpu.kmalloc(8, "GFP_KERNAL")


def test_krealloc_keeps_the_contents(cpu: Cpu) -> None:
    offset = cpu.krealloc(0, 40)
    cpu.view(offset, 40)[:] = bytes(range(40))
    offset = cpu.krealloc(offset, 5000)
    assert bytes(cpu.view(offset, 40)) == bytes(range(40))
    offset = cpu.krealloc(offset, 10)
    assert bytes(cpu.view(offset, 10)) == bytes(range(10))
    assert cpu.krealloc(offset, 0) == ZERO_SIZE_PTR
    with pytest.raises(BadFree):
        cpu.krealloc(offset, 100)
    assert clean(cpu.arena)


@pytest.mark.parametrize(
    ("size", "room"), [(1, 8), (65, 96), (97, 128), (129, 192), (193, 256), (8192, 8192)]
)
def test_ksize(cpu: Cpu, size: int, room: int) -> None:
    assert cpu.ksize(cpu.kmalloc(size)) == room
