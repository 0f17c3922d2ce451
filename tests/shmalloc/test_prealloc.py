# SPDX-License-Identifier: MIT
"""The design prealloc as a plain allocator: its freelists, what it refuses, what the audit finds."""

from collections.abc import Iterator

import pytest
from rig import Rig

from shmalloc import AllocationFailed, BadFree, ShmallocError
from shmalloc.design_calls import DesignCalls

SIZE, ENTRIES, CPUS = 200, 101, 4


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig.create(cpus=CPUS, bind=2, pool_size=SIZE, pool_entries=ENTRIES) as rig:
        yield rig


@pytest.fixture
def design(rig: Rig) -> DesignCalls:
    made = rig.cpu.design("prealloc")
    made.setup()
    return made


def lengths(rig: Rig) -> list[int]:
    """Elements on the freelist of each CPU."""
    found = []
    for cpu in range(CPUS):
        link = rig.arena.item("struct pcpu_freelist_head", "freelists", cpu).first
        found.append(0)
        while link:
            found[-1] += 1
            link = rig.arena.pointer("uint64_t", link)[0]
    return found


def take_all(design: DesignCalls) -> list[int]:
    taken = [design.alloc(SIZE) for _ in range(ENTRIES)]
    with pytest.raises(AllocationFailed, match="freelist_empty"):
        design.alloc(SIZE)
    return taken


def test_without_a_setup_it_is_empty(rig: Rig) -> None:
    with pytest.raises(AllocationFailed, match="freelist_empty"):
        rig.cpu.design("prealloc").alloc(8)


def test_elements_are_dealt_evenly(rig: Rig, design: DesignCalls) -> None:
    assert lengths(rig) == [26, 25, 25, 25]
    rig.assert_clean()


def test_own_freelist_first_then_the_others_in_order(rig: Rig, design: DesignCalls) -> None:
    second = rig.cpus[1].design("prealloc")
    assert second.alloc(8)
    assert lengths(rig) == [26, 24, 25, 25]
    for _ in range(24):
        second.alloc(8)
    assert rig.counters()["freelist_steals"] == 0
    second.alloc(8)
    assert lengths(rig) == [26, 0, 24, 25]
    assert rig.counters()["freelist_steals"] == 1


def test_the_last_freed_is_the_next_allocated(rig: Rig, design: DesignCalls) -> None:
    taken = [design.alloc(8) for _ in range(3)]
    for offset in taken:
        design.free(offset)
    assert [design.alloc(8) for _ in range(3)] == taken[::-1]


def test_an_element_goes_to_the_freelist_of_who_frees_it(rig: Rig, design: DesignCalls) -> None:
    taken = take_all(design)
    assert len(set(taken)) == ENTRIES
    for offset in taken:
        rig.cpus[1].design("prealloc").free(offset)
    assert lengths(rig) == [0, ENTRIES, 0, 0]
    rig.assert_clean(expect_live=None)


def test_what_it_refuses(rig: Rig, design: DesignCalls) -> None:
    with pytest.raises(AllocationFailed, match="size_limit"):
        design.alloc(SIZE + 1)
    with pytest.raises(AllocationFailed, match="order_limit"):
        design.pages_alloc(0)
    with (
        rig.cpu.kmem_cache_create("built", 64, ctor=1) as cache,
        pytest.raises(AllocationFailed, match="refused"),
    ):
        design.cache_alloc(cache)
    with rig.cpu.kmem_cache_create("plain", 64) as cache:
        design.free(design.cache_alloc(cache))
    assert rig.cpu.contexts("prealloc")["task"]["failures"] == {
        "size_limit": 1,
        "order_limit": 1,
        "context_refused": 1,
    }


def test_only_its_own_objects_are_freed(rig: Rig, design: DesignCalls) -> None:
    mine, other = design.alloc(SIZE), rig.cpu.kmalloc(64)
    with pytest.raises(BadFree):
        design.free(other)
    with pytest.raises(BadFree):
        rig.cpu.kfree(mine)
    with pytest.raises(BadFree):
        design.free(mine + 8)
    design.free(mine)
    with pytest.raises(BadFree):
        design.free(mine)
    rig.cpu.kfree(other)
    rig.assert_clean()


