# SPDX-License-Identifier: MIT
"""The arena map at rest: what it says of pages and objects is what audit and procfs count."""

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from audit_sample import Sample
from rig import Rig

from shmalloc import Arena, Cpu, procfs
from shmalloc.audit import View, audit
from shmalloc.audit.view import ZONE_NAMES
from shmalloc.pagemap import PFMEMALLOC, SLABS, Kind, PageMap, page_map

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "hardened": {"freelist_hardened": True, "freelist_random": True},
    "nodes": {"nr_nodes": 2, "pageblock_order": 5},
    "zones": {"zone_permille": [[100, 200, 600, 100]], "pageblock_order": 6},
    "no_cmpxchg": {"cmpxchg_double": False},
    "debug": {"slab_debug": 0xF},
    "tracked": {"slab_debug": 0x8, "nr_nodes": 2},
    "unowned": {"oracle": False},
    "sheaves": {"kernel": "7.0"},
    "sheaves_nodes": {"kernel": "7.0", "nr_nodes": 2, "freelist_hardened": True},
}
SIZES = (8, 17, 64, 100, 200, 500, 1000, 3000, 8000, 20000)
HIGHATOMIC = 3


@contextmanager
def busy(ops: int = 3001, size: str = "32MiB", **geometry: Any) -> Iterator[tuple[Arena, list[Cpu]]]:
    """An arena in which two CPUs have allocated and freed at random."""
    with ExitStack() as stack:
        arena = stack.enter_context(Arena.create(size=size, **geometry))
        cpus = [stack.enter_context(Cpu(arena, number)) for number in range(2)]
        dice, live = random.Random(7), []
        for _ in range(ops):
            cpu = dice.choice(cpus)
            if live and dice.random() < 0.45:
                free, offset = live.pop(dice.randrange(len(live)))
                free(offset)
            elif dice.random() < 0.05:
                live.append((cpu.free_pages, cpu.alloc_pages(0)))
            else:
                live.append((cpu.kfree, cpu.kmalloc(dice.choice(SIZES))))
        yield arena, cpus


def check_against_audit(arena: Any) -> PageMap:
    """Compare every total of a map with what the audit counts."""
    report = audit(arena)
    assert report.ok, report.problems
    said, found = report.totals, page_map(arena)
    pages = found.counts()
    assert sum(pages.values()) == found.frame.nr_pages
    assert pages["transit"] == pages["slab_transit"] == 0
    assert pages["free"] + pages["reserve"] == said["pages_free"]
    assert pages["pcp"] == said["pages_pcp"]
    assert pages["deferred"] == said["pages_deferred"]
    assert pages["page_cache"] == said["pages_page_cache"]
    assert pages["hole"] == found.frame.nr_pages - said["pages_total"]
    assert pages["large"] + pages["pages"] + pages["pool"] == said["pages_allocated"]
    assert sum(number for name, number in pages.items() if name.startswith("slab_")) == said["pages_slab"]
    slabs = slabs_by_kind(found)
    assert slabs[Kind.SLAB_CPU] == said["slabs_cpu"]
    assert slabs[Kind.SLAB_CPU_PARTIAL] == said["slabs_cpu_partial"]
    assert slabs[Kind.SLAB_PARTIAL] == said["slabs_partial"]
    assert slabs[Kind.SLAB_FULL] == said["slabs_full"] + said["slabs_full_listed"]
    assert slabs[Kind.SLAB_DEFERRED] == said["slabs_deferred"]
    assert slabs[Kind.SLAB_RCU] == said["slabs_rcu"]
    assert slabs[Kind.SLAB_DISABLED] == said["slabs_disabled"]
    check_objects(found, said)
    return found


def check_objects(found: PageMap, said: dict[str, int]) -> None:
    objects = found.object_counts()
    assert sum(objects.values()) == said["objects_total"]
    assert objects["free_slab"] == said["objects_free_slab"]
    assert objects["free_cpu"] == said["objects_free_cpu"]
    assert objects["deferred"] == said["objects_deferred"]
    kept = objects["kept"] + objects["free_sheaf"]
    if found.frame.oracle:
        assert objects["live"] == said["objects_live"]
        assert kept == said["objects_kept"]
    else:
        assert objects["live"] + kept == said["objects_live"] + said["objects_kept"]


def heads(found: PageMap) -> np.ndarray:
    """The first page of each block."""
    order = found.planes.order.astype(np.int64)
    return np.flatnonzero(np.arange(found.frame.nr_pages) & ((1 << order) - 1) == 0)


def slabs_by_kind(found: PageMap) -> list[int]:
    return np.bincount(found.planes.kind[heads(found)], minlength=len(Kind)).tolist()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_totals_are_what_the_audit_counts(geometry: str) -> None:
    with busy(**GEOMETRIES[geometry]) as (arena, _):
        found = check_against_audit(arena)
        assert found.counts()["slab_partial"] > 0
        assert found.counts()["large"] > 0


@pytest.mark.parametrize("geometry", ["nodes", "zones", "sheaves_nodes"])
def test_free_blocks_by_order_are_those_of_buddyinfo(geometry: str) -> None:
    with busy(**GEOMETRIES[geometry]) as (arena, _):
        found, first = page_map(arena), np.zeros(0)
        first = heads(found)
        for line in procfs.buddyinfo(arena).splitlines():
            node, name, *numbers = re.match(r"Node (\d+), zone +(\S+) +(.*)", line).groups()  # type: ignore[union-attr]
            for zone in found.frame.zones:
                if (str(zone.node), ZONE_NAMES[zone.type]) != (node, name):
                    continue
                mine = first[(first >= zone.start) & (first < zone.start + zone.pages)]
                mine = mine[np.isin(found.planes.kind[mine], (Kind.FREE, Kind.RESERVE))]
                counted = np.bincount(found.planes.order[mine], minlength=11)
                assert counted.tolist() == list(map(int, numbers[0].split()))


