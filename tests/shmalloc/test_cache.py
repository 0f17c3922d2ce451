# SPDX-License-Identifier: MIT
"""Slab caches of one's own."""

from collections.abc import Iterator

import pytest

from shmalloc import Arena, BadFree, Cpu, KmemCache, ShmallocError
from shmalloc.audit import audit

SIZE = 8 << 20


@pytest.fixture
def cpu(flavour: str) -> Iterator[Cpu]:
    with Arena.create(size=SIZE, nr_cpus=2, flavour=flavour) as arena, Cpu(arena, 0) as made:
        yield made


def test_a_caches_life(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("task_struct", 1000, align=64) as cache:
        info = cache.info()
        assert (info.name, info.object_size, info.align) == ("task_struct", 1000, 64)
        assert info.size == 1024
        assert info.objects == (4096 << info.order) // 1024
        offsets = [cache.alloc() for _ in range(101)]
        assert len(set(offsets)) == 101
        assert all(offset % 64 == 0 for offset in offsets)
        for offset in offsets:
            cache.free(offset)
        assert cpu.cache("task_struct").index == cache.index
        cache.shrink()
    assert audit(cpu.arena).ok
    with pytest.raises(ShmallocError, match=r"there is no such cache"):
        cache.info()
    for use in (cache.alloc, cache.alloc_nolock):
        with pytest.raises(ShmallocError, match=r"there is no such cache any more"):
            use()
    with pytest.raises(ShmallocError, match=r"cache 'task_struct': .* has no such cache"):
        cpu.cache("task_struct")


def test_nolock(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("nolock", 96) as cache:
        for offset in [cache.alloc_nolock("__GFP_ZERO") for _ in range(101)]:
            cache.free_nolock(offset)
        cpu.run_irq_work()
    assert audit(cpu.arena).ok


def test_a_cache_in_use_is_not_destroyed(cpu: Cpu) -> None:
    cache = cpu.kmem_cache_create("busy", 64)
    cache.alloc()
    with pytest.raises(ShmallocError, match=r"busy.*objects are still in use; 1 slab of it leaked"):
        cache.destroy()


def test_an_exception_is_not_hidden_by_the_objects_it_left(cpu: Cpu) -> None:
    cache = cpu.kmem_cache_create("left", 64)
    cache.alloc()
    with pytest.raises(KeyError), cache:
        raise KeyError
    assert cpu.arena.header.slab_errors == 2


def test_bad_frees_are_named(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("mine", 64) as cache:
        mine, foreign = cache.alloc(), cpu.kmalloc(64)
        for free in (cache.free, cache.free_nolock):
            with pytest.raises(BadFree, match=r"in a slab of kmalloc-64, not of mine"):
                free(foreign)
            with pytest.raises(BadFree, match=rf"8 bytes into the live object at {mine:#x}"):
                free(mine + 8)
            with pytest.raises(BadFree, match=r"not in page memory"):
                free(5)
        cache.free(mine)
        for free in (cache.free, cache.free_nolock):
            with pytest.raises(BadFree, match=r"an object of mine that is not live"):
                free(mine)
        cpu.kfree(foreign)
    assert audit(cpu.arena).ok


def test_kfree_takes_the_objects_of_any_cache(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("any", 64) as cache:
        cpu.kfree(cache.alloc())
        cpu.kfree_nolock(cache.alloc())
        cpu.run_irq_work()


def test_typesafe_by_rcu_keeps_the_free_pointer_outside(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("rcu", 64, flags="SLAB_TYPESAFE_BY_RCU") as cache:
        assert cache.info().size == 72
        offset = cache.alloc()
        cpu.view(offset, 64)[:] = bytes(range(64))
        cache.free(offset)
        assert bytes(cpu.arena.buffer[offset : offset + 64]) == bytes(range(64))


@pytest.mark.parametrize(
    ("name", "size", "keys"),
    [
        ("", 64, {}),
        ("x" * 40, 64, {}),
        ("x", 0, {}),
        ("x", 1 << 31, {}),
        ("x", 64, {"align": 3}),
        ("x", 64, {"ctor": 99}),
    ],
)
def test_impossible_caches(cpu: Cpu, name: str, size: int, keys: dict[str, int]) -> None:
    with pytest.raises(ShmallocError, match=r"kmem_cache_create"):
        cpu.kmem_cache_create(name, size, **keys)
    assert audit(cpu.arena).ok


def test_flags_by_name(cpu: Cpu) -> None:
    with pytest.raises(
        ValueError, match=r"flags = 'SLAB_POISON|SLAB_PANIK': unknown SLAB_PANIK; allowed are .*SLAB_POISON"
    ):
        cpu.kmem_cache_create("x", 64, flags="SLAB_POISON|SLAB_PANIK")


def test_a_name_is_taken_once(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("twice", 64), pytest.raises(ShmallocError, match=r"exists"):
        cpu.kmem_cache_create("twice", 64)


def test_the_table_has_an_end(cpu: Cpu) -> None:
    made: list[KmemCache] = []

    def fill() -> None:
        while len(made) < 1000:
            made.append(cpu.kmem_cache_create(f"c{len(made)}", 64))

    with pytest.raises(ShmallocError, match=r"No space left"):
        fill()
    assert 0 < len(made) < 64
    for cache in made:
        cache.destroy()
    cpu.kmem_cache_create("again", 64).destroy()


def test_the_kmalloc_caches_can_be_looked_up(cpu: Cpu) -> None:
    cache = cpu.cache("kmalloc-192")
    assert (cache.info().size, cache.info().objects, cache.info().order) == (192, 21, 0)
    assert cpu.cache(cache.index).name == "kmalloc-192"
    assert repr(cache) == f"<KmemCache kmalloc-192 index {cache.index}>"


def test_every_cpu_gives_up_its_slabs(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("flushed", 512) as cache, Cpu(cpu.arena, 1) as other:
        offsets = [cache.alloc() for _ in range(23)]
        for offset in offsets:
            other.kfree(offset)
        cpu.flush_all(cache)
        cache.shrink()
        assert cpu.arena.region("cache_nodes")["nr_slabs"][cache.index].sum() == 0
