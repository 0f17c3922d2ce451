# SPDX-License-Identifier: MIT
"""Orders, objects, partial limits and slots of caches: tables for the kmalloc caches, and the rules in Python."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.sizing import (
    KMALLOC_SIZES,
    Layout,
    Rules,
    Sizing,
    Wish,
    calculate_layout,
    calculate_order,
    calculate_sizing,
    kmalloc_name,
    kmalloc_size,
    kmalloc_type,
)

from shmalloc import Arena, Cpu
from shmalloc._binding import Core
from shmalloc._binding import core as load_core
from shmalloc.arena import Geometry
from shmalloc.gfp import parse

MIB = 1024 * 1024

# What the rules of 6.18 give, without debugging, for 4, 8, 16 and 64 CPUs: order, objects, cpu_partial slabs; then
# min_partial.
KERNEL: dict[int, tuple[Sequence[tuple[int, int, int]], int]] = {
    8: ([(0, 512, 1)] * 4, 5),
    16: ([(0, 256, 1)] * 4, 5),
    32: ([(0, 128, 2)] * 4, 5),
    64: ([(0, 64, 4)] * 4, 5),
    96: ([(0, 42, 6)] * 4, 5),
    128: ([(0, 32, 8)] * 4, 5),
    192: ([(0, 21, 12)] * 2 + [(1, 42, 6)] * 2, 5),
    256: ([(0, 16, 7)] + [(1, 32, 4)] * 3, 5),
    512: ([(1, 16, 7)] + [(2, 32, 4)] * 3, 5),
    1024: ([(2, 16, 3)] + [(3, 32, 2)] * 3, 5),
    2048: ([(3, 16, 3)] * 4, 5),
    4096: ([(3, 8, 2)] * 4, 6),
    8192: ([(3, 4, 3)] * 4, 6),
}
CPUS = (4, 8, 16, 64)

# Slots of the kmalloc caches with slab_debug=FZPU.
FZPU = {
    8: 112,
    16: 128,
    32: 160,
    64: 256,
    96: 224,
    128: 384,
    192: 384,
    256: 768,
    512: 1536,
    1024: 3072,
    2048: 6144,
    4096: 12288,
    8192: 24576,
}
FZPU_FLAGS = ("SLAB_CONSISTENCY_CHECKS", "SLAB_RED_ZONE", "SLAB_POISON", "SLAB_STORE_USER")


def sizing_of(core: Core, size: int, flags: int, geometry: Geometry) -> Sizing:
    """Ask the core what a cache would look like."""
    out = core.ffi.new("uint32_t[4]")
    assert core.lib.shm_slab_sizing(size, flags, geometry.to_c(core), out) == 0
    return Sizing(*out)


def flag_bits(core: Core, names: Sequence[str]) -> int:
    return sum(getattr(core.lib, name) for name in names)


def caches(arena: Arena) -> dict[str, Any]:
    """Map the name of each cache in an arena to its row."""
    rows = arena.region("caches")[: arena.header.nr_caches]
    return {row["name"].decode(): row for row in rows if row["state"] == arena.core.lib.CACHE_LIVE}


def sizing_in(row: Any) -> Sizing:
    return Sizing(
        int(row["oo"]) >> 16, int(row["oo"]) & 0xFFFF, int(row["cpu_partial_slabs"]), int(row["min_partial"])
    )


def layout_in(row: Any) -> Layout:
    return Layout(*(int(row[name]) for name in ("size", "align", "inuse", "offset", "red_left_pad")))


@pytest.mark.parametrize(("column", "cpus"), list(enumerate(CPUS)))
def test_kernels_table(core: Core, column: int, cpus: int) -> None:
    geometry = Geometry(64 * MIB, nr_cpus=cpus)
    expected = {size: Sizing(*columns[column], least) for size, (columns, least) in KERNEL.items()}
    assert {size: sizing_of(core, size, core.lib.SLAB_KMALLOC, geometry) for size in KERNEL} == expected
    with Arena.create(geometry, reserve="sparse", flavour=core.flavour) as arena:
        found = caches(arena)
        for prefix in ("kmalloc-", "kmalloc-rcl-", "kmalloc-cg-"):
            rows = {size: found[kmalloc_name(prefix, size)] for size in KERNEL}
            assert {size: sizing_in(row) for size, row in rows.items()} == expected
            assert {size: int(row["size"]) for size, row in rows.items()} == {size: size for size in KERNEL}
            assert all(int(row["min"]) >> 16 == max(size // 4096 - 1, 0) for size, row in rows.items())


def test_rules_give_the_kernels_table() -> None:
    for column, cpus in enumerate(CPUS):
        for size, (columns, least) in KERNEL.items():
            assert calculate_sizing(size, Rules(cpus)) == Sizing(*columns[column], least)


def test_debug_slots(core: Core) -> None:
    flags = flag_bits(core, FZPU_FLAGS)
    with Arena.create(size="16MiB", flavour=core.flavour, slab_debug=flags) as arena:
        found = caches(arena)
        assert {size: int(found[kmalloc_name("kmalloc-", size)]["size"]) for size in FZPU} == FZPU
        row = found["kmalloc-64"]
        assert layout_in(row) == Layout(size=256, align=64, inuse=72, offset=72, red_left_pad=64)
        for size in KMALLOC_SIZES:
            row = found[kmalloc_name("kmalloc-", size)]
            assert sizing_in(row) == calculate_sizing(FZPU[size], Rules(4), debug=True)
            assert layout_in(row) == calculate_layout(
                Wish(size, size & -size, frozenset((*FZPU_FLAGS, "SLAB_KMALLOC")))
            )


# --- size classes ---------------------------------------------------------------------------------


@pytest.fixture
def with_dma() -> Iterator[Arena]:
    """An arena that has DMA caches."""
    with Arena.create(size="8MiB", zone_permille=[[200, 0, 800, 0]], pageblock_order=4) as arena:
        arena.activate()
        yield arena


def test_every_size_has_its_class(with_dma: Arena) -> None:
    lib, rows = with_dma.core.lib, with_dma.region("caches")
    sizes = [int(rows["object_size"][lib.shm_kmalloc_index(size, 0)]) for size in range(1, 8193)]
    assert sizes == [kmalloc_size(size) for size in range(1, 8193)]
    nothing = 0xFFFFFFFF
    assert lib.shm_kmalloc_index(0, 0) == lib.shm_kmalloc_index(8193, 0) == nothing


TYPE_FLAGS = ("__GFP_DMA", "__GFP_RECLAIMABLE", "__GFP_ACCOUNT")
ALL_TYPES = list(chain.from_iterable(combinations(TYPE_FLAGS, n) for n in range(4)))


@pytest.mark.parametrize("names", ALL_TYPES, ids="+".join)
def test_flags_choose_the_caches(with_dma: Arena, names: tuple[str, ...]) -> None:
    gfp = parse("|".join(("GFP_KERNEL", *names)))
    rows = with_dma.region("caches")["name"]
    found = [rows[with_dma.core.lib.shm_kmalloc_index(size, gfp)].decode() for size in KMALLOC_SIZES]
    assert found == [kmalloc_name(kmalloc_type(set(names)), size) for size in KMALLOC_SIZES]


def test_no_dma_caches_without_a_dma_zone() -> None:
    with Arena.create(size="8MiB", pageblock_order=4) as arena:
        arena.activate()
        names = arena.region("caches")["name"]
        assert names[arena.core.lib.shm_kmalloc_index(100, parse("__GFP_DMA"))] == b"kmalloc-128"
        assert not [name for name in caches(arena) if "dma" in name]


# --- any size -------------------------------------------------------------------------------------


@given(
    size=st.integers(1, 40_000) | st.integers(1, 1 << 22),
    cpus=st.integers(1, 128),
    orders=st.tuples(st.integers(0, 5), st.integers(0, 10)).map(sorted),
    objects=st.just(0) | st.integers(1, 300) | st.just(32767),
)
@settings(max_examples=400)
def test_any_size(size: int, cpus: int, orders: list[int], objects: int) -> None:
    rules = Rules(cpus, orders[0], orders[1], objects)
    core = load_core()
    geometry = Geometry(
        8 * MIB,
        nr_cpus=cpus,
        slab_min_order=orders[0],
        slab_max_order=orders[1],
        slab_min_objects=objects,
    )
    wish = Wish(size, size & -size, frozenset({"SLAB_KMALLOC"}))
    assert sizing_of(core, size, core.lib.SLAB_KMALLOC, geometry) == calculate_sizing(
        calculate_layout(wish).size, rules
    )


def test_waste_decides_before_the_number_of_objects(core: Core) -> None:
    """Sizes that leave much of a slab unused move up an order, or take what there is."""
    orders = {480: 0, 680: 2, 1344: 3, 5000: 3, 9000: 3, 20_000: 3, 40_000: 4}
    assert {size: calculate_order(size, Rules(1 if size == 480 else 4)) for size in orders} == orders
    for size, order in orders.items():
        geometry = Geometry(8 * MIB, nr_cpus=1 if size == 480 else 4)
        assert sizing_of(core, size, 0, geometry).order == order


WISHES = st.builds(
    Wish,
    object_size=st.integers(1, 200) | st.integers(1, 9000),
    align=st.sampled_from([0, 0, 0, 8, 16, 64, 256, 4096]),
    flags=st.frozensets(st.sampled_from([*FZPU_FLAGS, "SLAB_HWCACHE_ALIGN", "SLAB_TYPESAFE_BY_RCU"])),
    ctor=st.booleans(),
)


@given(wishes=st.lists(WISHES, min_size=10, max_size=20))
@settings(max_examples=20)
def test_slots_of_any_cache(wishes: list[Wish]) -> None:
    with Arena.create(size="8MiB", reserve="sparse", pageblock_order=4) as arena:
        with Cpu(arena, 0, handlers=False) as cpu:
            for number, wish in enumerate(wishes):
                cpu.kmem_cache_create(
                    f"cache-{number}",
                    wish.object_size,
                    align=wish.align,
                    flags=flag_bits(arena.core, sorted(wish.flags)),
                    ctor=int(wish.ctor),
                )
        found = caches(arena)
        for number, wish in enumerate(wishes):
            row, debug = found[f"cache-{number}"], bool(wish.flags & set(FZPU_FLAGS))
            assert layout_in(row) == (layout := calculate_layout(wish))
            assert sizing_in(row) == calculate_sizing(layout.size, Rules(4), debug=debug)
            double = not wish.flags & {"SLAB_CONSISTENCY_CHECKS", "SLAB_STORE_USER"}
            assert bool(row["flags"] & arena.core.lib.SLAB_CMPXCHG_DOUBLE) == double


def test_no_slab_holds_more_objects_than_its_counters_can_say(core: Core) -> None:
    for order in range(11):
        geometry = Geometry(8 * MIB, slab_min_order=order, slab_max_order=order)
        assert sizing_of(core, 8, core.lib.SLAB_KMALLOC, geometry).objects <= 32767
