# SPDX-License-Identifier: MIT
# ruff: noqa: F821 - names that a function deletes at its end
"""Blocks: objects of the arena that are freed with an object of Python."""

import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from auditing import clean
from growing import blocks_left

from shmalloc import AllocationFailed, Arena, BadFree, Cpu, NotBound, ShmallocError, WrongThread


def live(cpu: Cpu) -> int:
    counts = cpu.contexts()["task"]
    return int(counts["allocs"] - counts["frees"])


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_it_is_freed_with_the_object(cpu: Cpu) -> None:
    block = cpu.block(100)
    offset = block.offset
    assert (block.size, len(block)) == (100, 100)
    assert repr(block) == f"<Block of 100 bytes at {offset:#x}>"
    memoryview(block)[:5] = b"hello"
    assert bytes(cpu.view(offset, 5)) == b"hello"
    assert live(cpu) == 1
    del block
    assert live(cpu) == 0
    with pytest.raises(BadFree):
        cpu.kfree(offset)
    assert clean(cpu.arena)


def test_it_is_freed_at_once(cpu: Cpu) -> None:
    block = cpu.block(64)
    block.free()
    assert live(cpu) == 0
    assert repr(block) == "<Block of 64 bytes, free or given away>"
    for use in (block.free, block.give, lambda: block.offset, lambda: memoryview(block)):
        with pytest.raises(ShmallocError, match="holds no object any more: it was freed, or given away"):
            use()
    del block
    assert live(cpu) == 0


def test_it_is_freed_at_the_end_of_with(cpu: Cpu) -> None:
    with cpu.block(64) as block:
        assert live(cpu) == 1
    assert live(cpu) == 0
    with cpu.block(64) as block:
        block.free()
    with cpu.block(64) as block:
        offset = block.give()
    assert live(cpu) == 1
    cpu.kfree(offset)
    with pytest.raises(KeyError), cpu.block(64):
        raise KeyError
    assert live(cpu) == 0


def test_views_keep_it(cpu: Cpu) -> None:
    with cpu.block(64) as block:
        view = memoryview(block)
        numbers = np.frombuffer(block, "u4")
        assert (view.nbytes, view.readonly, numbers.size) == (64, False, 16)
        with pytest.raises(ShmallocError, match=r"looked at by 2 views or arrays: drop them first"):
            block.free()
    numbers[:] = 7
    assert view[4] == 7
    del block, view
    assert live(cpu) == 1
    del numbers
    assert live(cpu) == 0


def test_an_arena_that_is_looked_at_is_not_unmapped() -> None:
    arena = Arena.create(size="8MiB")
    cpu = Cpu(arena, 0)
    view = memoryview(cpu.block(64))
    with pytest.raises(ShmallocError, match="views of this arena are still in use"):
        arena.close()
    view[0] = 1
    with pytest.warns(
        ResourceWarning, match=r"a block of 64 bytes at 0x\w+ stays allocated: CPU 0 of .* was closed"
    ):
        del view
    arena.close()
    arena.unlink()


def test_numpy_s_own_reference_keeps_the_mapping() -> None:
    """ndarray(buffer=...) keeps the block but no view of it."""
    arena = Arena.create(size="8MiB")
    with arena, Cpu(arena, 0) as cpu:
        numbers = np.ndarray((8,), "u8", cpu.block(64))
        kept = numbers.base.give()  # nobody is left to free it
        assert kept
    assert arena.closed
    numbers[:] = 7
    assert numbers.tolist() == [7] * 8


def test_what_is_handed_over_is_owned(cpu: Cpu) -> None:
    offset = cpu.kmalloc(100)
    block = cpu.own(offset)
    assert block.offset == offset
    assert block.size == 104
    del block
    for bad in (offset, 0, 16, 1, -8, 2**64, 4096):
        with pytest.raises(BadFree, match=rf"free of offset {bad:#x}: "):
            cpu.own(bad)
    first = cpu.block(64)
    again = cpu.own(first.give())
    assert live(cpu) == 1
    again.free()
    assert clean(cpu.arena)


def test_without_the_oracle(flavour: str) -> None:
    with Arena.create(size="8MiB", flavour=flavour, oracle=False) as arena, Cpu(arena, 0) as cpu:
        assert cpu.own(cpu.kmalloc(100)).size == 128
        with pytest.raises(BadFree):
            cpu.own(4096)
        assert live(cpu) == 0


