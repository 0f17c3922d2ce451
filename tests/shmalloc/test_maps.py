# SPDX-License-Identifier: MIT
"""Hash maps: the operations, their errors, their memory; and what the audit says of them."""

from collections.abc import Iterator

import pytest
from rig import Rig

from shmalloc import MapError, ShmallocError, designs
from shmalloc.audit import audit
from shmalloc.maps import HashMap

ENTRIES = 101
DESIGNS = ("prealloc", "kmalloc", "kmalloc_nolock")


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig.create(cpus=4, bind=2) as rig:
        yield rig


@pytest.fixture(params=DESIGNS)
def made(rig: Rig, request: pytest.FixtureRequest) -> HashMap:
    return rig.cpu.map_create(request.param, 4, 20, ENTRIES)


def error_of(call: object, *arguments: object) -> str:
    with pytest.raises(MapError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.name


def test_update_lookup_delete(rig: Rig, made: HashMap) -> None:
    for key in range(23):
        made.update(key, key * 101)
    assert [made.lookup(key) for key in range(24)] == [
        *((key * 101).to_bytes(20, "little") for key in range(23)),
        None,
    ]
    made.update(7, b"x" * 20)
    assert made.lookup(7) == b"x" * 20
    assert len(made) == 23
    made.delete(7)
    assert made.lookup(7) is None
    assert error_of(made.delete, 7) == "ENOENT"
    rig.assert_clean()
    made.destroy()
    rig.settle()


def test_flags(made: HashMap) -> None:
    assert error_of(made.update, 1, 1, "exist") == "ENOENT"
    made.update(1, 1, "noexist")
    assert error_of(made.update, 1, 2, "noexist") == "EEXIST"
    made.update(1, 3, "exist")
    assert made.lookup(1) == (3).to_bytes(20, "little")


def test_a_full_map_takes_no_more_but_replaces(rig: Rig, made: HashMap) -> None:
    for key in range(ENTRIES):
        made.update(key, 1)
    assert error_of(made.update, ENTRIES, 1) == "E2BIG"
    for key in range(ENTRIES):
        made.update(key, 2)
    assert len(made) == ENTRIES
    made.delete(0)
    made.update(ENTRIES, 1)
    assert rig.counters()["map_e2big"] == 1
    rig.assert_clean()


def test_a_full_preallocated_map_says_why(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 20, 23)
    for key in range(23):
        made.update(key, 1)
    assert error_of(made.update, 23, 1) == "E2BIG"
    assert rig.cpu.contexts("prealloc")["task"]["failures"] == {"freelist_empty": 1}


def test_no_memory_is_enomem_with_the_allocators_reason(rig: Rig) -> None:
    made = rig.cpu.map_create("kmalloc_nolock", 4, 4000, 4096)
    assert error_of(lambda: [made.update(key, 1) for key in range(4096)]) == "ENOMEM"
    assert rig.cpu.contexts("kmalloc_nolock")["task"]["failures"]["below_watermark"] >= 1
    assert len(made) == len([key for key in range(4096) if made.lookup(key)])
    made.destroy()
    rig.settle()


@pytest.mark.parametrize("sizes", [(0, 8, 8), (513, 8, 8), (4, 0, 8), (4, (1 << 20) + 1, 8), (4, 8, 0)])
def test_bad_sizes_are_refused(rig: Rig, sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ShmallocError, match="Invalid argument"):
        rig.cpu.map_create("prealloc", *sizes)


def test_the_table_of_maps_has_an_end(rig: Rig) -> None:
    made = [rig.cpu.map_create("kmalloc", 4, 4, 1) for _ in range(4)]
    with pytest.raises(ShmallocError, match="No space left"):
        rig.cpu.map_create("kmalloc", 4, 4, 1)
    made[2].destroy()
    assert rig.cpu.map_create("kmalloc", 4, 4, 1).index == 2


def test_too_large_a_map_takes_nothing(rig: Rig) -> None:
    before = rig.free_pages()
    with pytest.raises(ShmallocError, match="Cannot allocate memory"):
        rig.cpu.map_create("prealloc", 4, 4096, 100_000)
    assert rig.free_pages() == before


def test_odd_keys_and_values(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 3, 5, 8)
    made.update(b"abc", b"12345")
    assert made.lookup(b"abc") == b"12345"
    assert made.lookup(b"abd") is None
    with pytest.raises(ValueError, match="key = 2 bytes: allowed are exactly 3"):
        made.lookup(b"ab")
    with pytest.raises(ValueError, match="flag = 'sometimes': allowed are any, noexist, exist"):
        made.update(1, 1, "sometimes")


def test_replayed_ops_keep_values_with_their_keys(rig: Rig) -> None:
    from shmalloc import ops

    made = rig.cpu.map_create("prealloc", 4, 64, 23)
    lines = [("map_update", {"slot": key, "cache": made.index}) for key in range(24)]
    lines += [("map_lookup", {"slot": key, "cache": made.index}) for key in range(24)]
    lines += [("map_delete", {"slot": key, "cache": made.index}) for key in range(12)]
    rig.cpu.replay(ops(*lines), design="prealloc")
    found = rig.counters()
    assert (found["map_updates"], found["map_lookups"], found["map_deletes"]) == (24, 24, 12)
    assert (found["map_e2big"], found["map_misses"], found["map_reads_reused"]) == (1, 1, 0)
    assert len(made) == 11
    rig.assert_clean()


@pytest.mark.parametrize("design", ["no_prealloc", "bpf_mem_alloc"])
def test_elements_that_are_blocks_of_pages_are_kept_as_such(design: str) -> None:
    with Rig.create(cpus=1, size="8MiB", max_maps=1) as rig:
        index = rig.lib.shm_map_create(designs.index(design), 8, 20_000, 8, 0)
        assert index >= 0
        value = bytes(20_000)
        for number in range(3):
            assert rig.lib.shm_map_update(index, number.to_bytes(8, "little"), value, 0) == 0
        assert rig.lib.shm_map_delete(index, (1).to_bytes(8, "little")) == 0
        report = audit(rig.arena)
        assert not report.problems
        assert sum(report.totals.get(f"kept_{place}_blocks", 0) for place in ("rcu", "bpf")) >= 1
        assert rig.lib.shm_map_destroy(index) == 0
        rig.cpu.rcu_barrier()
        assert audit(rig.arena, expect_live=False).ok
