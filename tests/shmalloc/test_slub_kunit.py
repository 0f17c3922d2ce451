# SPDX-License-Identifier: MIT
"""The kernel's unit tests of slab debugging (lib/tests/slub_kunit.c), case by case, with its counts of reports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shmalloc import Arena, Cpu, KmemCache, ShmallocError
from shmalloc.audit import audit

RED_ZONE, POISON, USER = "SLAB_RED_ZONE", "SLAB_POISON", "SLAB_STORE_USER"
KMALLOC = f"SLAB_KMALLOC|{USER}|{RED_ZONE}"
RED_ACTIVE = 0xCC


@pytest.fixture
def cpu(flavour: str) -> Iterator[Cpu]:
    """A CPU of an arena whose debug checks count, as the kernel's do in these tests."""
    with Arena.create(size="4MiB", pageblock_order=5, flavour=flavour) as arena, Cpu(arena, 0) as made:
        arena.slab_errors.stop = False
        yield made


def create(cpu: Cpu, name: str, size: int, flags: str) -> KmemCache:
    return cpu.kmem_cache_create(f"TestSlub_{name}", size, flags=f"{flags}|SLAB_NO_USER_FLAGS")


def memory(cpu: Cpu, offset: int, length: int) -> memoryview[int]:
    """Bytes of the arena, whoever owns them."""
    return cpu.arena.buffer[offset : offset + length]


def validate(cache: KmemCache, cpu: Cpu) -> int:
    """Errors of one validation, by its result and by the counter."""
    cpu.arena.slab_errors.clear()
    found = cache.validate()
    assert cpu.arena.slab_errors.count == found
    return found


def test_clobber_zone(cpu: Cpu) -> None:
    with create(cpu, "RZ_alloc", 64, RED_ZONE) as cache:
        p = cache.alloc()
        memory(cpu, p + 64, 1)[0] = 0x12
        assert validate(cache, cpu) == 2
        wrong, fix = cpu.arena.slab_errors.list()
        assert (wrong.kind, wrong.cache, wrong.object) == (
            "right red zone overwritten",
            "TestSlub_RZ_alloc",
            p,
        )
        assert (wrong.at, wrong.found, wrong.expected, wrong.bytes) == (p + 64, 0x12, RED_ACTIVE, 1)
        assert fix.is_fix and not wrong.is_fix
        assert str(wrong).startswith(
            "TestSlub_RZ_alloc: right red zone overwritten, 1 bytes from +64, 0x12 instead of 0xcc"
        )
        cache.free(p)


def test_next_pointer(cpu: Cpu) -> None:
    cache = create(cpu, "next_ptr_free", 64, POISON)
    p = cache.alloc()
    cache.free(p)
    link = p + cpu.arena.item("struct kmem_cache", "caches", cache.index).offset
    saved = bytes(memory(cpu, link, 8))
    memory(cpu, link, 1)[0] = 0x12
    # the freechain, the count of objects in use that no longer fits it, and the repair of that
    assert validate(cache, cpu) == 3
    kinds = [error.kind for error in cpu.arena.slab_errors.list()]
    assert kinds == ["freechain corrupt", "wrong object count", "fix: object count adjusted"]
    memory(cpu, link, 8)[:] = saved
    # the count again, now the other way round
    assert validate(cache, cpu) == 2
    assert validate(cache, cpu) == 0
    cache.destroy()
    assert audit(cpu.arena, expect_live=False).ok


@pytest.mark.parametrize(("name", "at", "value"), [("1th_word_free", 0, 0x78), ("50th_word_free", 50, 0x9A)])
def test_write_after_free(cpu: Cpu, name: str, at: int, value: int) -> None:
    with create(cpu, name, 64, POISON) as cache:
        p = cache.alloc()
        cache.free(p)
        memory(cpu, p + at, 1)[0] = value
        assert validate(cache, cpu) == 2
        assert cpu.arena.slab_errors.list()[0].kind == "poison overwritten"
        assert validate(cache, cpu) == 0