def test_a_block_that_somebody_else_has_freed_is_reported(cpu: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    block = cpu.block(64)
    cpu.kfree(block.offset)
    with pytest.raises(BadFree, match="not live: freed already"):
        block.free()
    block = cpu.block(64)
    cpu.kfree(block.offset)
    seen: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: seen.append(what.exc_value))
    del block
    assert [type(error) for error in seen] == [BadFree]


def test_shortage(cpu: Cpu) -> None:
    blocks = []

    def exhaust() -> None:
        while True:
            blocks.append(cpu.block(1 << 20))

    with pytest.raises(AllocationFailed, match=r"kmalloc_node\(1048576, GFP_KERNEL, -1\): below_watermark"):
        exhaust()
    assert len(blocks) > 2
    del blocks
    assert live(cpu) == 0
    for size in (-1, 2**64):
        with pytest.raises(ValueError, match=f"size = {size}: allowed are 0 to"):
            cpu.block(size)
    with pytest.raises(TypeError):
        cpu.block("64")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="node = 5"):
        cpu.block(64, node=5)
    assert cpu.block(0).size == 0


def test_another_thread_leaves_it_to_the_cpu(cpu: Cpu) -> None:
    blocks = [cpu.block(64) for _ in range(101)]
    in_thread(blocks.clear)
    assert live(cpu) == 101
    block = cpu.block(64)
    assert live(cpu) == 1
    errors: list[type[BaseException]] = []

    def free() -> None:
        for call in (block.free, lambda: cpu.block(8), lambda: cpu.own(block.offset)):
            try:
                call()
            except ShmallocError as error:
                errors.append(type(error))

    in_thread(free)
    assert errors == [WrongThread] * 3
    blocks.append(block)
    del block
    in_thread(blocks.clear)
    cpu.close()
    assert live(cpu) == 0
    assert clean(cpu.arena)


def test_it_should_not_outlive_its_cpu(arena: Arena) -> None:
    first, second = Cpu(arena, 0), Cpu(arena, 1)
    block = first.block(64)
    first.close()
    with pytest.raises(NotBound, match=r"CPU 0 of .* is closed"):
        block.free()
    before = second.contexts()["task"]["frees"]
    del block  # the thread's other CPU frees it
    assert second.contexts()["task"]["frees"] - before == 1
    block = second.block(64)
    second.close()
    with pytest.warns(ResourceWarning, match="a block of 64 bytes"):
        del block


def test_blocks_of_two_cpus_of_a_thread(arena: Arena) -> None:
    with Cpu(arena, 0) as first, Cpu(arena, 1) as second:
        for _ in range(23):
            mine, other = first.block(64), second.block(64)
            del mine
            other.free()
        assert live(first) + live(second) == 0
        assert clean(arena)


def test_what_another_thread_left_goes_with_a_cpu_that_is_not_current(arena: Arena) -> None:
    first, second = Cpu(arena, 0), Cpu(arena, 1)
    blocks = [first.block(64) for _ in range(23)]
    second.kfree(second.kmalloc(64))
    in_thread(blocks.clear)
    assert live(first) == 23
    first.close()
    assert second.contexts()["task"]["frees"] == 24
    second.close()
    assert clean(arena)


def test_an_exception_on_its_way_is_kept(cpu: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        block = cpu.block(64)
        cpu.kfree(block.offset)
        raise KeyError(block.size)

    monkeypatch.setattr(sys, "unraisablehook", lambda what: None)
    with pytest.raises(KeyError, match="64"):
        fail()


def test_it_cannot_be_made_otherwise(cpu: Cpu) -> None:
    with pytest.raises(TypeError):
        type(cpu.block(8))()


def test_nothing_leaks(cpu: Cpu) -> None:
    calls = cpu._calls

    def use() -> None:
        memoryview(cpu.block(64)).release()
        cpu.own(cpu.block(64).give()).free()

    use()
    references = sys.getrefcount(calls)
    assert blocks_left(use, 5003) < 101
    assert sys.getrefcount(calls) == references
    assert cpu.arena.window.users == 0
    assert live(cpu) == 0
