# SPDX-License-Identifier: MIT
"""What an arena may be made of, and how it is said what may not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmalloc import Geometry, GeometryError
from shmalloc._binding import core as load_core

SIZE = 64 << 20


def test_the_defaults_are_fine() -> None:
    assert Geometry(SIZE).check() == []


def test_a_size_may_be_a_text() -> None:
    assert Geometry.of("64MiB", nr_cpus=2) == Geometry(SIZE, nr_cpus=2)


def test_every_mistake_is_listed_with_key_value_and_what_is_allowed() -> None:
    problems = Geometry(
        SIZE + 1,
        nr_cpus=0,
        nr_nodes=9,
        pageblock_order=11,
        slab_min_order=4,
        slab_max_order=3,
        oracle=1,  # type: ignore[arg-type]
        seed="x",  # type: ignore[arg-type]
    ).check()
    assert problems == [
        f"size_bytes = {SIZE + 1}: allowed is a multiple of the page size, 4096",
        "nr_cpus = 0: allowed is an integer from 1 to 128",
        "nr_nodes = 9: allowed is an integer from 1 to 8",
        "pageblock_order = 11: allowed is an integer from 1 to 10",
        "seed = 'x': allowed is an integer from 0 to 18446744073709551615",
        "oracle = 1: allowed is True or False",
        "slab_min_order = 4: allowed is at most slab_max_order = 3",
    ]


def test_unknown_keys_and_a_bad_size_are_listed_together() -> None:
    with pytest.raises(GeometryError) as caught:
        Geometry.of("64MoB", cpus=4, nodes=1)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "size = '64MoB'",
        "cpus = 4",
        "nodes = 1",
    ]
    assert "nr_cpus" in caught.value.problems[1]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"nr_nodes": 2, "zone_permille": [[0, 0, 1000, 0]]},
            "zone_permille = .*one row for each of 2 nodes",
        ),
        ({"zone_permille": [[0, 1000, 0]]}, r"zone_permille\[0\] = .*4 integers"),
        ({"zone_permille": [[0, 0, 999, 0]]}, "zone_permille = shares of 999/1000 in all: .*1000"),
        ({"zone_permille": [[0, 0, -1, 1000]]}, r"zone_permille\[0\]\[2\] = -1"),
        ({"zone_permille": "all"}, "zone_permille = 'all'"),
        ({"nr_nodes": 2, "distance": [[10, 20], [20, 11]]}, r"distance\[1\]\[1\] = 11"),
        ({"nr_nodes": 2, "distance": [[10, 10], [20, 10]]}, r"distance\[0\]\[1\] = 10"),
        ({"nr_nodes": 2, "distance": [[10, 255], [20, 10]]}, r"distance\[0\]\[1\] = 255"),
        ({"cpu_node": [0, 0, 0]}, "cpu_node = .*4 integers"),
        ({"cpu_node": [0, 0, 0, 1]}, r"cpu_node\[3\] = 1: .*0 to 0"),
        ({"size_bytes": 4096}, r"size_bytes = 4096 \(4 KiB\): allowed is at least [0-9]+"),
        ({"size_bytes": -4096}, "size_bytes = -4096"),
        ({"min_free_kbytes": 65536}, "min_free_kbytes = 65536: allowed is less than the arena, 65536 KiB"),
        ({"max_caches": 38}, "max_caches = 38: allowed is at least 39, the number of kmalloc caches$"),
        (
            {"max_caches": 51, "zone_permille": [[100, 0, 900, 0]]},
            "max_caches = 51: allowed is at least 52, .* with a DMA zone",
        ),
        ({"nr_cpus": True}, "nr_cpus = True"),
        ({"slab_debug": 0x20}, "slab_debug = 32"),
    ],
)
def test_contradictions(keys: dict[str, Any], problem: str) -> None:
    geometry = Geometry(**{"size_bytes": SIZE, **keys})
    found = geometry.check()
    assert len(found) == 1
    with pytest.raises(GeometryError, match=problem):
        raise GeometryError(found)


def test_the_least_size_is_exact() -> None:
    core = load_core()
    least = int(core.lib.shm_arena_min_bytes(Geometry(SIZE).to_c(core)))
    assert Geometry(least).check() == []
    assert Geometry(least - 4096).check() != []


@given(nodes=st.integers(1, 8), cpus=st.integers(1, 128))
def test_defaults_are_filled_in(nodes: int, cpus: int) -> None:
    core = load_core()
    geometry = Geometry(SIZE, nr_nodes=nodes, nr_cpus=cpus)
    c = geometry.to_c(core)
    shares = [c.zone_permille[node][zone] for node in range(nodes) for zone in range(core.lib.NR_ZONE_TYPES)]
    assert sum(shares) == 1000
    normal = [c.zone_permille[node][core.lib.ZONE_NORMAL] for node in range(nodes)]
    assert sum(normal) == 1000
    assert max(normal) - min(normal) <= 1
    of_cpus = [c.cpu_node[cpu] for cpu in range(cpus)]
    assert of_cpus == sorted(of_cpus)
    assert set(of_cpus) <= set(range(nodes))
    counts = [of_cpus.count(node) for node in range(nodes)]
    assert max(counts) - min(counts) <= 1
    assert [[c.distance[a][b] == 10 for b in range(nodes)] for a in range(nodes)] == [
        [a == b for b in range(nodes)] for a in range(nodes)
    ]


def test_switches_become_flags() -> None:
    core = load_core()
    lib = core.lib
    assert Geometry(SIZE).to_c(core).flags == lib.SHM_GEO_ORACLE
    every = Geometry(SIZE, freelist_random=True, freelist_hardened=True, oracle=False, cmpxchg_double=False)
    assert every.to_c(core).flags == (
        lib.SHM_GEO_FREELIST_RANDOM | lib.SHM_GEO_FREELIST_HARDENED | lib.SHM_GEO_NO_CMPXCHG_DOUBLE
    )


def test_scalars_arrive() -> None:
    core = load_core()
    geometry = Geometry(
        SIZE, nr_cpus=3, max_caches=71, pageblock_order=5, min_free_kbytes=101, seed=2**63, nr_slots=23
    )
    c = geometry.to_c(core)
    assert (c.size_bytes, c.nr_cpus, c.max_caches, c.pageblock_order) == (SIZE, 3, 71, 5)
    assert (c.min_free_kbytes, c.seed, c.nr_slots, c.slab_max_order) == (101, 2**63, 23, 3)
