# SPDX-License-Identifier: MIT
"""Freeing what is none: each refusal names what is there instead."""

from collections.abc import Callable

import pytest
from auditing import SIZE, clean

from shmalloc import (
    Arena,
    BadFree,
    Cpu,
)

FREES_OF: dict[str, Callable[[Cpu, int], None]] = {
    "kfree": lambda cpu, offset: cpu.kfree(offset),
    "kfree_nolock": lambda cpu, offset: cpu.kfree_nolock(offset),
}


@pytest.mark.parametrize("name", FREES_OF)
@pytest.mark.parametrize(
    "offset", [1, 8, 17, 4096, SIZE - 4096, SIZE - 8, SIZE, SIZE + 64, 2**48, 2**63, 2**64 - 8, 2**64, -8]
)
def test_garbage_is_named(cpu: Cpu, name: str, offset: int) -> None:
    live = cpu.kmalloc(64)
    with pytest.raises(BadFree, match=rf"free of offset {offset:#x}: ") as caught:
        FREES_OF[name](cpu, offset)
    assert caught.value.offset == offset
    assert caught.value.why
    cpu.kfree(live)
    assert clean(cpu.arena)


@pytest.mark.parametrize("first", FREES_OF)
@pytest.mark.parametrize("second", FREES_OF)
@pytest.mark.parametrize("size", [8, 100, 8192])
def test_a_double_free_is_named(cpu: Cpu, first: str, second: str, size: int) -> None:
    offset = cpu.kmalloc(size)
    FREES_OF[first](cpu, offset)
    with pytest.raises(BadFree, match=r"not live: freed already|already freed"):
        FREES_OF[second](cpu, offset)
    offsets = {cpu.kmalloc(size) for _ in range(101)}
    assert len(offsets) == 101
    assert clean(cpu.arena)


@pytest.mark.parametrize("name", FREES_OF)
@pytest.mark.parametrize("size", [64, 100, 8192, 50_000])
@pytest.mark.parametrize("distance", [1, 7, 8, 16, 56])
def test_the_middle_of_an_object_is_named(cpu: Cpu, name: str, size: int, distance: int) -> None:
    offset = cpu.kmalloc(size)
    cpu.view(offset, size)[:] = b"\xa5" * size
    with pytest.raises(BadFree, match=rf"{distance} bytes into the live object at {offset:#x}"):
        FREES_OF[name](cpu, offset + distance)
    assert bytes(cpu.view(offset, size)) == b"\xa5" * size
    cpu.kfree(offset)
    assert clean(cpu.arena)


def test_the_middle_of_a_free_object_is_named(cpu: Cpu) -> None:
    offset = cpu.kmalloc(128)
    cpu.kfree(offset)
    with pytest.raises(
        BadFree, match=rf"24 bytes from the start of the free object of kmalloc-128 at {offset:#x}"
    ):
        cpu.kfree(offset + 24)


def test_pages_are_not_for_kfree_nor_objects_for_free_pages(cpu: Cpu) -> None:
    pages, small, large = cpu.alloc_pages(2), cpu.kmalloc(64), cpu.kmalloc(20_000)
    for free in FREES_OF.values():
        with pytest.raises(BadFree, match=r"pages that alloc_pages handed out"):
            free(cpu, pages)
    for free_pages in (cpu.free_pages, cpu.free_pages_nolock):
        with pytest.raises(BadFree, match=r"a block of order 2, not 1"):
            free_pages(pages, 1)
        with pytest.raises(BadFree, match=r"into the live object|order 2"):
            free_pages(pages + 4096, 0)
        with pytest.raises(BadFree, match=r"not the start of a page"):
            free_pages(pages + 8, 2)
        with pytest.raises(BadFree):
            free_pages(small & ~4095, 0)
        with pytest.raises(BadFree, match=r"a large kmalloc: kfree takes it"):
            free_pages(large, 3)
    cpu.free_pages(pages, 2)
    for free_pages in (cpu.free_pages, cpu.free_pages_nolock):
        with pytest.raises(BadFree):
            free_pages(pages, 2)
    cpu.kfree(small)
    cpu.kfree(large)
    assert clean(cpu.arena)


def test_another_cpus_free_is_noticed(arena: Arena) -> None:
    with Cpu(arena, 0) as first, Cpu(arena, 1) as second:
        offset = first.kmalloc(64)
        second.kfree(offset)
        with pytest.raises(BadFree):
            first.kfree(offset)
        assert clean(arena)


@pytest.mark.parametrize("name", FREES_OF)
def test_without_the_oracle_the_page_table_is_asked(flavour: str, name: str) -> None:
    with Arena.create(size=SIZE, oracle=False, flavour=flavour) as arena, Cpu(arena, 0) as cpu:
        offset, large, pages = cpu.kmalloc(64), cpu.kmalloc(20_000), cpu.alloc_pages(1)
        for bad in (1, 2**63, SIZE, offset + 8, offset + 1, large + 4096, pages, -8):
            with pytest.raises(BadFree):
                FREES_OF[name](cpu, bad)
        with pytest.raises(BadFree):
            cpu.free_pages(pages, 0)
        assert len(cpu.view(offset)) == 64
        cpu.free_pages(pages, 1)
        cpu.kfree(large)
        FREES_OF[name](cpu, offset)
        cpu.run_irq_work()
        assert clean(arena)
