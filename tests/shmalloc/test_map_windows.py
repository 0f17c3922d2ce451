# SPDX-License-Identifier: MIT
"""Hash maps at the exact places where others come in: readers under instant reuse, writers at a bucket's lock."""

from collections.abc import Iterator
from typing import Any

import pytest
from rig import Rig

from shmalloc import MapError, ops
from shmalloc.maps import HashMap, pattern


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig.create(cpus=2) as rig:
        yield rig


def first_of(rig: Rig, made: HashMap, bucket: int) -> Any:
    """A bucket: its chain's first element, and its lock."""
    row = rig.arena.item("struct shm_map", "maps", made.index)
    return rig.arena.pointer("struct bucket", row.buckets.blocks[0].offset + 16 * bucket)


def keys_by_bucket(rig: Rig, made: HashMap, count: int) -> list[list[int]]:
    """Find keys of each bucket of a map that is empty."""
    found: list[list[int]] = [
        [] for _ in range(rig.arena.item("struct shm_map", "maps", made.index).n_buckets)
    ]
    key = 0
    while min(map(len, found)) < count:
        made.update(key, 0)
        at = next(at for at in range(len(found)) if not first_of(rig, made, at).first & 1)
        found[at].append(key)
        made.delete(key)
        key += 1
    return found


def replay(rig: Rig, name: str, made: HashMap, key: int) -> None:
    rig.cpu.replay(ops((name, {"slot": key, "cache": made.index})), design="prealloc")


def moved(rig: Rig, *counters: str) -> list[int]:
    counts = rig.counters()
    return [counts[name] for name in counters]


# --- readers ---------------------------------------------------------------------------------------


def read_while_reused(rig: Rig, design: str, by: str) -> list[int]:
    """Look a key up; when it is found and not yet read, it is deleted and another one inserted."""
    made = rig.cpu.map_create(design, 4, 64, 8)
    made.update(1, pattern(1, 64))
    rig.interrupt("elem_found", by, ("map_delete", {"slot": 1}), ("map_update", {"slot": 2}))
    replay(rig, "map_lookup", made, 1)
    assert rig.fired() == 1
    rig.disarm()
    assert (made.lookup(1), made.lookup(2)) == (None, pattern(2, 64))
    return moved(rig, "map_reads_reused")


@pytest.mark.parametrize("by", ["nmi", "probe", "other_cpu"])
def test_a_value_may_be_another_keys_where_elements_are_reused_at_once(rig: Rig, by: str) -> None:
    if by == "other_cpu":  # its own freelist is empty: it takes the element that it has just freed
        rig.cpu.design("prealloc")
    assert read_while_reused(rig, "prealloc", by) == [1]
    rig.assert_clean()


def test_without_preallocation_an_element_lives_until_its_readers_are_gone(rig: Rig) -> None:
    assert read_while_reused(rig, "no_prealloc", "other_cpu") == [0]
    rig.assert_clean()


def test_a_value_that_is_not_its_keys_is_corrupt_where_elements_wait_for_readers(rig: Rig) -> None:
    made = rig.cpu.map_create("no_prealloc", 4, 64, 8)
    made.update(1, pattern(2, 64))
    replay(rig, "map_lookup", made, 1)
    assert [(each.verdict, each.checker) for each in rig.violations()] == [("corruption", "pattern")]


def test_a_value_that_is_wrong_under_the_buckets_lock_is_corrupt_anywhere(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 64, 8)
    made.update(1, pattern(2, 64))
    replay(rig, "map_lookup", made, 1)
    assert [(each.verdict, each.checker) for each in rig.violations()] == [("corruption", "pattern")]


def test_a_reader_that_is_led_into_another_bucket_begins_again(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 8, 2)
    here, there = keys_by_bucket(rig, made, 2)
    made.update(here[0], pattern(here[0], 8))
    rig.interrupt("elem_passed", "nmi", ("map_delete", {"slot": here[0]}), ("map_update", {"slot": there[0]}))
    before = moved(rig, "map_restarts", "map_misses")
    replay(rig, "map_lookup", made, here[1])
    assert rig.fired() == 1
    assert moved(rig, "map_restarts", "map_misses") == [before[0] + 1, before[1] + 1]
    rig.assert_clean()


