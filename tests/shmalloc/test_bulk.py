# SPDX-License-Identifier: MIT
"""Bulk calls: many objects of a cache at once, collected slab by slab; all or nothing."""

from collections.abc import Iterator

import pytest
from rig import A_BYTES, PER_SLAB, Rig

from shmalloc import AllocationFailed, Arena, BadFree, Cpu, ShmallocError
from shmalloc.audit import audit

MOST = 128


@pytest.fixture
def cpu(flavour: str) -> Iterator[Cpu]:
    with Arena.create(size="8MiB", nr_cpus=2, flavour=flavour) as arena, Cpu(arena, 0) as made:
        yield made
        report = audit(arena)
        assert report.ok, report.problems


@pytest.mark.parametrize("count", [1, 2, 23, MOST])
def test_all_are_there_and_none_twice(cpu: Cpu, count: int) -> None:
    with cpu.kmem_cache_create("bulk", 96) as cache:
        objects = cache.alloc_bulk(count)
        assert len(set(objects)) == count
        for number, offset in enumerate(objects):
            cpu.view(offset)[:] = bytes([number]) * 96
        assert all(bytes(cpu.view(offset)) == bytes([at]) * 96 for at, offset in enumerate(objects))
        cache.free_bulk(objects)
        with pytest.raises(BadFree):
            cache.free(objects[0])