@pytest.mark.parametrize("geometry", ["plain", "debug", "sheaves"])
def test_objects_of_each_cache_are_those_of_slabinfo(geometry: str) -> None:
    with busy(**GEOMETRIES[geometry]) as (arena, _):
        found = page_map(arena)
        first = heads(found)
        first = first[np.isin(found.planes.kind[first], SLABS)]
        counted = 0
        for line in procfs.slabinfo(arena).splitlines()[2:]:
            name, _, objects, size, *_ = line.split()
            (index,) = [at for at, row in found.caches.items() if row.name == name]
            mine = first[found.planes.cache[first] == index + 1]
            assert found.planes.objects[mine].sum() == int(objects), name
            assert found.caches[index].size == int(size)
            assert sum(len(found.objects.of(int(pfn))) for pfn in mine) == int(objects)
            counted += len(mine)
        assert counted == len(first) > 0


def test_pages_on_pagesets_are_those_of_each_cpu() -> None:
    with busy(nr_nodes=2) as (arena, cpus):
        for cpu in cpus:
            pages = [cpu.alloc_pages(0) for _ in range(23)]
            for page in pages:
                cpu.free_pages(page)
        found = page_map(arena)
        on_pcp = found.planes.kind == Kind.PCP
        said = View.of(arena).pagesets["count"].sum(axis=0)
        counted = np.bincount(found.planes.cpu[on_pcp], minlength=len(said) + 1)
        assert counted.tolist() == [0, *said.tolist()]
        assert said[0] > 0 < said[1]


def test_a_fake_arena_with_something_in_every_place() -> None:
    for oracle in (True, False):
        sample = Sample(oracle=oracle)
        found = check_against_audit(sample)
        kind, cpu = found.planes.kind, found.planes.cpu
        assert Kind(kind[sample.small_cpu.pfn]) is Kind.SLAB_CPU
        assert (Kind(kind[sample.small_cpu_partial_2.pfn]), cpu[sample.small_cpu_partial_2.pfn]) == (
            Kind.SLAB_CPU_PARTIAL,
            2,
        )
        assert Kind(kind[sample.disabled.pfn]) is Kind.SLAB_DISABLED
        assert Kind(kind[sample.deferred]) is Kind.PARKED
        assert (kind[sample.compound : sample.compound + 8] == Kind.LARGE).all()
        assert found.counts()["reserve"] > 0


def test_objects_that_are_deferred() -> None:
    with Arena.create(size="8MiB", irq_work=2) as arena, Cpu(arena, 0) as cpu, Cpu(arena, 1) as other:
        objects = [cpu.kmalloc(64) for _ in range(101)]
        for offset in objects[::3]:
            other.kfree_nolock(offset)
        found = check_against_audit(arena)
        assert found.object_counts()["deferred"] == len(objects[::3])


def test_reserved_pageblocks_and_slabs_out_of_the_reserves() -> None:
    with Rig.create(size="24MiB") as rig:
        rig.exhaust(0)
        with rig.cpu.memalloc():
            rig.cpu.kmalloc(4000, "GFP_NOWAIT")
        found = check_against_audit(rig.arena)
        first = heads(found)
        assert (found.planes.marks[first] & PFMEMALLOC).sum() == 1
        assert found.counts()["reserve"] == 0
    with Rig.create(size="24MiB") as rig:
        rig.cpu.page_cache_add(1 << 20, "GFP_HIGHUSER_MOVABLE")
        rig.cpu.alloc_pages(1, "GFP_ATOMIC")
        found = check_against_audit(rig.arena)
        zone = rig.zone()
        assert found.counts()["reserve"] == zone.free_highatomic > 0
        assert int((found.types == HIGHATOMIC).sum()) << 5 == zone.nr_reserved_highatomic


def test_pools_and_rings_are_told_from_pages() -> None:
    with Rig.create(pool_size=256, pool_entries=101) as rig:
        assert check_against_audit(rig.arena).counts()["pool"] == 0
        rig.cpu.alloc_pages(2)
        rig.cpu.design("prealloc").setup()
        rig.cpu.design("objpool").setup()
        after = check_against_audit(rig.arena).counts()
        held = (
            rig.arena.region("pools")["area"]["nr_pages"].sum()
            + rig.arena.region("objpool_cpus")["nr_pages"].sum()
        )
        assert after["pool"] == held > 2 * 101 * 256 // 4096
        assert after["pages"] == 4


@pytest.mark.parametrize("kernel", ["6.18", "7.0"])
def test_noise_in_place_of_an_arena_raises_nothing(kernel: str) -> None:
    """Whatever a running arena may show, and worse."""
    dice = np.random.default_rng(11)
    names = ("pages", "pagesets", "cache_cpus", "cpus", "caches", "cache_sheaves", "barns", "pools", "memory")
    with busy(ops=601, size="8MiB", kernel=kernel) as (arena, _):
        sound = bytes(arena.buffer)
        view = View.of(arena)
        for _ in range(11):
            for name in names:
                region = arena.region(name)
                if region.size:
                    flat = region.reshape(-1).view(np.uint8)
                    at = dice.integers(0, len(flat), len(flat) // 50)
                    flat[at] = dice.integers(0, 256, len(at))
            found = page_map(arena)
            assert sum(found.counts().values()) == view.nr_pages
        arena.buffer[:] = sound
