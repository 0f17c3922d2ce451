# SPDX-License-Identifier: MIT
"""Watermarks, reserves, pageset limits and zonelists of many geometries, and what requests leave untouched."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import watermarks as wm
from models.page_machine import model_of
from models.page_state import PAGESET_EVENTS, ArenaPages, differences, of_model

from shmalloc import Arena, Cpu
from shmalloc.arena import Geometry
from shmalloc.errors import AllocationFailed

KIB, MIB = 1024, 1024 * 1024
MANY = 10_000


def shares(nodes: int, kinds: int = 4) -> st.SearchStrategy[list[list[int]]]:
    """Draw how the pages are divided among the zones of some nodes: each gets a tenth or more, or nothing."""
    cells = nodes * kinds

    def spread(weights: list[int]) -> list[list[int]]:
        total = sum(weights)
        flat = [1000 * weight // total for weight in weights]
        flat[flat.index(max(flat))] += 1000 - sum(flat)
        return [flat[i * kinds : (i + 1) * kinds] for i in range(nodes)]

    return st.lists(st.integers(0, 3), min_size=cells, max_size=cells).filter(any).map(spread)


def distances(nodes: int) -> st.SearchStrategy[list[list[int]]]:
    """Draw a table of distances, not symmetric, with many equals."""
    remote = st.lists(st.sampled_from([11, 15, 15, 20, 20, 21, 40]), min_size=nodes**2, max_size=nodes**2)
    return remote.map(
        lambda flat: [[10 if a == b else flat[a * nodes + b] for b in range(nodes)] for a in range(nodes)]
    )


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    nodes = draw(st.integers(1, 4))
    cpus = draw(st.integers(1, 5))
    small = 8 * MIB
    size = draw(st.sampled_from([small, small + 64 * KIB, 61 * MIB, 500 * MIB, 3000 * MIB]))
    return Geometry(
        size,
        nr_cpus=cpus,
        nr_nodes=nodes,
        pageblock_order=draw(st.integers(1, 4)) if size <= 2 * small else 9,
        min_free_kbytes=draw(st.sampled_from([0, 0, 0, 4, 101, 1021, 8191])),
        watermark_scale_factor=draw(st.sampled_from([1, 10, 10, 333, 1000, 3000])),
        zone_permille=draw(shares(nodes)),
        distance=draw(distances(nodes)),
        cpu_node=draw(st.lists(st.integers(0, nodes - 1), min_size=cpus, max_size=cpus)),
    )


@given(geometry=geometries())
@settings(max_examples=60)
def test_fresh_arena(geometry: Geometry) -> None:
    """All that is computed when an arena is made."""
    with Arena.create(geometry, reserve="sparse") as arena:
        model = model_of(arena, geometry)
        assert not (found := differences(ArenaPages(arena).state(), of_model(model))), "\n".join(found)
        for zone, real, pagesets in zip(
            model.zones, arena.region("zones"), arena.region("pagesets"), strict=True
        ):
            assert tuple(real[["node", "type", "start_pfn", "spanned_pages"]]) == (
                *(zone.shape.node, zone.shape.kind, zone.shape.start),
                zone.shape.pages,
            )
            assert real["managed_pages"] == zone.shape.pages
            assert tuple(real["wmark"]) == zone.marks.marks
            assert tuple(real["lowmem_reserve"]) == zone.marks.reserve
            for pageset, limits in zip(pagesets, (p.limits for p in zone.pagesets), strict=True):
                assert tuple(pageset[["batch", "high_min", "high_max"]]) == (
                    *(limits.batch, limits.high_min),
                    limits.high_max,
                )
        for node, zonelist, thisnode in zip(
            arena.region("nodes"), model.zonelists, model.thisnode, strict=True
        ):
            assert list(node["zonelist"][: node["nr_zonelist"]]) == zonelist
            assert list(node["thisnode"][: node["nr_thisnode"]]) == thisnode


@st.composite
def machines(draw: st.DrawFn) -> Geometry:
    """Draw up to eight nodes, some of them without memory or CPUs."""
    nodes = draw(st.integers(2, 8))
    cpus = draw(st.integers(1, nodes))
    return Geometry(
        4 * MIB,
        nr_cpus=cpus,
        nr_nodes=nodes,
        pageblock_order=1,
        max_caches=64,
        zone_permille=draw(shares(nodes, 1).map(lambda rows: [[0, 0, row[0], 0] for row in rows])),
        distance=draw(distances(nodes)),
        cpu_node=draw(st.lists(st.integers(0, nodes - 1), min_size=cpus, max_size=cpus)),
    )


# The first two nodes that node 0 falls back on are equally distant, and one has no memory: then the other
# is the first of its group, and others that are as far from it as from node 4 begin with node 4.
NO_MEMORY = Geometry(
    4 * MIB,
    nr_nodes=5,
    pageblock_order=1,
    zone_permille=[[0, 0, share, 0] for share in (250, 0, 250, 250, 250)],
    distance=[
        *([10, 15, 15, 40, 40], [40, 10, 40, 40, 40], [40, 40, 10, 40, 40]),
        *([40, 40, 20, 10, 20], [40, 40, 40, 40, 10]),
    ],
    cpu_node=[0, 2, 3, 4],
)


@given(geometry=machines())
@example(geometry=NO_MEMORY)
@settings(max_examples=60)
def test_node_order(geometry: Geometry) -> None:
    with Arena.create(geometry, reserve="sparse") as arena:
        real = [
            [int(arena.region("zones")["node"][zone]) for zone in node["zonelist"][: node["nr_zonelist"]]]
            for node in arena.region("nodes")
        ]
        assert geometry.distance is not None and geometry.cpu_node is not None
        assert geometry.zone_permille is not None
        memory = [node for node, row in enumerate(geometry.zone_permille) if any(row)]
        assert real == wm.node_orders(geometry.distance, memory, geometry.cpu_node)


def test_equally_distant_nodes_take_turns() -> None:
    """As the kernel's find_next_best_node: each node falls back on its next one, so that no one gets it all."""
    table = [[10 if a == b else 20 for b in range(4)] for a in range(4)]
    orders = wm.node_orders(table, range(4), [0, 1, 2, 3])
    assert orders == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]


