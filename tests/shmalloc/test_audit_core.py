# SPDX-License-Identifier: MIT
"""The audit of real arenas: silent on what the core does, and sees one damaged word among it."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shmalloc import Arena, Cpu
from shmalloc.audit import Problem, audit
from shmalloc.errors import AllocationFailed

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "hardened": {"freelist_hardened": True, "freelist_random": True},
    "nodes": {"nr_nodes": 2, "pageblock_order": 5},
    "zones": {"zone_permille": [[100, 200, 600, 100]], "pageblock_order": 6},
    "no_cmpxchg": {"cmpxchg_double": False},
    "debug": {"slab_debug": 0xF},
    "tracked": {"slab_debug": 0x8, "nr_nodes": 2},
    "unowned": {"oracle": False},
}
VERDICTS = {"corruption", "lost_memory", "broken_rule"}
SIZES = (8, 17, 64, 100, 200, 500, 1000, 3000, 8000)

Live = list[tuple[Callable[[int], None], int]]


def churn(cpus: list[Cpu], ops: int, seed: int) -> Live:
    """Allocate and free at random on several CPUs; return how to free what is left."""
    dice, live = random.Random(seed), []
    for _ in range(ops):
        cpu = dice.choice(cpus)
        if live and dice.random() < 0.45:
            free, offset = live.pop(dice.randrange(len(live)))
            free(offset)
            continue
        try:
            live.append(allocate(cpu, dice))
        except AllocationFailed as failure:
            if failure.reason != "context_refused":  # kmalloc_nolock needs the 16-byte exchange
                raise
            live.append((cpu.kfree, cpu.kmalloc(dice.choice(SIZES))))
    return live


def allocate(cpu: Cpu, dice: random.Random) -> tuple[Callable[[int], None], int]:
    kind, size = dice.random(), dice.choice(SIZES)
    if kind < 0.6:
        return cpu.kfree, cpu.kmalloc(size)
    if kind < 0.9:
        return cpu.kfree_nolock, cpu.kmalloc_nolock(size)
    if kind < 0.93:
        return cpu.kfree, cpu.kmalloc(3 * 4096)
    order = dice.randrange(5)
    return lambda offset: cpu.free_pages(offset, order), cpu.alloc_pages(order)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_silent_on_a_sound_arena(flavour: str, geometry: str) -> None:
    with Arena.create(size="32MiB", flavour=flavour, **GEOMETRIES[geometry]) as arena:
        assert audit(arena, expect_live=False).problems == []
        with Cpu(arena, 0) as first, Cpu(arena, 1) as second:
            live = churn([first, second], 3001, seed=1)
            report = audit(arena, expect_live=True)
            assert report.problems == []
            assert report.totals["live_objects"] == len(live) > 100
            for free, offset in live:
                free(offset)
            report = audit(arena, expect_live=False)
    assert report.problems == []
    assert report.totals["live_objects"] == report.totals["live_bytes"] == 0
    assert report.totals["pages_allocated"] == report.totals["objects_live"] == 0


def test_live_bytes_are_what_was_asked_for(flavour: str) -> None:
    with Arena.create(size="8MiB", flavour=flavour) as arena, Cpu(arena, 0) as cpu:
        cpu.kmalloc(17), cpu.kmalloc_nolock(64), cpu.alloc_pages(1)
        totals = audit(arena).totals
    assert totals["live_objects"] == 3 and totals["live_bytes"] == 24 + 64 + 8192


def test_what_was_not_freed_is_lost(flavour: str) -> None:
    with Arena.create(size="8MiB", flavour=flavour) as arena, Cpu(arena, 0) as cpu:
        cpu.kmalloc(64), cpu.kmalloc(64), cpu.alloc_pages(0)
        (problem,) = audit(arena, expect_live=False).problems
    assert problem.verdict == "lost_memory"
    assert "2 of cache kmalloc-64, 1 blocks of pages" in problem.text


def test_cpu_that_holds_irqs_off_is_not_at_rest(flavour: str) -> None:
    with Arena.create(size="8MiB", flavour=flavour) as arena, Cpu(arena, 1) as cpu:
        with cpu.irq_save():
            (problem,) = audit(arena).problems
        assert audit(arena).ok
    assert problem.verdict == "broken_rule" and problem.where == "CPU 1"


# --- one damaged word -----------------------------------------------------------------------------


def at(arena: Arena, offset: int) -> Any:
    """One word of the arena."""
    return np.frombuffer(arena.buffer, np.uint64, 1, offset)


def page_of(arena: Arena, offset: int) -> Any:
    memory = arena.header.regions[arena.core.lib.REGION_MEMORY].offset
    return arena.region("pages")[(offset - memory) // 4096]


def free_pointer_of_a_free_object(arena: Arena, live: int, free: int) -> None:
    cache = arena.region("caches")[int(page_of(arena, free)["slab_cache"]) - 1]
    at(arena, free + int(cache["offset"]))[0] ^= 1 << 13


def counters_of_a_slab(arena: Arena, live: int, free: int) -> None:
    page_of(arena, live)["counters"] += 1


def cache_of_a_slab(arena: Arena, live: int, free: int) -> None:
    page_of(arena, live)["slab_cache"] += 1


def owner_of_an_object(arena: Arena, live: int, free: int) -> None:
    granule = (live - arena.header.regions[arena.core.lib.REGION_MEMORY].offset) // 8
    for name in ("oracle_owned", "oracle_start", "oracle_end"):  # 8 bytes: one bit is all three
        arena.region(name)[granule // 64] ^= np.uint64(1 << granule % 64)


def head_of_a_free_list(arena: Arena, live: int, free: int) -> None:
    area = arena.region("zones")[0]["free_area"][10]["free_list"]
    area["next"][arena.core.lib.MIGRATE_MOVABLE] += 64


def free_pages_of_a_zone(arena: Arena, live: int, free: int) -> None:
    arena.region("zones")["free_pages"][0] -= 1


def slabs_of_a_cache(arena: Arena, live: int, free: int) -> None:
    arena.region("cache_nodes")["nr_slabs"][int(page_of(arena, live)["slab_cache"]) - 1, 0] += 1


def lock_of_a_pageset(arena: Arena, live: int, free: int) -> None:
    arena.region("pagesets")["lock"]["word"][0, 1] = 3


DAMAGE: list[tuple[Callable[[Arena, int, int], None], str, str]] = [
    (free_pointer_of_a_free_object, "corruption", "which is no object of it"),
    (counters_of_a_slab, "corruption", "objects in use"),
    (cache_of_a_slab, "corruption", "the cache's slabs have"),
    (owner_of_an_object, "lost_memory", "neither free nor owned"),
    (head_of_a_free_list, "corruption", "its next link leads to"),
    (free_pages_of_a_zone, "corruption", "free_pages is"),
    (slabs_of_a_cache, "corruption", "nr_slabs is"),
    (lock_of_a_pageset, "broken_rule", "lock never released: pcp, CPU 2 took it at level 0"),
]


@pytest.mark.parametrize(
    ("damage", "verdict", "text"), DAMAGE, ids=[damage.__name__ for damage, _, _ in DAMAGE]
)
def test_one_damaged_word_is_seen(
    flavour: str, damage: Callable[[Arena, int, int], None], verdict: str, text: str
) -> None:
    with Arena.create(size="8MiB", flavour=flavour) as arena, Cpu(arena, 0) as cpu:
        live, free = cpu.kmalloc(8), cpu.kmalloc(8)
        cpu.kfree(free)
        assert audit(arena, expect_live=True).ok
        damage(arena, live, free)
        found = audit(arena, expect_live=True).problems
        assert any(matches(problem, verdict, text) for problem in found), found
        assert len(found) <= 2
        arena.header.stop = 1  # nobody must use what is broken now


def matches(problem: Problem, verdict: str, text: str) -> bool:
    return problem.verdict == verdict and text in problem.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nr_pages", 0),
        ("nr_pages", 2**40),
        ("nr_zones", 0),
        ("nr_zones", 2**31),
        ("tid_step", 0),
        ("cache_cpus_stride", 2**31),
        ("cache_cpus_stride", 8),
    ],
)
def test_hostile_header_gives_a_report(field: str, value: int) -> None:
    with Arena.create(size="16MiB") as arena:
        setattr(arena.header, field, value)
        report = audit(arena)
    assert not report.ok and {problem.verdict for problem in report.problems} <= VERDICTS


@pytest.mark.parametrize("field", ["nr_cpus", "nr_nodes", "max_caches", "pageblock_order", "flags"])
@pytest.mark.parametrize("value", [0, 1, 63, 2**32 - 1])
def test_hostile_geometry_never_crashes_the_audit(field: str, value: int) -> None:
    with Arena.create(size="16MiB", nr_cpus=3, nr_nodes=2) as arena:
        with Cpu(arena, 0) as cpu:
            live = [cpu.kmalloc(size) for size in SIZES]
        setattr(arena.header.geometry, field, value)
        report = audit(arena)
    assert live and {problem.verdict for problem in report.problems} <= VERDICTS


@pytest.mark.parametrize("region", [0, 3, 6, 8, 9, 12, 15])
@pytest.mark.parametrize("field", ["offset", "bytes"])
@pytest.mark.parametrize("value", [0, 8, 2**63])
def test_hostile_region_never_crashes_the_audit(region: int, field: str, value: int) -> None:
    with Arena.create(size="16MiB") as arena:
        setattr(arena.header.regions[region], field, value)
        assert {problem.verdict for problem in audit(arena).problems} <= VERDICTS


@pytest.mark.parametrize("seed", range(23))
def test_random_damage_never_crashes_the_audit(seed: int) -> None:
    dice = random.Random(seed)
    with Arena.create(size="8MiB", nr_nodes=2, pageblock_order=5) as arena:
        with Cpu(arena, 0) as first, Cpu(arena, 1) as second:
            churn([first, second], 301, seed)
        end = arena.header.regions[arena.core.lib.REGION_MEMORY].offset
        begin = arena.header.regions[arena.core.lib.REGION_CPUS].offset
        for _ in range(dice.choice((1, 7, 101))):
            at(arena, dice.randrange(begin, end, 8))[0] = dice.choice(
                (0, 1, end, 2**64 - 1, dice.getrandbits(64))
            )
        report = audit(arena)
    assert {problem.verdict for problem in report.problems} <= VERDICTS