def test_zeroed_and_empty_objects(rig: Rig, design: DesignCalls) -> None:
    offset = design.alloc(SIZE)
    rig.cpu.view(offset)[:] = b"x" * SIZE
    design.free(offset)
    assert design.alloc(SIZE, "GFP_ATOMIC|__GFP_ZERO") == offset
    assert bytes(rig.cpu.view(offset)) == bytes(SIZE)
    design.free(design.alloc(0))


def test_teardown_gives_all_back_and_waits_for_nobody(rig: Rig, design: DesignCalls) -> None:
    assert rig.free_pages() < rig.free_at_start
    offset = design.alloc(8)
    with pytest.raises(ShmallocError, match="busy"):
        design.teardown()
    design.free(offset)
    design.setup()  # again is no error
    design.teardown()
    rig.settle()


def test_a_pool_that_does_not_fit() -> None:
    with Rig.create(pool_size=4096, pool_entries=4096) as rig:
        with pytest.raises(ShmallocError, match="Cannot allocate memory"):
            rig.cpu.design("prealloc").setup()
        rig.settle()


def test_a_geometry_without_pools() -> None:
    with Rig.create(pool_size=0) as rig, pytest.raises(ShmallocError, match="Invalid argument"):
        rig.cpu.design("prealloc").setup()


def test_a_lost_element_is_found(rig: Rig, design: DesignCalls) -> None:
    head = rig.arena.item("struct pcpu_freelist_head", "freelists", 1)
    head.first = rig.arena.pointer("uint64_t", head.first)[0]
    report = rig.report()
    assert [problem.verdict for problem in report.problems] == ["lost_memory"]
    assert "pool of prealloc: 1 elements are in no place" in str(report.problems[0])


def test_an_element_in_two_places_is_found(rig: Rig, design: DesignCalls) -> None:
    heads = [rig.arena.item("struct pcpu_freelist_head", "freelists", cpu) for cpu in (1, 2)]
    heads[1].first = rig.arena.pointer("uint64_t", heads[0].first)[0]
    texts = [str(problem) for problem in rig.report().problems]
    assert any("in two places: the freelist of CPU 1 and the freelist of CPU 2" in text for text in texts)
    assert any("25 elements are in no place" in text for text in texts)


def test_a_lost_element_of_a_map_is_found(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 8, 23)
    for key in range(23):
        made.update(key, key)
    rig.assert_clean()
    head = rig.arena.item("struct pcpu_freelist_head", "freelists", CPUS * (1 + made.index))
    lost, head.extra = head.extra, 0
    problem = str(rig.report().problems[0])
    assert problem == f"lost_memory: pool of map 0: 1 elements are in no place, the first at {lost:#x}"


def test_a_map_element_that_left_its_bucket_is_found(rig: Rig) -> None:
    made = rig.cpu.map_create("kmalloc", 4, 8, 1)
    made.update(1, 1)
    row = rig.arena.item("struct shm_map", "maps", made.index)
    rig.arena.pointer("struct bucket", row.buckets.blocks[0].offset).first = 1
    assert "count is 1, 0 elements are in its buckets" in str(rig.report().problems[0])


@pytest.mark.parametrize("field", ["nr_elems", "elem_size", "nr_blocks"])
def test_an_area_that_makes_no_sense_gives_a_report_and_no_crash(rig: Rig, field: str) -> None:
    rig.cpu.design("prealloc").setup()
    setattr(rig.arena.item("struct shm_pool", "pools", 0).area, field, 0xFFFFFFFF)
    assert not rig.report().ok


def test_a_block_that_lies_nowhere_gives_a_report_and_no_crash(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 8, 23)
    made.update(1, 1)
    row = rig.arena.item("struct shm_map", "maps", made.index)
    row.buckets.blocks[0].offset = 1 << 60
    assert not rig.report().ok