# --- what a request must leave ------------------------------------------------------------------


@pytest.fixture
def two_zones(flavour: str) -> Iterator[Cpu]:
    """A DMA zone and a normal one, whose pagesets somebody else holds."""
    geometry = Geometry(
        4 * MIB,
        nr_cpus=1,
        pageblock_order=1,
        min_free_kbytes=808,
        watermark_scale_factor=1,
        zone_permille=[[400, 0, 600, 0]],
    )
    with Arena.create(geometry, flavour=flavour) as arena, Cpu(arena, 0, handlers=False) as cpu:
        for zone in range(2):  # so that no page is taken in advance
            ArenaPages(arena).hold(zone=zone, cpu=0, held=True)
        yield cpu


def exhaust(cpu: Cpu, gfp: str, order: int = 0, *, nolock: bool = False) -> str:
    """Allocate until it fails.  Returns: the reason."""
    for _ in range(MANY):
        try:
            cpu.alloc_pages_nolock(order) if nolock else cpu.alloc_pages(order, gfp)
        except AllocationFailed as failure:
            return failure.reason
    raise AssertionError("no end of memory")


def left(cpu: Cpu) -> list[int]:
    """Count the free pages of each zone."""
    return [int(pages) for pages in cpu.arena.region("zones")["free_pages"]]


def marks(cpu: Cpu, mark: int) -> list[int]:
    """Read one watermark of each zone."""
    return [int(pages) for pages in cpu.arena.region("zones")["wmark"][:, mark]]


def test_marks_are_worth_testing(two_zones: Cpu) -> None:
    zones = two_zones.arena.region("zones")
    low, reserve = marks(two_zones, wm.MIN), zones["lowmem_reserve"]
    assert min(low) > 60 and reserve[0][wm.NORMAL] > 0 and reserve[0][wm.DMA] == 0


