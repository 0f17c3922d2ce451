# SPDX-License-Identifier: MIT
"""The design objpool: its rings, what it refuses, how it ends, what the audit finds."""

from collections.abc import Iterator

import pytest
from rig import Rig

from shmalloc import AllocationFailed, BadFree, ShmallocError
from shmalloc.design_calls import DesignCalls

SIZE, ENTRIES, CPUS = 100, 23, 4
CAPACITY = 32


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig.create(cpus=CPUS, bind=2, pool_size=SIZE, pool_entries=ENTRIES) as rig:
        yield rig


@pytest.fixture
def design(rig: Rig) -> DesignCalls:
    made = rig.cpu.design("objpool")
    made.setup()
    return made


def slots(rig: Rig) -> list[tuple[int, int, int]]:
    """Head, tail and last of each ring."""
    found = []
    for cpu in range(CPUS):
        record = rig.arena.item("struct objpool_cpu", "objpool_cpus", cpu)
        slot = rig.arena.pointer("struct objpool_slot", record.slot)
        assert slot.mask == CAPACITY - 1
        found.append((slot.head, slot.tail, slot.last))
    return found


def test_each_cpu_gets_its_share_and_room_for_all(rig: Rig, design: DesignCalls) -> None:
    assert slots(rig) == [(0, 6, 6), (0, 6, 6), (0, 6, 6), (0, 5, 5)]
    assert rig.arena.header.objpool.capacity == CAPACITY
    assert rig.arena.header.objpool.ref == ENTRIES + 1
    rig.assert_clean()


def test_the_oldest_of_the_own_ring_then_of_the_next(rig: Rig, design: DesignCalls) -> None:
    taken = [design.alloc(SIZE) for _ in range(7)]
    assert len(set(taken)) == 7
    assert slots(rig) == [(6, 6, 6), (1, 6, 6), (0, 6, 6), (0, 5, 5)]
    assert rig.counters()["objpool_steals"] == 1
    for offset in taken:
        design.free(offset)
    assert slots(rig)[0] == (6, 13, 13)
    assert [design.alloc(SIZE) for _ in range(7)] == taken


def test_one_ring_can_hold_all(rig: Rig, design: DesignCalls) -> None:
    taken = [design.alloc(SIZE) for _ in range(ENTRIES)]
    with pytest.raises(AllocationFailed, match="freelist_empty"):
        design.alloc(SIZE)
    assert rig.counters()["objpool_misses"] == 1
    for offset in taken:
        rig.cpus[1].design("objpool").free(offset)
    assert slots(rig)[1] == (6, 6 + ENTRIES, 6 + ENTRIES)
    rig.assert_clean()


def test_what_it_refuses(rig: Rig, design: DesignCalls) -> None:
    for call, why in (
        (lambda: design.alloc(SIZE + 1), "size_limit"),
        (lambda: design.pages_alloc(0), "order_limit"),
    ):
        with pytest.raises(AllocationFailed, match=why):
            call()
    offset = design.alloc(8)
    with pytest.raises(BadFree):
        rig.cpu.kfree(offset)
    with pytest.raises(BadFree):
        design.free(offset + 8)
    design.free(offset)
    with pytest.raises(BadFree):
        design.free(offset)


def test_a_pool_that_is_taken_down_lives_until_its_last_object_is_back(rig: Rig, design: DesignCalls) -> None:
    late = [design.alloc(SIZE) for _ in range(2)]
    design.teardown()
    assert rig.arena.header.objpool.ref == 2
    with pytest.raises(AllocationFailed, match="freelist_empty"):
        design.alloc(SIZE)
    with pytest.raises(ShmallocError, match="busy"):
        design.setup()
    assert rig.free_pages() < rig.free_at_start
    for offset in late:
        design.free(offset)
    rig.settle()
    design.setup()
    design.teardown()
    rig.settle()


def test_a_hidden_object_is_found(rig: Rig, design: DesignCalls) -> None:
    record = rig.arena.item("struct objpool_cpu", "objpool_cpus", 2)
    rig.arena.pointer("struct objpool_slot", record.slot).last -= 1
    texts = [str(problem) for problem in rig.report().problems]
    assert texts == [
        "lost_memory: objpool: the ring of CPU 2 has places up to 6, the poppers know those up to 5",
        f"lost_memory: objpool: 1 objects are in no place, the first at {record.objects + 5 * 104:#x}",
    ]


def test_an_object_in_two_rings_is_found(rig: Rig, design: DesignCalls) -> None:
    records = [rig.arena.item("struct objpool_cpu", "objpool_cpus", cpu) for cpu in (0, 1)]
    entries = [rig.arena.pointer("uint64_t", record.slot + 16) for record in records]
    entries[1][0] = entries[0][0]
    texts = [str(problem) for problem in rig.report().problems]
    assert any("in two places: the ring of CPU 0 and the ring of CPU 1" in text for text in texts)
    assert any("1 objects are in no place" in text for text in texts)


def test_a_ring_and_its_objects_take_as_many_pages_as_they_need() -> None:
    with Rig.create(size="8MiB", cpus=2, pool_size=512, pool_entries=256) as rig:
        design = rig.cpu.design("objpool")
        design.setup()
        records = [rig.arena.item("struct objpool_cpu", "objpool_cpus", cpu) for cpu in range(2)]
        # 16 + 256 * 8 bytes of ring, 128 objects of 512
        assert [record.nr_pages for record in records] == [17, 17]
        assert rig.free_at_start - rig.free_pages() == 34
        rig.assert_clean()
        design.teardown()
        rig.settle()


def test_a_ring_beyond_the_largest_block_is_refused() -> None:
    with Rig.create(size="16MiB", cpus=1, pool_size=8192, pool_entries=1024) as rig:
        with pytest.raises(ShmallocError, match="Cannot allocate memory"):
            rig.cpu.design("objpool").setup()
        rig.settle()
