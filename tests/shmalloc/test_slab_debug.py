# SPDX-License-Identifier: MIT
"""What the checks of debug caches find, when, what they do about it, and what they keep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from shmalloc import Arena, Cpu, KmemCache, ops
from shmalloc.audit import audit
from shmalloc.symbols import symbols

FZPU = "SLAB_CONSISTENCY_CHECKS|SLAB_RED_ZONE|SLAB_POISON|SLAB_STORE_USER"
KMALLOC_SIZES = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)


@pytest.fixture
def cpu(flavour: str) -> Iterator[Cpu]:
    """A CPU of an arena that counts, and that has no oracle to refuse a double free before the cache sees it."""
    with (
        Arena.create(size="4MiB", pageblock_order=5, flavour=flavour, oracle=False) as arena,
        Cpu(arena, 0) as made,
    ):
        arena.slab_errors.stop = False
        yield made


def create(cpu: Cpu, size: int = 64, flags: str = FZPU, **keys: Any) -> KmemCache:
    return cpu.kmem_cache_create("checked", size, flags=flags, **keys)


def row(cpu: Cpu, cache: KmemCache) -> Any:
    return cpu.arena.item("struct kmem_cache", "caches", cache.index)


def slab_of(cpu: Cpu, offset: int) -> Any:
    header, lib = cpu.arena.header, cpu.arena.core.lib
    pfn = (offset - header.regions[lib.REGION_MEMORY].offset) // lib.SHM_PAGE_SIZE
    page = cpu.arena.item("struct page", "pages", pfn)
    return cpu.arena.item("struct page", "pages", page.compound_head) if page.flags & lib.PG_tail else page


def poke(cpu: Cpu, at: int, value: int = 0xAB) -> None:
    cpu.arena.buffer[at] = value


def word(cpu: Cpu, at: int, value: int | None = None) -> int:
    if value is not None:
        cpu.arena.buffer[at : at + 8] = value.to_bytes(8, "little")
    return int.from_bytes(cpu.arena.buffer[at : at + 8], "little")


def kinds(cpu: Cpu) -> list[str]:
    """Reports since the last call."""
    found = [error.kind for error in cpu.arena.slab_errors.list()]
    assert len(found) == cpu.arena.slab_errors.count
    cpu.arena.slab_errors.clear()
    return found


def test_an_allocation_finds_a_write_after_free_and_the_slab_is_lost(cpu: Cpu) -> None:
    cache = create(cpu)
    p, q = cache.alloc(), cache.alloc()
    cache.free(p)
    poke(cpu, p + 3)
    r = cache.alloc()
    assert kinds(cpu) == ["poison overwritten", "fix: bytes restored", "fix: all objects marked used"]
    slab, objects = slab_of(cpu, p), cache.info().objects
    assert slab_of(cpu, r) != slab
    assert (slab.freelist, slab.counters) == (0, objects | objects << 16 | 1 << 31)
    assert not slab.flags & cpu.arena.core.lib.PG_partial
    report = audit(cpu.arena)
    assert report.ok and report.totals["slabs_disabled"] == 1
    assert [note for note in report.notes if "since a check failed" in note]

    cache.free(q)
    assert kinds(cpu) == ["slab disabled since a check failed", "fix: object not freed"]
    cache.free(r)
    assert kinds(cpu) == []


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        (64, "right red zone overwritten"),
        (71, "right red zone overwritten"),
        (-1, "left red zone overwritten"),
        (-8, "left red zone overwritten"),
        (-9, "object padding overwritten"),
    ],
)
def test_a_free_finds_what_was_written_around_the_object(cpu: Cpu, at: int, kind: str) -> None:
    """Of the second object in a slab: before its left red zone lies the padding of the first one."""
    cache = create(cpu, 64, FZPU, align=32)
    p = [cache.alloc(), cache.alloc()]
    victim = p[0] if kind.startswith("object padding") else p[1]
    at = at + row(cpu, cache).red_left_pad * -1 + 8 if at == -9 else at
    poke(cpu, p[1] + at)
    cache.free(victim)
    assert kinds(cpu) == [kind, "fix: bytes restored", "fix: object not freed"]
    assert cache.validate() == 0  # it is allocated still, and mended
    cache.free(victim)
    assert kinds(cpu) == []


def test_a_double_free(cpu: Cpu) -> None:
    cache = create(cpu)
    p, q = cache.alloc(), cache.alloc()
    cache.free(p)
    cache.free(p)
    assert kinds(cpu) == ["object already free", "fix: object not freed"]
    cache.free_nolock(p)
    cpu.run_irq_work()
    assert "object already free" in kinds(cpu) or cache.validate()
    cache.free(q)


def test_a_slab_with_nothing_in_use_takes_no_free(cpu: Cpu) -> None:
    """Without the consistency checks the count is all there is."""
    cache = create(cpu, flags="SLAB_RED_ZONE")
    p = cache.alloc()
    cache.free(p)
    cache.free(p)
    assert kinds(cpu) == ["more frees than objects in use", "fix: object not freed"]
    assert cache.validate() == 0


def test_without_consistency_checks_only_a_validation_finds(cpu: Cpu) -> None:
    cache = create(cpu, flags="SLAB_RED_ZONE|SLAB_POISON")
    p, q = cache.alloc(), cache.alloc()
    poke(cpu, p + 64)
    cache.free(q)
    poke(cpu, q)
    assert kinds(cpu) == []
    assert cache.validate() == 2  # up to the first bad object of a slab
    assert cache.validate() == 2
    assert cache.validate() == 0
    assert sorted(kinds(cpu)) == ["fix: bytes restored"] * 2 + [
        "poison overwritten",
        "right red zone overwritten",
    ]
    cache.free(p)
    poke(cpu, p)
    assert cache.alloc() == p
    assert kinds(cpu) == []


def test_a_circular_freelist_is_given_up(cpu: Cpu) -> None:
    cache = create(cpu)
    p, q = cache.alloc(), cache.alloc()
    cache.free(p)
    word(cpu, p + row(cpu, cache).offset, p)
    assert cache.validate() == 2
    assert kinds(cpu) == ["freelist cycle", "fix: freelist cleared"]
    slab = slab_of(cpu, p)
    assert (slab.freelist, slab.counters & 0xFFFF) == (0, cache.info().objects)
    cache.free(q)  # the slab is on its list still, and is not put there once more
    assert kinds(cpu) == []
    assert (
        cache.validate() == 4
    )  # what was lost counts as used, and is painted as free: both red zones are wrong
    assert audit(cpu.arena).ok


@pytest.mark.parametrize("wild", [8, 1 << 40, 0xFFFFFFFFFFFFFFF8])
def test_a_wild_pointer_is_not_followed(cpu: Cpu, wild: int) -> None:
    cache = create(cpu)
    p = cache.alloc()
    slab = slab_of(cpu, p)
    slab.freelist = wild
    assert cache.validate() == 2
    assert kinds(cpu) == ["freepointer corrupt", "fix: freelist cleared"]
    slab.freelist = wild
    r = cache.alloc()
    assert kinds(cpu) == ["freelist leads to no object", "fix: all objects marked used"]
    assert slab_of(cpu, r) != slab


def test_a_wild_pointer_is_not_followed_without_checks_either(cpu: Cpu) -> None:
    cache = create(cpu, flags="SLAB_RED_ZONE")
    slab = slab_of(cpu, cache.alloc())
    slab.freelist = 1 << 40
    assert slab_of(cpu, cache.alloc()) != slab
    assert kinds(cpu) == ["freelist leads to no object", "fix: all objects marked used"]


def test_a_wrong_count_is_adjusted(cpu: Cpu) -> None:
    cache = create(cpu)
    slab = slab_of(cpu, cache.alloc())
    slab.counters += 3
    assert cache.validate() == 2
    assert kinds(cpu) == ["wrong object count", "fix: object count adjusted"]
    assert audit(cpu.arena).ok


def test_a_wrong_number_of_objects_is_adjusted(cpu: Cpu) -> None:
    cache = create(cpu)
    objects = cache.info().objects
    taken = [cache.alloc() for _ in range(objects)]
    slab = slab_of(cpu, taken[0])
    slab.counters = objects - 1 | objects - 1 << 16
    assert cache.validate() == 4
    assert kinds(cpu) == [
        "wrong number of objects",
        "fix: number of objects adjusted",
        "wrong object count",
        "fix: object count adjusted",
    ]
    assert slab.counters == objects | objects << 16


def test_a_slab_that_failed_before_it_was_counted_is_in_no_count(cpu: Cpu) -> None:
    """Somebody would have to write into a slab between its making and its first allocation: so it is put that way."""
    cache, lib = create(cpu), cpu.arena.core.lib
    p = cache.alloc()
    cache.free(p)
    poke(cpu, p)
    cache.alloc()
    slab, objects = slab_of(cpu, p), cache.info().objects
    node = cpu.arena.item("struct kmem_cache_node", "cache_nodes", cache.index)
    assert audit(cpu.arena).ok
    slab.flags |= lib.PG_uncounted
    assert audit(cpu.arena).verdict == "corruption"
    node.nr_slabs -= 1
    node.total_objects -= objects
    assert audit(cpu.arena).ok


def test_counts_that_cannot_be(cpu: Cpu) -> None:
    cache = create(cpu)
    p = cache.alloc()
    slab, objects = slab_of(cpu, p), cache.info().objects
    good = slab.counters
    slab.counters = objects + 1 | objects << 16
    assert cache.validate() == 1
    slab.counters = 1 | objects + 1 << 16
    assert cache.validate() == 1
    slab.counters = good
    assert cache.validate() == 0
    assert kinds(cpu) == ["more in use than objects", "more objects than fit"]


def test_lists_and_counters_are_compared(cpu: Cpu) -> None:
    cache = create(cpu)
    p = [cache.alloc() for _ in range(cache.info().objects + 1)]  # one slab is full
    node = cpu.arena.item("struct kmem_cache_node", "cache_nodes", cache.index)
    node.nr_partial += 1
    node.nr_slabs += 1
    assert cache.validate() == 2
    node.nr_partial -= 1
    node.nr_slabs -= 1
    assert cache.validate() == 0
    poke(cpu, p[0] + 64)  # an object of the full slab, which only SLAB_STORE_USER keeps on a list
    assert cache.validate() == 2


def test_the_end_of_a_slab_is_padding(cpu: Cpu) -> None:
    cache = create(cpu, 72)
    info = cache.info()
    p = cache.alloc()
    bytes_ = 4096 << info.order
    rest = bytes_ % info.size
    assert rest
    start = (p - cpu.arena.header.regions[cpu.arena.core.lib.REGION_MEMORY].offset) // bytes_ * bytes_
    end = cpu.arena.header.regions[cpu.arena.core.lib.REGION_MEMORY].offset + start + bytes_
    poke(cpu, end - 1)
    cache.free(p)  # which mends it, and goes on
    assert kinds(cpu) == ["slab padding overwritten", "fix: bytes restored"]


def test_a_slab_is_looked_at_before_it_is_given_back(cpu: Cpu) -> None:
    cache = create(cpu)
    p = cache.alloc()
    cache.free(p)
    poke(cpu, p + 63)
    cache.shrink()
    assert kinds(cpu) == ["end poison overwritten", "fix: bytes restored"]
    cache.destroy()
    assert audit(cpu.arena, expect_live=False).ok


def test_what_a_fresh_object_looks_like(cpu: Cpu) -> None:
    cache = create(cpu, 60)
    p = cache.alloc()
    layout, memory = row(cpu, cache), cpu.arena.buffer
    pad, size, inuse = layout.red_left_pad, layout.size, layout.inuse
    assert bytes(memory[p - pad : p]) == b"\xcc" * pad
    assert bytes(memory[p : p + 60]) == b"\x6b" * 59 + b"\xa5"
    assert bytes(memory[p + 60 : p + inuse]) == b"\xcc" * (inuse - 60)
    used = inuse + 8 + 2 * 32
    assert bytes(memory[p + used : p - pad + size]) == b"\x5a" * (size - pad - used)
    cache.free(p)
    assert bytes(memory[p - pad : p]) == b"\xbb" * pad
    assert bytes(memory[p : p + 60]) == b"\x6b" * 59 + b"\xa5"


@pytest.mark.parametrize("size", KMALLOC_SIZES)
def test_a_kmalloc_is_guarded_from_its_first_unasked_byte_on(flavour: str, size: int) -> None:
    with (
        Arena.create(size="4MiB", pageblock_order=5, flavour=flavour, slab_debug="FZPU") as arena,
        Cpu(arena, 0) as cpu,
    ):
        arena.slab_errors.stop = False
        for asked in {1, size // 2 + 1, size - 1, size} - {0}:
            p = cpu.kmalloc(asked, "GFP_KERNEL|__GFP_ZERO")
            cache = cpu.cache(int(cpu.arena.core.lib.shm_kmalloc_index(asked, 0)))
            assert bytes(arena.buffer[p : p + asked]) == bytes(asked)
            assert cache.validate() == 0
            poke(cpu, p + asked, 0)
            assert cache.validate() == 2
            arena.slab_errors.clear()
            cpu.kfree(p)
        assert arena.slab_errors.count == 0
        assert audit(arena, expect_live=False).ok


def test_after_ksize_all_of_the_object_may_be_used(flavour: str) -> None:
    with (
        Arena.create(size="4MiB", pageblock_order=5, flavour=flavour, slab_debug="FZPU") as arena,
        Cpu(arena, 0) as cpu,
    ):
        p = cpu.kmalloc(100)
        assert cpu.ksize(p) == 128
        arena.buffer[p : p + 128] = bytes(128)
        cpu.kfree(p)
        assert arena.slab_errors.count == 0 and not arena.violations()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 100, 8191])
def test_a_replays_pattern_keeps_off_the_red_zones(flavour: str, size: int) -> None:
    """Its words lie within what was asked for, however odd that is; and so does the head of a free by RCU."""
    lines = [("alloc", {"size": size, "slot": 0, "gfp": "GFP_KERNEL"}), ("free", {"slot": 0})]
    lines += [("alloc", {"size": size, "slot": 1, "gfp": "GFP_KERNEL"}), ("free_rcu", {"slot": 1})]
    with (
        Arena.create(size="4MiB", pageblock_order=5, flavour=flavour, slab_debug="FZPU") as arena,
        Cpu(arena, 0) as cpu,
    ):
        held = cpu.replay(ops(*lines), design="kmalloc", pattern=True).held
        cpu.drain(held)
        cpu.run(arena.core.lib.shm_rcu_barrier)
        assert not arena.violations()
        assert audit(arena, expect_live=False).ok


def test_a_report_is_a_verdict_unless_the_arena_only_counts(cpu: Cpu) -> None:
    cache = create(cpu)
    p, q = cache.alloc(), cache.alloc()
    cpu.arena.slab_errors.stop = True
    assert cpu.arena.slab_errors.stop
    poke(cpu, p + 64, 0x12)
    cache.free(p)
    (violation,) = cpu.arena.violations()
    assert (violation.verdict, violation.checker, violation.object) == ("corruption", "red_zone", p)
    assert violation.text == "checked: right red zone overwritten: byte 64 is 0x12, not 0xcc"
    assert cpu.arena.header.stop == 2
    del q


def test_the_log_keeps_the_first_reports_and_the_count_goes_on(cpu: Cpu) -> None:
    cache = create(cpu)
    p = cache.alloc()
    for _ in range(50):
        poke(cpu, p + 64)
        cache.free(p)
    errors = cpu.arena.slab_errors
    assert errors.count == 150
    assert len(errors.list()) == 64
    errors.clear()
    assert (errors.count, errors.list()) == (0, [])


def test_who_allocated_and_freed(cpu: Cpu) -> None:
    cache = create(cpu)
    p = cache.alloc()
    layout = row(cpu, cache)
    tracks = [cpu.arena.pointer("struct track", p + layout.inuse + 8 + 32 * each) for each in range(2)]
    assert [track.addr != 0 for track in tracks] == [True, False]
    cache.free(p)
    text = symbols(cpu.arena.core.path)
    callers = [str(text.find(track.addr)).split("+")[0].split(".")[0] for track in tracks]
    assert callers == ["cache_alloc_guarded", "cache_free_guarded"]
    assert [(track.cpu, track.pid) for track in tracks] == [(0, os.getpid())] * 2
    assert 0 < tracks[0].when < tracks[1].when


def test_a_traced_cache_records_its_events(cpu: Cpu) -> None:
    cache = create(cpu, flags="SLAB_TRACE")
    p = [cache.alloc() for _ in range(41)]
    for offset in p:
        cache.free(offset)
    header = cpu.arena.header
    assert header.slab_traces == 82
    last = header.slab_trace_log[81 % len(header.slab_trace_log)]
    assert (last.object, last.cache, last.alloc, last.inuse) == (p[-1], cache.index, 0, 1)
    first = header.slab_trace_log[40 % len(header.slab_trace_log)]
    assert (first.object, first.alloc, first.inuse) == (p[40], 1, 41)


def test_constructed_objects_keep_their_content(cpu: Cpu) -> None:
    cache = create(cpu, ctor=1)
    for p in [cache.alloc() for _ in range(101)]:
        cache.free(p)
    assert cache.validate() == 0
    assert not cpu.arena.violations()