@pytest.mark.parametrize(
    ("gfp", "share"),
    [
        ("GFP_KERNEL", lambda m: m),
        ("GFP_NOWAIT", lambda m: m),  # not blocking alone opens no reserve
        ("GFP_KERNEL|__GFP_HIGH", lambda m: m - m // 2),
        ("GFP_ATOMIC", lambda m: m - m // 2 - (m - m // 2) // 4),
        ("GFP_ATOMIC|__GFP_NOMEMALLOC", lambda m: m - m // 2),
        ("GFP_NOWAIT|__GFP_NOFAIL", lambda m: m),  # who cannot wait cannot insist
        ("GFP_KERNEL|__GFP_MEMALLOC|__GFP_NOMEMALLOC", lambda m: m),
    ],
)
def test_reserves(two_zones: Cpu, gfp: str, share: object) -> None:
    assert callable(share)
    assert exhaust(two_zones, gfp) == "below_watermark"
    reserve = int(two_zones.arena.region("zones")["lowmem_reserve"][0][wm.NORMAL])
    dma, normal = marks(two_zones, wm.MIN)
    assert left(two_zones) == [share(dma) + reserve, share(normal)]


def test_who_must_not_fail_gets_half_of_min(two_zones: Cpu) -> None:
    """Beyond that it would wait until somebody gives something back."""
    exhaust(two_zones, "GFP_KERNEL")
    mark, before = marks(two_zones, wm.MIN)[1], left(two_zones)
    for _ in range(mark // 2):
        two_zones.alloc_pages(0, "GFP_KERNEL|__GFP_NOFAIL|__GFP_THISNODE")
    assert left(two_zones) == [before[0], mark - mark // 2]


def test_memalloc_takes_everything(two_zones: Cpu) -> None:
    exhaust(two_zones, "GFP_KERNEL|__GFP_MEMALLOC")
    assert left(two_zones) == [0, 0]


def test_nolock_stops_at_min(two_zones: Cpu) -> None:
    assert exhaust(two_zones, "", nolock=True) == "below_watermark"
    reserve = int(two_zones.arena.region("zones")["lowmem_reserve"][0][wm.NORMAL])
    dma, normal = marks(two_zones, wm.MIN)
    assert left(two_zones) == [dma + reserve, normal]


def test_dma_request_meets_no_reserve(two_zones: Cpu) -> None:
    before = left(two_zones)
    exhaust(two_zones, "GFP_KERNEL|__GFP_DMA")
    assert left(two_zones) == [marks(two_zones, wm.MIN)[0], before[1]]


def test_no_block_of_the_order(two_zones: Cpu) -> None:
    """Pages enough, but none in a row: it is the lists that refuse."""
    blocks = []
    while left(two_zones)[1] > marks(two_zones, wm.HIGH)[1] + 100:
        blocks.append(two_zones.alloc_pages(0))
    exhaust(two_zones, "GFP_KERNEL|__GFP_DMA")
    blocks += [two_zones.alloc_pages(0, "GFP_KERNEL|__GFP_MEMALLOC") for _ in range(left(two_zones)[1])]
    exhaust(two_zones, "GFP_KERNEL|__GFP_MEMALLOC")
    for block in sorted(blocks)[::2]:
        two_zones.free_pages(block)
    assert left(two_zones)[1] > marks(two_zones, wm.HIGH)[1]
    with pytest.raises(AllocationFailed, match="below_watermark"):
        two_zones.alloc_pages(1)
    two_zones.alloc_pages(0)


# --- whose page it is ----------------------------------------------------------------------------


def events(arena: Arena, cpu: int) -> list[dict[str, int]]:
    """Read the NUMA counters of one CPU in each zone, those that are not 0."""
    names = [name for name in PAGESET_EVENTS if name.startswith("numa_")]
    rows = arena.region("pagesets")[:, cpu]
    return [{name.removeprefix("numa_"): int(row[name]) for name in names if row[name]} for row in rows]


def test_numa_counters(flavour: str) -> None:
    geometry = Geometry(8 * MIB, nr_cpus=2, nr_nodes=2, pageblock_order=4, cpu_node=[0, 1])
    with (
        Arena.create(geometry, flavour=flavour) as arena,
        Cpu(arena, 0, handlers=False) as first,
        Cpu(arena, 1, handlers=False) as second,
    ):
        for _ in range(23):
            first.alloc_pages()
        for _ in range(3):
            second.alloc_pages(2, node=0)  # wanted there, though not from here
        assert events(arena, 0) == [{"hit": 23, "local": 23}, {}]
        assert events(arena, 1) == [{"hit": 3, "other": 3}, {}]
        exhaust(second, "GFP_KERNEL|__GFP_THISNODE")
        full = events(arena, 1)[1]["hit"]
        for _ in range(5):
            second.alloc_pages()
        assert events(arena, 1) == [
            {"hit": 3, "miss": 5, "other": 8},
            {"hit": full, "foreign": 5, "local": full},
        ]
        assert events(arena, 0) == [{"hit": 23, "local": 23}, {}]
