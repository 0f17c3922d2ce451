# SPDX-License-Identifier: MIT
"""What grows with an arena, with its objects and with its caches, and how fast: counted, not timed."""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shmalloc import Arena, Cpu
from shmalloc.audit import audit
from shmalloc.procfs import slabinfo

_SIZES = ("64MiB", "1GiB", "16GiB")


class _Counting(np.ndarray):  # type: ignore[type-arg]
    """An array that counts the elements that anybody works on, of itself and of what is derived from it."""

    elements = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keys: Any) -> Any:
        _Counting.elements += max(np.size(each) for each in inputs)
        keys = {
            key: tuple(_plain(each) for each in value) if key == "out" else value
            for key, value in keys.items()
        }
        return _counting(getattr(ufunc, method)(*map(_plain, inputs), **keys))

    def __array_function__(self, function: Any, types: Any, arguments: Any, keys: Any) -> Any:
        _Counting.elements += self.size
        return super().__array_function__(function, types, arguments, keys)


def _plain(array: Any) -> Any:
    return array.view(np.ndarray) if isinstance(array, _Counting) else array


def _counting(array: Any) -> Any:
    return array.view(_Counting) if isinstance(array, np.ndarray) else array


class _Counted:
    """An arena whose struct pages are arrays that count."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.buffer = arena.buffer
        self.data_ranges = arena.data_ranges

    def region(self, name: str) -> Any:
        array = self._arena.region(name)
        return array.view(_Counting) if name == "pages" else array


def _elements(work: Callable[[], Any]) -> int:
    _Counting.elements = 0
    work()
    return _Counting.elements


def _calls(work: Callable[[], Any]) -> int:
    """Count the calls of Python functions and of C functions."""
    calls = 0

    def note(_frame: Any, event: str, _what: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def _resident_bytes(arena: Arena) -> int:
    """Return what this process has touched of its mapping of an arena."""
    with open("/proc/self/smaps") as lines:
        mine = False
        for line in lines:
            if "-" in line.split(" ", 1)[0]:
                mine = line.rstrip().endswith(arena.name) and int(line.split("-")[0], 16) == arena.base
            elif mine and line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"{arena.name} is not mapped")


def _taken_bytes(arena: Arena) -> int:
    """Return the memory that a segment takes."""
    return os.stat(f"/dev/shm{arena.name}").st_blocks * 512


def test_attaching_touches_the_same_pages_whatever_the_size() -> None:
    touched = set()
    for size in _SIZES:
        with Arena.create(size=size, reserve="sparse") as arena, Arena.attach(arena.name) as attached:
            attached.activate()
            touched.add(_resident_bytes(attached))
    assert len(touched) == 1, touched
    assert touched.pop() < 256 * 1024


def test_a_first_allocation_touches_the_same_pages_whatever_the_size() -> None:
    touched = set()
    for size in _SIZES:
        with (
            Arena.create(size=size, reserve="sparse") as made,
            Arena.attach(made.name) as arena,
            Cpu(arena, 0) as cpu,
        ):
            before = _resident_bytes(arena)
            cpu.kfree(cpu.kmalloc(64))
            touched.add(_resident_bytes(arena) - before)
    assert max(touched) <= 256 * 1024, touched


@pytest.mark.parametrize("look", [audit, slabinfo])
def test_reading_an_arena_takes_no_memory_for_what_was_never_written(look: Callable[[Arena], Any]) -> None:
    with Arena.create(size="16GiB", reserve="sparse") as arena, Cpu(arena, 0) as cpu:
        objects = [cpu.kmalloc(64) for _ in range(1000)]
        before = _taken_bytes(arena)
        look(arena)
        assert _taken_bytes(arena) - before <= 256 * 1024  # neighbours in a page of bitmap
        assert before < 64 << 20
        for offset in objects:
            cpu.kfree(offset)


def test_the_parts_with_data_are_told() -> None:
    with Arena.create(size="1GiB", reserve="sparse") as arena:
        size, page = arena.size_bytes, 4096
        at = size - 100 * page
        arena.buffer[at + 5] = 1
        arena.buffer[at + 3 * page] = 1
        assert arena.data_ranges(size // 2, size) == [(at, at + page), (at + 3 * page, at + 4 * page)]
        assert arena.data_ranges(at + 8, at + 16) == [(at + 8, at + 16)]
        assert arena.data_ranges(at + page, at + 2 * page) == []
        arena.unlink()
        assert arena.data_ranges(at + page, at + 2 * page) == [(at + page, at + 2 * page)]


def test_an_audit_finds_what_lies_beyond_a_hole() -> None:
    with Arena.create(size="4GiB", reserve="sparse") as arena:
        assert audit(arena).ok
        last = arena.region("zones")[-1]
        pfn = int(last["start_pfn"] + last["spanned_pages"]) - 3
        arena.region("oracle_owned")[pfn * 8] = 1
        report = audit(arena)
        assert f"page {pfn}" in {problem.where for problem in report.problems}


def _audited(caches: int, objects: int, count: Callable[[Callable[[], Any]], int]) -> int:
    """Count what an audit does of an arena with so many caches, and so many objects in each."""
    with Arena.create(size="256MiB", reserve="sparse", max_caches=1024) as arena, Cpu(arena, 0) as cpu:
        for number in range(caches):
            cache = cpu.kmem_cache_create(f"cache{number}", 512)
            for _ in range(objects):
                cache.alloc()
        audit(arena)  # what is cached is there now
        return count(lambda: audit(_Counted(arena)))


def _steps(of: Callable[[int], int]) -> tuple[int, int]:
    """Return what twice as much adds, and what twice as much again adds: from 200 to 400 and on to 800."""
    small, middle, large = (of(number) for number in (200, 400, 800))
    return middle - small, large - middle


@pytest.mark.parametrize("count", [_elements, _calls])
def test_the_work_of_an_audit_is_linear_in_caches(count: Callable[[Callable[[], Any]], int]) -> None:
    first, second = _steps(lambda caches: _audited(caches, 8, count))
    assert 0 < first <= second <= 2.2 * first


@pytest.mark.parametrize("count", [_elements, _calls])
def test_the_work_of_an_audit_is_linear_in_objects(count: Callable[[Callable[[], Any]], int]) -> None:
    first, second = _steps(lambda objects: _audited(8, 4 * objects, count))
    assert second <= 2.2 * max(first, 200)  # calls: hardly any, they are for all objects at once


def test_what_is_not_linear_would_be_seen() -> None:
    def quadratic(number: int) -> int:
        keys = np.arange(number).view(_Counting)
        return _elements(lambda: [keys == key for key in range(number)])

    first, second = _steps(quadratic)
    assert second > 2.2 * first