def test_a_chain_that_never_ends_at_its_mark_is_corrupt(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 8, 2)
    here, _ = keys_by_bucket(rig, made, 2)
    made.update(here[0], 0)
    rig.arena.pointer("struct htab_elem", first_of(rig, made, 0).first).next = 3
    assert made.lookup(here[1]) is None
    assert [(each.verdict, each.checker) for each in rig.violations()] == [("corruption", "pool")]


# --- writers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["nmi", "probe"])
def test_a_writer_inside_another_of_the_same_bucket_is_refused(rig: Rig, by: str) -> None:
    made = rig.cpu.map_create("prealloc", 4, 8, 1)
    rig.interrupt("bucket_locked", by, ("map_update", {"slot": 2}), ("map_lookup", {"slot": 1}))
    made.update(1, 7)
    assert rig.fired() == 1
    assert moved(rig, "map_edeadlk", "map_etimedout", "map_updates", "map_lookups") == [1, 0, 2, 1]
    assert (made.lookup(1), made.lookup(2)) == ((7).to_bytes(8, "little"), None)
    rig.assert_clean()


def test_a_writer_inside_another_of_another_bucket_is_served(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 8, 2)
    here, there = keys_by_bucket(rig, made, 1)
    rig.interrupt("bucket_locked", "nmi", ("map_update", {"slot": there[0]}))
    made.update(here[0], 7)
    assert moved(rig, "map_edeadlk") == [0]
    assert made.lookup(there[0]) == pattern(there[0], 8)
    rig.assert_clean()


def test_a_lock_that_another_cpu_of_this_thread_holds_times_out(rig: Rig) -> None:
    made = rig.cpu.map_create("prealloc", 4, 8, 1)
    rig.interrupt("bucket_locked", "other_cpu", ("map_delete", {"slot": 1}))
    made.update(1, 7)
    assert moved(rig, "map_edeadlk", "map_etimedout") == [0, 1]
    assert made.lookup(1) is not None


HELD_BY_CPU_1 = 2  # a lock word: CPU + 1, level 0


def error_of(made: HashMap, key: int) -> str:
    with pytest.raises(MapError) as caught:
        made.update(key, 1)
    return caught.value.name


def test_a_ring_of_owners_is_an_error_and_a_held_lock_a_timeout() -> None:
    with Rig.create(cpus=2, bind=1) as rig:
        made = rig.cpu.map_create("prealloc", 4, 8, 2)
        here, there = keys_by_bucket(rig, made, 1)
        lock, mine = first_of(rig, made, 0).lock, first_of(rig, made, 1).lock
        lock.word = HELD_BY_CPU_1
        assert error_of(made, here[0]) == "ETIMEDOUT"
        mine.word = 1  # CPU 0, which is this one, holds what CPU 1 waits for
        rig.cpu_state(1).waiting_for = rig.offset_of(mine)
        assert error_of(made, here[0]) == "EDEADLK"
        assert error_of(made, there[0]) == "EDEADLK"
        lock.word = mine.word = rig.cpu_state(1).waiting_for = 0
        made.update(here[0], 1)
        assert moved(rig, "map_edeadlk", "map_etimedout") == [2, 1]
        rig.assert_clean()


def test_a_full_pool_whose_freelist_is_locked_is_no_shortage() -> None:
    """The only element is on a freelist whose lock fails: E2BIG, and the reason says contention."""
    with Rig.create(cpus=2, bind=1) as rig:
        made = rig.cpu.map_create("prealloc", 4, 8, 2)
        rig.arena.item("struct pcpu_freelist_head", "freelists", 2 * (1 + made.index) + 1).lock.word = 1
        made.update(1, 1)
        assert error_of(made, 2) == "E2BIG"
        assert rig.cpu.contexts("prealloc")["task"]["failures"] == {"list_lock_busy": 1}


def test_a_buckets_lock_that_was_left_held_is_named() -> None:
    with Rig.create(cpus=2, bind=1) as rig:
        made = rig.cpu.map_create("prealloc", 4, 8, 2)
        first_of(rig, made, 1).lock.word = HELD_BY_CPU_1
        problem = str(rig.report().problems[0])
        assert problem == "broken_rule: bucket 1 of map 0: lock never released: bucket"