def test_zeroed_and_constructed(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("bulk", 96) as cache, cpu.kmem_cache_create("made", 96, ctor=1) as made:
        for offset in (objects := cache.alloc_bulk(23)):
            cpu.view(offset)[:] = b"x" * 96
        cache.free_bulk(objects)
        objects = cache.alloc_bulk(23, "GFP_KERNEL|__GFP_ZERO")
        assert all(bytes(cpu.view(offset)) == bytes(96) for offset in objects)
        cache.free_bulk(objects)
        made.free_bulk(made.alloc_bulk(101))
        made.free_bulk(made.alloc_bulk(101))
        assert not cpu.arena.violations()


def test_all_or_nothing(cpu: Cpu) -> None:
    """There are pages for some, but not for all: none is handed out, and none is missing afterwards."""
    with cpu.kmem_cache_create("huge", 65_000) as cache:
        per_slab, held = cache.info().objects, list[int]()

        def exhaust() -> None:
            while True:
                held.extend(cache.alloc_bulk(23))

        with pytest.raises(AllocationFailed) as caught:
            exhaust()
        assert caught.value.reason == "below_watermark"
        assert 1 <= len(held) // 23 <= (8 << 20) // 65_000 // 23
        before = cpu.counters()["alloc_slab"]
        more = [cache.alloc() for _ in range(per_slab)]  # what the failed call had got is free again
        assert cpu.counters()["alloc_slab"] == before
        for offset in held + more:
            cache.free(offset)


def test_what_is_refused_is_named_and_nothing_is_freed(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("bulk", 96) as cache, cpu.kmem_cache_create("other", 64) as other:
        objects, stranger = cache.alloc_bulk(23), other.alloc()
        for bad, why in (
            ([*objects, objects[5]], "twice in the list, at 5 and 23"),
            ([*objects, stranger], "in a slab of other, not of bulk"),
            ([*objects, objects[0] + 8], "8 bytes into the live object"),
            ([0], "NULL|not"),
        ):
            with pytest.raises(BadFree, match=why):
                cache.free_bulk(bad)
        for count in (0, -1, MOST + 1):
            with pytest.raises(ValueError, match=rf"count = {count}: allowed are 1 to 128"):
                cache.alloc_bulk(count)
        with pytest.raises(ValueError, match="count = 0"):
            cache.free_bulk([])
        last = cache.alloc_bulk(1)
        assert len(set(objects + last)) == 24
        cache.free_bulk(objects + last)
        other.free(stranger)


def test_a_cache_that_is_gone(cpu: Cpu) -> None:
    with cpu.kmem_cache_create("bulk", 96) as cache:
        offsets = cache.alloc_bulk(2)
        cache.free_bulk(offsets)
    with pytest.raises(ShmallocError, match="there is no such cache any more"):
        cache.alloc_bulk(2)


# --- what it costs: counters, exactly ---------------------------------------------------------------------


def bulk(rig: Rig, count: int) -> list[int]:
    objects = rig.cpu.cache(rig.cache_index()).alloc_bulk(count)
    rig.held.update(dict.fromkeys(objects))
    return objects


def give(rig: Rig, objects: list[int], cpu: int = 0) -> dict[str, int]:
    for offset in objects:
        rig.held.pop(offset)
    before = rig.counters()
    rig.cpus[cpu].cache(rig.cache_index()).free_bulk(objects)
    return rig.telling(before)


def test_the_freelist_is_popped_and_the_slow_path_called_once_a_slab() -> None:
    """40 objects are two slabs and a half: three slow calls, and all the rest off the cpu slab's freelist."""
    with Rig.create() as rig:
        before = rig.counters()
        bulk(rig, 40)
        assert rig.telling(before) == {
            "alloc_fastpath": 37,
            "alloc_slowpath": 3,
            "alloc_slab": 3,
            "deactivate_bypass": 2,
        }
        rig.settle()


def test_objects_of_one_slab_go_together() -> None:
    with Rig.create() as rig:
        objects = bulk(rig, PER_SLAB + 8)  # the cpu slab has eight of them, a full slab the others
        assert give(rig, objects) == {"free_fastpath": 8, "free_slowpath": 1, "cpu_partial_free": 1}
        rig.settle()


def test_the_search_ends_at_the_third_stranger() -> None:
    """Objects of two slabs in turn, from the end: B A B A B | A.. so each round finds three of its slab."""
    with Rig.create() as rig:
        first, second = bulk(rig, PER_SLAB), bulk(rig, PER_SLAB)
        rig.cpu.flush_all()
        mixed = [offset for pair in zip(first[:6], second[:6], strict=True) for offset in pair]
        moved = give(rig, mixed, cpu=1)
        assert moved["free_slowpath"] == 4
        rig.settle()


def test_another_cpu_frees_remotely() -> None:
    with Rig.create() as rig:
        assert give(rig, bulk(rig, 8), cpu=1) == {"free_slowpath": 1, "free_frozen": 1}
        rig.settle()


@pytest.mark.parametrize("flags", [0x1, 0x2, 0x4, 0x8, 0xF])
def test_debug_caches_take_a_slab_s_objects_together(flags: int) -> None:
    with Rig.create(slab_debug=flags) as rig:
        objects = bulk(rig, 8)
        assert give(rig, objects)["free_slowpath"] == 1
        again = bulk(rig, 8)
        assert sorted(again) == sorted(objects)
        rig.settle()


def test_an_arena_of_sheaves() -> None:
    """Allocated off the sheaves; the frees go to the slabs, three of them, by detached freelists."""
    with Rig.create(kernel="7.0") as rig:
        before = rig.counters()
        objects = bulk(rig, 40)
        assert rig.telling(before)["alloc_fastpath"] == 40
        moved = give(rig, objects)
        assert 3 <= moved["free_slowpath"] <= 6
        rig.settle()


@pytest.mark.parametrize("cmpxchg_double", [True, False])
def test_irq_and_nmi_in_the_middle(cmpxchg_double: bool) -> None:
    """The freelist is in the bulk call's hands: an NMI goes to the next bucket, an irq waits."""
    with Rig.create(cmpxchg_double=cmpxchg_double) as rig:
        for by, nolock in (("nmi", True), ("irq", False)):
            design = "kmalloc_nolock" if nolock else "kmalloc"
            rig.free(rig.alloc())
            program = rig.program(("alloc", {"size": A_BYTES, "gfp": "GFP_ATOMIC"}), design=design)
            rig.arm("cpu_slab_editing", by, program, nth=3)
            bulk(rig, 5)
            assert rig.fired() == 1
            assert [rig.origin(offset) for offset in program.held()] == (
                [] if nolock and not cmpxchg_double else ["B" if nolock else "A"]
            )
            rig.disarm()
        rig.settle()


@pytest.mark.parametrize("design", ["kmalloc", "kmalloc_nolock"])
def test_ops(design: str) -> None:
    """There is no bulk call without waiting: that design refuses, and is counted."""
    with Rig.create() as rig:
        cache = rig.cache_index()
        lines = [(name, {"cache": cache, "size": 23, "slot": 0}) for name in ("bulk_alloc", "bulk_free")]
        rig.replay(*lines, design=design)
        task = rig.cpu.contexts(design)["task"]
        if design == "kmalloc":
            assert (task["allocs"], task["frees"], task["failures"]) == (23, 23, {})
        else:
            assert (task["allocs"], task["frees"], task["failures"]) == (0, 0, {"context_refused": 1})
        rig.settle()


def test_ops_that_are_none() -> None:
    with Rig.create() as rig:
        cache = rig.cache_index()
        for size in (0, MOST + 1):
            with pytest.raises(ValueError, match=rf"size = {size}: allowed are 1 to 128 objects"):
                rig.program(("bulk_alloc", {"cache": cache, "size": size}))
        with pytest.raises(ValueError, match="slot = 2: allowed is less than 1"):
            rig.program(("bulk_alloc", {"cache": cache, "size": 23, "slot": 2}))
        with pytest.raises(ValueError, match="cache = 9999: allowed is less than"):
            rig.program(("bulk_free", {"cache": 9999, "size": 23}))
        rig.settle()