def test_clobber_redzone_free(cpu: Cpu) -> None:
    with create(cpu, "RZ_free", 64, RED_ZONE) as cache:
        p = cache.alloc()
        cache.free(p)
        memory(cpu, p + 64, 1)[0] = 0xAB
        assert validate(cache, cpu) == 2
        assert validate(cache, cpu) == 0


def test_kmalloc_redzone_access(cpu: Cpu) -> None:
    with create(cpu, "RZ_kmalloc", 32, KMALLOC) as cache:
        p = cache.kmalloc(18)
        memory(cpu, p + 18, 2)[:] = b"\xab\xab"
        assert validate(cache, cpu) == 2
        assert [e.bytes for e in cpu.arena.slab_errors.list()] == [2, 0]
        cache.free(p)


def test_kfree_rcu(cpu: Cpu) -> None:
    cache = create(cpu, "kfree_rcu", 64, "SLAB_NO_USER_FLAGS")
    cpu.kfree_rcu(cache.alloc(), 0)
    cache.destroy()
    assert cpu.arena.slab_errors.count == 0
    assert audit(cpu.arena, expect_live=False).ok


def test_kfree_rcu_wq_destroy(cpu: Cpu) -> None:
    """Ten caches in a row; the kernel destroys each from a worker, after a random delay: here as many ticks."""
    for number in range(10):
        cache = create(cpu, f"kfree_rcu_wq_{number}", 64, "SLAB_NO_USER_FLAGS")
        cpu.kfree_rcu(cache.alloc(), 0)
        for _ in range(number):
            cpu.rcu_tick()
        cache.destroy()
    assert cpu.arena.slab_errors.count == 0
    assert audit(cpu.arena, expect_live=False).ok


def test_leak_destroy(cpu: Cpu) -> None:
    cache = create(cpu, "kmem_cache_destroy", 64, "SLAB_NO_USER_FLAGS")
    p = cache.alloc()
    with pytest.raises(ShmallocError, match=r"objects are still in use; 1 slab of it leaked"):
        cache.destroy()
    errors = cpu.arena.slab_errors
    assert errors.count == 2
    assert [error.kind for error in errors.list()] == [
        "objects remaining at shutdown",
        "object remaining at shutdown",
    ]
    assert errors.list()[1].object == p
    report = audit(cpu.arena)
    assert report.verdict == "lost_memory" and report.totals["slabs_leaked"] == 1
    (problem,) = report.problems
    assert "its cache was destroyed while 1 of its 64 objects were in use" in problem.text
    again = create(cpu, "kmem_cache_destroy", 64, "SLAB_NO_USER_FLAGS")  # the name is free again
    assert again.index != cache.index
    again.destroy()


def test_krealloc_redzone_zeroing(cpu: Cpu) -> None:
    with create(cpu, "krealloc", 64, KMALLOC) as cache:
        p = cache.kmalloc(48)
        memory(cpu, p, 48)[:] = b"\xff" * 48

        assert cpu.krealloc(p, 40, "GFP_KERNEL|__GFP_ZERO") == p
        assert bytes(memory(cpu, p + 40, 24)) == bytes([RED_ACTIVE] * 24)

        assert cpu.krealloc(p, 56, "GFP_KERNEL|__GFP_ZERO") == p
        assert bytes(memory(cpu, p + 40, 16)) == bytes(16)
        assert bytes(memory(cpu, p + 56, 8)) == bytes([RED_ACTIVE] * 8)
        assert validate(cache, cpu) == 0

        memory(cpu, p, 56)[:] = b"\xff" * 56
        p = cpu.krealloc(p, 112, "GFP_KERNEL|__GFP_ZERO")
        assert bytes(memory(cpu, p, 56)) == b"\xff" * 56
        assert bytes(memory(cpu, p + 56, 56)) == bytes(56)
        cpu.kfree(p)
        assert validate(cache, cpu) == 0
    assert audit(cpu.arena, expect_live=False).ok
